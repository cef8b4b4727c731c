//! A real memcached for tests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{free_port, new_folder};

/// A `memcached` of this test alone; it ends with this value.
pub(crate) struct MemcachedServer {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl MemcachedServer {
    /// Starts a server that keeps items of up to 8 MiB.
    pub(crate) fn start() -> Self {
        Self::start_with(&["-I", "8m"])
    }

    /// Starts a server with these arguments; `{folder}` in one is the server's own folder.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(new_folder(), arguments)
    }

    /// Starts a server in a folder that is prepared already, and that goes with it.
    pub(crate) fn start_in(folder: PathBuf, arguments: &[&str]) -> Self {
        let own = folder.display().to_string();
        let mut server = Self {
            port: free_port(),
            folder,
            arguments: (arguments.iter())
                .map(|argument| argument.replace("{folder}", &own))
                .collect(),
            child: None,
        };
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            if server.try_start() {
                return server;
            }
            server.port = free_port();
        }
        panic!("memcached did not start with {arguments:?}");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// Sends `text` on a connection of its own, and returns what comes back within a moment.
    pub(crate) fn say(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server runs");
        let limit = Some(Duration::from_secs(5));
        stream.set_read_timeout(limit).expect("a limit");
        // Closes the connection once all is answered.
        let text = format!("{text}quit\r\n");
        stream.write_all(text.as_bytes()).expect("it listens");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        assert!(self.try_start(), "memcached came back");
    }

    /// Stops it without ending it: it accepts connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("the server runs");
        let status = Command::new("kill")
            .args([format!("-{name}"), child.id().to_string()])
            .status();
        assert!(status.expect("`kill` is there").success());
    }

    fn try_start(&mut self) -> bool {
        let binary = std::env::var("MEMCACHED").unwrap_or_else(|_| "memcached".into());
        let child = Command::new(&binary)
            .args(["-p", &self.port.to_string(), "-U", "0"])
            // Started by root, it wants to know whose rights to take.
            .args(["-l", "127.0.0.1", "-u", "root"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!(
                "cannot start `{binary}`: {error}\n\
                 hint: install memcached (`apt-get install memcached`), or give its path in MEMCACHED"
            )
        }));
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().ok().flatten().is_some() {
                return false;
            }
            if self.listens() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    /// Whether it listens where it was told to.
    fn listens(&self) -> bool {
        let socket = self.arguments.iter().position(|argument| argument == "-s");
        match socket.map(|at| &self.arguments[at + 1]) {
            Some(path) => Path::new(path).exists(),
            None => TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
        }
    }
}

impl Drop for MemcachedServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
