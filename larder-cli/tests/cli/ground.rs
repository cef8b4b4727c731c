//! Running the command, and the servers that it asks.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::support::RedisServer;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_larder");

/// Exit code, stdout and stderr.
pub(crate) type Said = (i32, String, String);

/// A command that knows nothing of the caches of whoever runs the tests.
pub(crate) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LARDER_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `larder` with `flags` and `input`.
pub(crate) fn run(flags: &[&str], input: &[u8]) -> Said {
    run_in(&[], flags, input)
}

/// Runs `larder` in an environment with `variables`.
pub(crate) fn run_in(variables: &[(&str, &str)], flags: &[&str], input: &[u8]) -> Said {
    let mut child = clean(BINARY)
        .args(flags)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone before it is told.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// Runs `larder` with `flags` on a terminal where `input` is typed: exit code, and what is seen.
pub(crate) fn on_terminal(flags: &[&str], input: &str) -> (i32, String) {
    let quoted = |word: &&str| format!("'{word}'");
    let words: Vec<String> = [BINARY].iter().chain(flags).map(quoted).collect();
    let mut child = clean("script")
        .args(["-qec", &words.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` is there: it comes with util-linux");
    // Held open: its end would be typed as well.
    let mut typed = child.stdin.take().unwrap();
    typed.write_all(input.as_bytes()).unwrap();
    let mut seen = String::new();
    let mut screen = child.stdout.take().unwrap();
    screen.read_to_string(&mut seen).unwrap();
    let code = child.wait().unwrap().code().unwrap();
    (code, seen.replace("\r\n", "\n"))
}

#[track_caller]
pub(crate) fn says(flags: &[&str], code: i32, stdout: &str, stderr: &str) {
    let expected = (code, stdout.to_owned(), stderr.to_owned());
    assert_eq!(run(flags, b""), expected, "{flags:?}");
}

/// A server for all tests; each has a prefix of its own. It ends with the last that holds it.
pub(crate) fn server() -> Arc<RedisServer> {
    static SERVER: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let running = (server.upgrade()).unwrap_or_else(|| Arc::new(RedisServer::start()));
    *server = Arc::downgrade(&running);
    running
}

/// `url` with time enough on a machine that has much else to do.
pub(crate) fn patient(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}operation_timeout=20s&connect_timeout=20s")
}

/// The flags of one cache, and the acts on it.
pub(crate) struct Store {
    pub(crate) url: String,
    /// Which server, for those that are at the shared one.
    pub(crate) server: Option<Arc<RedisServer>>,
}

impl Store {
    /// A cache of this prefix on the shared server.
    pub(crate) fn new(prefix: &str) -> Self {
        let server = server();
        let url = format!("{}&key_prefix={prefix}", patient(&server.url()));
        let server = Some(server);
        Self { url, server }
    }

    pub(crate) fn at(url: impl Into<String>) -> Self {
        let (url, server) = (url.into(), None);
        Self { url, server }
    }

    pub(crate) fn flags<'a>(&'a self, flags: &[&'a str]) -> Vec<&'a str> {
        let store = ["--store", &self.url];
        store.into_iter().chain(flags.iter().copied()).collect()
    }

    pub(crate) fn run(&self, flags: &[&str], input: &[u8]) -> Said {
        run(&self.flags(flags), input)
    }

    #[track_caller]
    pub(crate) fn says(&self, flags: &[&str], code: i32, stdout: &str, stderr: &str) {
        says(&self.flags(flags), code, stdout, stderr);
    }
}

/// The cache at `url`, asked by the library, and a runtime for it.
pub(crate) fn with_cache<T>(url: &str, work: impl AsyncFnOnce(&larder::Cache) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let settings = larder::Settings::default().with_url("a", url).unwrap();
        let caches = settings.open().await.unwrap();
        work(caches.get("a").unwrap()).await
    })
}
