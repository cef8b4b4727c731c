//! Clear: what it says, asks and does.

use std::thread;
use std::time::Duration;

use crate::ground::{Store, on_terminal, patient, with_cache};
use crate::support::RedisServer;

fn what_goes(store: &Store) -> String {
    let prefix = store.url.split_once("key_prefix=").unwrap().1;
    let server = store.server.as_ref().unwrap().url();
    format!(
        "every key of the prefix `{prefix}`, of all versions, from `{server}`, and every value with tags in the same tag space: all caches on the store are in one, unless `space` keeps them apart"
    )
}

#[test]
fn nothing_goes_without_a_yes() {
    let store = Store::new("asked");
    store.says(&["set", "k", "v"], 0, "", "");
    let what = what_goes(&store);

    let told =
        format!("larder: `clear` removes {what}\nhint: add `--yes` to do so without being asked\n");
    store.says(&["clear"], 2, "", &told);
    for answer in ["n", "", "maybe", "yesterday"] {
        let (code, seen) = on_terminal(&store.flags(&["clear"]), &format!("{answer}\n"));
        assert_eq!(code, 1, "{answer}: {seen}");
        let asked = format!("This removes {what}.\nGo on? [y/N] ");
        assert!(seen.contains(&asked), "{answer}: {seen}");
        assert!(seen.ends_with("nothing is removed\n"), "{answer}: {seen}");
    }
    store.says(&["get", "k"], 0, "\"v\"\n", "");
}

#[test]
fn a_yes_may_be_short_or_loud() {
    let store = Store::new("yes");
    for answer in ["y", "Y", "yes", "YES"] {
        store.says(&["set", "k", "v"], 0, "", "");

        let (code, seen) = on_terminal(&store.flags(&["clear"]), &format!("{answer}\n"));

        assert_eq!(code, 0, "{answer}: {seen}");
        store.says(&["get", "k"], 1, "", "");
    }
}

#[test]
fn all_versions_go_and_what_has_tags_in_the_same_space() {
    let (store, other) = (Store::new("cleared"), Store::new("neighbour"));
    let apart = Store::at(format!("{}&space=apart", Store::new("apart").url));
    let second = Store::at(format!("{}&version=2", store.url));
    for store in [&store, &other, &apart, &second] {
        store.says(&["set", "plain", "v"], 0, "", "");
        store.says(&["set", "tagged", "v", "--tag", "t"], 0, "", "");
    }

    store.says(&["clear", "--yes"], 0, "", "");

    store.says(&["get", "plain"], 1, "", "");
    second.says(&["get", "plain"], 1, "", "");
    other.says(&["get", "plain"], 0, "\"v\"\n", "");
    other.says(&["get", "tagged"], 1, "", "");
    apart.says(&["get", "tagged"], 0, "\"v\"\n", "");
}

#[test]
fn long_work_shows_how_long_it_takes_on_a_terminal_alone() {
    let server = RedisServer::start();
    let store = Store::at(patient(&server.url()));
    store.says(&["set", "k", "v"], 0, "", "");
    server.freeze();

    let (seen, said) = thread::scope(|scope| {
        let flags = store.flags(&["clear", "--yes"]);
        let on_terminal = scope.spawn(move || on_terminal(&flags, ""));
        let elsewhere = scope.spawn(|| store.run(&["clear", "--yes"], b""));
        thread::sleep(Duration::from_secs(3));
        server.thaw();
        (on_terminal.join().unwrap(), elsewhere.join().unwrap())
    });

    assert_eq!(said, (0, String::new(), String::new()));
    let (code, seen) = seen;
    assert_eq!(code, 0, "{seen:?}");
    assert!(seen.starts_with("\r\x1b[Kclearing 0."), "{seen:?}");
    assert!(seen.contains("clearing 1."), "{seen:?}");
    assert!(seen.ends_with("\r\x1b[K"), "{seen:?}");
    with_cache(&store.url, async |cache| {
        assert!(!cache.has("k").await.unwrap());
    });
}
