//! Every store by its scheme: the only file that names them all.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::nearest::suggest;
use super::url::Options;
use super::{Opening, Place};
use crate::Result;
use crate::store::{self, Store};

/// What the stores of a full build can be told, for who puts it in a wrong place.
pub(super) const OPTIONS: [&str; 25] = [
    "ca_certificate",
    "connect_timeout",
    "cull_every",
    "cull_frequency",
    "db",
    "eject",
    "host",
    "max_bytes",
    "max_entries",
    "operation_timeout",
    "outbox",
    "pass",
    "password",
    "protocol",
    "read_replicas",
    "sentinel_password",
    "sentinel_user",
    "sslmode",
    "sync_commits",
    "table",
    "trust_restarts",
    "unlogged",
    "user",
    "username",
    "weight",
];

/// The store that a scheme belongs to; what is unknown belongs to itself.
pub(super) fn family(scheme: &str) -> &str {
    let families = [
        ("memcached", &["memcached+tls", "memcached+unix"][..]),
        ("mysql", &["mariadb"]),
        ("postgres", &["postgresql"]),
        (
            "redis",
            &[
                "rediss",
                "redis+unix",
                "unix",
                "valkey",
                "valkeys",
                "valkey+unix",
                "redis+cluster",
                "rediss+cluster",
                "valkey+cluster",
                "valkeys+cluster",
                "redis+sentinel",
                "rediss+sentinel",
                "valkey+sentinel",
                "valkeys+sentinel",
            ],
        ),
    ];
    let is_same = |one: &str| one.eq_ignore_ascii_case(scheme);
    let names = ["file", "memory", "null", "sqlite"].into_iter();
    let own = names
        .chain(families.map(|(family, _)| family))
        .find(|it| is_same(it));
    let other = families
        .into_iter()
        .find(|(_, schemes)| schemes.iter().any(|it| is_same(it)));
    own.or(other.map(|(family, _)| family)).unwrap_or(scheme)
}

/// Whether a scheme asks for TLS by itself.
pub(super) fn is_encrypted(scheme: &str) -> bool {
    let encrypted = [
        "rediss",
        "rediss+cluster",
        "rediss+sentinel",
        "valkeys",
        "valkeys+cluster",
        "valkeys+sentinel",
        "memcached+tls",
    ];
    encrypted.iter().any(|it| it.eq_ignore_ascii_case(scheme))
}

type Open = Arc<dyn Fn(Place) -> Opening + Send + Sync>;

/// What opens a store, by the scheme of its URL: those of this build, and your own.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use std::sync::Arc;
/// use larder::store::{Memory, Store};
/// use larder::{Backends, Settings};
///
/// let backends = Backends::new().register("mine", |place| async move {
///     assert_eq!(place.location, "mine://here");
///     Ok(Arc::new(Memory::new()) as Arc<dyn Store>)
/// });
/// let settings = Settings::default().with_url("default", "mine://here?timeout=5")?;
/// let caches = settings.open_with(&backends).await?;
/// caches.get("default")?.set("k", "v").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Backends(BTreeMap<String, Open>);

impl Backends {
    /// The stores that this build has.
    pub fn new() -> Self {
        let mut backends = Self(BTreeMap::new());
        backends.add("null", null);
        #[cfg(feature = "memory")]
        backends.add("memory", memory);
        #[cfg(feature = "redis")]
        for scheme in [
            "redis",
            "rediss",
            "redis+unix",
            "unix",
            "valkey",
            "valkeys",
            "valkey+unix",
            "redis+cluster",
            "rediss+cluster",
            "valkey+cluster",
            "valkeys+cluster",
            "redis+sentinel",
            "rediss+sentinel",
            "valkey+sentinel",
            "valkeys+sentinel",
        ] {
            backends.add(scheme, redis);
        }
        #[cfg(all(feature = "file", unix))]
        backends.add("file", file);
        #[cfg(feature = "sqlite")]
        backends.add("sqlite", |place| Ok(Arc::new(sqlite(place)?)));
        #[cfg(feature = "postgres")]
        for scheme in ["postgres", "postgresql"] {
            backends.add(scheme, |place| Ok(Arc::new(postgres(place)?)));
        }
        #[cfg(feature = "mysql")]
        for scheme in ["mysql", "mariadb"] {
            backends.add(scheme, |place| Ok(Arc::new(mysql(place)?)));
        }
        #[cfg(feature = "memcached")]
        for scheme in ["memcached", "memcached+tls", "memcached+unix"] {
            backends.add(scheme, memcached);
        }
        backends
    }

    fn add(&mut self, scheme: &str, open: fn(&Place) -> Result<Arc<dyn Store>>) {
        let open: Open = Arc::new(move |place| Box::pin(async move { open(&place) }));
        self.0.insert(scheme.to_owned(), open);
    }

    /// Opens what has the scheme `scheme` by `open`, also where this build has a store of that scheme.
    #[must_use]
    pub fn register<F, Fut>(mut self, scheme: impl Into<String>, open: F) -> Self
    where
        F: Fn(Place) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn Store>>> + Send + 'static,
    {
        let open: Open = Arc::new(move |place| Box::pin(open(place)));
        self.0.insert(scheme.into().to_ascii_lowercase(), open);
        self
    }

    /// The schemes, in order.
    pub fn schemes(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(String::as_str)
    }

    pub(super) async fn open(&self, place: Place) -> Result<Arc<dyn Store>> {
        let Some(open) = self.0.get(&place.scheme) else {
            let what = format!("no store has the scheme `{}`", place.scheme);
            let error = super::url::error(&place.named, what);
            return Err(suggest(error, &place.scheme, self.schemes()));
        };
        let written = place.clone();
        // A store's own error does not know where its settings stand.
        open(place).await.map_err(|error| {
            if error.to_string().starts_with("settings: ") {
                return error;
            }
            let hint = error.hint().map(str::to_owned);
            let told = written.told(&error);
            match hint {
                Some(hint) => told.with_hint(hint),
                None => told,
            }
        })
    }
}

impl Default for Backends {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn null(place: &Place) -> Result<Arc<dyn Store>> {
    let mut options = Options::of(place);
    // Django's words are no mistake here: a cache is turned off by changing one line.
    for word in ["max_entries", "max_bytes", "cull_frequency"] {
        options.number(word)?;
    }
    options.finish()?;
    Ok(Arc::new(store::Null::new()))
}

#[cfg(feature = "memory")]
fn memory(place: &Place) -> Result<Arc<dyn Store>> {
    let mut options = Options::of(place);
    let mut builder = store::Memory::builder();
    if let Some(bytes) = options.number("max_bytes")? {
        builder = builder.max_bytes(bytes);
    }
    if let Some(entries) = options.number("max_entries")? {
        builder = builder.max_entries(entries);
    }
    // Read, and without effect: what is worth least leaves one by one, not a third at a time.
    options.number("cull_frequency")?;
    options.finish()?;
    Ok(Arc::new(builder.build()))
}

#[cfg(feature = "redis")]
fn redis(place: &Place) -> Result<Arc<dyn Store>> {
    let mut options = Options::of(place);
    // What the store's own URL may say in its query.
    let mut words = vec!["db", "protocol", "user", "username", "pass", "password"];
    if place.scheme.ends_with("+sentinel") {
        words.extend(["sentinel_user", "sentinel_password"]);
    }
    let url = url_with(place, &mut options, &words);
    let mut builder = store::Redis::builder(url);
    if options.yes("trust_restarts")? {
        builder = builder.trust_restarts();
    }
    if options.yes("read_replicas")? {
        builder = builder.read_replicas();
    }
    if let Some(limit) = options.span("operation_timeout")? {
        builder = builder.timeout(limit);
    }
    if let Some(limit) = options.span("connect_timeout")? {
        builder = builder.connect_timeout(limit);
    }
    if let Some(path) = options.text("ca_certificate") {
        builder = builder.ca_certificate_pem(pem(place, &path)?);
    }
    options.finish()?;
    Ok(Arc::new(builder.lazy()?))
}

#[cfg(feature = "memcached")]
fn memcached(place: &Place) -> Result<Arc<dyn Store>> {
    let mut options = Options::of(place);
    let url = url_with(place, &mut options, &["weight"]);
    let mut builder = store::Memcached::builder(url);
    if options.yes("eject")? {
        builder = builder.eject(true);
    }
    if options.yes("trust_restarts")? {
        builder = builder.trust_restarts();
    }
    if let Some(limit) = options.span("operation_timeout")? {
        builder = builder.timeout(limit);
    }
    if let Some(limit) = options.span("connect_timeout")? {
        builder = builder.connect_timeout(limit);
    }
    if let Some(path) = options.text("ca_certificate") {
        builder = builder.ca_certificate_pem(pem(place, &path)?);
    }
    options.finish()?;
    Ok(Arc::new(builder.lazy()?))
}

#[cfg(all(feature = "file", unix))]
fn file(place: &Place) -> Result<Arc<dyn Store>> {
    let mut options = Options::of(place);
    let Some(path) = place.location.strip_prefix("file://") else {
        let error = place.error("the URL of a folder has no path");
        return Err(error.with_hint("write it as `file:///var/cache/larder`"));
    };
    let mut builder = store::File::builder(path);
    if let Some(bytes) = options.number("max_bytes")? {
        builder = builder.max_bytes(bytes);
    }
    if let Some(entries) = options.number("max_entries")? {
        builder = builder.max_entries(entries);
    }
    // As in memory.
    options.number("cull_frequency")?;
    if let Some(limit) = options.span("operation_timeout")? {
        builder = builder.timeout(limit);
    }
    if options.yes("trust_restarts")? {
        builder = builder.trust_restarts();
    }
    options.finish()?;
    Ok(Arc::new(builder.open()?))
}

/// What all SQL stores are told.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
macro_rules! sql_options {
    ($options:ident, $builder:ident) => {
        if let Some(entries) = $options.number("max_entries")? {
            $builder = $builder.max_entries(entries);
        }
        // As in memory.
        $options.number("cull_frequency")?;
        if let Some(span) = $options.span("cull_every")? {
            $builder = $builder.cull_every(span);
        }
        if let Some(limit) = $options.span("operation_timeout")? {
            $builder = $builder.timeout(limit);
        }
        if let Some(limit) = $options.span("connect_timeout")? {
            $builder = $builder.connect_timeout(limit);
        }
        if $options.yes("outbox")? {
            $builder = $builder.outbox();
        }
    };
}

#[cfg(feature = "sqlite")]
fn sqlite(place: &Place) -> Result<store::Sqlite> {
    let mut options = Options::of(place);
    let mut builder = store::Sqlite::builder(url_with(place, &mut options, &["table"]));
    sql_options!(options, builder);
    if options.yes("trust_restarts")? {
        builder = builder.trust_restarts();
    }
    if options.yes("sync_commits")? {
        builder = builder.sync_commits();
    }
    options.finish()?;
    builder.lazy()
}

#[cfg(feature = "postgres")]
fn postgres(place: &Place) -> Result<store::Postgres> {
    let mut options = Options::of(place);
    let url = url_with(place, &mut options, &["table", "sslmode", "host"]);
    let mut builder = store::Postgres::builder(url);
    sql_options!(options, builder);
    if options.yes("unlogged")? {
        builder = builder.unlogged();
    }
    if let Some(path) = options.text("ca_certificate") {
        builder = builder.ca_certificate_pem(pem(place, &path)?);
    }
    options.finish()?;
    builder.lazy()
}

#[cfg(feature = "mysql")]
fn mysql(place: &Place) -> Result<store::Mysql> {
    let mut options = Options::of(place);
    let url = url_with(place, &mut options, &["table", "sslmode"]);
    let mut builder = store::Mysql::builder(url);
    sql_options!(options, builder);
    if let Some(path) = options.text("ca_certificate") {
        builder = builder.ca_certificate_pem(pem(place, &path)?);
    }
    options.finish()?;
    builder.lazy()
}

/// An SQL store, for what only its table is needed for.
enum SqlStore {
    #[cfg(feature = "sqlite")]
    Sqlite(store::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(store::Postgres),
    #[cfg(feature = "mysql")]
    Mysql(store::Mysql),
}

fn sql_store(place: &Place) -> Result<SqlStore> {
    match place.scheme.as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite(place).map(SqlStore::Sqlite),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres(place).map(SqlStore::Postgres),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => mysql(place).map(SqlStore::Mysql),
        scheme => {
            let error = place.error(format!("`{scheme}` has no table"));
            Err(error.with_hint("SQL stores have: `sqlite:`, `postgres:`, `mysql:`"))
        }
    }
}

/// The statements that make the table of the SQL store at `place`.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    expect(unreachable_code, reason = "a build without SQL stores has none")
)]
pub(super) fn table_sql(place: &Place) -> Result<Vec<String>> {
    Ok(match sql_store(place)? {
        #[cfg(feature = "sqlite")]
        SqlStore::Sqlite(store) => store.table_sql(),
        #[cfg(feature = "postgres")]
        SqlStore::Postgres(store) => store.table_sql(),
        #[cfg(feature = "mysql")]
        SqlStore::Mysql(store) => store.table_sql(),
    })
}

/// Makes that table; whether it was not there.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    expect(
        clippy::unused_async,
        reason = "a build without SQL stores makes no table"
    )
)]
pub(super) async fn create_table(place: &Place) -> Result<bool> {
    match sql_store(place)? {
        #[cfg(feature = "sqlite")]
        SqlStore::Sqlite(store) => store.create_table().await,
        #[cfg(feature = "postgres")]
        SqlStore::Postgres(store) => store.create_table().await,
        #[cfg(feature = "mysql")]
        SqlStore::Mysql(store) => store.create_table().await,
    }
}

/// The store's own URL, with those of its own `words` that the query had.
#[cfg(any(
    feature = "memcached",
    feature = "redis",
    feature = "sqlite",
    feature = "postgres",
    feature = "mysql"
))]
fn url_with(place: &Place, options: &mut Options<'_>, words: &[&'static str]) -> String {
    let (location, fragment) = match place.location.split_once('#') {
        Some((location, fragment)) => (location, Some(fragment)),
        None => (place.location.as_str(), None),
    };
    let mut url = location.to_owned();
    let mut separator = '?';
    for word in words {
        let Some(value) = options.text(word) else {
            continue;
        };
        url.push(separator);
        url.push_str(word);
        url.push('=');
        for char in value.chars() {
            match char {
                '%' => url.push_str("%25"),
                '&' => url.push_str("%26"),
                '#' => url.push_str("%23"),
                char => url.push(char),
            }
        }
        separator = '&';
    }
    if let Some(fragment) = fragment {
        url.push('#');
        url.push_str(fragment);
    }
    url
}

#[cfg(any(
    feature = "memcached",
    feature = "redis",
    feature = "postgres",
    feature = "mysql"
))]
fn pem(place: &Place, path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let what = format!("cannot read `{path}`, the `ca_certificate`");
        let told = place.error_about("ca_certificate", what);
        told.with_source(error)
    })
}
