//! Keys and stats.

use crate::ground::{Store, on_terminal, patient, with_cache};
use crate::support::MemcachedServer;

#[test]
fn keys_are_listed_and_counted_within_their_prefix() {
    let (store, other) = (Store::new("listed"), Store::new("unlisted"));
    other.says(&["set", "k", "v"], 0, "", "");
    for key in ["user:1", "user 2", "page"] {
        store.says(&["set", key, "v"], 0, "", "");
    }

    let (code, keys, _) = store.run(&["keys", "user"], b"");

    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!((code, keys), (0, vec!["user 2", "user:1"]));
    let server = store.server.as_ref().unwrap();
    let stats = format!("store: {}\nkeys: 3\n", server.url());
    store.says(&["stats"], 0, &stats, "");
}

#[test]
fn many_keys_are_listed_once_each() {
    let store = Store::new("many");
    let mut expected: Vec<String> = (0..1200).map(|at| format!("key:{at:04}")).collect();
    with_cache(&store.url, async |cache| {
        let pairs = expected.iter().map(|key| (key.as_str(), "v"));
        cache.set_many(pairs).await.unwrap();
    });

    let (code, keys, told) = store.run(&["keys"], b"");

    let mut keys: Vec<String> = keys.lines().map(str::to_owned).collect();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(keys == expected, "{} keys", keys.len());
    for limit in [0, 1, 700, 1200, 5000] {
        let (code, keys, told) = store.run(&["keys", "--limit", &limit.to_string()], b"");
        assert_eq!((code, told.as_str()), (0, ""), "{limit}");
        assert_eq!(keys.lines().count(), limit.min(1200), "{limit}");
    }
    let server = store.server.as_ref().unwrap();
    let stats = format!("store: {}\nkeys: 1200\n", server.url());
    store.says(&["stats"], 0, &stats, "");
}

#[test]
fn keys_steer_no_terminal_and_stay_whole_for_programs() {
    let store = Store::new("steer");
    store.says(&["set", "a\x1b[31m\nb", "v"], 0, "", "");

    store.says(&["keys"], 0, "a\x1b[31m\nb\n", "");
    store.says(&["keys", "--null"], 0, "a\x1b[31m\nb\0", "");
    store.says(&["keys", "-0"], 0, "a\x1b[31m\nb\0", "");
    let seen = on_terminal(&store.flags(&["keys"]), "");
    assert_eq!(seen, (0, "a\\u{1b}[31m\\nb\n".to_owned()));
}

#[test]
fn a_count_is_shown_on_a_terminal_and_gone_at_the_end() {
    let store = Store::new("counted");
    store.says(&["set", "k", "v"], 0, "", "");

    let (code, seen) = on_terminal(&store.flags(&["stats"]), "");

    let server = store.server.as_ref().unwrap();
    let stats = format!("\r\x1b[Kstore: {}\nkeys: 1\n", server.url());
    assert_eq!(code, 0, "{seen:?}");
    assert!(seen.contains("\r\x1b[K1 keys"), "{seen:?}");
    assert!(seen.ends_with(&stats), "{seen:?}");
}

#[test]
fn a_store_that_cannot_list_has_stats_all_the_same() {
    let server = MemcachedServer::start();
    let store = Store::at(patient(&server.url()));

    let (code, stats, told) = store.run(&["stats"], b"");

    let url = server.url();
    assert_eq!((code, stats), (0, format!("store: {url}\nkeys: unknown\n")));
    let expected = format!("larder: {url}: this store cannot list its keys\n");
    assert_eq!(told, expected);
    store.says(&["keys"], 2, "", &expected);
}
