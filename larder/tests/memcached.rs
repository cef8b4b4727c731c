//! The memcached store against real servers, each started by its test.

#![cfg(feature = "memcached")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::store::{Memcached, Numbers, Store, Sum, Tags, When};
use larder::wrap::Forgiving;
use larder::{Cache, Clock, Entry, ErrorKind, Key, Mark, Moment, Stamp, State, Tag, Tagged, Value};
use support::MemcachedServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LONG: Duration = Duration::from_mins(10);

async fn start() -> (Memcached, MemcachedServer) {
    let server = MemcachedServer::start();
    let store = Memcached::connect(server.url()).await.unwrap();
    (store, server)
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

async fn read(store: &Memcached, key: &Key) -> Option<Entry> {
    let found = store.get(std::slice::from_ref(key), None).await;
    found.expect("the server answers").entries.remove(0)
}

async fn value(store: &Memcached, key: &Key) -> Option<Value> {
    let entry = read(store, key).await?;
    entry.is_live(store.clock().now()).then_some(entry.value?)
}

async fn put(store: &Memcached, key: &Key, entry: Entry, when: When) -> bool {
    store.put(key, entry, when).await.expect("it is written")
}

fn tags<'a>(space: &'a str, names: &'a [Tag]) -> Tags<'a> {
    Tags { space, names }
}

async fn numbers(store: &Memcached, names: &[Tag]) -> Numbers {
    let found = store.get(&[], Some(tags("", names))).await;
    found.expect("the server answers").numbers.expect("asked")
}

/// Waits until `store` answers again after its server came back.
async fn back(store: &Memcached) {
    for _ in 0..500 {
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
    let (store, _server) = start().await;
    let clock = store.clock();
    let tagged = Tagged {
        era: 7,
        good_from: vec![("object:5".into(), 3)],
    };
    for name in ["k", "with a blank", "ключ"] {
        let key = Key::new(format!(":1:{name}"));
        let entry = text(clock, "a\r\npage")
            .with_grace(LONG)
            .with_tags(tagged.clone());

        assert!(put(&store, &key, entry.clone(), When::Always).await);

        assert_eq!(read(&store, &key).await, Some(entry.clone()), "{name}");
        let heads = store.heads(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(heads, [Some(entry.head())], "{name}");
    }
}

#[tokio::test]
async fn integers_are_bare_digits_where_the_server_can_keep_them_so() {
    let (store, server) = start().await;
    let clock = store.clock();
    let short = clock.now().plus(Duration::from_secs(5));
    for (number, entry, is_bare) in [
        (0, integer(clock, 0), true),
        (i64::MAX, integer(clock, i64::MAX), true),
        (7, Entry::new(clock, Value::Integer(7)), true),
        (-5, integer(clock, -5), false),
        (5, integer(clock, 5).fresh_until(short), false),
    ] {
        let key = Key::new(format!(":1:{number}"));
        let deadline = entry.fresh_until;

        put(&store, &key, entry, When::Always).await;

        let said = server.say(&format!("mg {} v\r\n", key.name()));
        assert_eq!(
            said.contains(&format!("\r\n{number}\r\n")),
            is_bare,
            "{said:?}"
        );
        let found = read(&store, &key).await.expect("it is there");
        assert_eq!(found.value, Some(Value::Integer(number)));
        // To the millisecond, though the server counts seconds.
        assert_eq!(found.fresh_until, deadline, "{number}");
    }
}

#[tokio::test]
async fn digits_that_others_wrote_or_counted_are_integers() {
    let (store, server) = start().await;
    let key = Key::new(":1:n");
    server.say("set :1:n 0 0 3\r\n100\r\n");
    server.say("decr :1:n 1\r\n");
    assert!(server.say("mg :1:n v\r\n").contains("99 \r\n"), "padded");

    assert_eq!(value(&store, &key).await, Some(Value::Integer(99)));
    assert_eq!(store.add_to(&key, 2).await.unwrap(), Sum::Is(101));
    assert_eq!(store.add_to(&key, -100).await.unwrap(), Sum::Is(1));
    assert!(server.say("incr :1:n 5\r\n").starts_with("6\r\n"));
    assert_eq!(value(&store, &key).await, Some(Value::Integer(6)));
}

#[tokio::test]
async fn sums_are_exact_and_keep_the_ttl() {
    let (store, _server) = start().await;
    let clock = store.clock();
    let key = Key::new(":1:n");

    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::NoSuchKey);
    let first = integer(clock, 9_007_199_254_740_992);
    let deadline = first.fresh_until;
    put(&store, &key, first, When::Always).await;
    let sum = store.add_to(&key, 1).await.unwrap();
    assert_eq!(sum, Sum::Is(9_007_199_254_740_993));
    assert_eq!(store.add_to(&key, i64::MAX).await.unwrap(), Sum::Overflow);
    assert_eq!(
        value(&store, &key).await,
        Some(Value::Integer(9_007_199_254_740_993))
    );
    assert_eq!(
        store.add_to(&key, -9_007_199_254_740_994).await.unwrap(),
        Sum::Is(-1)
    );
    assert_eq!(store.add_to(&key, i64::MIN).await.unwrap(), Sum::Overflow);
    assert_eq!(store.add_to(&key, 3).await.unwrap(), Sum::Is(2));
    assert_eq!(read(&store, &key).await.unwrap().fresh_until, deadline);

    put(&store, &key, text(clock, "text"), When::Always).await;
    assert_eq!(store.add_to(&key, 1).await.unwrap(), Sum::NotPlain);
}

#[tokio::test]
async fn undoing_an_overflow_leaves_alone_what_another_has_written_since() {
    let server = Arc::new(MemcachedServer::start());
    let key = Key::new(":1:n");
    let other = Arc::clone(&server);
    let url = answering(&server, move |asked| {
        if asked.starts_with("ma :1:n MD") {
            other.say("set :1:n 0 0 1\r\n5\r\n");
        }
        None
    });
    let store = Memcached::connect(url.await).await.unwrap();
    put(&store, &key, integer(store.clock(), 7), When::Always).await;

    assert_eq!(store.add_to(&key, i64::MAX).await.unwrap(), Sum::Overflow);

    assert_eq!(value(&store, &key).await, Some(Value::Integer(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_count_and_none_is_lost() {
    let (_, server) = start().await;
    let key = Key::new(":1:n");
    let first = Memcached::connect(server.url()).await.unwrap();
    put(&first, &key, integer(first.clock(), 500), When::Always).await;
    let mut tasks = tokio::task::JoinSet::new();
    for process in 0..4 {
        let store = Memcached::connect(server.url()).await.unwrap();
        let key = key.clone();
        tasks.spawn(async move {
            for _ in 0..250 {
                let delta = if process == 3 { -2 } else { 1 };
                assert!(matches!(
                    store.add_to(&key, delta).await.unwrap(),
                    Sum::Is(_)
                ));
            }
        });
    }
    tasks.join_all().await;

    assert_eq!(value(&first, &key).await, Some(Value::Integer(750)));
}

#[tokio::test]
async fn a_ttl_of_more_than_thirty_days_is_kept() {
    for clock in [Clock::system(), Clock::manual()] {
        let server = MemcachedServer::start();
        let builder = Memcached::builder(server.url()).clock(clock.clone());
        let store = builder.connect().await.unwrap();
        for days in [29, 30, 31, 365, 100_000] {
            let key = Key::new(format!(":1:{days}"));
            let span = Duration::from_hours(days * 24);
            let deadline = clock.now().plus(span);

            let entry = text(&clock, "v").fresh_until(deadline);
            put(&store, &key, entry, When::Always).await;

            assert_eq!(read(&store, &key).await.unwrap().fresh_until, deadline);
            let said = server.say(&format!("mg {} t\r\n", key.name()));
            let left = said.trim().strip_prefix("HD t").unwrap().parse::<i64>();
            let expected = i64::try_from(days * 86_400).unwrap();
            let expected = if days == 100_000 { -1 } else { expected };
            assert!((expected..expected + 4).contains(&left.unwrap()), "{said}");
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_gone_already_removes_what_was_there() {
    let (store, server) = start().await;
    let clock = store.clock();
    let key = Key::new(":1:k");
    for when in [When::Always, When::IfPresent] {
        put(&store, &key, text(clock, "old"), When::Always).await;

        let gone = text(clock, "new").fresh_until(clock.now());
        assert!(put(&store, &key, gone, when).await);

        assert!(server.say("mg :1:k\r\n").starts_with("EN"), "{when:?}");
    }
    let gone = text(clock, "new").fresh_until(clock.now());
    assert!(put(&store, &key, gone.clone(), When::IfAbsent).await);
    put(&store, &key, text(clock, "old"), When::Always).await;
    assert!(!put(&store, &key, gone, When::IfAbsent).await);
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("old".into())));
}

#[tokio::test]
async fn foreign_and_broken_slots_are_empty_and_can_be_written_over() {
    let (store, server) = start().await;
    let clock = store.clock();
    let key = Key::new(":1:k");
    for foreign in [
        "",
        "words",
        "{\"json\":1}",
        "99999999999999999999",
        "12 monkeys",
    ] {
        let set = format!("set :1:k 7 0 {}\r\n{foreign}\r\n", foreign.len());
        for act in 0..6 {
            assert!(server.say(&set).contains("STORED"));

            assert_eq!(read(&store, &key).await, None, "{foreign}");
            assert_eq!(store.touch(&key, Moment::NEVER).await.unwrap(), None);
            match act {
                0 => assert!(put(&store, &key, text(clock, "v"), When::Always).await),
                1 => assert!(put(&store, &key, text(clock, "v"), When::IfAbsent).await),
                2 => assert!(!put(&store, &key, text(clock, "v"), When::IfPresent).await),
                3 => assert!(store.mark(&key, None, lease(clock)).await.unwrap()),
                4 => assert_eq!(store.add_to(&key, -1).await.unwrap(), Sum::NoSuchKey),
                _ => assert_eq!(
                    store.delete(std::slice::from_ref(&key)).await.unwrap(),
                    [None]
                ),
            }
        }
    }
}

#[tokio::test]
async fn a_load_whose_lease_was_replaced_does_not_write() {
    let (store, server) = start().await;
    let other = Memcached::connect(server.url()).await.unwrap();
    let clock = store.clock();
    for act in ["set", "delete", "delete and lease"] {
        let key = Key::new(format!(":1:{act}"));
        let mark = lease(clock);
        assert!(store.mark(&key, None, mark).await.unwrap());

        match act {
            "set" => assert!(put(&other, &key, text(clock, "set"), When::Always).await),
            _ => drop(other.delete(std::slice::from_ref(&key)).await.unwrap()),
        }
        if act == "delete and lease" {
            assert!(other.mark(&key, None, lease(clock)).await.unwrap());
        }

        let late = When::IfStamp(mark.stamp);
        assert!(!put(&store, &key, text(clock, "late"), late).await, "{act}");
        assert!(!store.mark(&key, Some(mark.stamp), mark).await.unwrap());
    }
}

// Sizes.

#[tokio::test]
async fn a_value_over_the_limit_is_an_error_and_the_old_one_is_gone() {
    let server = MemcachedServer::start_with(&["-I", "1m"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let clock = store.clock();
    let large = || {
        let value = Value::Bytes(vec![b'x'; 1024 * 1024].into());
        Entry::new(clock, value).fresh_until(clock.now().plus(LONG))
    };
    let key = Key::new(":1:k");
    let old = text(clock, "old");
    for when in [When::Always, When::IfPresent, When::IfStamp(old.stamp)] {
        put(&store, &key, old.clone(), When::Always).await;

        let error = store.put(&key, large(), when).await.unwrap_err();

        assert_eq!(error.kind(), ErrorKind::TooLarge, "{when:?}");
        assert!(error.hint().is_some());
        assert_eq!(read(&store, &key).await, None, "{when:?}");
    }
    put(&store, &key, old.clone(), When::Always).await;
    assert!(!put(&store, &key, large(), When::IfAbsent).await);
    assert_eq!(read(&store, &key).await, Some(old.clone()));
    let fits = Value::Bytes(vec![b'x'; 1023 * 1024].into());
    put(&store, &key, Entry::new(clock, fits.clone()), When::Always).await;
    assert_eq!(value(&store, &key).await, Some(fits));

    let many = ["a", "b", "c"].map(|name| Key::new(format!(":1:{name}")));
    put(&store, &many[1], old.clone(), When::Always).await;
    let entries = vec![
        (many[0].clone(), text(clock, "a")),
        (many[1].clone(), large()),
        (many[2].clone(), integer(clock, 3)),
    ];
    assert_eq!(store.put_many(entries).await.unwrap(), [1]);
    let found = store.get(&many, None).await.unwrap().entries;
    let there: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, false, true]);
}

#[tokio::test]
async fn a_server_without_memory_refuses_and_the_old_value_is_gone() {
    let server = MemcachedServer::start_with(&["-M", "-m", "2"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let clock = store.clock();
    let page = |letter: u8| {
        let value = Value::Bytes(vec![letter; 100_000].into());
        Entry::new(clock, value).fresh_until(clock.now().plus(LONG))
    };
    let first = Key::new(":1:0");
    put(&store, &first, text(clock, "small"), When::Always).await;
    let mut refused = None;
    for number in 1..1_000 {
        let key = Key::new(format!(":1:{number}"));
        refused = store.put(&key, page(b'x'), When::Always).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.unwrap().kind(), ErrorKind::TooLarge);

    let error = store
        .put(&first, page(b'y'), When::Always)
        .await
        .unwrap_err();

    assert!(error.to_string().contains("no memory"), "{error}");
    assert_eq!(read(&store, &first).await, None);
    let entries = vec![(first.clone(), page(b'z'))];
    assert_eq!(store.put_many(entries).await.unwrap(), [0]);
}

/// Fills a server that throws nothing out, with items of all sizes.
fn fill_up(server: &MemcachedServer) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let small = (0..50).map(|step| step * 16);
    let sizes = [100_000, 20_000, 5_000, 2_000, 1_000];
    for size in sizes.into_iter().chain(small.rev()) {
        for round in 0.. {
            let names = (0..100).map(|at| format!("f{size}-{round}-{at}"));
            if fill_with(&mut stream, names, size).contains("out of memory") {
                break;
            }
        }
    }
}

/// Puts items of `size` bytes straight into a server; what it says to that.
fn fill_with(
    stream: &mut (impl Read + Write),
    names: impl Iterator<Item = String>,
    size: usize,
) -> String {
    let bytes = "x".repeat(size);
    let mut sets = Vec::new();
    for name in names {
        write!(sets, "ms {name} {size} q\r\n{bytes}\r\n").unwrap();
    }
    stream.write_all(&sets).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    while !said.ends_with(b"MN\r\n") {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "it hung up");
        said.extend_from_slice(&part[..length]);
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn adding_without_memory_leaves_what_is_there() {
    let server = MemcachedServer::start_with(&["-M", "-m", "2"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let clock = store.clock();
    let key = Key::new(":1:k");
    put(&store, &key, text(clock, "old"), When::Always).await;
    fill_up(&server);

    let large = Value::Bytes(vec![b'x'; 100_000].into());
    let large = Entry::new(clock, large).fresh_until(clock.now().plus(LONG));
    assert!(!put(&store, &key, large, When::IfAbsent).await);

    assert_eq!(value(&store, &key).await, Some(Value::Bytes("old".into())));
}

#[tokio::test]
async fn a_lease_without_memory_is_a_load_that_is_not_kept() {
    let server = MemcachedServer::start_with(&["-M", "-m", "2"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let cache = Cache::new(store.clone());
    // With its numbers: they need memory too.
    cache.set("there", &0).await.unwrap();
    numbers(&store, &[]).await;
    fill_up(&server);
    for round in 1..4 {
        let fetch = cache.fetch("k", move || async move { Ok::<_, Infallible>(round) });

        assert_eq!(fetch.await.unwrap(), round);
    }
    assert_eq!(read(&store, &Key::new(":1:k")).await, None);
}

#[tokio::test]
async fn what_could_not_be_read_back_is_refused_however_large_items_may_be() {
    let server = MemcachedServer::start_with(&["-I", "128m", "-m", "1024"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let clock = store.clock();
    let key = Key::new(":1:k");
    let length = usize::try_from(larder::MAX_DECODED).unwrap();
    let of = |length| {
        let value = Value::Bytes(vec![b'x'; length].into());
        Entry::new(clock, value).fresh_until(clock.now().plus(LONG))
    };

    let largest = of(length);
    put(&store, &key, largest.clone(), When::Always).await;
    assert!(value(&store, &key).await == largest.value);
    let refused = store.put(&key, of(length + 1), When::Always).await;

    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(read(&store, &key).await, None);
    let entries = vec![(key.clone(), of(length + 1))];
    assert_eq!(store.put_many(entries).await.unwrap(), [0]);
}

#[tokio::test]
async fn what_is_too_large_is_loaded_by_each_and_waited_for_by_none() {
    let server = MemcachedServer::start_with(&["-I", "1m"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let cache = Cache::new(store.clone());
    let loads = Arc::new(AtomicU32::new(0));
    for round in 1..4 {
        let loads = Arc::clone(&loads);
        let load = || async move {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>("x".repeat(1_100_000))
        };
        let fetch = cache.fetch("k", load);
        let loaded: String = tokio::time::timeout(Duration::from_secs(5), async { fetch.await })
            .await
            .expect("nobody waits for a lease that is not there")
            .unwrap();

        assert_eq!(loaded.len(), 1_100_000, "{round}");
        let slot = read(&store, &Key::new(":1:k")).await.expect("a marker");
        assert_eq!(slot.state, State::Pass, "{round}");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 3);
}

// Numbers of tags.

#[tokio::test]
async fn a_lost_number_counts_as_the_last_one_given() {
    let (store, server) = start().await;
    let names: [Tag; 2] = ["a".into(), "b".into()];
    let raised = store.raise(tags("", &names[..1])).await.unwrap();
    let last = store.raise(tags("", &names[1..])).await.unwrap();
    assert_eq!(numbers(&store, &names).await.of, [Some(raised), Some(last)]);

    assert!(server.say("md :@:t:a\r\n").starts_with("HD"));

    let found = numbers(&store, &names).await;
    assert_eq!(found.of, [Some(last), Some(last)]);
    // And it stays: what is made now is not lost to it again.
    store.raise(tags("", &names[1..])).await.unwrap();
    assert_eq!(numbers(&store, &names).await.of[0], Some(last));
    // Nothing is served that was made before the number was lost.
    let old = Tagged {
        era: found.era,
        good_from: vec![("a".into(), raised)],
    };
    assert!(found.moved(&names, &old).is_some());
}

#[tokio::test]
async fn a_lost_or_foreign_counter_is_another_era() {
    let (store, server) = start().await;
    let names: [Tag; 1] = ["a".into()];
    let number = store.raise(tags("", &names)).await.unwrap();
    let mut era = numbers(&store, &names).await.era;
    for act in [
        "md :@:seq\r\n",
        "set :@:seq 0 0 5\r\nwords\r\n",
        "set :@:seq 0 0 0\r\n\r\n",
    ] {
        server.say(act);

        let now = numbers(&store, &names).await;

        assert_ne!(now.era, era, "{act:?}");
        // The tag's number of the old era is higher, and says nothing.
        assert_eq!((now.seq, now.of), (0, vec![Some(0)]), "{act:?}");
        assert_eq!(store.raise(tags("", &names)).await.unwrap(), number);
        assert_eq!(numbers(&store, &names).await.of, [Some(number)], "{act:?}");
        server.say(act);
        assert_eq!(store.raise(tags("", &names)).await.unwrap(), number);
        era = numbers(&store, &names).await.era;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_lost_all_the_time_never_hide_an_invalidation() {
    let (_, server) = start().await;
    let server = Arc::new(server);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = Memcached::connect(server.url()).await.unwrap();
        tasks.spawn(async move {
            let names: [Tag; 1] = ["a".into()];
            for _ in 0..300 {
                let before = numbers(&store, &names).await;
                let number = store.raise(tags("", &names)).await.unwrap();
                let after = numbers(&store, &names).await;
                // Made before the invalidation that was acknowledged in between.
                let old = Tagged {
                    era: before.era,
                    good_from: vec![("a".into(), before.seq)],
                };
                assert!(
                    after.moved(&names, &old).is_some(),
                    "{before:?} {number} {after:?}"
                );
            }
        });
    }
    let thief = Arc::clone(&server);
    let thief = tokio::task::spawn_blocking(move || {
        for round in 0..150 {
            thief.say("md :@:t:a\r\n");
            if round % 10 == 0 {
                thief.say("md :@:seq\r\n");
            }
        }
    });
    tasks.join_all().await;
    thief.await.unwrap();
}

#[tokio::test]
async fn the_first_value_with_a_new_tag_is_kept_also_where_others_are_invalidated() {
    let (store, _server) = start().await;
    let cache = Cache::new(store);
    let busy = cache.clone();
    let load = || async move {
        busy.invalidate(["other"]).await.unwrap();
        Ok::<_, Infallible>(1)
    };
    let first = cache.fetch("k", load).tags(["new"]).await.unwrap();

    let again = || async { Ok::<_, Infallible>(2) };
    let second = cache.fetch("k", again).tags(["new"]).await.unwrap();

    assert_eq!((first, second), (1, 1));
    cache.invalidate(["new"]).await.unwrap();
    let third = cache.fetch("k", || async { Ok::<_, Infallible>(3) });
    assert_eq!(third.tags(["new"]).await.unwrap(), 3);
}

#[tokio::test]
async fn a_full_server_forgets_and_serves_nothing_old() {
    let server = MemcachedServer::start_with(&["-m", "2"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let cache = Cache::new(store.clone());
    let row = Arc::new(AtomicU32::new(0));
    let mut filler = 0;
    for round in 1..20_u32 {
        row.store(round, Ordering::SeqCst);
        cache.invalidate(["t"]).await.unwrap();
        for _ in 0..20 {
            let row = Arc::clone(&row);
            let load = || async move { Ok::<_, Infallible>(row.load(Ordering::SeqCst)) };
            let fetched = cache.fetch("k", load).tags(["t"]).await.unwrap();
            assert_eq!(fetched, round);
            filler += 1;
            let filling = cache.set(format!("filler{filler}"), &"x".repeat(20_000));
            filling.await.unwrap();
        }
    }
    let stats = server.say("stats\r\n");
    assert!(!stats.contains("STAT evictions 0\r\n"), "it was full");
}

// Clear.

#[tokio::test]
async fn clear_takes_its_own_scope_and_keeps_larders_records() {
    let (store, server) = start().await;
    let clock = store.clock();
    let names: [Tag; 1] = ["a".into()];
    let number = store.raise(tags("shop", &names)).await.unwrap();
    store.raise(tags("other", &names)).await.unwrap();
    let mut own = Vec::new();
    for at in 0..3_000 {
        own.push(Key::new(format!("shop:1:{at}")));
    }
    own.push(Key::new("shop:2:with a blank"));
    own.push(Key::new("shop:1:ключ%41"));
    let foreign = ["shopping:1:k", ":1:shop:1:k"].map(Key::new);
    let entries = own
        .iter()
        .chain(&foreign)
        .map(|key| (key.clone(), text(clock, "v")));
    assert!(store.put_many(entries.collect()).await.unwrap().is_empty());

    store.clear("shop:", "shop").await.unwrap();

    let left = store.get(&own, None).await.unwrap().entries;
    assert_eq!(left.iter().flatten().count(), 0);
    let left = store.get(&foreign, None).await.unwrap().entries;
    assert_eq!(left.iter().flatten().count(), 2);
    let said = server.say("mg shop:@:seq\r\nmg shop:@:t:a\r\nmg other:@:t:a\r\n");
    assert_eq!(said, "HD\r\nEN\r\nHD\r\n");
    let after = store.get(&[], Some(tags("shop", &names))).await.unwrap();
    assert!(after.numbers.unwrap().at(0) > number);
}

#[tokio::test]
async fn clear_is_an_error_where_keys_cannot_be_listed_and_changes_nothing() {
    for arguments in [&["-X"][..], &["-o", "no_lru_crawler"]] {
        let server = MemcachedServer::start_with(arguments);
        let store = Memcached::connect(server.url()).await.unwrap();
        let key = Key::new(":1:k");
        put(&store, &key, text(store.clock(), "v"), When::Always).await;
        let before = numbers(&store, &[]).await;

        let error = store.clear(":", "").await.unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Unsupported, "{arguments:?}");
        assert!(
            error.to_string().contains("does not list its keys"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("-X"));
        assert_eq!(numbers(&store, &[]).await, before);
        assert!(read(&store, &key).await.is_some());
    }
}

/// How many items the server behind `stream` has.
fn count(stream: &mut (impl Read + Write)) -> u32 {
    stream.write_all(b"stats\r\n").unwrap();
    let stats = fill_with(stream, std::iter::empty(), 0);
    let (_, count) = stats.split_once("STAT curr_items ").unwrap();
    count.split_once('\r').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_keys_are_cleared_while_others_are_answered() {
    let server = MemcachedServer::start_with(&["-m", "256"]);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let end = "x".repeat(100);
    let names = (0..100_000).map(|at| format!("shop:1:{at}:{end}"));
    let names = names.chain((0..1_000).map(|at| format!("other:1:{at}")));
    assert_eq!(fill_with(&mut stream, names, 1), "MN\r\n");
    // Far away, so that the list comes faster than keys are deleted.
    let (url, _) = between(&server, Duration::from_millis(5), |_| {}).await;
    let store = Memcached::connect(url).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let other = Memcached::connect(server.url()).await.unwrap();
        tasks.spawn(async move {
            for at in 0.. {
                let key = Key::new(format!("other:1:{}", at % 1_000));
                let found = other.get(&[key], None).await;
                found.expect("others are answered");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    store.clear("shop:", "shop").await.unwrap();

    assert!(tasks.try_join_next().is_none(), "they read to the end");
    // The other prefix's, and the counter.
    assert_eq!(count(&mut stream), 1_001);
}

#[tokio::test]
async fn a_large_table_with_little_in_it_is_cleared_though_its_list_is_silent_for_long() {
    let server = MemcachedServer::start_with(&["-o", "hashpower=26"]);
    let limit = Duration::from_millis(50);
    let builder = Memcached::builder(server.url()).connect_timeout(limit);
    let store = builder.timeout(limit).connect().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;

    store.clear(":", "").await.unwrap();

    assert_eq!(read(&store, &key).await, None);
}

#[tokio::test]
async fn a_server_that_freezes_in_its_list_is_a_timeout() {
    let server = Arc::new(MemcachedServer::start());
    let frozen = Arc::clone(&server);
    let url = answering(&server, move |asked| {
        if asked.starts_with("lru_crawler") {
            frozen.freeze();
        }
        None
    });
    let limit = Duration::from_millis(200);
    let builder = Memcached::builder(url.await).connect_timeout(limit);
    let store = builder.timeout(limit).connect().await.unwrap();

    let error = store.clear(":", "").await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_list_that_cannot_be_had_just_now_is_asked_for_again() {
    let server = MemcachedServer::start();
    let times = AtomicU32::new(0);
    let url = answering(&server, move |asked| {
        assert!(!asked.contains("metadump all"), "it misses keys");
        if !asked.contains("metadump") {
            return None;
        }
        match times.fetch_add(1, Ordering::SeqCst) {
            0 | 2 => Some("ERROR locked try again later\r\n"),
            1 => Some("BUSY currently processing crawler request\r\n"),
            _ => None,
        }
    });
    let store = Memcached::connect(url.await).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;

    store.clear(":", "").await.unwrap();

    assert_eq!(read(&store, &key).await, None);
}

#[tokio::test]
async fn where_a_list_may_miss_keys_it_is_read_until_nothing_is_in_it() {
    let server = MemcachedServer::start();
    let keys = ["a", "b"].map(|name| Key::new(format!(":1:{name}")));
    for ends in [true, false] {
        let times = AtomicU32::new(0);
        let url = answering(&server, move |asked| {
            if asked.contains("metadump hash") {
                return Some("BADCLASS invalid class id\r\n");
            }
            let misses = asked.contains("metadump all")
                && (times.fetch_add(1, Ordering::SeqCst) == 0 || !ends);
            misses.then_some("key=%3a1%3aa exp=-1 la=1 cas=1 fetch=no cls=1 size=70\r\nEND\r\n")
        });
        let store = Memcached::connect(url.await).await.unwrap();
        for key in &keys {
            put(&store, key, text(store.clock(), "v"), When::Always).await;
        }

        let cleared = store.clear(":", "").await;

        if ends {
            cleared.unwrap();
            let left = store.get(&keys, None).await.unwrap().entries;
            assert_eq!(left, [None, None]);
        } else {
            assert_eq!(cleared.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}

#[tokio::test]
async fn keys_that_the_server_does_not_remove_are_an_error() {
    let server = MemcachedServer::start();
    let url = answering(&server, |asked| {
        asked
            .starts_with("md ")
            .then_some("SERVER_ERROR out of order\r\n")
    });
    let store = Memcached::connect(url.await).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;

    let error = store.clear(":", "").await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

// Several servers.

async fn three(query: &str) -> (Memcached, [MemcachedServer; 3]) {
    let servers = [(); 3].map(|()| MemcachedServer::start());
    let hosts = servers
        .each_ref()
        .map(|server| format!("127.0.0.1:{}", server.port()));
    let url = format!("memcached://{}{query}", hosts.join(","));
    let builder = Memcached::builder(url).connect_timeout(Duration::from_millis(200));
    (builder.connect().await.unwrap(), servers)
}

fn many_keys() -> Vec<Key> {
    (0..60).map(|at| Key::new(format!(":1:{at}"))).collect()
}

/// Whether `server` itself has an item for `key`.
fn has(server: &MemcachedServer, key: &Key) -> bool {
    server
        .say(&format!("mg {}\r\n", key.name()))
        .starts_with("HD")
}

#[tokio::test]
async fn keys_are_spread_and_batches_answer_in_order() {
    let (store, servers) = three("").await;
    let keys = many_keys();
    let entries = (0..).zip(&keys);
    let entries = entries.map(|(at, key)| (key.clone(), integer(store.clock(), at)));
    assert!(store.put_many(entries.collect()).await.unwrap().is_empty());

    for server in &servers {
        let count = keys.iter().filter(|key| has(server, key)).count();
        assert!((5..40).contains(&count), "{count}");
    }
    let names: [Tag; 1] = ["a".into()];
    let found = store.get(&keys, Some(tags("", &names))).await.unwrap();
    assert!(found.numbers.is_some());
    for (at, entry) in (0..).zip(found.entries) {
        assert_eq!(entry.unwrap().value, Some(Value::Integer(at)));
    }
    let heads = store.delete(&keys).await.unwrap();
    assert!(heads.iter().all(Option::is_some));
    let found = store.heads(&keys).await.unwrap();
    assert!(found.iter().all(Option::is_none));
}

#[tokio::test]
async fn keys_of_a_server_that_is_down_are_misses_and_do_not_move() {
    let (store, mut servers) = three("").await;
    let keys = many_keys();
    let entry = || text(store.clock(), "v");
    for key in &keys {
        put(&store, key, entry(), When::Always).await;
    }
    let of_dead: Vec<bool> = keys.iter().map(|key| has(&servers[1], key)).collect();
    servers[1].kill();

    for (key, is_of_dead) in keys.iter().zip(&of_dead) {
        assert_eq!(read(&store, key).await.is_none(), *is_of_dead, "{key}");
        let written = store.put(key, entry(), When::Always).await;
        assert_eq!(written.is_err(), *is_of_dead);
        let kind = written.err().map(|error| error.kind());
        assert!(kind.is_none_or(|kind| kind == ErrorKind::Unavailable));
        let deleted = store.delete(std::slice::from_ref(key)).await;
        assert_eq!(deleted.is_err(), *is_of_dead, "{key}");
        let _ = store.put(key, entry(), When::Always).await;
    }
    let found = store.get(&keys, None).await.unwrap().entries;
    let heads = store.heads(&keys).await.unwrap();
    for (at, is_of_dead) in of_dead.iter().enumerate() {
        assert_eq!(found[at].is_none(), *is_of_dead, "{}", keys[at]);
        assert_eq!(heads[at].is_none(), *is_of_dead, "{}", keys[at]);
    }
    assert!(store.delete(&keys).await.is_err());
    let left = store.get(&keys, None).await.unwrap().entries;
    assert_eq!(left.iter().flatten().count(), 0, "the others are deleted");

    servers[1].start_again();
    for (key, is_of_dead) in keys.iter().zip(&of_dead) {
        for _ in 0..500 {
            if store.put(key, entry(), When::Always).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(has(&servers[1], key), *is_of_dead, "{key}");
    }
}

/// Three servers, the position of the one that keeps the numbers, and a name whose key is on another.
async fn three_with_home() -> (Memcached, [MemcachedServer; 3], usize, String) {
    let (store, servers) = three("").await;
    store.raise(tags("", &["t".into()])).await.unwrap();
    let seq = Key::new(":@:seq");
    let home = servers.iter().position(|server| has(server, &seq)).unwrap();
    let [name, _] = elsewhere(&store, &servers[home]).await;
    (store, servers, home, name)
}

/// Two names whose keys are not on `server`.
async fn elsewhere(store: &Memcached, server: &MemcachedServer) -> [String; 2] {
    let mut names = Vec::new();
    for key in many_keys() {
        put(store, &key, text(store.clock(), "v"), When::Always).await;
        if !has(server, &key) {
            names.push(key.name().strip_prefix(":1:").unwrap().to_owned());
        }
        store.delete(std::slice::from_ref(&key)).await.unwrap();
    }
    names.truncate(2);
    names.try_into().expect("three servers share the keys")
}

#[tokio::test]
async fn while_the_numbers_are_away_what_has_no_tags_is_served_and_kept() {
    let (store, mut servers, home, name) = three_with_home().await;
    let cache = Cache::new(store.clone());
    let loads = Arc::new(AtomicU32::new(0));
    let fetch = || async {
        let loads = Arc::clone(&loads);
        let load = || async move { Ok::<_, Infallible>(loads.fetch_add(1, Ordering::SeqCst)) };
        cache.fetch(&name, load).await.unwrap()
    };
    assert_eq!(fetch().await, 0);
    servers[home].kill();

    assert_eq!(fetch().await, 0, "a hit");
    cache.delete(&name).await.unwrap();
    assert_eq!(fetch().await, 1);
    assert_eq!(fetch().await, 1, "it was kept");

    assert!(cache.invalidate(["t"]).await.is_err());
    assert!(store.get(&[], Some(tags("", &[]))).await.is_err());
    let found = store.get(&many_keys(), Some(tags("", &[]))).await.unwrap();
    let there = found.entries.iter().flatten().count();
    assert_eq!(there, 1, "the others are misses, on whatever server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_numbers_are_away_what_has_tags_is_loaded_by_each_and_not_kept() {
    let (store, mut servers, home, name) = three_with_home().await;
    let loads = Arc::new(AtomicU32::new(0));
    let fetch = |cache: &Cache, declared: bool| {
        let (cache, name, loads) = (cache.clone(), name.clone(), Arc::clone(&loads));
        async move {
            let load = || async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok::<_, Infallible>(loads.fetch_add(1, Ordering::SeqCst))
            };
            let fetch = cache.fetch(&name, load);
            let fetch = if declared { fetch.tags(["t"]) } else { fetch };
            fetch.await.unwrap()
        }
    };
    let first = Cache::new(store.clone());
    assert_eq!(fetch(&first, true).await, 0);
    assert_eq!(fetch(&first, true).await, 0, "a hit");
    servers[home].kill();

    // Whether or not the process has met the tags before.
    for cache in [&first, &Cache::new(store.clone())] {
        let before = loads.load(Ordering::SeqCst);
        let began = std::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            tasks.spawn(fetch(cache, true));
        }
        tasks.join_all().await;
        assert_eq!(loads.load(Ordering::SeqCst), before + 10);
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "none waits for another: {took:?}"
        );
    }
    // Nor does one serve it that has to learn of its tags from itself.
    let before = loads.load(Ordering::SeqCst);
    assert_eq!(fetch(&Cache::new(store.clone()), false).await, before);

    servers[home].start_again();
    back(&store).await;
    let now = loads.load(Ordering::SeqCst);
    assert_eq!(fetch(&first, true).await, now, "numbers of another run");
    assert_eq!(fetch(&first, true).await, now, "a hit again");
}

#[tokio::test]
async fn with_forgiveness_keys_of_a_server_that_is_down_are_loaded_and_the_others_are_hits() {
    let (store, mut servers) = three("").await;
    let cache = Cache::new(Forgiving::new(store));
    let load = |value: u32| move || async move { Ok::<_, Infallible>(value) };
    for key in many_keys() {
        assert_eq!(cache.fetch(key.name(), load(1)).await.unwrap(), 1);
    }
    servers[1].kill();
    let began = std::time::Instant::now();
    let mut loaded = 0;
    for round in 0..3 {
        for key in many_keys() {
            let found = cache.fetch(key.name(), load(2)).await.unwrap();
            loaded += u32::from(found == 2);
        }
        let most = 60 * (round + 1);
        assert!(
            (1..most).contains(&loaded),
            "{loaded} of {most} were loaded"
        );
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// What stands before `server` and can shut out who is behind it: the first connection is closed and no
/// other is let in, but those that are open go on.
async fn gate(server: &MemcachedServer) -> (String, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shut, is_shut) = tokio::sync::watch::channel(false);
    let to = server.port();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut client, _)) = listener.accept().await else {
                return;
            };
            let mut is_shut = is_shut.clone();
            if *is_shut.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", to))
                    .await
                    .unwrap();
                let copy = tokio::io::copy_bidirectional(&mut client, &mut server);
                tokio::select! {
                    _ = copy => {}
                    _ = is_shut.wait_for(|is_shut| *is_shut && number == 0) => {}
                }
            });
        }
    });
    (format!("127.0.0.1:{port}"), shut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_from_before_an_invalidation_that_could_not_be_heard_of_is_nobody_elses() {
    let servers = [(); 3].map(|()| MemcachedServer::start());
    let (mut hosts, mut gates) = (Vec::new(), Vec::new());
    for server in &servers {
        let (host, shut) = gate(server).await;
        hosts.push(host);
        gates.push(shut);
    }
    let url = format!("memcached://{}", hosts.join(","));
    let here = Memcached::connect(url.as_str()).await.unwrap();
    let there = Cache::new(Memcached::connect(url.as_str()).await.unwrap());
    there.invalidate(["t"]).await.unwrap();
    let seq = Key::new(":@:seq");
    let home = servers.iter().position(|server| has(server, &seq)).unwrap();
    let [name, inner_name] = elsewhere(&here, &servers[home]).await;
    gates[home].send_replace(true);
    while here.get(&[], Some(tags("", &[]))).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let here = Cache::new(here);
    let row = Arc::new(AtomicU32::new(1));
    let fetch = || {
        let (here, inner, row) = (here.clone(), here.clone(), Arc::clone(&row));
        let (name, inner_name) = (name.clone(), inner_name.clone());
        async move {
            let load = || async move {
                // Its tag is known only by what it reads.
                let read = move || async move { Ok::<_, Infallible>(row.load(Ordering::SeqCst)) };
                let read = inner.fetch(inner_name, read).tags(["t"]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok::<_, Infallible>(read)
            };
            here.fetch(&name, load).await.unwrap()
        }
    };
    let early = tokio::spawn(fetch());
    tokio::time::sleep(Duration::from_millis(100)).await;
    row.store(2, Ordering::SeqCst);
    there.invalidate(["t"]).await.unwrap();

    assert_eq!(fetch().await, 2);
    assert_eq!(early.await.unwrap(), 1);
    gates[home].send_replace(false);
    while here.invalidate(["other"]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fetch().await, 2);
}

#[tokio::test]
async fn keys_of_a_server_that_is_down_move_where_that_is_asked_for() {
    let (store, mut servers) = three("?eject=true").await;
    let keys = many_keys();
    servers[1].kill();
    for key in &keys {
        // The first to meet the dead server is told; then it is known.
        while store
            .put(key, text(store.clock(), "v"), When::Always)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }

    let others = [&servers[0], &servers[2]];
    assert!(
        keys.iter()
            .all(|key| others.iter().any(|server| has(server, key)))
    );

    servers[1].start_again();
    for _ in 0..500 {
        for key in &keys {
            let _ = store.put(key, text(store.clock(), "v"), When::Always).await;
        }
        if keys.iter().any(|key| has(&servers[1], key)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("they did not come back");
}

// Connections.

#[tokio::test]
async fn a_server_that_is_gone_is_reported_and_found_again_with_nothing_old() {
    let (store, mut server) = start().await;
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    let era = numbers(&store, &[]).await.era;

    server.kill();
    let mut error = None;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        error = store.heads(std::slice::from_ref(&key)).await.err();
    }
    let error = error.expect("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!("memcached: cannot connect to `{}`", server.url());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint(), Some("is the server running?"));
    assert!(std::error::Error::source(&error).is_some());

    server.start_again();
    back(&store).await;
    assert_eq!(read(&store, &key).await, None);
    assert_ne!(numbers(&store, &[]).await.era, era);
    assert!(put(&store, &key, text(store.clock(), "v"), When::Always).await);
    store.close().await.unwrap();
    assert!(read(&store, &key).await.is_some());
}

#[tokio::test]
async fn entries_of_another_run_of_the_server_are_misses_unless_trusted() {
    let (store, server) = start().await;
    let trusting = Memcached::builder(server.url()).trust_restarts();
    let trusting = trusting.connect().await.unwrap();
    let key = Key::new(":1:k");
    // As a server that keeps its memory in a file would have it after a restart.
    let old = text(store.clock(), "old").to_frame(&key, 12345);
    let clock = store.clock();
    put(&trusting, &key, text(clock, "old"), When::Always).await;
    assert_eq!(
        value(&trusting, &key).await,
        Some(Value::Bytes("old".into()))
    );

    assert_eq!(read(&store, &key).await, None);
    assert!(put(&store, &key, text(clock, "new"), When::IfAbsent).await);
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("new".into())));
    assert_eq!(Entry::from_frame(&old, &key, 1), None);
}

#[tokio::test]
async fn what_a_memory_file_keeps_over_a_restart_is_a_miss_unless_trusted() {
    let mut server = MemcachedServer::start_with(&["-e", "{folder}/memory"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let trusting = Memcached::builder(server.url()).trust_restarts();
    let trusting = trusting.connect().await.unwrap();
    let [key, trusted] = ["k", "trusted"].map(|name| Key::new(format!(":1:{name}")));
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    put(&trusting, &trusted, text(store.clock(), "v"), When::Always).await;
    let era = numbers(&store, &[]).await.era;

    let stats = server.say("stats\r\n");
    let (process, _) = stats
        .strip_prefix("STAT pid ")
        .unwrap()
        .split_once('\r')
        .unwrap();
    let stop = std::process::Command::new("kill")
        .args(["-USR1", process])
        .status();
    assert!(stop.unwrap().success());
    // It takes its file back only after another second has begun.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.start_again();
    back(&store).await;
    back(&trusting).await;

    assert!(
        has(&server, &key) && has(&server, &trusted),
        "they were kept"
    );
    assert_eq!(read(&store, &key).await, None);
    assert_ne!(numbers(&store, &[]).await.era, era);
    assert_eq!(
        value(&trusting, &trusted).await,
        Some(Value::Bytes("v".into()))
    );
}

#[tokio::test]
async fn an_idle_connection_that_died_costs_a_call_nothing() {
    let server = MemcachedServer::start_with(&["-o", "idle_timeout=1"]);
    let store = Memcached::connect(server.url()).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !server.say("stats\r\n").contains("idle_kicks 0") {
            break;
        }
    }

    assert!(read(&store, &key).await.is_some());
    assert!(put(&store, &key, text(store.clock(), "w"), When::Always).await);
}

#[tokio::test]
async fn a_frozen_server_is_a_timeout_then_unavailable_and_late_acts_come_before_new_ones() {
    let server = MemcachedServer::start();
    let limit = Duration::from_millis(200);
    let builder = Memcached::builder(server.url()).timeout(limit);
    let store = builder.connect_timeout(limit).connect().await.unwrap();
    let key = Key::new(":1:k");

    server.freeze();
    // It stops a moment after it was told to.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = text(store.clock(), "late");
    let error = store.put(&key, late, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let expected = format!("memcached: `{}` did not answer within 200ms", server.url());
    assert_eq!(error.to_string(), expected);
    let began = std::time::Instant::now();
    for _ in 0..100 {
        let error = store.heads(std::slice::from_ref(&key)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "they fail at once"
    );

    server.thaw();
    // The first act that is taken again finds the late one done.
    for _ in 0..500 {
        let new = text(store.clock(), "new");
        if store.put(&key, new, When::Always).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("new".into())));
}

#[tokio::test]
async fn callers_with_less_patience_than_the_store_do_not_wait_for_a_frozen_server_for_ever() {
    let server = MemcachedServer::start();
    let builder = Memcached::builder(server.url()).timeout(Duration::from_millis(300));
    let store = builder.connect().await.unwrap();
    let key = [Key::new(":1:k")];
    let patience = Duration::from_millis(50);
    server.freeze();
    let (mut waits, began) = (0, std::time::Instant::now());

    let error = loop {
        assert!(began.elapsed() < Duration::from_secs(5), "all wait in vain");
        match tokio::time::timeout(patience, store.heads(&key)).await {
            Ok(answer) => break answer.unwrap_err(),
            Err(_) => waits += 1,
        }
    };

    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!((2..20).contains(&waits), "{waits}");
    for _ in 0..100 {
        let answer = tokio::time::timeout(patience, store.heads(&key)).await;
        answer.expect("they fail at once").unwrap_err();
    }
    server.thaw();
    back(&store).await;
    store.heads(&key).await.unwrap();
}

/// A server that counts connections, and answers none.
async fn mute(hang_up: bool) -> (Memcached, Arc<AtomicU32>) {
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
    let builder = Memcached::builder(format!("memcached://127.0.0.1:{port}"));
    let store = builder.connect_timeout(Duration::from_millis(100)).lazy();
    (store.unwrap(), accepted)
}

#[tokio::test]
async fn after_a_failed_attempt_callers_fail_at_once_and_few_try_again() {
    for hang_up in [false, true] {
        let (store, attempts) = mute(hang_up).await;
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
        let attempts = attempts.load(Ordering::SeqCst);
        assert!((2..=9).contains(&attempts), "{attempts} attempts");
        assert!(calls > 1000, "{calls} calls");
    }
}

#[tokio::test]
async fn callers_that_meet_at_a_first_attempt_share_it() {
    let (store, attempts) = mute(false).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            let key = [Key::new(":1:k")];
            store.get(&key, None).await.unwrap_err().kind()
        });
    }

    let kinds = tasks.join_all().await;
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Unavailable));
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_store_outlives_the_runtime_that_connected_it() {
    let server = MemcachedServer::start();
    let store = Memcached::lazy(server.url()).unwrap();
    let key = Key::new(":1:k");
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

/// What stands between store and server, and does `tamper` with what the server says after its first
/// words; it counts how often the store speaks.
async fn between(
    server: &MemcachedServer,
    delay: Duration,
    tamper: impl Fn(&mut Vec<u8>) + Clone + Send + 'static,
) -> (String, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spoken = Arc::new(AtomicU32::new(0));
    let (count, to) = (Arc::clone(&spoken), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", to)).await;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.unwrap().into_split();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 20];
                while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                    count.fetch_add(1, Ordering::SeqCst);
                    if to_server.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
            });
            let tamper = tamper.clone();
            tokio::spawn(async move {
                let mut greeted = false;
                let mut bytes = vec![0; 1 << 20];
                while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                    let mut said = bytes[..length].to_vec();
                    if greeted {
                        tokio::time::sleep(delay).await;
                        tamper(&mut said);
                    }
                    greeted |= said.ends_with(b"MN\r\n");
                    if to_client.write_all(&said).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (format!("memcached://127.0.0.1:{port}"), spoken)
}

/// What stands between store and server, and says itself what `answer` makes of what is asked; what
/// it makes nothing of goes to the server.
async fn answering(
    server: &MemcachedServer,
    answer: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answer, to) = (Arc::new(answer), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", to)).await;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.unwrap().into_split();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let (mut asked, mut said) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                loop {
                    tokio::select! {
                        read = from_client.read(&mut asked) => {
                            let Ok(length @ 1..) = read else { return };
                            let asked = &asked[..length];
                            let done = match answer(&String::from_utf8_lossy(asked)) {
                                Some(own) => to_client.write_all(own.as_bytes()).await,
                                None => to_server.write_all(asked).await,
                            };
                            if done.is_err() { return }
                        }
                        read = from_server.read(&mut said) => {
                            let Ok(length @ 1..) = read else { return };
                            if to_client.write_all(&said[..length]).await.is_err() { return }
                        }
                    }
                }
            });
        }
    });
    format!("memcached://127.0.0.1:{port}")
}

#[tokio::test]
async fn a_cancelled_call_never_makes_another_read_its_value() {
    let (direct, server) = start().await;
    for name in ["a", "b"] {
        let key = Key::new(format!(":1:{name}"));
        put(
            &direct,
            &key,
            text(direct.clock(), if name == "a" { "a" } else { "b" }),
            When::Always,
        )
        .await;
    }
    let (url, _) = between(&server, Duration::from_millis(100), |_| {}).await;
    let store = Memcached::connect(url).await.unwrap();
    for _ in 0..5 {
        let a = Key::new(":1:a");
        let cancelled = tokio::time::timeout(Duration::from_millis(30), read(&store, &a)).await;
        assert!(cancelled.is_err());

        let b = value(&store, &Key::new(":1:b")).await;

        assert_eq!(b, Some(Value::Bytes("b".into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_under_way_do_not_mix_up_answers() {
    let (store, _server) = start().await;
    let keys: Vec<Key> = (0..16).map(|n| Key::new(format!(":1:{n}"))).collect();
    for (number, key) in (0..).zip(&keys) {
        let entry = Entry::new(store.clock(), Value::Integer(number));
        put(&store, key, entry, When::Always).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (store, keys) = (store.clone(), keys.clone());
        tasks.spawn(async move {
            let mut answered = 0;
            for round in 0..400_usize {
                let at = (round + task) % keys.len();
                let patience = Duration::from_micros((round as u64 * 37) % 1500);
                let call = read(&store, &keys[at]);
                if let Ok(entry) = tokio::time::timeout(patience, call).await {
                    let number = i64::try_from(at).unwrap();
                    assert_eq!(entry.unwrap().value, Some(Value::Integer(number)));
                    answered += 1;
                }
                let call = store.mark(&keys[at], Some(Stamp::from_number(1)), lease(store.clock()));
                let _ = tokio::time::timeout(patience / 2, call).await;
            }
            answered
        });
    }
    let answered: u32 = tasks.join_all().await.iter().sum();
    assert!(answered > 100, "{answered}");
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(value(&store, key).await, Some(Value::Integer(number)));
    }
}

/// Puts `to` in place of the first `from`.
fn swap(said: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let at = said.windows(from.len()).position(|window| window == from);
    if let Some(at) = at {
        said.splice(at..at + from.len(), to.iter().copied());
    }
}

#[tokio::test]
async fn bytes_that_no_server_sends_break_the_connection_and_nothing_else() {
    let (direct, server) = start().await;
    let key = Key::new(":1:k");
    put(&direct, &key, text(direct.clock(), "v"), When::Always).await;
    let tampers: [fn(&mut Vec<u8>); 5] = [
        |said| swap(said, b"VA ", b"VALUE "),
        // A reply to another command.
        |said| swap(said, b" O", b" O9"),
        // A value longer than stated.
        |said| swap(said, b"VA ", b"VA 1"),
        |said| swap(said, b"\r\n", b"\n"),
        |said| said.extend_from_slice(b"EN\r\n"),
    ];
    for (row, tamper) in tampers.into_iter().enumerate() {
        let times = Arc::new(AtomicU32::new(0));
        let (url, _) = between(&server, Duration::ZERO, move |said| {
            if times.fetch_add(1, Ordering::SeqCst) < 2 {
                tamper(said);
            }
        })
        .await;
        let builder = Memcached::builder(url).timeout(Duration::from_millis(300));
        let store = builder.connect().await.unwrap();

        for _ in 0..200 {
            match store.get(std::slice::from_ref(&key), None).await {
                Ok(found) => {
                    let value = found.entries[0]
                        .as_ref()
                        .and_then(|entry| entry.value.clone());
                    assert_eq!(value, Some(Value::Bytes("v".into())), "{row}");
                }
                Err(error) => {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout),
                        "{row}"
                    );
                }
            }
        }
        back(&store).await;
        assert!(
            read(&store, &key).await.is_some(),
            "{row}: it is whole again"
        );
    }
}

#[tokio::test]
async fn a_batch_with_tags_is_one_round_trip() {
    let (_, server) = start().await;
    let (url, spoken) = between(&server, Duration::ZERO, |_| {}).await;
    let store = Memcached::connect(url).await.unwrap();
    let names: [Tag; 2] = ["a".into(), "b".into()];
    let keys: Vec<Key> = (0..100).map(|at| Key::new(format!(":1:{at}"))).collect();
    store.get(&keys, Some(tags("", &names))).await.unwrap();
    let trips = |before: u32| spoken.load(Ordering::SeqCst) - before;

    let before = trips(0);
    store.get(&keys, Some(tags("", &names))).await.unwrap();
    assert_eq!(trips(before), 1);

    let before = trips(0);
    let entries = keys
        .iter()
        .map(|key| (key.clone(), integer(store.clock(), 1)));
    store.put_many(entries.collect()).await.unwrap();
    assert_eq!(trips(before), 1);

    let before = trips(0);
    store.delete(&keys).await.unwrap();
    assert_eq!(trips(before), 1);
    // A load: its lease, and the value under it.
    let before = trips(0);
    let mark = lease(store.clock());
    assert!(store.mark(&keys[0], None, mark).await.unwrap());
    let value = text(store.clock(), "v");
    assert!(put(&store, &keys[0], value, When::IfStamp(mark.stamp)).await);
    assert_eq!(trips(before), 2);
}

#[tokio::test]
async fn a_fetch_with_known_tags_reads_in_one_round_trip() {
    let (_, server) = start().await;
    let (url, spoken) = between(&server, Duration::ZERO, |_| {}).await;
    let cache = Cache::new(Memcached::connect(url).await.unwrap());
    let fetch = || async {
        let fetch = cache.fetch("k", || async { Ok::<_, Infallible>(1) });
        assert_eq!(fetch.tags(["a", "b"]).await.unwrap(), 1);
    };
    cache.invalidate(["a", "b"]).await.unwrap();
    fetch().await;

    let before = spoken.load(Ordering::SeqCst);
    fetch().await;

    assert_eq!(spoken.load(Ordering::SeqCst) - before, 1);
}

// Logins, sockets, TLS.

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let folder = support::new_folder();
    std::fs::write(folder.join("users"), "me:s3cret@:x\n").unwrap();
    let server = MemcachedServer::start_in(folder, &["-Y", "{folder}/users"]);
    let at = format!("127.0.0.1:{}", server.port());
    let url = format!("memcached://me:s3cret%40%3Ax@{at}");
    let store = Memcached::connect(url.as_str()).await.unwrap();
    assert_eq!(store.to_string(), format!("memcached://{at}"));
    assert!(!format!("{store:?} {:?}", Memcached::builder(url)).contains("s3cret"));
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    store.clear(":", "").await.unwrap();
    assert_eq!(read(&store, &key).await, None);

    for url in [
        format!("memcached://me:wr0ng@{at}"),
        format!("memcached://nobody:wr0ng@{at}"),
        format!("memcached://{at}"),
    ] {
        let error = Memcached::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let expected = format!("memcached: `memcached://{at}` refuses the login");
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("wr0ng"));
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let server = MemcachedServer::start_with(&["-s", "{folder}/m.sock"]);
    let path = server.folder().join("m.sock").display().to_string();
    let url = format!("memcached+unix://{path}");

    let store = Memcached::lazy(url.as_str()).unwrap();
    // The file is there a moment before anybody listens.
    back(&store).await;

    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v"), When::Always).await;
    assert!(read(&store, &key).await.is_some());
    store.clear(":", "").await.unwrap();
    assert_eq!(read(&store, &key).await, None);
    assert_eq!(store.to_string(), url);
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_only_it() {
    let folder = support::new_folder();
    support::make_certificates(&folder);
    let authority = std::fs::read(folder.join("ca.crt")).unwrap();
    let tls = "ssl_chain_cert={folder}/server.crt,ssl_key={folder}/server.key";
    let server = MemcachedServer::start_in(folder, &["-Z", "-o", tls]);
    let url = format!("memcached+tls://localhost:{}", server.port());
    let builder = Memcached::builder(url.as_str()).connect_timeout(Duration::from_secs(5));

    let store = builder.clone().ca_certificate_pem(authority);
    let store = store.connect().await.unwrap();

    let key = Key::new(":1:k");
    let large = Value::Bytes(vec![b'x'; 500_000].into());
    let entry = Entry::new(store.clock(), large.clone());
    put(&store, &key, entry, When::Always).await;
    assert_eq!(value(&store, &key).await, Some(large));
    store.clear(":", "").await.unwrap();
    assert_eq!(read(&store, &key).await, None);
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

// Servers that refuse.

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why() {
    let server = MemcachedServer::start_with(&["-C"]);
    let error = Memcached::connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!("memcached: `{}` was started without CAS", server.url());
    assert_eq!(error.to_string(), expected);
}
