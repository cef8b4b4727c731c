//! The real binary, on a port of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

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
    /// Reads along: a demo with a full pipe would stand still.
    log: Option<JoinHandle<String>>,
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
        let mut stderr = process.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self {
            url,
            process,
            log: Some(log),
        }
    }

    /// The whole answer to a request, written out.
    #[allow(dead_code, reason = "one test only looks")]
    pub(crate) fn exchange(&self, request: &str) -> String {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address.trim_end_matches('/')).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Stops it as a service manager would, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
        let log = self.log.take().unwrap().join().unwrap();
        assert!(self.process.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // As a service manager would, so that it takes its files along; and not so gently then. All of
        // it fails when it has been stopped already, as it should be by then.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let id = self.process.id().to_string();
            let _ = Command::new("kill").args(["-TERM", &id]).status();
            for _ in 0..200 {
                if matches!(self.process.try_wait(), Ok(Some(_))) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
