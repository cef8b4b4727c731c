//! The real binary, on a port of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

pub(crate) fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(flags)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) struct Demo {
    /// What it says to open, with the slash at the end.
    pub(crate) url: String,
    process: Child,
}

impl Demo {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut process = command(flags)
            .args(["--listen", "127.0.0.1:0"])
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .trim()
            .strip_prefix("demo: open ")
            .expect("the first line names the URL")
            .to_owned();
        Self { url, process }
    }

    /// Stops it as a service manager would, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let mut log = String::new();
        self.process
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert!(self.process.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail when it has been stopped already, as it should be by then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
