//! The stores that the tests run over, each empty and with a clock that can be moved.

#![allow(dead_code, reason = "each test file uses a part")]

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use larder::store::{File, Memcached, Memory, Mysql, Postgres, Redis, Sqlite, Store};
use larder::wrap::Tiered;
use larder::{Cache, CacheBuilder, Clock};

/// A store to test over.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) name: &'static str,
    pub(crate) store: Arc<dyn Store>,
    /// Begins the prefix of every cache, so that runs over one server do not meet.
    own: String,
    /// Whether its clock moves only when told to.
    pub(crate) manual: bool,
    /// Where it is, if processes can share it.
    url: Option<String>,
}

/// Every store that the tests run over; a line for each.
pub(crate) fn all() -> Vec<Ground> {
    let (tiers, before_redis) = (tiers(), before_redis());
    vec![
        memory(),
        file(),
        redis(),
        memcached(),
        tiers,
        before_redis,
        sqlite(),
        postgres(),
        mariadb(),
    ]
}

/// A Redis with a prefix of this ground's own: the server that the test command started, or one that
/// ends with this process.
fn redis() -> Ground {
    static URL: LazyLock<String> =
        LazyLock::new(|| std::env::var("LARDER_TEST_REDIS").unwrap_or_else(|_| start_redis()));
    Ground {
        name: "redis",
        store: Arc::new(Redis::lazy(URL.as_str()).expect("a good URL")),
        own: own(),
        manual: false,
        url: Some(URL.clone()),
    }
}

/// A prefix that no other ground has.
fn own() -> String {
    static GROUNDS: AtomicUsize = AtomicUsize::new(0);
    let number = GROUNDS.fetch_add(1, Ordering::Relaxed);
    format!("ground{}-{number}-", std::process::id())
}

/// A file of this process.
fn sqlite() -> Ground {
    static URL: LazyLock<String> = LazyLock::new(|| {
        let folder = new_folder();
        let url = format!("sqlite://{folder}/cache.db");
        until_the_end(":", &format!("rm -rf {folder}"));
        let store = Sqlite::lazy(url.as_str()).expect("a good URL");
        block_on(async move { store.create_table().await }).expect("it can be made");
        url
    });
    let store = Sqlite::builder(URL.as_str()).clock(Clock::manual());
    Ground {
        name: "sqlite",
        store: Arc::new(store.lazy().expect("a good URL")),
        own: own(),
        manual: true,
        url: Some(URL.clone()),
    }
}

/// A server that ends with this process.
fn postgres() -> Ground {
    static URL: LazyLock<String> = LazyLock::new(|| {
        // Killed, it would leave its children.
        start_sql("postgres.sh", "QUIT", "postgresql", |port| {
            let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
            let store = Postgres::lazy(url.as_str()).expect("a good URL");
            let made = block_on(async move { store.create_table().await });
            made.is_ok().then_some(url)
        })
    });
    let store = Postgres::builder(URL.as_str()).clock(Clock::manual());
    Ground {
        name: "postgres",
        store: Arc::new(store.timeout(PATIENCE).lazy().expect("a good URL")),
        own: own(),
        manual: true,
        url: Some(URL.clone()),
    }
}

/// A server that ends with this process.
fn mariadb() -> Ground {
    static URL: LazyLock<String> = LazyLock::new(|| {
        start_sql("mariadb.sh", "KILL", "mariadb-server", |port| {
            let url = format!("mysql://larder:secret@127.0.0.1:{port}/larder");
            let store = Mysql::lazy(url.as_str()).expect("a good URL");
            let made = block_on(async move { store.create_table().await });
            made.is_ok().then_some(url)
        })
    });
    let store = Mysql::builder(URL.as_str()).clock(Clock::manual());
    Ground {
        name: "mariadb",
        store: Arc::new(store.timeout(PATIENCE).lazy().expect("a good URL")),
        own: own(),
        manual: true,
        url: Some(URL.clone()),
    }
}

/// For a server that shares two cores with a whole file of tests.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a server by its script until this process ends, and then ends it by `signal`; its URL, once its
/// table is made.
fn start_sql(
    script: &str,
    signal: &str,
    package: &str,
    make: impl Fn(u16) -> Option<String>,
) -> String {
    let (folder, port) = (new_folder(), free_port());
    let support = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
    until_the_end(
        &format!("sh {support}/{script} {folder} {port} >/dev/null & server=$!"),
        &format!("kill -{signal} $server; wait $server; rm -rf {folder}"),
    );
    for _ in 0..1000 {
        if let Some(url) = make(port) {
            return url;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{script}: no server; hint: `apt-get install {package}`, or run `./test`");
}

fn new_folder() -> String {
    let folder = std::env::temp_dir().join(own());
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder.display().to_string()
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

/// A memcached that ends with this process, and a prefix of this ground's own.
fn memcached() -> Ground {
    static URL: LazyLock<String> = LazyLock::new(start_memcached);
    Ground {
        name: "memcached",
        store: Arc::new(Memcached::lazy(URL.as_str()).expect("a good URL")),
        own: own(),
        manual: false,
        url: Some(URL.clone()),
    }
}

fn start_memcached() -> String {
    let port = free_port();
    let program = std::env::var("MEMCACHED").unwrap_or_else(|_| "memcached".into());
    until_the_end(
        &format!("{program} -l 127.0.0.1 -U 0 -u root -I 8m -p {port} >/dev/null & server=$!"),
        "kill $server",
    );
    await_server(port, &program, "memcached");
    format!("memcached://127.0.0.1:{port}")
}

fn start_redis() -> String {
    let port = free_port();
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    until_the_end(
        &format!(
            "{program} --port {port} --bind 127.0.0.1 --save '' --appendonly no --dir /tmp \
             >/dev/null & server=$!"
        ),
        "kill $server",
    );
    await_server(port, &program, "redis-server");
    format!("redis://127.0.0.1:{port}/0")
}

fn await_server(port: u16, program: &str, package: &str) {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("`{program}` does not start; hint: install {package}, or run `./test`, which does");
}

fn tiers() -> Ground {
    let clock = Clock::manual();
    let memory = || Memory::builder().clock(clock.clone()).build();
    Ground {
        name: "memory over memory",
        store: Arc::new(Tiered::new(memory(), memory())),
        own: String::new(),
        manual: true,
        url: None,
    }
}

fn before_redis() -> Ground {
    let far = redis();
    Ground {
        name: "memory over redis",
        store: Arc::new(Tiered::new(Memory::new(), Arc::clone(&far.store))),
        ..far
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of the loopback");
    listener.local_addr().expect("a bound socket").port()
}

/// Runs `first` in a shell, and `last` when this process ends, however it ends: the shell reads a pipe
/// of which we have the other end.
fn until_the_end(first: &str, last: &str) {
    let shell = Command::new("sh")
        .args(["-c", &format!("{first}\nread line\n{last}")])
        .stdin(Stdio::piped())
        .spawn();
    // Not waited for: its end is ours.
    std::mem::forget(shell.expect("a shell"));
}

/// A folder of this ground's own; all of them go when this process ends, however it ends.
fn file() -> Ground {
    static FOLDERS: LazyLock<String> = LazyLock::new(|| {
        let folders = new_folder();
        until_the_end(":", &format!("rm -rf {folders}"));
        folders
    });
    let url = format!("file://{}/{}", *FOLDERS, own());
    let folder = url.strip_prefix("file://").expect("just put there");
    let store = File::builder(folder).clock(Clock::manual());
    Ground {
        name: "file",
        store: Arc::new(store.open().expect("a folder that can be made")),
        own: String::new(),
        manual: true,
        url: Some(url),
    }
}

fn memory() -> Ground {
    Ground {
        name: "memory",
        store: Arc::new(Memory::builder().clock(Clock::manual()).build()),
        own: String::new(),
        manual: true,
        url: None,
    }
}

impl Ground {
    /// The same ground over a connection of its own: what another process sees of it, where there can
    /// be one.
    pub(crate) fn another(&self) -> Option<Self> {
        let (url, clock) = (self.url.clone()?, self.store.clock().clone());
        let store: larder::Result<Arc<dyn Store>> = match self.name {
            "redis" => Redis::lazy(url).map(|store| Arc::new(store) as _),
            "memory over redis" => {
                Redis::lazy(url).map(|redis| Arc::new(Tiered::new(Memory::new(), redis)) as _)
            }
            "memcached" => Memcached::lazy(url).map(|store| Arc::new(store) as _),
            "file" => {
                let folder = url.trim_start_matches("file://");
                (File::builder(folder).clock(clock).open()).map(|store| Arc::new(store) as _)
            }
            "sqlite" => {
                (Sqlite::builder(url).clock(clock).lazy()).map(|store| Arc::new(store) as _)
            }
            "mariadb" => {
                let store = Mysql::builder(url).clock(clock).timeout(PATIENCE);
                store.lazy().map(|store| Arc::new(store) as _)
            }
            _ => {
                let store = Postgres::builder(url).clock(clock).timeout(PATIENCE);
                store.lazy().map(|store| Arc::new(store) as _)
            }
        };
        Some(Self {
            store: store.expect("a good URL"),
            own: self.own.clone(),
            url: self.url.clone(),
            ..*self
        })
    }

    /// Its name and where it is, if processes can share it as it is.
    pub(crate) fn into_shared(self) -> Option<(&'static str, String)> {
        let is_one_store = !self.name.contains(' ');
        Some((self.name, self.url.filter(|_| is_one_store)?))
    }

    /// A cache with Django's defaults.
    pub(crate) fn cache(&self) -> Cache {
        self.builder("").build().expect("good settings")
    }

    /// Settings of a cache whose prefix ends in `prefix`.
    pub(crate) fn builder(&self, prefix: &str) -> CacheBuilder {
        let own = &self.own;
        Cache::builder(Arc::clone(&self.store))
            .prefix(format!("{own}{prefix}"))
            .space(own)
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        if self.manual {
            self.store.clock().advance(span);
        } else {
            tokio::time::sleep(span).await;
        }
    }
}
