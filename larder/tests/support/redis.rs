//! A Redis for tests, and where such servers can be.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A `redis-server` of this test alone; it ends with this value.
pub(crate) struct RedisServer {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server without persistence but `SAVE`.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, such as `["--requirepass", "secret"]`.
    ///
    /// `{folder}` in an argument is the server's own folder.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = new_folder();
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("{folder}", &folder.display().to_string()))
            .collect();
        Self::start_in(folder, arguments)
    }

    /// Starts a server in a folder that is prepared already, and that goes with it.
    pub(crate) fn start_in(folder: PathBuf, arguments: Vec<String>) -> Self {
        let mut server = Self {
            port: free_port(),
            folder,
            arguments,
            child: None,
        };
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            if server.try_start() {
                return server;
            }
            server.port = free_port();
        }
        panic!("redis-server did not start; see {:?}", server.log());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Whether it was started and not killed.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, from its last snapshot.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        assert!(self.try_start(), "redis-server came back");
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

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn try_start(&mut self) -> bool {
        let binary = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let child = Command::new(&binary)
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.folder)
            .arg("--logfile")
            .arg(self.folder.join("log"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "cannot start `{binary}`: {error}\n\
                 hint: install Redis (`apt-get install redis-server`), give its path in \
                 REDIS_SERVER, or the address of a running server in LARDER_TEST_REDIS"
            )
        });
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if self.answers() {
                return true;
            }
            let child = self.child.as_mut().expect("just started");
            if child.try_wait().ok().flatten().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    /// How many reads it has answered: of entries, numbers, or by scripts.
    pub(crate) fn reads(&self) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server runs");
        let asked = stream.write_all(b"INFO commandstats\r\nQUIT\r\n");
        let mut stats = String::new();
        let read = asked.and_then(|()| stream.read_to_string(&mut stats));
        read.expect("the server answers");
        let calls = |name: &str| -> u64 {
            let start = format!("cmdstat_{name}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&start));
            let count = line.and_then(|line| line.split(',').next());
            count.map_or(0, |count| count.parse().expect("a number"))
        };
        ["mget", "hmget", "evalsha"].into_iter().map(calls).sum()
    }

    /// Whether it answers on its port; "please log in" is an answer too, "loading" is not yet one.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut answer = [0; 64];
        let asked = stream.write_all(b"PING\r\n");
        let count = asked.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        answer[..count].starts_with(b"+PONG") || answer[..count].starts_with(b"-NOAUTH")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder that nobody else uses.
pub(crate) fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("larder-{}-{count}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

/// A loopback port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
