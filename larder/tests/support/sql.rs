//! Files and servers of SQL for tests, each on a port of its own.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder::store::{Mysql, Postgres, Sqlite};

use super::{free_port, new_folder};

/// A file of SQLite with the tables of a store; it goes with this value.
pub(crate) struct SqliteFile(PathBuf);

impl SqliteFile {
    pub(crate) fn new() -> Self {
        let file = Self(new_folder());
        let store = Sqlite::lazy(file.url()).expect("a good URL");
        assert!(block_on(async move { store.create_table().await }).expect("it can be made"));
        file
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("cache.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for `work` on a thread of its own, also from within a runtime.
fn block_on<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a plain runtime").block_on(work)
    };
    std::thread::spawn(wait).join().expect("it does not panic")
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

/// A server of this test alone; it ends with this value.
pub(crate) struct SqlServer {
    kind: Kind,
    port: u16,
    folder: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
}

impl SqlServer {
    /// Starts a server, with the tables of a store.
    pub(crate) fn start(kind: Kind) -> Self {
        let server = Self::start_bare(kind);
        let url = server.url();
        let made = block_on(async move {
            match kind {
                Kind::Postgres => Postgres::lazy(url)?.create_table().await,
                Kind::Mariadb => Mysql::lazy(url)?.create_table().await,
            }
        });
        assert!(made.expect("they can be made"), "they were not there");
        server
    }

    /// Starts a server with an empty database.
    pub(crate) fn start_bare(kind: Kind) -> Self {
        Self::start_in(kind, new_folder(), &[])
    }

    /// Starts a server in a folder that is prepared already, and that goes with it; for PostgreSQL with
    /// more settings, such as `ssl=on`.
    pub(crate) fn start_in(kind: Kind, folder: PathBuf, settings: &[&str]) -> Self {
        let mut server = Self {
            kind,
            port: free_port(),
            folder,
            settings: settings.iter().map(|&it| it.to_owned()).collect(),
            child: None,
        };
        // Another process may take the port between the look and the start.
        for _ in 0..3 {
            if server.try_start() {
                return server;
            }
            server.port = free_port();
        }
        panic!("{kind:?} did not start: {}", server.log());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            Kind::Mariadb => format!("mysql://larder:secret@127.0.0.1:{port}/larder"),
        }
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // The processes of a PostgreSQL that is killed outlive it for a while; told to quit, it ends
        // them all at once, without finishing anything.
        match self.kind {
            Kind::Postgres => signal("QUIT", child.id()),
            Kind::Mariadb => drop(child.kill()),
        }
        let _ = child.wait();
    }

    /// Starts it again on the same port.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        assert!(self.try_start(), "the server came back: {}", self.log());
    }

    /// Stops it without ending it: it accepts connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let first = self.child.as_ref().expect("the server runs").id();
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            signal(name, child.parse().expect("a process"));
        }
        signal(name, first);
    }

    fn log(&self) -> String {
        ["initdb.log", "install.log", "log"]
            .map(|name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default())
            .concat()
    }

    fn try_start(&mut self) -> bool {
        let script = match self.kind {
            Kind::Postgres => "postgres.sh",
            Kind::Mariadb => "mariadb.sh",
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/support")
            .join(script);
        let child = Command::new("sh")
            .arg(script)
            .arg(&self.folder)
            .arg(self.port.to_string())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("a shell"));
        let end = Instant::now() + Duration::from_mins(1);
        while Instant::now() < end {
            if self.answers() {
                return true;
            }
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait().ok().flatten() {
                assert_ne!(status.code(), Some(127), "a server is missing; see above");
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// Whether it takes logins.
    fn answers(&self) -> bool {
        if TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            return false;
        }
        let url = self.url();
        match self.kind {
            Kind::Postgres => says_ready(block_on(Postgres::connect(url))),
            // It creates the user after it has begun to listen.
            Kind::Mariadb => says_ready(block_on(Mysql::connect(url))),
        }
    }
}

/// Whether it is there, with the table or without.
fn says_ready<S>(connected: larder::Result<S>) -> bool {
    connected.map_or_else(|error| error.to_string().contains("has no table"), |_| true)
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status();
    // A child of the server may have ended by itself meanwhile.
    let _ = status.expect("`kill` is there");
}
