//! The Redis store against a real server.
//!
//! The server is the one at `LARDER_TEST_REDIS`, else one started here. Tests that stop, restart or
//! configure a server always start their own.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http_body_util::BodyExt as _;
use larder::page::CacheLayer;
use larder::store::{Numbers, Redis, Store, Sum, Tags, When};
use larder::{
    Cache, Clock, Entry, ErrorKind, Key, Mark, Moment, Stamp, State, Tag, Tagged, Ttl, Value,
};
use redis::AsyncTypedCommands;
use support::RedisServer;
use tower::{Layer as _, ServiceExt as _};

const LONG: Duration = Duration::from_mins(10);

/// The server that tests share; each uses a prefix of its own.
#[derive(Clone)]
enum Shared {
    Given(String),
    Own(Arc<RedisServer>),
}

impl Shared {
    fn url(&self) -> String {
        match self {
            Self::Given(url) => url.clone(),
            Self::Own(server) => server.url(),
        }
    }
}

/// Ends with the last test that holds it: nothing that lives in a static ever ends.
fn shared() -> Shared {
    static SERVER: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
    if let Ok(url) = std::env::var("LARDER_TEST_REDIS") {
        return Shared::Given(url);
    }
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let running = server
        .upgrade()
        .unwrap_or_else(|| Arc::new(RedisServer::start()));
    *server = Arc::downgrade(&running);
    Shared::Own(running)
}

/// A prefix that no other test uses.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{count}", std::process::id())
}

/// A store on the shared server, and a prefix.
async fn store() -> (Redis, String, Shared) {
    let server = shared();
    let redis = Redis::connect(server.url())
        .await
        .expect("the server is there");
    (redis, prefix(), server)
}

/// A plain connection, to see what is really there.
async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).expect("a good URL");
    // A busy machine must not make a test of it.
    let patient = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(20)))
        .set_response_timeout(Some(Duration::from_secs(20)));
    client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("the server is there")
}

fn text(clock: &Clock, text: &'static str) -> Entry {
    Entry::new(clock, Value::Bytes(text.into())).fresh_until(clock.now().plus(LONG))
}

fn integer(clock: &Clock, number: i64) -> Entry {
    Entry::new(clock, Value::Integer(number)).fresh_until(clock.now().plus(LONG))
}

fn lease(clock: &Clock) -> Mark {
    Mark {
        stamp: Stamp::draw(clock),
        state: State::Loading,
        until: clock.now().plus(LONG),
    }
}

async fn read(store: &Redis, key: &Key) -> Option<Entry> {
    let found = store.get(std::slice::from_ref(key), None).await;
    found.expect("the server answers").entries.remove(0)
}

async fn value(store: &Redis, key: &Key) -> Option<Value> {
    read(store, key).await.and_then(|entry| entry.value)
}

async fn put(store: &Redis, key: &Key, entry: Entry, when: When) -> bool {
    store.put(key, entry, when).await.expect("it is written")
}

fn tags<'a>(space: &'a str, names: &'a [Tag]) -> Tags<'a> {
    Tags { space, names }
}

async fn numbers(store: &Redis, space: &str, names: &[Tag]) -> Numbers {
    let found = store.get(&[], Some(tags(space, names))).await;
    found.expect("the server answers").numbers.expect("asked")
}

/// Waits until `store` answers again after its server came back.
async fn back(store: &Redis) {
    for _ in 0..200 {
        if store.get(&[], Some(tags("", &[]))).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the store did not come back");
}

// Slots.

#[tokio::test]
async fn what_is_put_is_read_back_whole() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let tagged = Tagged {
        era: 7,
        good_from: vec![("object:5".into(), 3)],
    };
    for name in ["k", "with a blank", "ключ"] {
        let key = Key::new(format!("{prefix}:1:{name}"));
        let entry = text(clock, "a page")
            .with_grace(LONG)
            .with_tags(tagged.clone());

        assert!(put(&store, &key, entry.clone(), When::Always).await);

        assert_eq!(read(&store, &key).await, Some(entry.clone()), "{name}");
        let heads = store.heads(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(heads, [Some(entry.head())], "{name}");
    }
}

#[tokio::test]
async fn integers_are_bare_digits_with_the_servers_ttl() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    for number in [0, -5, 9_007_199_254_740_993, i64::MAX, i64::MIN] {
        let key = Key::new(format!("{prefix}:1:{number}"));

        put(&store, &key, integer(clock, number), When::Always).await;

        let digits = raw.get(key.name()).await.unwrap();
        assert_eq!(digits, Some(number.to_string()));
        let left = redis::cmd("PTTL")
            .arg(key.name())
            .query_async::<i64>(&mut raw)
            .await
            .unwrap();
        assert!((590_000..=600_100).contains(&left), "{left}");
        assert_eq!(value(&store, &key).await, Some(Value::Integer(number)));
        let head = store
            .heads(std::slice::from_ref(&key))
            .await
            .unwrap()
            .remove(0);
        let until = head.expect("it is live").fresh_until.as_millis();
        assert!(until.abs_diff(clock.now().plus(LONG).as_millis()) < 10_000);
    }
}

#[tokio::test]
async fn sums_are_exact_and_keep_the_ttl() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:n"));

    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::NoSuchKey);
    put(
        &store,
        &key,
        integer(clock, 9_007_199_254_740_992),
        When::Always,
    )
    .await;
    let sum = store.add_to(&key, 1).await.unwrap();
    assert_eq!(sum, Sum::Is(9_007_199_254_740_993));
    put(&store, &key, integer(clock, i64::MAX - 1), When::Always).await;
    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::Is(i64::MAX));
    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::Overflow);
    assert_eq!(store.add_to(&key, i64::MIN).await.unwrap(), Sum::Is(-1));
    let left = store
        .heads(std::slice::from_ref(&key))
        .await
        .unwrap()
        .remove(0);
    assert_ne!(left.unwrap().fresh_until, Moment::NEVER);

    put(&store, &key, text(clock, "text"), When::Always).await;
    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::NotPlain);
}

#[tokio::test]
async fn conditions_are_judged_on_the_server() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    for (name, entry) in [("text", text(clock, "old")), ("integer", integer(clock, 1))] {
        let key = Key::new(format!("{prefix}:1:{name}"));
        let put = async |entry: &Entry, when| put(&store, &key, entry.clone(), when).await;
        let other = When::IfStamp(Stamp::from_number(9));

        assert!(!put(&entry, When::IfPresent).await, "{name}");
        assert!(!put(&entry, When::IfStamp(entry.stamp)).await, "{name}");
        assert!(put(&entry, When::IfAbsent).await, "{name}");
        assert!(!put(&entry, When::IfAbsent).await, "{name}");
        assert!(put(&entry, When::IfPresent).await, "{name}");
        assert!(!put(&entry, other).await, "{name}");
        let new = text(clock, "new");
        assert!(!put(&new, When::IfStamp(Stamp::PLAIN)).await, "{name}");
        if name == "text" {
            assert!(put(&new, When::IfStamp(entry.stamp)).await);
            assert!(!put(&entry, When::IfStamp(entry.stamp)).await);
            assert_eq!(value(&store, &key).await, new.value);
        }
    }
}

#[tokio::test]
async fn sums_of_many_over_a_lease_lose_nothing_and_keep_the_ttl() {
    let server = shared();
    let redis = Redis::connect(server.url()).await.unwrap();
    let cache = Cache::builder(redis).prefix(prefix()).build().unwrap();
    for _ in 0..10 {
        cache.set("n", &0).ttl(LONG).await.unwrap();
        let ticket = cache.ticket("n").await.unwrap();

        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let cache = cache.clone();
            tasks.spawn(async move { cache.incr("n", 1).await.unwrap() });
        }
        let mut sums = tasks.join_all().await;

        sums.sort_unstable();
        assert_eq!(sums, (1..=16).collect::<Vec<_>>());
        assert_eq!(cache.get::<i64>("n").await.unwrap(), Some(16));
        assert!(matches!(cache.ttl("n").await.unwrap(), Some(Ttl::For(_))));
        drop(ticket);
    }
}

#[tokio::test]
async fn digits_with_zeros_in_front_are_counted_and_keep_their_ttl() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    for (digits, sum) in [
        ("007", Some(8)),
        ("-007", Some(-6)),
        ("-0", Some(1)),
        ("00000000000000000009", Some(10)),
        ("000000000000000000009", None),
    ] {
        let key = Key::new(format!("{prefix}:1:n"));
        let set = redis::cmd("SET").arg(key.name()).arg(digits).to_owned();
        set.clone()
            .arg("EX")
            .arg(60)
            .exec_async(&mut raw)
            .await
            .unwrap();

        let expected = sum.map_or(Sum::NoSuchKey, Sum::Is);
        assert_eq!(store.add_to(&key, 1).await.unwrap(), expected, "{digits}");

        assert_eq!(
            value(&store, &key).await,
            sum.map(Value::Integer),
            "{digits}"
        );
        let ttl = redis::cmd("PTTL").arg(key.name()).to_owned();
        let left: i64 = ttl.query_async(&mut raw).await.unwrap();
        assert!(left > 50_000, "{digits}: {left}");
    }
}

#[tokio::test]
async fn a_framed_integer_is_read_with_its_deadline_and_counted_up() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:n"));
    let entry = integer(clock, 5).framed();

    put(&store, &key, entry.clone(), When::Always).await;

    assert_eq!(read(&store, &key).await, Some(entry.clone()));
    let heads = store.heads(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(heads, [Some(entry.head())]);
    let cache = Cache::builder(store.clone())
        .prefix(prefix)
        .build()
        .unwrap();
    assert_eq!(cache.incr("n", 2).await.unwrap(), 7);
    let after = read(&store, &key).await.unwrap();
    assert_eq!(after.fresh_until, entry.fresh_until);
    assert_ne!(after.stamp, Stamp::PLAIN);
}

#[tokio::test]
async fn an_entry_past_its_ttl_is_absent_but_kept_for_its_grace() {
    let clock = Clock::manual();
    let server = shared();
    let store = Redis::builder(server.url())
        .clock(clock.clone())
        .connect()
        .await
        .unwrap();
    let key = Key::new(format!("{}:1:k", prefix()));
    put(
        &store,
        &key,
        text(&clock, "old").with_grace(LONG),
        When::Always,
    )
    .await;

    clock.advance(LONG);

    assert_eq!(value(&store, &key).await, Some(Value::Bytes("old".into())));
    assert_eq!(
        store.heads(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );
    assert_eq!(store.touch(&key, Moment::NEVER).await.unwrap(), None);
    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::NoSuchKey);
    assert!(!put(&store, &key, text(&clock, "new"), When::IfPresent).await);
    assert!(put(&store, &key, text(&clock, "new"), When::IfAbsent).await);
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("new".into())));
}

#[tokio::test]
async fn an_entry_that_is_gone_already_removes_what_was_there() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    for when in [When::Always, When::IfPresent] {
        let key = Key::new(format!("{prefix}:1:k"));
        put(&store, &key, text(clock, "old"), When::Always).await;

        let gone = text(clock, "new").fresh_until(clock.now());
        assert!(put(&store, &key, gone, when).await);

        assert_eq!(read(&store, &key).await, None, "{when:?}");
    }
}

#[tokio::test]
async fn a_mark_goes_into_every_kind_of_slot_and_out_again() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let before = text(clock, "value").with_grace(LONG);
    for (name, entry, seen) in [
        ("empty", None, None),
        ("text", Some(before.clone()), Some(before.stamp)),
        ("integer", Some(integer(clock, -7)), Some(Stamp::PLAIN)),
        (
            "endless",
            Some(Entry::new(clock, Value::Integer(7))),
            Some(Stamp::PLAIN),
        ),
    ] {
        let key = Key::new(format!("{prefix}:1:{name} "));
        if let Some(entry) = &entry {
            put(&store, &key, entry.clone(), When::Always).await;
        }
        let mark = lease(clock);

        let wrong = if seen.is_none() {
            Some(mark.stamp)
        } else {
            None
        };
        assert!(!store.mark(&key, wrong, mark).await.unwrap(), "{name}");
        assert!(store.mark(&key, seen, mark).await.unwrap(), "{name}");

        let found = read(&store, &key).await.expect(name);
        assert_eq!(
            (found.stamp, found.state, found.state_until),
            (mark.stamp, mark.state, mark.until)
        );
        assert_eq!(
            found.value,
            entry.as_ref().and_then(|entry| entry.value.clone()),
            "{name}"
        );
        if let Some(entry) = &entry {
            let off = found
                .fresh_until
                .as_millis()
                .abs_diff(entry.fresh_until.as_millis());
            assert!(off < 10_000, "{name}");
        }
        assert!(
            !store.mark(&key, seen, lease(clock)).await.unwrap(),
            "{name}"
        );
        let end = Mark {
            stamp: Stamp::draw(clock),
            state: State::Idle,
            until: clock.now(),
        };
        assert!(
            store.mark(&key, Some(mark.stamp), end).await.unwrap(),
            "{name}"
        );
        assert_eq!(
            value(&store, &key).await,
            entry.and_then(|entry| entry.value),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_mark_keeps_the_slot_as_long_as_it_or_the_value_matters() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let short = |mark: Mark| Mark {
        until: clock.now().plus(Duration::from_secs(5)),
        ..mark
    };
    for (name, entry, mark, expected) in [
        ("bare", None, short(lease(clock)), 4_000..=5_100),
        (
            "value",
            Some(text(clock, "v")),
            short(lease(clock)),
            590_000..=600_100,
        ),
        (
            "brief",
            Some(text(clock, "v").fresh_until(clock.now().plus(Duration::from_secs(5)))),
            lease(clock),
            590_000..=600_100,
        ),
        (
            "endless",
            Some(Entry::new(clock, Value::Bytes("v".into()))),
            lease(clock),
            -1..=-1,
        ),
    ] {
        let key = Key::new(format!("{prefix}:1:{name}"));
        let seen = entry.as_ref().map(|entry| entry.stamp);
        if let Some(entry) = entry {
            put(&store, &key, entry, When::Always).await;
        }

        assert!(store.mark(&key, seen, mark).await.unwrap(), "{name}");

        let left = redis::cmd("PTTL")
            .arg(key.name())
            .query_async::<i64>(&mut raw)
            .await
            .unwrap();
        assert!(expected.contains(&left), "{name}: {left}");
    }
}

#[tokio::test]
async fn a_load_whose_lease_was_replaced_does_not_write() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let mark = lease(clock);
    assert!(store.mark(&key, None, mark).await.unwrap());
    assert_eq!(
        store.heads(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );

    assert_eq!(
        store.delete(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );

    assert!(!put(&store, &key, text(clock, "old"), When::IfStamp(mark.stamp)).await);
    assert_eq!(read(&store, &key).await, None);
}

#[tokio::test]
async fn touch_moves_the_ttl_with_its_grace_and_gives_a_new_stamp() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let entry = text(clock, "v").with_grace(Duration::from_secs(7));
    put(&store, &key, entry.clone(), When::Always).await;
    store
        .mark(&key, Some(entry.stamp), lease(clock))
        .await
        .unwrap();
    let fresh = clock.now().plus(Duration::from_mins(1));

    let head = store.touch(&key, fresh).await.unwrap();

    assert_eq!(head, Some(entry.head()));
    let found = read(&store, &key).await.unwrap();
    assert_eq!(found.fresh_until, fresh);
    assert_eq!(found.stale_until, fresh.plus(Duration::from_secs(7)));
    assert_eq!(found.state, State::Idle);
    assert_ne!(found.stamp, entry.stamp);
    let left = redis::cmd("PTTL")
        .arg(key.name())
        .query_async::<i64>(&mut raw)
        .await
        .unwrap();
    assert!((60_000..=67_100).contains(&left), "{left}");

    store.touch(&key, Moment::NEVER).await.unwrap();
    assert_eq!(read(&store, &key).await.unwrap().stale_until, Moment::NEVER);
    let left = redis::cmd("PTTL")
        .arg(key.name())
        .query_async::<i64>(&mut raw)
        .await
        .unwrap();
    assert_eq!(left, -1);

    put(
        &store,
        &key,
        Entry::new(clock, Value::Integer(1)),
        When::Always,
    )
    .await;
    let head = store.touch(&key, fresh).await.unwrap().unwrap();
    assert_eq!(head.fresh_until, Moment::NEVER);
    assert_ne!(
        store.heads(std::slice::from_ref(&key)).await.unwrap()[0],
        Some(head)
    );
    store.touch(&key, clock.now()).await.unwrap();
    assert_eq!(read(&store, &key).await, None);
}

#[tokio::test]
async fn batches_answer_in_order() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let keys: Vec<Key> = (0..50)
        .map(|n| Key::new(format!("{prefix}:1:{n}")))
        .collect();
    let entries = keys[..40].iter().enumerate().map(|(at, key)| {
        let entry = if at % 2 == 0 {
            integer(clock, 1)
        } else {
            text(clock, "t")
        };
        (key.clone(), entry)
    });

    assert_eq!(store.put_many(entries.collect()).await.unwrap(), [0; 0]);

    let found = store.get(&keys, None).await.unwrap().entries;
    assert_eq!(found.iter().flatten().count(), 40);
    assert_eq!(
        found[3].clone().unwrap().value,
        Some(Value::Bytes("t".into()))
    );
    let heads = store.heads(&keys).await.unwrap();
    assert!(heads[..40].iter().all(Option::is_some) && heads[40..].iter().all(Option::is_none));
    let removed = store.delete(&keys).await.unwrap();
    assert_eq!(removed.iter().flatten().count(), 40);
    assert!(
        store
            .delete(&keys)
            .await
            .unwrap()
            .iter()
            .all(Option::is_none)
    );
    assert!(store.get(&[], None).await.unwrap().entries.is_empty());
    assert!(store.delete(&[]).await.unwrap().is_empty());
}

// Other people's bytes.

#[tokio::test]
async fn foreign_and_broken_slots_are_empty_and_can_be_written_over() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let good = text(clock, "v").to_frame(&key, 1);
    let mut kinds: Vec<(&str, redis::Cmd)> = Vec::new();
    let set = |bytes: &[u8]| redis::cmd("SET").arg(key.name()).arg(bytes).to_owned();
    kinds.push(("pickle", set(b"\x80\x05K\x01.")));
    kinds.push(("words", set(b"12abc")));
    kinds.push(("empty", set(b"")));
    kinds.push(("too many digits", set(b"99999999999999999999")));
    kinds.push(("a byte", set(b"\xfb")));
    kinds.push(("another incarnation", set(&good)));
    kinds.push((
        "list",
        redis::cmd("RPUSH").arg(key.name()).arg("x").to_owned(),
    ));
    kinds.push((
        "hash",
        redis::cmd("HSET")
            .arg(key.name())
            .arg("x")
            .arg("y")
            .to_owned(),
    ));
    for (kind, command) in kinds {
        for act in 0..6 {
            let _ = raw.del(key.name()).await.unwrap();
            command.query_async::<redis::Value>(&mut raw).await.unwrap();
            let keys = std::slice::from_ref(&key);

            assert_eq!(read(&store, &key).await, None, "{kind}");
            assert_eq!(store.heads(keys).await.unwrap(), [None], "{kind}");
            assert_eq!(
                store.add_to(&key, 1).await.unwrap(),
                Sum::NoSuchKey,
                "{kind}"
            );
            assert_eq!(
                store.touch(&key, Moment::NEVER).await.unwrap(),
                None,
                "{kind}"
            );
            assert!(
                !put(&store, &key, text(clock, "v"), When::IfPresent).await,
                "{kind}"
            );
            match act {
                0 => assert!(put(&store, &key, text(clock, "v"), When::Always).await),
                1 => assert!(put(&store, &key, text(clock, "v"), When::IfAbsent).await),
                2 => assert!(store.mark(&key, None, lease(clock)).await.unwrap()),
                3 => assert_eq!(store.delete(keys).await.unwrap(), [None]),
                4 => assert!(put(&store, &key, integer(clock, 1), When::IfAbsent).await),
                _ => {
                    let many = vec![(key.clone(), integer(clock, 1))];
                    assert!(store.put_many(many).await.unwrap().is_empty());
                }
            }
            let found = read(&store, &key).await;
            assert_eq!(found.is_none(), act == 3, "{kind} {act}");
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_cut_or_changed_is_never_live() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let entry = text(clock, "a value").with_grace(LONG);
    put(&store, &key, entry.clone(), When::Always).await;
    let frame: Vec<u8> = redis::cmd("GET")
        .arg(key.name())
        .query_async(&mut raw)
        .await
        .unwrap();
    for end in 0..frame.len() {
        let _: () = redis::cmd("SET")
            .arg(key.name())
            .arg(&frame[..end])
            .query_async(&mut raw)
            .await
            .unwrap();

        let seen = read(&store, &key).await;

        assert!(
            seen.is_none_or(|entry| entry.value.is_none()),
            "cut at {end}"
        );
        let heads = store.heads(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(heads, [None], "cut at {end}");
        assert!(
            put(&store, &key, entry.clone(), When::IfAbsent).await,
            "cut at {end}"
        );
    }
    for bit in 0..frame.len() * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _: () = redis::cmd("SET")
            .arg(key.name())
            .arg(&flipped)
            .query_async(&mut raw)
            .await
            .unwrap();
        let seen = read(&store, &key).await;
        let live = seen.is_some_and(|entry| entry.is_live(clock.now()));
        let head = store
            .heads(std::slice::from_ref(&key))
            .await
            .unwrap()
            .remove(0);
        assert!(live || head.is_none(), "bit {bit}");
        store
            .mark(&key, Some(entry.stamp), lease(clock))
            .await
            .unwrap();
        store.touch(&key, Moment::NEVER).await.unwrap();
        assert_ne!(store.add_to(&key, 1).await.unwrap(), Sum::Is(1));
    }
}

// Numbers of tags.

#[tokio::test]
async fn numbers_count_up_per_space_and_a_raise_is_one_act() {
    let (store, prefix, server) = store().await;
    let names: [Tag; 3] = ["a".into(), "b".into(), "c".into()];
    let space = prefix.as_str();

    let fresh = numbers(&store, space, &names).await;
    assert_eq!(
        (fresh.seq, fresh.floor, fresh.of.clone()),
        (0, 0, vec![None; 3])
    );
    assert_eq!(store.raise(tags(space, &names[..2])).await.unwrap(), 1);
    assert_eq!(store.raise(tags(space, &names[1..2])).await.unwrap(), 2);
    assert_eq!(store.raise(tags(space, &[])).await.unwrap(), 3);

    let other = Redis::connect(server.url()).await.unwrap();
    let seen = numbers(&other, space, &names).await;
    assert_eq!(seen.of, [Some(1), Some(2), None]);
    assert_eq!((seen.era, seen.seq, seen.floor), (fresh.era, 3, 0));
    let elsewhere = numbers(&store, &format!("{space}x"), &names).await;
    assert_eq!(elsewhere.seq, 0);
    assert_ne!(elsewhere.era, seen.era);
}

#[tokio::test]
async fn lost_or_foreign_numbers_are_another_era() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let record = format!("{prefix}:@:numbers");
    let names: [Tag; 1] = ["a".into()];
    let mut eras = vec![numbers(&store, &prefix, &names).await.era];
    for command in ["", "SET"] {
        raw.del(&record).await.unwrap();
        if !command.is_empty() {
            raw.set(&record, "somebody's").await.unwrap();
        }
        let seen = numbers(&store, &prefix, &names).await;
        assert_eq!((seen.seq, seen.of), (0, vec![None]), "{command}");
        assert!(!eras.contains(&seen.era));
        eras.push(seen.era);
    }
    raw.set(&record, "somebody's").await.unwrap();
    assert_eq!(store.raise(tags(&prefix, &names)).await.unwrap(), 1);
}

#[tokio::test]
async fn too_many_numbers_are_dropped_and_the_floor_is_raised_over_them() {
    let server = RedisServer::start();
    let store = Redis::builder(server.url())
        .timeout(LONG)
        .connect()
        .await
        .unwrap();
    let mut raw = raw(&server.url()).await;
    let names: [Tag; 1] = ["late".into()];
    let era = numbers(&store, "", &names).await.era;
    let fill = "for at = 1, 1000000 do redis.call('HSET', KEYS[1], 't:' .. at, 1) end";
    let fill = redis::cmd("EVAL")
        .arg(fill)
        .arg(1)
        .arg(":@:numbers")
        .to_owned();
    fill.query_async::<redis::Value>(&mut raw).await.unwrap();

    assert_eq!(store.raise(tags("", &names)).await.unwrap(), 1);

    let seen = numbers(&store, "", &names).await;
    assert_eq!((seen.era, seen.seq, seen.floor, seen.at(0)), (era, 1, 1, 1));
    assert_eq!(raw.hlen(":@:numbers").await.unwrap(), 3);
}

// Clear.

#[tokio::test]
async fn clear_takes_its_own_scope_and_nothing_else() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let scope = r"sh[o]p*?^-\";
    let ours: Vec<Key> = (0..1200)
        .map(|n| Key::new(format!("{scope}:1:{n}")))
        .collect();
    let many = ours
        .iter()
        .map(|key| (key.clone(), text(clock, "v")))
        .collect();
    store.put_many(many).await.unwrap();
    let leased = Key::new(format!("{scope}:2:a blank"));
    store.mark(&leased, None, lease(clock)).await.unwrap();
    store.raise(tags(scope, &[])).await.unwrap();
    let near = [
        "shop:1:k",
        "sho:1:k",
        "sh[o]p:1:k",
        "shopping:1:k",
        r"sh[o]p*?^-\x:1:k",
    ];
    for name in near
        .map(str::to_owned)
        .into_iter()
        .chain([scope.to_owned()])
    {
        raw.set(name, "foreign").await.unwrap();
    }

    store.clear(&format!("{scope}:"), scope).await.unwrap();

    let mut left: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut raw)
        .await
        .unwrap();
    left.sort();
    let mut expected = near.map(str::to_owned).to_vec();
    expected.extend([scope.to_owned(), format!("{scope}:@:numbers")]);
    expected.sort();
    assert_eq!(left, expected);
    let seen = numbers(&store, scope, &[]).await;
    assert_eq!((seen.seq, seen.floor), (2, 2));
}

#[tokio::test]
async fn clear_of_the_empty_prefix_keeps_larders_own_records() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    put(&store, &Key::new(":1:k"), integer(clock, 1), When::Always).await;
    put(
        &store,
        &Key::new("shop:1:k"),
        integer(clock, 1),
        When::Always,
    )
    .await;
    put(&store, &Key::new(":1:@:k"), text(clock, "v"), When::Always).await;
    let era = numbers(&store, "", &[]).await.era;
    raw.hset(":@:restarts", "shop:1:", "a run").await.unwrap();

    store.clear(":", "").await.unwrap();

    let mut left: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut raw)
        .await
        .unwrap();
    left.sort();
    assert_eq!(left, [":@:numbers", ":@:restarts", "shop:1:k"]);
    let seen = numbers(&store, "", &[]).await;
    assert_eq!((seen.era, seen.floor), (era, 1));
}

#[tokio::test]
async fn no_load_that_began_before_a_clear_was_acknowledged_is_kept() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    let fill = "for at = 1, 30000 do redis.call('SET', 'shop:1:old' .. at, 'x') end";
    let fill = redis::cmd("EVAL").arg(fill).arg(0).to_owned();
    fill.exec_async(&mut raw).await.unwrap();
    let before = Key::new("shop:1:before");
    let lease_before = lease(store.clock());
    assert!(store.mark(&before, None, lease_before).await.unwrap());

    let clear = tokio::spawn({
        let store = store.clone();
        async move { store.clear("shop:", "").await.unwrap() }
    });
    let (mut begun, mut written) = (Vec::new(), Vec::new());
    for number in 0.. {
        let key = Key::new(format!("shop:1:new {number}"));
        let mark = lease(store.clock());
        assert!(store.mark(&key, None, mark).await.unwrap());
        if clear.is_finished() {
            break;
        }
        if number % 2 == 0 {
            begun.push((key, mark));
        } else {
            let late = text(store.clock(), "late");
            let when = When::IfStamp(mark.stamp);
            let put = store.put(&key, late, when).await.unwrap();
            if put && !clear.is_finished() {
                written.push(key);
            }
        }
    }

    assert!(begun.len() > 10 && !written.is_empty(), "{}", begun.len());
    begun.push((before, lease_before));
    for (key, mark) in begun {
        let late = text(store.clock(), "late");
        assert!(!put(&store, &key, late, When::IfStamp(mark.stamp)).await);
    }
    for key in &written {
        assert_eq!(read(&store, key).await, None);
    }
    assert!(!raw.exists(":@:clearing").await.unwrap());
}

#[tokio::test]
async fn what_is_not_within_a_clear_is_not_noted_by_it() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    // As a process leaves it that has died while it cleared.
    raw.hset(":@:clearing", &prefix, format!("{prefix}:"))
        .await
        .unwrap();
    let (own, other) = (
        Key::new(format!("{prefix}:1:k")),
        Key::new(format!("{prefix}x:1:k")),
    );

    for key in [&own, &other] {
        assert!(store.mark(key, None, lease(store.clock())).await.unwrap());
    }

    let noted: Vec<String> = (redis::cmd("SMEMBERS").arg(format!(":@:cleared:{prefix}")))
        .query_async(&mut raw)
        .await
        .unwrap();
    assert_eq!(noted, [own.name()]);
    raw.hdel(":@:clearing", &prefix).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_back_is_refused_and_is_not_live() {
    let (server, prefix) = (shared(), prefix());
    let store = Redis::builder(server.url()).timeout(LONG);
    let store = store.connect().await.unwrap();
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let most = usize::try_from(larder::MAX_DECODED).unwrap();
    let large = |length| Entry::new(clock, Value::Bytes(vec![b'x'; length].into()));
    put(&store, &key, text(clock, "old"), When::Always).await;

    for when in [When::Always, When::IfAbsent] {
        let refused = store.put(&key, large(most + 1), when).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge, "{when:?}");
        assert_eq!(read(&store, &key).await, None, "{when:?}");
    }
    let many = vec![(key.clone(), large(most + 1))];
    assert_eq!(store.put_many(many).await.unwrap(), [0]);
    assert!(put(&store, &key, large(most), When::Always).await);
    assert!(value(&store, &key).await.is_some());

    let incarnation = incarnation_of(&store, &key, &mut raw).await;
    let frame = large(most + 1).to_frame(&key, incarnation);
    let set = redis::cmd("SET").arg(key.name()).arg(&frame[..]).to_owned();
    set.exec_async(&mut raw).await.unwrap();
    assert!(read(&store, &key).await.unwrap().unreadable);
    assert_eq!(store.touch(&key, Moment::NEVER).await.unwrap(), None);
    assert!(!put(&store, &key, text(clock, "v"), When::IfPresent).await);
    store.delete(&[key]).await.unwrap();
}

/// The incarnation that is written into frames, as one of them has it.
async fn incarnation_of(
    store: &Redis,
    key: &Key,
    raw: &mut redis::aio::MultiplexedConnection,
) -> u64 {
    put(store, key, text(store.clock(), "v"), When::Always).await;
    let get = redis::cmd("GET").arg(key.name()).to_owned();
    let frame: Vec<u8> = get.query_async(raw).await.unwrap();
    u64::from_be_bytes(frame[3..11].try_into().unwrap())
}

#[tokio::test]
async fn another_keys_entry_in_a_hashed_slot_is_nothing_to_every_act() {
    let (store, prefix, server) = store().await;
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:a b"));
    let other = Key::new(format!("{prefix}:1:another b"));
    let incarnation = incarnation_of(&store, &key, &mut raw).await;
    let frame = text(clock, "other").to_frame(&other, incarnation);
    let set = redis::cmd("SET").arg(key.name()).arg(&frame[..]).to_owned();
    set.exec_async(&mut raw).await.unwrap();

    let keys = std::slice::from_ref(&key);
    assert_eq!(store.touch(&key, Moment::NEVER).await.unwrap(), None);
    assert!(!put(&store, &key, text(clock, "v"), When::IfPresent).await);
    assert_eq!(store.heads(keys).await.unwrap(), [None]);
    let get = redis::cmd("GET").arg(key.name()).to_owned();
    let left: Vec<u8> = get.query_async(&mut raw).await.unwrap();
    assert_eq!(left, frame, "nothing has touched it");
    assert!(put(&store, &key, text(clock, "v"), When::IfAbsent).await);
    assert!(store.touch(&key, Moment::NEVER).await.unwrap().is_some());
}

#[tokio::test]
async fn touch_keeps_a_grace_without_end() {
    let (store, prefix, _server) = store().await;
    let clock = store.clock();
    let key = Key::new(format!("{prefix}:1:k"));
    let entry = text(clock, "v").with_grace(Duration::MAX);
    put(&store, &key, entry, When::Always).await;

    store.touch(&key, clock.now().plus(LONG)).await.unwrap();

    assert_eq!(read(&store, &key).await.unwrap().stale_until, Moment::NEVER);
}

// Round trips and scripts.

#[tokio::test]
async fn a_read_with_tags_is_one_round_trip_of_two_commands() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let names: [Tag; 2] = ["a".into(), "b".into()];
    let keys = [Key::new(":1:a"), Key::new(":1:b"), Key::new(":1:c")];
    store.get(&keys, Some(tags("", &names))).await.unwrap();
    let watch = Watch::start(&server).await;

    store.get(&keys, Some(tags("", &names))).await.unwrap();

    assert_eq!(watch.end().await, (1, vec!["hmget:1", "mget:1"]));
}

#[tokio::test]
async fn a_page_hit_is_one_round_trip() {
    let server = RedisServer::start();
    let handler = || async { ([("vary", "accept-language")], "page") };
    let layer = || async {
        let cache = Cache::new(Redis::connect(server.url()).await.unwrap());
        CacheLayer::new(cache).layer(Router::new().route("/", get(handler)))
    };
    let ask = || {
        let request = http::Request::get("/").header("host", "shop.example");
        request
            .header("accept-language", "fr")
            .body(Body::empty())
            .unwrap()
    };
    let status =
        |page: &http::Response<_>| page.headers()["cache-status"].to_str().unwrap().to_owned();
    // Both live to the end: the server counts a goodbye as a read.
    let (maker, reader) = (layer().await, layer().await);
    let made = maker.clone().oneshot(ask()).await.unwrap();
    assert!(status(&made).contains("stored"), "{made:?}");
    made.into_body().collect().await.unwrap();
    // Until it is kept, and until the other process has learnt what the URL varies on.
    while !status(&reader.clone().oneshot(ask()).await.unwrap()).contains("hit") {}
    let watch = Watch::start(&server).await;

    let hit = reader.clone().oneshot(ask()).await.unwrap();

    assert!(status(&hit).contains("hit"), "{hit:?}");
    assert_eq!(watch.end().await, (1, vec!["hmget:1", "mget:1"]));
}

/// What a server does for somebody else, as it counts it.
struct Watch {
    raw: redis::aio::MultiplexedConnection,
    reads: u64,
}

impl Watch {
    async fn start(server: &RedisServer) -> Self {
        let mut raw = raw(&server.url()).await;
        let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
        reset.exec_async(&mut raw).await.unwrap();
        let reads = Self::reads(&mut raw).await;
        Self { raw, reads }
    }

    /// How often the server has read from a connection since, and how often it ran which command.
    async fn end(mut self) -> (u64, Vec<&'static str>) {
        let stats = Self::info(&mut self.raw, "commandstats").await;
        let mut calls: Vec<String> = stats
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split(",usec").next())
            .filter(|line| !line.starts_with("info") && !line.starts_with("config"))
            .map(|line| line.replace("calls=", ""))
            .collect();
        calls.sort_unstable();
        let calls = calls.into_iter().map(|call| &*call.leak()).collect();
        // Both `INFO`s of this method are reads as well.
        (Self::reads(&mut self.raw).await - self.reads - 2, calls)
    }

    async fn reads(raw: &mut redis::aio::MultiplexedConnection) -> u64 {
        let stats = Self::info(raw, "stats").await;
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_reads_processed:"));
        line.unwrap().parse().unwrap()
    }

    async fn info(raw: &mut redis::aio::MultiplexedConnection, section: &str) -> String {
        let info = redis::cmd("INFO").arg(section).to_owned();
        info.query_async(raw).await.unwrap()
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let keys: Vec<Key> = (0..5).map(|n| Key::new(format!(":1:{n}"))).collect();
    for key in &keys {
        put(&store, key, integer(clock, 1), When::Always).await;
    }
    let mut flush = redis::cmd("SCRIPT").arg("FLUSH").to_owned();
    flush.set_no_response(false);

    flush.query_async::<()>(&mut raw).await.unwrap();
    assert_eq!(store.add_to(&keys[0], 1).await.unwrap(), Sum::Is(2));
    flush.query_async::<()>(&mut raw).await.unwrap();
    assert!(
        store
            .heads(&keys)
            .await
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
    flush.query_async::<()>(&mut raw).await.unwrap();
    assert!(
        store
            .delete(&keys)
            .await
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
    flush.query_async::<()>(&mut raw).await.unwrap();
    assert_eq!(store.raise(tags("", &[])).await.unwrap(), 1);
}

// Restarts.

/// Writes, saves a snapshot, changes everything, and lets the server come back from the snapshot.
struct Restarted {
    server: RedisServer,
    mark: Mark,
    era: u64,
}

const INTEGERS: usize = 700;

async fn restart_from_an_old_snapshot(store: &Redis, mut server: RedisServer) -> Restarted {
    let mut raw = raw(&server.url()).await;
    let clock = store.clock();
    let names: [Tag; 1] = ["a".into()];
    put(
        store,
        &Key::new("shop:1:text"),
        text(clock, "old"),
        When::Always,
    )
    .await;
    let counters = (0..INTEGERS).map(|n| (Key::new(format!("shop:1:{n}")), integer(clock, 1)));
    store.put_many(counters.collect()).await.unwrap();
    raw.set("other:1:n", 1).await.unwrap();
    raw.set("shop:1:foreign", "1a").await.unwrap();
    raw.set("shop:visits", 1).await.unwrap();
    let leased = Key::new("shop:1:leased");
    let mark = lease(clock);
    assert!(store.mark(&leased, None, mark).await.unwrap());
    store.raise(tags("", &names)).await.unwrap();
    let era = numbers(store, "", &names).await.era;
    redis::cmd("SAVE")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();

    // All of this is acknowledged, and lost.
    put(
        store,
        &Key::new("shop:1:text"),
        text(clock, "new"),
        When::Always,
    )
    .await;
    let keys: Vec<Key> = (0..INTEGERS)
        .map(|n| Key::new(format!("shop:1:{n}")))
        .collect();
    store.delete(&keys).await.unwrap();
    store.delete(std::slice::from_ref(&leased)).await.unwrap();
    store.raise(tags("", &names)).await.unwrap();
    server.start_again();
    Restarted { server, mark, era }
}

#[tokio::test]
async fn nothing_from_before_a_restart_is_served() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let clock = store.clock();

    let Restarted { server, mark, era } = restart_from_an_old_snapshot(&store, server).await;

    let mut raw = raw(&server.url()).await;
    let old: String = raw
        .get("shop:1:5")
        .await
        .unwrap()
        .expect("the snapshot has it");
    assert_eq!(old, "1");
    let text_key = Key::new("shop:1:text");
    assert_eq!(read(&store, &text_key).await, None);
    let late = text(clock, "late");
    let leased = Key::new("shop:1:leased");
    assert!(!put(&store, &leased, late.clone(), When::IfStamp(mark.stamp)).await);
    assert_eq!(
        store.heads(&[text_key, leased]).await.unwrap(),
        [None, None]
    );
    let keys: Vec<Key> = (0..INTEGERS)
        .map(|n| Key::new(format!("shop:1:{n}")))
        .collect();
    let found = store.get(&keys, None).await.unwrap().entries;
    assert!(found.iter().all(Option::is_none));
    assert_eq!(store.add_to(&keys[0], 1).await.unwrap(), Sum::NoSuchKey);
    let seen = numbers(&store, "", &["a".into()]).await;
    assert_ne!(seen.era, era);
    // Of others nothing is removed, and what is written now stays.
    for name in ["other:1:n", "shop:visits"] {
        assert_eq!(raw.get(name).await.unwrap().as_deref(), Some("1"), "{name}");
    }
    assert_eq!(
        raw.get("shop:1:foreign").await.unwrap().as_deref(),
        Some("1a")
    );
    put(&store, &keys[0], integer(clock, 3), When::Always).await;
    let other = Redis::connect(server.url()).await.unwrap();
    assert_eq!(value(&other, &keys[0]).await, Some(Value::Integer(3)));
    assert_eq!(value(&store, &keys[0]).await, Some(Value::Integer(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_that_find_old_integers_keep_each_others_new_ones() {
    let server = RedisServer::start();
    let mut admin = raw(&server.url()).await;
    // So many that sweeps overlap with what others write after theirs.
    let fill = "for at = 1, 30000 do redis.call('SET', 'shop:1:old' .. at, 1) end";
    let fill = redis::cmd("EVAL").arg(fill).arg(0).to_owned();
    fill.query_async::<redis::Value>(&mut admin).await.unwrap();
    let store = Redis::connect(server.url()).await.unwrap();
    let Restarted { server, .. } = restart_from_an_old_snapshot(&store, server).await;

    let process = |at: u64| {
        let url = server.url();
        async move {
            tokio::time::sleep(Duration::from_millis(4 * at)).await;
            let store = Redis::builder(url).timeout(LONG).connect().await.unwrap();
            let new = |n| {
                (
                    Key::new(format!("shop:1:new{at}-{n}")),
                    integer(store.clock(), 7),
                )
            };
            store.put_many((0..200).map(new).collect()).await.unwrap();
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..8 {
        tasks.spawn(process(at));
    }
    tasks.join_all().await;

    let mut admin = raw(&server.url()).await;
    let left = async |pattern: &str, admin: &mut redis::aio::MultiplexedConnection| {
        let keys = redis::cmd("KEYS").arg(pattern).to_owned();
        keys.query_async::<Vec<String>>(admin).await.unwrap().len()
    };
    assert_eq!(left("shop:1:old*", &mut admin).await, 0);
    assert_eq!(left("shop:1:new*", &mut admin).await, 8 * 200);
}

#[tokio::test]
async fn a_sweep_that_another_process_has_finished_first_deletes_nothing() {
    let server = RedisServer::start();
    let mut raw = raw(&server.url()).await;
    let sweep = redis::cmd("EVAL")
        .arg(include_str!("../src/store/redis/lua/sweep.lua"))
        .arg(&["4", ":@:restarts", "shop:1:n", "shop:1:text", "shop:1:list"])
        .arg(&["now", "shop:"])
        .to_owned();
    raw.set("shop:1:n", 1).await.unwrap();
    raw.set("shop:1:text", "1a").await.unwrap();
    raw.lpush("shop:1:list", 1).await.unwrap();

    for (good_in, answer, left) in [("now", 0, true), ("before", 1, false)] {
        raw.hset(":@:restarts", "shop:", good_in).await.unwrap();
        assert_eq!(sweep.query_async::<i64>(&mut raw).await.unwrap(), answer);
        assert_eq!(raw.exists("shop:1:n").await.unwrap(), left, "{good_in}");
    }
    assert!(raw.exists("shop:1:text").await.unwrap());
    assert!(raw.exists("shop:1:list").await.unwrap());
}

#[tokio::test]
async fn integers_of_another_primary_are_not_served_by_who_took_its_place() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let mut raw = raw(&second.url()).await;
    let replica_of =
        |host: &str, port: &str| redis::cmd("REPLICAOF").arg(host).arg(port).to_owned();
    let follow = replica_of("127.0.0.1", &first.port().to_string());
    follow.exec_async(&mut raw).await.unwrap();
    let store = Redis::connect(first.url()).await.unwrap();
    let key = Key::new("shop:1:n");
    for _ in 0..1000 {
        // Nothing is there when the replica is filled: the integer comes by the stream alone.
        let info: String = (redis::cmd("INFO").arg("replication"))
            .query_async(&mut raw)
            .await
            .unwrap();
        if info.contains("master_link_status:up") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    put(&store, &key, integer(store.clock(), 1), When::Always).await;
    while !raw.exists(key.name()).await.unwrap() {}

    let lead = replica_of("NO", "ONE");
    lead.exec_async(&mut raw).await.unwrap();

    let store = Redis::connect(second.url()).await.unwrap();
    assert_eq!(value(&store, &key).await, None);
}

#[tokio::test]
async fn reads_write_nothing_and_are_one_trip_whatever_the_names() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    raw.set("one:2:3:four", 5).await.unwrap();
    let watch = Watch::start(&server).await;

    for number in 0..20 {
        let key = Key::new(format!("user:{number}:name"));
        assert_eq!(read(&store, &key).await, None);
    }

    assert_eq!(watch.end().await, (20, vec!["mget:20"]));
    let found = value(&store, &Key::new("one:2:3:four")).await;
    assert_eq!(found, Some(Value::Integer(5)));
    assert!(!raw.exists(":@:restarts").await.unwrap());
}

#[tokio::test]
async fn trusted_restarts_lose_nothing() {
    let server = RedisServer::start();
    let builder = Redis::builder(server.url()).trust_restarts();
    let store = builder.connect().await.unwrap();

    let Restarted { mark, era, .. } = &restart_from_an_old_snapshot(&store, server).await;

    back(&store).await;
    let clock = store.clock();
    assert_eq!(
        value(&store, &Key::new("shop:1:text")).await,
        Some(Value::Bytes("old".into()))
    );
    assert_eq!(
        value(&store, &Key::new("shop:1:5")).await,
        Some(Value::Integer(1))
    );
    let leased = Key::new("shop:1:leased");
    assert!(put(&store, &leased, text(clock, "v"), When::IfStamp(mark.stamp)).await);
    assert_eq!(numbers(&store, "", &[]).await.era, *era);
}

// Broken connections.

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_before_a_read_and_before_a_write() {
    let mut server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    for round in 0..3 {
        server.start_again();
        // The end of the old connection has to be seen; the restart took longer than that.
        tokio::time::sleep(Duration::from_millis(20)).await;

        if round % 2 == 0 {
            assert!(put(&store, &key, text(store.clock(), "v"), When::Always).await);
        } else {
            assert_eq!(read(&store, &key).await, None);
        }
    }
}

#[tokio::test]
async fn a_killed_connection_costs_a_read_nothing() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    for _ in 0..20 {
        let kill = redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .to_owned();
        kill.query_async::<i64>(&mut raw).await.unwrap();

        assert_eq!(read(&store, &Key::new(":1:k")).await, None);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_reported_and_found_again() {
    let mut server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let key = Key::new(":1:k");

    server.kill();
    let mut error = None;
    for _ in 0..3 {
        error = store.get(std::slice::from_ref(&key), None).await.err();
    }

    let error = error.expect("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!("redis: cannot connect to `{}`", server.url());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint(), Some("is the server running?"));
    assert!(std::error::Error::source(&error).is_some());
    server.start_again();
    back(&store).await;
    assert!(put(&store, &key, text(store.clock(), "v"), When::Always).await);
    store.close().await.unwrap();
    assert!(read(&store, &key).await.is_some());
}

/// A server that counts connections, and answers none.
struct Mute {
    port: u16,
    accepted: Arc<AtomicU32>,
}

impl Mute {
    async fn start(hang_up: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                if !hang_up {
                    held.push(stream);
                }
            }
        });
        Self { port, accepted }
    }

    fn store(&self) -> Redis {
        Redis::builder(format!("redis://127.0.0.1:{}", self.port))
            .connect_timeout(Duration::from_millis(100))
            .lazy()
            .unwrap()
    }

    fn attempts(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn after_a_failed_attempt_callers_fail_at_once_and_few_try_again() {
    for hang_up in [false, true] {
        let mute = Mute::start(hang_up).await;
        let store = mute.store();
        let key = [Key::new(":1:k")];
        let error = store.get(&key, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);

        let start = std::time::Instant::now();
        let mut calls = 0;
        while start.elapsed() < Duration::from_millis(1500) {
            assert!(store.get(&key, None).await.is_err());
            calls += 1;
            tokio::task::yield_now().await;
        }

        // 50 ms, 100, 200, 400, 800, give or take a quarter, besides the attempts themselves.
        let attempts = mute.attempts();
        assert!((2..=9).contains(&attempts), "{attempts} attempts");
        assert!(calls > 1000, "{calls} calls");
    }
}

#[tokio::test]
async fn callers_that_meet_at_a_first_attempt_share_it() {
    let mute = Mute::start(false).await;
    let store = mute.store();

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .get(&[Key::new(":1:k")], None)
                .await
                .unwrap_err()
                .kind()
        });
    }

    let kinds = tasks.join_all().await;
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Unavailable));
    assert_eq!(mute.attempts(), 1);
}

#[tokio::test]
async fn a_server_that_stops_answering_is_a_timeout_and_then_unavailable() {
    let server = RedisServer::start();
    let limit = Duration::from_millis(200);
    let builder = Redis::builder(server.url())
        .timeout(limit)
        .connect_timeout(limit);
    let store = builder.connect().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "old"), When::Always).await;

    server.freeze();
    let late = text(store.clock(), "late");
    let error = store.put(&key, late, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let expected = format!("redis: `{}` did not answer within 200ms", server.url());
    assert_eq!(error.to_string(), expected);
    let error = store.heads(std::slice::from_ref(&key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.thaw();
    back(&store).await;
    assert!(read(&store, &key).await.is_some());
}

async fn pause_writes(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    let mut raw = raw(&server.url()).await;
    let pause = redis::cmd("CLIENT").arg("PAUSE").arg(10_000).to_owned();
    pause
        .clone()
        .arg("WRITE")
        .exec_async(&mut raw)
        .await
        .unwrap();
    raw
}

#[tokio::test]
async fn a_link_given_up_for_lateness_is_closed_before_the_next_is_used() {
    for trusted in [false, true] {
        let server = RedisServer::start();
        let mut builder = Redis::builder(server.url());
        if trusted {
            builder = builder.trust_restarts();
        }
        let store = builder.connect().await.unwrap();
        let key = Key::new(":1:k");
        put(&store, &key, text(store.clock(), "v"), When::Always).await;
        let mut raw = pause_writes(&server).await;

        let (first, other) = (store.clone(), store.clone());
        let (first_key, other_key) = (key.clone(), key.clone());
        let first =
            tokio::spawn(async move { first.delete(&[first_key]).await.unwrap_err().kind() });
        tokio::time::sleep(Duration::from_millis(400)).await;
        // Not late yet when the first is: it keeps the connection open on our side.
        let other = tokio::spawn(async move {
            let late = text(other.clock(), "late");
            let put = other.put(&other_key, late, When::Always).await;
            put.unwrap_err().kind()
        });

        assert_eq!(first.await.unwrap(), ErrorKind::Timeout);
        back(&store).await;
        assert!(read(&store, &key).await.is_some());
        assert_eq!(other.await.unwrap(), ErrorKind::Unavailable);
        let go_on = redis::cmd("CLIENT").arg("UNPAUSE").to_owned();
        go_on.exec_async(&mut raw).await.unwrap();
        let found = value(&store, &key).await;
        assert_eq!(found, Some(Value::Bytes("v".into())), "trusted: {trusted}");
    }
}

/// What `work` gives if it has to wait for nothing.
async fn at_once<T>(work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        () = std::future::ready(()) => panic!("it waits"),
    }
}

#[tokio::test]
async fn after_a_late_answer_others_fail_at_once_until_there_is_a_new_link() {
    let server = RedisServer::start();
    let limit = Duration::from_millis(200);
    let store = Redis::builder(server.url()).timeout(limit);
    let store = store.connect().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    let mut raw = pause_writes(&server).await;
    let set = || store.put(&key, text(store.clock(), "w"), When::Always);

    assert_eq!(set().await.unwrap_err().kind(), ErrorKind::Timeout);
    for _ in 0..5 {
        let error = at_once(set()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    // One slow command, and no more: the next link comes by itself.
    back(&store).await;
    let go_on = redis::cmd("CLIENT").arg("UNPAUSE").to_owned();
    go_on.exec_async(&mut raw).await.unwrap();
    assert!(set().await.unwrap());
}

#[tokio::test]
async fn whoever_starts_the_next_attempt_does_not_wait_for_it() {
    let mute = Mute::start(false).await;
    let store = mute.store();
    let key = [Key::new(":1:k")];
    assert!(store.get(&key, None).await.is_err());

    let mut attempts = 1;
    while attempts < 4 {
        assert!(at_once(store.get(&key, None)).await.is_err());
        tokio::time::sleep(Duration::from_millis(5)).await;
        attempts = mute.attempts();
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_not_connected_to_again_and_again() {
    let server = RedisServer::start();
    let store = Redis::connect(server.url()).await.unwrap();
    let mut raw = raw(&server.url()).await;
    let replica = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).to_owned();
    replica.exec_async(&mut raw).await.unwrap();
    let before = connections(&mut raw).await;

    for _ in 0..200 {
        let entry = text(store.clock(), "v");
        let put = store.put(&Key::new(":1:k"), entry, When::Always).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    // One a second, on a machine that may be slow.
    assert!(connections(&mut raw).await - before < 20);
}

/// How many connections the server has taken.
async fn connections(raw: &mut redis::aio::MultiplexedConnection) -> u64 {
    let stats = Watch::info(raw, "stats").await;
    let line = (stats.lines()).find_map(|line| line.strip_prefix("total_connections_received:"));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn limits_without_end_can_be_set() {
    let server = shared();
    let store = Redis::builder(server.url())
        .timeout(Duration::MAX)
        .connect_timeout(Duration::MAX);
    let store = store.connect().await.unwrap();

    assert_eq!(read(&store, &Key::new("no:1:such")).await, None);
}

#[tokio::test]
async fn a_node_of_a_cluster_is_told_from_a_server_that_is_broken() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let store = Redis::connect(server.url()).await.unwrap();

    let error = store.get(&[Key::new(":1:k")], None).await.unwrap_err();

    let said = format!("redis: `{}` is a node of a cluster", server.url());
    assert_eq!(error.to_string(), said);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("redis+cluster://"))
    );
}

#[tokio::test]
async fn a_server_that_takes_no_writes_can_be_read_from_and_loses_nothing() {
    let server = RedisServer::start();
    let mut raw = raw(&server.url()).await;
    let known = Redis::connect(server.url()).await.unwrap();
    put(
        &known,
        &Key::new("known:1:n"),
        integer(known.clock(), 1),
        When::Always,
    )
    .await;
    raw.set("new:1:n", 5).await.unwrap();
    let config = |text: &str| {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg("maxmemory")
            .arg(text)
            .to_owned()
    };
    config("1mb").query_async::<()>(&mut raw).await.unwrap();

    let store = Redis::connect(server.url()).await.unwrap();
    for (name, number) in [("known:1:n", 1), ("new:1:n", 5)] {
        let found = value(&store, &Key::new(name)).await;
        assert_eq!(found, Some(Value::Integer(number)), "{name}");
    }
    let two = integer(store.clock(), 2);
    let refused = store.put(&Key::new("known:1:n"), two, When::Always).await;
    assert!(refused.is_err());
    config("0").query_async::<()>(&mut raw).await.unwrap();
    let found = value(&store, &Key::new("known:1:n")).await;
    assert_eq!(found, Some(Value::Integer(1)));
}

#[tokio::test]
async fn somebodys_key_in_place_of_the_record_of_restarts_is_replaced() {
    let mut server = RedisServer::start();
    let mut admin = raw(&server.url()).await;
    admin.set(":@:restarts", "somebody's").await.unwrap();
    admin.set(":1:old", 5).await.unwrap();
    redis::cmd("SAVE").exec_async(&mut admin).await.unwrap();
    server.start_again();
    let store = Redis::connect(server.url()).await.unwrap();

    assert_eq!(value(&store, &Key::new(":1:old")).await, None);

    let (key, one) = (Key::new(":1:n"), integer(store.clock(), 1));
    put(&store, &key, one, When::Always).await;
    let other = Redis::connect(server.url()).await.unwrap();
    assert_eq!(value(&other, &key).await, Some(Value::Integer(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_under_way_do_not_mix_up_answers() {
    let (store, prefix, _server) = store().await;
    let keys: Vec<Key> = (0..16)
        .map(|n| Key::new(format!("{prefix}:1:{n}")))
        .collect();
    for (number, key) in (0..).zip(&keys) {
        put(
            &store,
            key,
            Entry::new(store.clock(), Value::Integer(number)),
            When::Always,
        )
        .await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (store, keys) = (store.clone(), keys.clone());
        tasks.spawn(async move {
            for round in 0..200_usize {
                let at = (round + task) % keys.len();
                let patience = Duration::from_micros((round as u64 * 37) % 400);
                let call = read(&store, &keys[at]);
                if let Ok(entry) = tokio::time::timeout(patience, call).await {
                    let number = i64::try_from(at).unwrap();
                    assert_eq!(entry.unwrap().value, Some(Value::Integer(number)));
                }
                let mark = lease(store.clock());
                let call = store.mark(&keys[at], Some(Stamp::from_number(1)), mark);
                let _ = tokio::time::timeout(patience / 2, call).await;
            }
        });
    }
    tasks.join_all().await;
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(value(&store, key).await, Some(Value::Integer(number)));
    }
}

#[test]
fn a_store_outlives_the_runtime_that_connected_it() {
    let server = shared();
    let store = Redis::lazy(server.url()).unwrap();
    let key = Key::new(format!("{}:1:k", prefix()));
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            assert!(put(&store, &key, text(store.clock(), "v"), When::Always).await);
            assert!(read(&store, &key).await.is_some());
        });
    }
}

// Logins, sockets, TLS.

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "s3cret"]);
    let good = format!("redis://:s3cret@127.0.0.1:{}/2", server.port());
    let store = Redis::connect(good.as_str()).await.unwrap();
    assert_eq!(
        store.to_string(),
        format!("redis://127.0.0.1:{}/2", server.port())
    );
    assert!(!format!("{store:?} {:?}", Redis::builder(good.as_str())).contains("s3cret"));
    put(
        &store,
        &Key::new(":1:k"),
        text(store.clock(), "v"),
        When::Always,
    )
    .await;

    for url in [
        format!("redis://:wr0ng@127.0.0.1:{}/2", server.port()),
        format!("redis://nobody:wr0ng@127.0.0.1:{}/2", server.port()),
        format!("redis://127.0.0.1:{}/2", server.port()),
    ] {
        let error = Redis::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let expected = format!(
            "redis: `redis://127.0.0.1:{}/2` refuses the login",
            server.port()
        );
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("wr0ng"));
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_an_error() {
    let server = shared();
    let url = server.url().rsplit_once('/').unwrap().0.to_owned() + "/12345";
    assert_eq!(
        Redis::connect(url).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let server = RedisServer::start_with(&["--unixsocket", "{folder}/r.sock"]);
    let path = server.folder().join("r.sock").display().to_string();
    for (scheme, db) in [("redis+unix", 1), ("unix", 2)] {
        let store = Redis::connect(format!("{scheme}://{path}?db={db}"))
            .await
            .unwrap();
        let key = Key::new(":1:k");
        assert_eq!(read(&store, &key).await, None);
        put(&store, &key, text(store.clock(), "v"), When::Always).await;
        assert!(read(&store, &key).await.is_some());
        assert_eq!(store.to_string(), format!("redis+unix://{path}?db={db}"));
    }
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_only_it() {
    let folder = support::new_folder();
    support::make_certificates(&folder);
    let authority = std::fs::read(folder.join("ca.crt")).unwrap();
    let port = support::free_port();
    let at = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", at("server.crt")),
        ("--tls-key-file", at("server.key")),
        ("--tls-ca-cert-file", at("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    let arguments = arguments
        .into_iter()
        .flat_map(|(name, text)| [name.to_owned(), text]);
    let _server = RedisServer::start_in(folder.clone(), arguments.collect());
    let url = format!("rediss://localhost:{port}/0");

    let builder = Redis::builder(url.as_str()).connect_timeout(Duration::from_secs(5));
    let store = builder
        .clone()
        .ca_certificate_pem(authority)
        .connect()
        .await
        .unwrap();
    put(
        &store,
        &Key::new(":1:k"),
        text(store.clock(), "v"),
        When::Always,
    )
    .await;
    assert!(read(&store, &Key::new(":1:k")).await.is_some());
    assert_eq!(store.to_string(), url);

    let error = builder.clone().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for pem in [
        "",
        "words",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
    ] {
        let error = builder.clone().ca_certificate_pem(pem).lazy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{pem}");
    }
}

// Protocols.

/// Passes on what goes between a client and a server, and puts a push message before whatever the server
/// says once it speaks RESP3, as a server does that tells of changed keys.
async fn pushing(server: &RedisServer) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", to)).await;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 20];
                let mut speaks_resp3 = false;
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    if speaks_resp3 {
                        let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$4\r\n:1:k\r\n";
                        to_client.write_all(push).await.unwrap();
                    }
                    speaks_resp3 |= bytes[..count].starts_with(b"%");
                    if to_client.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn push_messages_are_not_taken_for_answers() {
    let server = RedisServer::start();
    let port = pushing(&server).await;
    let store = Redis::connect(format!("redis://127.0.0.1:{port}/0"));
    let store = store.await.unwrap();
    let keys: Vec<Key> = (0..10).map(|at| Key::new(format!(":1:{at}"))).collect();

    for (number, key) in (0_i64..).zip(&keys) {
        assert!(put(&store, key, integer(store.clock(), number), When::Always).await);
    }
    for (number, key) in (0_i64..).zip(&keys) {
        assert_eq!(value(&store, key).await, Some(Value::Integer(number)));
        assert_eq!(store.add_to(key, 1).await.unwrap(), Sum::Is(number + 1));
    }
    let at_once = keys.iter().map(|key| store.add_to(key, 1));
    for (number, sum) in (2..).zip(at_once) {
        assert_eq!(sum.await.unwrap(), Sum::Is(number));
    }
}

#[tokio::test]
async fn the_protocol_is_the_newer_one_unless_told_otherwise() {
    let server = RedisServer::start();
    let mut raw = raw(&server.url()).await;
    for (query, resp) in [
        ("", "resp=3"),
        ("?protocol=resp3", "resp=3"),
        ("?protocol=3", "resp=3"),
        ("?protocol=resp2", "resp=2"),
        ("?protocol=2", "resp=2"),
    ] {
        let store = Redis::connect(format!("{}{query}", server.url()));
        let store = store.await.unwrap();
        assert!(
            put(
                &store,
                &Key::new(":1:k"),
                integer(store.clock(), 1),
                When::Always
            )
            .await
        );
        assert!(read(&store, &Key::new(":1:k")).await.is_some());

        let list = redis::cmd("CLIENT").arg("LIST").to_owned();
        let list: String = list.query_async(&mut raw).await.unwrap();
        let ours: Vec<&str> = list
            .lines()
            .filter(|it| !it.contains("cmd=client"))
            .collect();
        let speaks = |line: &&&str| line.contains(resp);
        assert!(ours.iter().any(|it| speaks(&it)), "{query}: {list}");
        store.close().await.unwrap();
        drop(store);
        for line in ours {
            let id = line.split(' ').next().unwrap().trim_start_matches("id=");
            let kill = redis::cmd("CLIENT")
                .arg("KILL")
                .arg("ID")
                .arg(id)
                .to_owned();
            let _ = kill.exec_async(&mut raw).await;
        }
    }
}

// Servers that refuse.

#[tokio::test]
async fn a_server_that_refuses_a_write_says_why() {
    let server = RedisServer::start();
    let mut raw = raw(&server.url()).await;
    let store = Redis::connect(server.url()).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    let config = |name: &str, text: &str| {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(text)
            .to_owned()
    };

    config("maxmemory", "1mb")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();
    let error = store
        .put(&key, text(store.clock(), "w"), When::Always)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        format!("redis: `{}` has no memory left", server.url())
    );
    assert!(
        store
            .put_many(vec![(key.clone(), text(store.clock(), "w"))])
            .await
            .is_err()
    );
    config("maxmemory", "0")
        .query_async::<()>(&mut raw)
        .await
        .unwrap();

    let replica = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).to_owned();
    replica.query_async::<()>(&mut raw).await.unwrap();
    let error = store
        .put(&key, text(store.clock(), "w"), When::Always)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("is a replica"), "{error}");
}
