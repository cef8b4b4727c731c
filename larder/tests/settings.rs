//! Settings: what is understood, and what is told of what is not.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::store::{Memory, Store};
use larder::{Backends, Caches, Settings, Ttl};

async fn open(text: &str) -> Caches {
    Settings::parse(text, "larder.toml")
        .unwrap()
        .open()
        .await
        .unwrap()
}

/// What is told of `text`: error and hint.
async fn told(text: &str) -> (String, String) {
    let error = match Settings::parse(text, "larder.toml") {
        Err(error) => error,
        Ok(settings) => settings.open().await.unwrap_err(),
    };
    (
        error.to_string(),
        error.hint().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn djangos_words_are_understood() {
    let caches = open(
        "[caches.default]
         backend = 'django.core.cache.backends.locmem.LocMemCache'
         location = 'unique'
         timeout = 60
         key_prefix = 'shop'
         version = 2
         codec = 'json'
         [caches.default.options]
         MAX_ENTRIES = 1_000
         cull_frequency = 3
         [caches.off]
         backend = 'null'
         [caches.capitals]
         BACKEND = 'null'
         LOCATION = ''
         TIMEOUT = 60
         KEY_PREFIX = 'shop'
         VERSION = 2
         OPTIONS = { MAX_ENTRIES = 1000 }
         [other]
         tables = 'are not ours'",
    )
    .await;

    let cache = caches.get("default").unwrap();
    cache.set("k", "v").await.unwrap();
    assert_eq!(cache.key("k").name(), "shop:2:k");
    let left = cache.ttl("k").await.unwrap();
    assert!(
        matches!(left, Some(Ttl::For(left)) if left > Duration::from_secs(59)),
        "{left:?}"
    );
    assert_eq!(cache.get_bytes("k").await.unwrap().unwrap(), "\"v\"");
    let capitals = caches.get("capitals").unwrap();
    assert_eq!(capitals.key("k").name(), "shop:2:k");
    let off = caches.get("off").unwrap();
    off.set("k", "v").await.unwrap();
    assert_eq!(off.get::<String>("k").await.unwrap(), None);
    assert_eq!(
        caches.aliases().collect::<Vec<_>>(),
        ["capitals", "default", "off"]
    );
}

#[tokio::test]
async fn a_timeout_is_seconds_a_span_or_never() {
    for (timeout, ttl) in [
        ("300", Some(Ttl::For(Duration::from_mins(5)))),
        ("1.5", Some(Ttl::For(Duration::from_millis(1500)))),
        ("'5m'", Some(Ttl::For(Duration::from_mins(5)))),
        ("'never'", Some(Ttl::Never)),
        ("0", None),
    ] {
        let caches = open(&format!(
            "[caches.a]\nurl = 'memory://'\ntimeout = {timeout}"
        ))
        .await;
        let cache = caches.get("a").unwrap();
        cache.set("k", "v").await.unwrap();

        let left = cache.ttl("k").await.unwrap();

        // A moment has passed since.
        let up = |left: Ttl| match left {
            Ttl::For(span) => Ttl::For(Duration::from_millis(
                u64::try_from(span.as_millis())
                    .unwrap()
                    .next_multiple_of(100),
            )),
            never => never,
        };
        assert_eq!(left.map(up), ttl, "{timeout}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_line_and_the_nearest_word() {
    for (text, error, hint) in [
        (
            "[caches.default]\nurl = 'memory://'\nkeyprefix = 'a'",
            "larder.toml:3: `keyprefix` is no setting of `[caches.default]`",
            "did you mean `key_prefix`?",
        ),
        (
            "[caches.default]\n\nbackend = 'memry'",
            "larder.toml:3: no store has the scheme `memry`",
            "did you mean `memory`?",
        ),
        (
            "[caches.default]\nbackend = 'memory'\n[caches.default.options]\nmax_entires = 5",
            "larder.toml:4: `max_entires` is no option of `memory`",
            "did you mean `max_entries`?",
        ),
        (
            "[caches.default]\nbackend = 'memory'\noptions = { max_entries = 'many' }",
            "larder.toml:3: `max_entries` cannot be `many`",
            "give a whole number, like `1000`",
        ),
        (
            "[caches.default]\nurl = 'memory://'\ntimeout = 'soon'",
            "larder.toml:3: `timeout` cannot be `soon`",
            "give seconds, like `300` or `0.5`, a span, like `\"5m\"`, or `\"never\"`",
        ),
        (
            "[caches.default]\nurl = 'memory://'\ntimeout = -5",
            "larder.toml:3: `timeout` cannot be `-5`",
            "give seconds, like `300` or `0.5`, a span, like `\"5m\"`, or `\"never\"`",
        ),
        (
            "[caches.default]\nurl = 'memory://?codec=pickle'",
            "larder.toml:2: `pickle` is no `codec`",
            "there are messagepack, json, raw",
        ),
        (
            "[caches.default]\ntimeout = 5",
            "larder.toml:1: `[caches.default]` names no store",
            "add `backend = \"memory\"`, or `url = \"memory://\"`",
        ),
        (
            "[caches.default]\nurl = 'memory://'\nbackend = 'memory'",
            "larder.toml:1: `[caches.default]` has both `url` and `backend`",
            "one of them is enough",
        ),
        (
            "[caches]\ndefault = 'memory://'",
            "larder.toml:2: `caches.default` is no table",
            "",
        ),
        (
            "[caches.default]\nurl = 'memory://?key_prefix=a:b'",
            "larder.toml:2: cache: the prefix `a:b` cannot be used: it holds `:`",
            "",
        ),
        (
            "title = 'x'",
            "larder.toml:1: there is no table `[caches.…]`",
            "begin with `[caches.default]`",
        ),
    ] {
        let expected = (format!("settings: {error}"), hint.to_owned());
        assert_eq!(told(text).await, expected, "{text}");
    }
    let (error, _) = told("[caches.default]\nurl = 'memory://\ntimeout = 5").await;
    assert!(
        error.starts_with("settings: larder.toml:2: not TOML: "),
        "{error}"
    );
}

#[tokio::test]
async fn what_would_be_ignored_is_refused() {
    for (text, error, hint) in [
        (
            "backend = 'redis'\nlocation = 'memcached://:secret@cache'",
            "3: `backend` is `redis`, but `location` is of `memcached`",
            "give a `url` alone, or a `location` without a scheme",
        ),
        (
            "backend = 'nonsense'\nlocation = 'memory://'",
            "3: `backend` is `nonsense`, but `location` is of `memory`",
            "give a `url` alone, or a `location` without a scheme",
        ),
        (
            "backend = 'rediss'\nlocation = 'redis://cache'",
            "3: `backend` is `rediss`, but `location` is of `redis`",
            "give a `url` alone, or a `location` without a scheme",
        ),
        (
            "url = 'memory://?key_prefix=%ff'",
            "2: the query is no text in UTF-8",
            "",
        ),
        (
            "url = 'memory://'\nlocation = 'here'",
            "1: `[caches.a]` has both `url` and `location`",
            "one of them is enough",
        ),
        (
            "backend = 'redis://:secret@cache'",
            "2: `backend` is a URL",
            "call it `url`",
        ),
        (
            "backend = 'memory'\nkey_prefix = ['a', 'b']",
            "3: `key_prefix` cannot be an array",
            "give a text or a whole number",
        ),
        (
            "backend = 'memory'\noptions = { max_entries = [5] }",
            "3: `max_entries` cannot be an array",
            "give a text, a number, or `true` or `false`",
        ),
        (
            "backend = 'memcached'\nlocation = ['a', 5]",
            "3: `location` cannot be an integer",
            "give a text, or a list of texts",
        ),
        (
            "backend = 'redis'\nlocation = ['a', 'b']",
            "3: `location` lists several, and `redis` takes one",
            "",
        ),
        (
            "backend = 'memory'\nversion = true",
            "3: `version` cannot be a boolean",
            "give a text or a whole number",
        ),
        (
            "backend = 'memory'\nversion = 1.5",
            "3: `version` cannot be a float",
            "give a text or a whole number",
        ),
    ] {
        let expected = (format!("settings: larder.toml:{error}"), hint.to_owned());
        let text = format!("[caches.a]\n{text}");
        assert_eq!(told(&text).await, expected, "{text}");
    }
}

#[tokio::test]
async fn what_is_given_twice_is_refused() {
    for (text, error, hint) in [
        (
            "backend = 'memory'\n[caches.a.options]\nmax_entries = 5\nMAX_ENTRIES = 6",
            "5: `max_entries` is given twice",
            "",
        ),
        (
            "backend = 'memory'\ntimeout = 5\nTIMEOUT = 6",
            "4: `timeout` is given twice",
            "",
        ),
        (
            "url = 'memory://?timeout=5&timeout=6'",
            "2: `timeout` is given twice",
            "",
        ),
        (
            "url = 'memory://?max_entries=5&MAX_ENTRIES=6'",
            "2: `max_entries` is given twice",
            "",
        ),
        (
            "url = 'memory://?timeout=5'\ntimeout = 6",
            "3: `timeout` is given twice",
            "",
        ),
        (
            "url = 'memory://?max_entries=5'\noptions = { max_entries = 6 }",
            "3: `max_entries` is given twice",
            "",
        ),
        (
            "url = 'redis://cache/1'\noptions = { db = 5 }",
            "3: redis: the URL cannot be used: `db` differs from what stands before `?`",
            "write it as `redis://user:password@host:6379/0`",
        ),
        (
            "url = 'redis://cache'\n[caches.a.options]\ndb = 'five'",
            "4: redis: the URL cannot be used: `db` is no number",
            "write it as `redis://user:password@host:6379/0`",
        ),
    ] {
        let expected = (format!("settings: larder.toml:{error}"), hint.to_owned());
        let text = format!("[caches.a]\n{text}");
        assert_eq!(told(&text).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_word_in_the_wrong_place_is_told_where_it_belongs() {
    for (text, error, hint) in [
        (
            "[caches.a]\nbackend = 'memory'\noptions = {\n  timeout = 5 }",
            "4: `timeout` is a setting of the cache, not an option of its store",
            "put it above `options`",
        ),
        (
            "[caches.a]\nbackend = 'memory'\nmax_entries = 5",
            "3: `max_entries` is no setting of `[caches.a]`",
            "put it into `options`",
        ),
        (
            "[caches.a]\nbackend = 'memory'\n[caches.a.option]\nmax_entries = 5",
            "3: `option` is no setting of `[caches.a]`",
            "did you mean `options`?",
        ),
        (
            "[caches.a]\nbackend = 'memory'\nmax_entires = 5",
            "3: `max_entires` is no setting of `[caches.a]`",
            "did you mean `max_entries`, in `options`?",
        ),
        (
            "title = 'x'\n[cache.default]\nbackend = 'memory'",
            "2: there is no table `[caches.…]`",
            "did you mean `[caches.…]`?",
        ),
        (
            "[Caches.default]\nbackend = 'memory'",
            "1: there is no table `[caches.…]`",
            "did you mean `[caches.…]`?",
        ),
        (
            "\n[caches]",
            "2: `[caches]` names no cache",
            "begin with `[caches.default]`",
        ),
        (
            "[caches.a]\nbackend = 'django.core.cache.backends.db.DatabaseCache'\nlocation = 'my_table'",
            "3: `DatabaseCache` does not say which database",
            "give its URL: `sqlite:///path/cache.db`, `postgres://host/database` or `mysql://host/database`",
        ),
        (
            "[caches.a]\nbackend = 'memory'\ntimeout = '5M'",
            "3: `timeout` cannot be `5M`",
            "`m` is minutes, `months` are months",
        ),
        (
            "[caches.a]\nbackend = 'memory'\n\nkey_prefix = 'a:b'",
            "4: cache: the prefix `a:b` cannot be used: it holds `:`",
            "",
        ),
        (
            "[caches.a]\nbackend = 'memory'\nversion = 'a:b'",
            "3: cache: the version `a:b` cannot be used: it holds `:` or is `@`",
            "",
        ),
        (
            "[caches.a]\nbackend = 'redis'\n\nlocation = 'cache/x'",
            "4: redis: the URL cannot be used: invalid database number",
            "write it as `redis://user:password@host:6379/0`",
        ),
    ] {
        let expected = (format!("settings: larder.toml:{error}"), hint.to_owned());
        assert_eq!(told(text).await, expected, "{text}");
    }
}

#[tokio::test]
async fn one_cache_is_opened_whatever_is_wrong_with_others() {
    let variables = [
        ("LARDER_HOMEPAGE_URL", "example.com"),
        ("LARDER_MENDED_URL", "memory://"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let file = "[caches.default]\nurl = 'memory://'\n\
                [caches.broken]\nurl = 'memory://?timeout=soon'\n\
                [caches.mended]\nurl = 'reds://cache'";

    let settings = Settings::parse(file, "larder.toml").unwrap();
    let settings = settings.with_variables(variables);

    assert!(settings.open().await.is_err());
    for alias in ["default", "mended"] {
        let caches = settings.only(alias).unwrap().open().await.unwrap();
        assert_eq!(caches.aliases().collect::<Vec<_>>(), [alias]);
    }
    let broken = settings.only("broken").unwrap_err();
    assert_eq!(
        broken.to_string(),
        "settings: larder.toml:4: `timeout` cannot be `soon`"
    );
    let missing = settings.only("defualt").unwrap_err();
    assert_eq!(missing.to_string(), "settings: there is no cache `defualt`");
    assert_eq!(missing.hint(), Some("did you mean `default`?"));
}

#[tokio::test]
async fn database_and_login_are_understood_on_every_redis() {
    for (text, name) in [
        (
            "url = 'redis+cluster://:secret@a:7000,b?timeout=5&read_replicas=true'",
            "redis+cluster://a:7000,b:6379",
        ),
        (
            "backend = 'rediss+cluster'\nlocation = ['a:7000', 'b:7001']\noptions = { password = 'b' }",
            "rediss+cluster://a:7000,b:7001",
        ),
        (
            "url = 'valkey+sentinel://a,b:1/main/2?sentinel_password=secret'",
            "redis+sentinel://a:26379,b:1/main/2",
        ),
        (
            "backend = 'redis+sentinel'\nlocation = ['a', 'b/main']\noptions = { DB = 2, sentinel_user = 'me', sentinel_password = 'b' }",
            "redis+sentinel://a:26379,b:26379/main/2",
        ),
        ("url = 'redis://cache?db=5'", "redis://cache:6379/5"),
        ("url = 'REDIS://cache/5'", "redis://cache:6379/5"),
        ("url = 'redis://cache/5?db=5'", "redis://cache:6379/5"),
        (
            "backend = 'redis'\nlocation = 'cache'\noptions = { db = '10', user = 'me', password = 'a%&#+ b' }",
            "redis://cache:6379/10",
        ),
        (
            "url = 'rediss://cache'\noptions = { DB = 10, USERNAME = 'me', PASSWORD = 'b' }",
            "rediss://cache:6379/10",
        ),
        (
            "backend = 'redis'\nlocation = 'unix:/run/r.sock'\noptions = { db = 3 }",
            "redis+unix:///run/r.sock?db=3",
        ),
        (
            "backend = 'django.core.cache.backends.memcached.PyLibMCCache'\nlocation = 'unix:/tmp/memcached.sock'",
            "memcached+unix:///tmp/memcached.sock",
        ),
        (
            "backend = 'memcached'\nlocation = ['10.0.0.1:11211', '10.0.0.2']",
            "memcached://10.0.0.1:11211,10.0.0.2:11211",
        ),
    ] {
        let caches = open(&format!("[caches.a]\n{text}")).await;

        assert_eq!(caches.get("a").unwrap().store_name(), name, "{text}");
    }
}

#[tokio::test]
async fn the_environment_is_stronger_than_the_file() {
    let variables = [
        ("LARDER_DEFAULT_URL", "memory://?key_prefix=env"),
        (
            "LARDER_SHOP_URL",
            "memory://?key_prefix=a%20b%3F&timeout=never",
        ),
        ("LARDER_URL", "not a cache's"),
        ("LARDER_TEST_REDIS", "not a cache's"),
        ("PATH", "/bin"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let file =
        "[caches.default]\nurl = 'memory://?key_prefix=file'\n[caches.more]\nurl = 'null://'";

    let settings = Settings::parse(file, "larder.toml").unwrap();
    let settings = settings.with_variables(variables);

    assert_eq!(
        settings.aliases().collect::<Vec<_>>(),
        ["default", "more", "shop"]
    );
    let error = settings.open().await.unwrap_err().to_string();
    assert!(
        error.starts_with("settings: LARDER_SHOP_URL: cache: the prefix `a b?`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_url_without_a_scheme_is_told_without_repeating_it() {
    let error = Settings::default()
        .with_url("default", "secret@host")
        .unwrap_err();

    assert_eq!(
        error.to_string(),
        "settings: the URL of `default`: the URL has no scheme"
    );
}

#[tokio::test]
async fn a_password_is_told_nowhere() {
    let query = "redis://127.0.0.1:1/1?password=secret";
    let settings = Settings::default().with_url("default", query).unwrap();
    assert!(!format!("{settings:?}").contains("secret"));
    let url = "redis://:secret@127.0.0.1:1/1";
    let settings = Settings::default().with_url("default", url).unwrap();
    assert!(!format!("{settings:?}").contains("secret"));
    let caches = settings.open().await.unwrap();
    assert!(!format!("{caches:?}").contains("secret"));

    let error = caches
        .get("default")
        .unwrap()
        .get::<String>("k")
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    let wrong = Settings::default()
        .with_url("default", "redis://:secret@127.0.0.1:1/x")
        .unwrap();
    let error = wrong.open().await.unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("secret"),
        "{error:?}"
    );
}

#[tokio::test]
async fn caches_at_one_place_share_a_store_and_others_do_not() {
    let caches = open(
        "[caches.a]
         url = 'memory://here?key_prefix=p'
         [caches.b]
         url = 'memory://here?key_prefix=p'
         [caches.c]
         url = 'memory://there?key_prefix=p'",
    )
    .await;

    caches.get("a").unwrap().set("k", "v").await.unwrap();

    let there = |alias: &str| {
        let cache = caches.get(alias).unwrap().clone();
        async move { cache.has("k").await.unwrap() }
    };
    assert!(there("b").await);
    assert!(!there("c").await);
}

#[tokio::test]
async fn a_backend_of_ones_own_gets_its_location_and_options() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let backends = Backends::new().register("mine", move |place| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if place.options.get("size").map(String::as_str) != Some("5") {
                return Err(place.error_about("size", "`size` is not 5"));
            }
            Ok(Arc::new(Memory::new()) as Arc<dyn Store>)
        }
    });
    let open = |url: &str| {
        let settings = Settings::default().with_url("a", url).unwrap();
        let backends = backends.clone();
        async move { settings.open_with(&backends).await }
    };

    assert!(open("mine://x?size=5&timeout=9").await.is_ok());
    let error = open("mine://x?size=6").await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "settings: the URL of `a`: `size` is not 5"
    );
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn closing_closes_all_and_an_unknown_alias_is_told() {
    let caches = open("[caches.a]\nurl = 'memory://'\n[caches.b]\nurl = 'null://'").await;

    assert!(caches.close().await.is_ok());
    let error = caches.get("c").unwrap_err();

    assert_eq!(error.to_string(), "caches: there is no cache `c`");
    assert_eq!(error.hint(), Some("there are a, b"));
}
