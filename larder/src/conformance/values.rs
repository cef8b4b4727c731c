//! Reading, writing, counting, deleting.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::{Ground, LONG, SHORT, Turn, text};
use crate::entry::Tagged;
use crate::store::{Store, Sum, Tags, When};
use crate::{Cache, Entry, ErrorKind, Key, MAX_DECODED, Moment, Stamp, Ttl, Value};

pub(super) async fn a_missing_key_is_nothing(ground: Ground<'_>) {
    assert_eq!(ground.get("k").await, None, "{}", ground.store);
    assert_eq!(ground.head("k").await, None, "{}", ground.store);
    assert_eq!(ground.delete("k").await, None, "{}", ground.store);
}

pub(super) async fn what_was_put_is_what_is_got(ground: Ground<'_>) {
    let deadline = ground.now().plus(LONG);
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1), ("b:c".into(), u64::MAX - 1)],
    };
    let mut entry = ground
        .bytes("v")
        .fresh_until(deadline)
        .with_grace(LONG)
        .with_tags(tags);
    entry.codec = 200;

    ground.put("bytes", entry.clone()).await;
    ground
        .put("integer", ground.integer(-5).fresh_until(deadline))
        .await;
    let tagged = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let framed = ground
        .put("framed", ground.integer(5).with_tags(tagged))
        .await;

    assert_eq!(ground.get("bytes").await, Some(entry), "{}", ground.store);
    assert_eq!(
        ground.live("integer").await,
        Some(Value::Integer(-5)),
        "{}",
        ground.store
    );
    assert_eq!(ground.get("framed").await, Some(framed), "{}", ground.store);
}

pub(super) async fn many_are_answered_in_the_order_asked(ground: Ground<'_>) {
    let (b, d) = (
        ground.put("b", ground.bytes("2")).await,
        ground.put("d", ground.bytes("4")).await,
    );
    let keys = ["a", "b", "c", "d", "b"].map(|name| ground.key(name));

    let found = ground.store.get(&keys, None).await.unwrap();
    let heads = ground.store.heads(&keys).await.unwrap();

    let expected = [None, Some(b.clone()), None, Some(d), Some(b)];
    assert_eq!(found.entries, expected, "{}", ground.store);
    assert_eq!(found.numbers, None, "{}", ground.store);
    let there: Vec<_> = heads.iter().map(Option::is_some).collect();
    assert_eq!(there, [false, true, false, true, true], "{}", ground.store);
}

pub(super) async fn an_empty_batch_is_no_trouble(ground: Ground<'_>) {
    let store = ground.store;

    assert!(
        store.get(&[], None).await.unwrap().entries.is_empty(),
        "{store}"
    );
    assert!(store.heads(&[]).await.unwrap().is_empty(), "{store}");
    assert!(
        store.put_many(Vec::new()).await.unwrap().is_empty(),
        "{store}"
    );
    assert!(store.delete(&[]).await.unwrap().is_empty(), "{store}");
    let numbers = store
        .get(
            &[],
            Some(Tags {
                space: ground.space(),
                names: &[],
            }),
        )
        .await
        .unwrap();
    assert!(
        numbers.numbers.is_some_and(|numbers| numbers.of.is_empty()),
        "{store}"
    );
}

pub(super) async fn a_put_replaces_all_that_was_there(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let first = ground
        .put(
            "k",
            ground.fresh("1", LONG).with_grace(LONG).with_tags(tags),
        )
        .await;
    assert!(
        ground
            .mark("k", Some(first.stamp), ground.lease(LONG))
            .await,
        "{}",
        ground.store
    );

    let second = ground.put("k", ground.bytes("2")).await;

    assert_eq!(ground.get("k").await, Some(second), "{}", ground.store);
    assert_eq!(
        ground.head("k").await.unwrap().fresh_until,
        Moment::NEVER,
        "{}",
        ground.store
    );
}

pub(super) async fn if_absent_keeps_the_first(ground: Ground<'_>) {
    assert!(
        ground
            .put_when("k", ground.bytes("1"), When::IfAbsent)
            .await,
        "{}",
        ground.store
    );
    assert!(
        !ground
            .put_when("k", ground.bytes("2"), When::IfAbsent)
            .await,
        "{}",
        ground.store
    );
    assert_eq!(ground.live("k").await, text("1"), "{}", ground.store);

    ground.put("n", ground.integer(1)).await;
    assert!(
        !ground
            .put_when("n", ground.bytes("2"), When::IfAbsent)
            .await,
        "{}",
        ground.store
    );
}

pub(super) async fn if_absent_writes_over_what_has_expired(ground: Ground<'_>) {
    ground
        .put("k", ground.fresh("1", SHORT).with_grace(LONG))
        .await;
    ground.pass(SHORT).await;

    assert!(
        ground
            .put_when("k", ground.bytes("2"), When::IfAbsent)
            .await,
        "{}",
        ground.store
    );
    assert_eq!(ground.live("k").await, text("2"), "{}", ground.store);
}

pub(super) async fn if_present_writes_only_over_what_is_live(ground: Ground<'_>) {
    assert!(
        !ground
            .put_when("k", ground.bytes("1"), When::IfPresent)
            .await,
        "{}",
        ground.store
    );
    ground
        .put("k", ground.fresh("2", SHORT).with_grace(LONG))
        .await;
    assert!(
        ground
            .put_when("k", ground.fresh("3", SHORT), When::IfPresent)
            .await,
        "{}",
        ground.store
    );
    ground.pass(SHORT).await;

    assert!(
        !ground
            .put_when("k", ground.bytes("4"), When::IfPresent)
            .await,
        "{}",
        ground.store
    );
    assert_eq!(ground.live("k").await, None, "{}", ground.store);
}

pub(super) async fn if_stamp_writes_only_over_the_stamp_seen(ground: Ground<'_>) {
    let seen = ground.put("k", ground.bytes("1")).await.stamp;

    let other = When::IfStamp(ground.stamp());
    assert!(
        !ground.put_when("k", ground.bytes("2"), other).await,
        "{}",
        ground.store
    );
    assert!(
        !ground.put_when("gone", ground.bytes("2"), other).await,
        "{}",
        ground.store
    );
    assert!(
        ground
            .put_when("k", ground.bytes("3"), When::IfStamp(seen))
            .await,
        "{}",
        ground.store
    );
    assert!(
        !ground
            .put_when("k", ground.bytes("4"), When::IfStamp(seen))
            .await,
        "{}",
        ground.store
    );
    assert_eq!(ground.live("k").await, text("3"), "{}", ground.store);
}

pub(super) async fn of_many_at_once_one_is_the_first(ground: Ground<'_>) {
    let prefix = ground.prefix.clone();
    let add = move |store: Arc<dyn Store>, turn: Turn| {
        let key = Key::new(format!("{prefix}:1:{}", turn.round));
        async move {
            let entry = Entry::new(store.clock(), Value::Bytes("v".into()));
            store.put(&key, entry, When::IfAbsent).await.unwrap()
        }
    };

    let won = ground.at_once(20, add).await;

    for round in 0..20 {
        let winners = won.iter().filter(|won| **won == (round, true)).count();
        assert_eq!(winners, 1, "{}: round {round}", ground.store);
    }
}

pub(super) async fn put_many_writes_all(ground: Ground<'_>) {
    let entries = [
        ("a", ground.bytes("1")),
        ("b", ground.integer(2)),
        ("c", ground.fresh("3", LONG)),
    ];
    let entries = entries
        .map(|(name, entry)| (ground.key(name), entry))
        .to_vec();

    assert!(
        ground.store.put_many(entries).await.unwrap().is_empty(),
        "{}",
        ground.store
    );

    assert_eq!(ground.live("a").await, text("1"), "{}", ground.store);
    assert_eq!(
        ground.live("b").await,
        Some(Value::Integer(2)),
        "{}",
        ground.store
    );
    assert_eq!(ground.live("c").await, text("3"), "{}", ground.store);
}

pub(super) async fn a_ttl_ends_to_the_millisecond(ground: Ground<'_>) {
    let entry = ground.put("k", ground.fresh("v", SHORT)).await;
    ground
        .put("n", ground.integer(1).fresh_until(entry.fresh_until))
        .await;
    assert_eq!(ground.live("k").await, text("v"), "{}", ground.store);
    assert_eq!(
        ground.live("n").await,
        Some(Value::Integer(1)),
        "{}",
        ground.store
    );

    ground.pass(SHORT).await;

    assert_eq!(ground.live("k").await, None, "{}", ground.store);
    assert_eq!(ground.head("k").await, None, "{}", ground.store);
    // A server ends the life of a plain integer by its own clock, which may be a moment late.
    ground.pass(Duration::from_millis(20)).await;
    assert_eq!(ground.live("n").await, None, "{}", ground.store);
    assert_eq!(ground.head("n").await, None, "{}", ground.store);
}

pub(super) async fn what_is_past_its_grace_is_gone(ground: Ground<'_>) {
    ground
        .put("k", ground.fresh("v", SHORT).with_grace(SHORT))
        .await;
    ground.pass(SHORT).await;
    let stale = ground
        .get("k")
        .await
        .expect("a value within its grace is there for the engine");
    assert!(stale.is_within_grace(stale.fresh_until), "{}", ground.store);

    ground.pass(SHORT).await;

    let gone = ground
        .get("k")
        .await
        .is_none_or(|entry| !entry.is_within_grace(ground.now()));
    assert!(gone, "{}", ground.store);
}

pub(super) async fn touch_moves_the_deadline_and_nothing_else(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let before = ground
        .put(
            "k",
            ground.fresh("v", SHORT).with_grace(LONG).with_tags(tags),
        )
        .await;
    let deadline = ground.now().plus(LONG);

    let head = ground
        .store
        .touch(&ground.key("k"), deadline)
        .await
        .unwrap();

    assert_eq!(head, Some(before.head()), "{}", ground.store);
    let after = ground.get("k").await.unwrap();
    assert_eq!(
        (&after.value, &after.tags),
        (&before.value, &before.tags),
        "{}",
        ground.store
    );
    assert_eq!(after.fresh_until, deadline, "{}", ground.store);
    assert_eq!(after.stale_until, deadline.plus(LONG), "{}", ground.store);
    assert_ne!(after.stamp, before.stamp, "{}", ground.store);

    ground
        .store
        .touch(&ground.key("k"), Moment::NEVER)
        .await
        .unwrap();
    assert_eq!(
        ground.head("k").await.unwrap().fresh_until,
        Moment::NEVER,
        "{}",
        ground.store
    );
    ground
        .store
        .touch(&ground.key("k"), ground.now().plus(SHORT))
        .await
        .unwrap();
    ground.pass(SHORT).await;
    assert_eq!(ground.live("k").await, None, "{}", ground.store);
}

pub(super) async fn touch_of_nothing_is_nothing(ground: Ground<'_>) {
    let deadline = ground.now().plus(LONG);
    ground
        .put("expired", ground.fresh("v", SHORT).with_grace(LONG))
        .await;
    assert!(
        ground.mark("leased", None, ground.lease(LONG)).await,
        "{}",
        ground.store
    );
    ground.pass(SHORT).await;

    for name in ["missing", "expired", "leased"] {
        let head = ground
            .store
            .touch(&ground.key(name), deadline)
            .await
            .unwrap();
        assert_eq!(head, None, "{}: {name}", ground.store);
        assert_eq!(ground.live(name).await, None, "{}: {name}", ground.store);
    }
}

pub(super) async fn touch_of_an_integer_moves_its_deadline(ground: Ground<'_>) {
    ground
        .put("n", ground.integer(5).fresh_until(ground.now().plus(SHORT)))
        .await;

    let touched = ground
        .store
        .touch(&ground.key("n"), ground.now().plus(LONG))
        .await
        .unwrap();
    ground.pass(2 * SHORT).await;

    assert!(touched.is_some(), "{}", ground.store);
    assert_eq!(
        ground.live("n").await,
        Some(Value::Integer(5)),
        "{}",
        ground.store
    );
    let sum = ground.store.add_to(&ground.key("n"), 1).await.unwrap();
    assert_eq!(
        sum,
        Sum::Is(6),
        "{}: it is still a plain integer",
        ground.store
    );
}

pub(super) async fn heads_tell_deadlines_and_tags(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let entry = ground
        .put("k", ground.fresh("v", LONG).with_tags(tags))
        .await;
    ground.put("never", ground.integer(1)).await;
    let deadline = ground.now().plus(LONG);
    ground
        .put("n", ground.integer(1).fresh_until(deadline))
        .await;

    assert_eq!(
        ground.head("k").await,
        Some(entry.head()),
        "{}",
        ground.store
    );
    assert_eq!(
        ground.head("never").await.unwrap().fresh_until,
        Moment::NEVER,
        "{}",
        ground.store
    );
    // A server tells what is left, and the answer takes its time.
    let told = ground.head("n").await.unwrap().fresh_until.as_millis();
    assert!(
        told.abs_diff(deadline.as_millis()) < 1000,
        "{}",
        ground.store
    );
}

pub(super) async fn delete_tells_what_was_live(ground: Ground<'_>) {
    let entry = ground.put("k", ground.fresh("v", LONG)).await;
    ground.put("n", ground.integer(1)).await;
    ground
        .put("expired", ground.fresh("v", SHORT).with_grace(LONG))
        .await;
    ground.pass(SHORT).await;
    let keys = ["missing", "k", "n", "expired"].map(|name| ground.key(name));

    let heads = ground.store.delete(&keys).await.unwrap();

    assert_eq!(heads[1], Some(entry.head()), "{}", ground.store);
    let there: Vec<_> = heads.iter().map(Option::is_some).collect();
    assert_eq!(there, [false, true, true, false], "{}", ground.store);
    let found = ground.store.get(&keys, None).await.unwrap();
    assert_eq!(found.entries, [None, None, None, None], "{}", ground.store);
}

pub(super) async fn a_sum_keeps_the_ttl_and_goes_below_zero(ground: Ground<'_>) {
    let key = ground.key("n");
    ground
        .put("n", ground.integer(1).fresh_until(ground.now().plus(SHORT)))
        .await;

    assert_eq!(
        ground.store.add_to(&key, 4).await.unwrap(),
        Sum::Is(5),
        "{}",
        ground.store
    );
    assert_eq!(
        ground.store.add_to(&key, -7).await.unwrap(),
        Sum::Is(-2),
        "{}",
        ground.store
    );
    assert_eq!(
        ground.live("n").await,
        Some(Value::Integer(-2)),
        "{}",
        ground.store
    );

    ground.pass(SHORT + Duration::from_millis(20)).await;
    assert_eq!(ground.live("n").await, None, "{}", ground.store);
    assert_eq!(
        ground.store.add_to(&key, 1).await.unwrap(),
        Sum::NoSuchKey,
        "{}",
        ground.store
    );
}

pub(super) async fn a_sum_needs_a_plain_integer(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    ground
        .put("tagged", ground.integer(1).with_tags(tags))
        .await;
    ground.put("bytes", ground.bytes("1")).await;
    ground
        .put("expired", ground.fresh("1", SHORT).with_grace(LONG))
        .await;
    ground.pass(SHORT).await;

    for (name, expected) in [
        ("tagged", Sum::NotPlain),
        ("bytes", Sum::NotPlain),
        ("missing", Sum::NoSuchKey),
        ("expired", Sum::NoSuchKey),
    ] {
        let sum = ground.store.add_to(&ground.key(name), 1).await.unwrap();
        assert_eq!(sum, expected, "{}: {name}", ground.store);
    }
    assert_eq!(
        ground.live("tagged").await,
        Some(Value::Integer(1)),
        "{}",
        ground.store
    );
}

pub(super) async fn a_sum_past_64_bits_changes_nothing(ground: Ground<'_>) {
    for (edge, delta) in [(i64::MAX, 1), (i64::MIN, -1)] {
        ground.put("n", ground.integer(edge)).await;

        let sum = ground.store.add_to(&ground.key("n"), delta).await.unwrap();

        assert_eq!(sum, Sum::Overflow, "{}", ground.store);
        assert_eq!(
            ground.live("n").await,
            Some(Value::Integer(edge)),
            "{}",
            ground.store
        );
    }
}

pub(super) async fn sums_at_once_all_count(ground: Ground<'_>) {
    ground.put("n", ground.integer(0)).await;
    let key = ground.key("n");
    let add = move |store: Arc<dyn Store>, _: Turn| {
        let key = key.clone();
        async move { store.add_to(&key, 1).await.unwrap() }
    };

    let sums = ground.at_once(20, add).await;

    let all = i64::try_from(sums.len()).unwrap();
    assert_eq!(
        ground.live("n").await,
        Some(Value::Integer(all)),
        "{}",
        ground.store
    );
    let given: BTreeSet<String> = sums.iter().map(|(_, sum)| format!("{sum:?}")).collect();
    assert_eq!(given.len(), sums.len(), "{}", ground.store);
}

pub(super) async fn digits_in_bytes_stay_bytes(ground: Ground<'_>) {
    for look_alike in ["12", "-3", "\u{fb}", "", " 12 ", "12abc"] {
        ground.put("k", ground.bytes(look_alike)).await;
        assert_eq!(
            ground.live("k").await,
            text(look_alike),
            "{}: {look_alike:?}",
            ground.store
        );
    }
    let frame = ground.bytes("inner").to_frame(&ground.key("k"), 0);
    let entry = Entry::new(ground.store.clock(), Value::Bytes(frame.clone()));
    ground.put("k", entry).await;
    assert_eq!(
        ground.live("k").await,
        Some(Value::Bytes(frame)),
        "{}",
        ground.store
    );
}

pub(super) async fn empty_and_large_values_are_kept(ground: Ground<'_>) {
    let large = Value::Bytes(vec![0xfb; 1 << 20].into());
    ground
        .put("large", Entry::new(ground.store.clock(), large.clone()))
        .await;
    ground.put("empty", ground.bytes("")).await;

    assert_eq!(ground.live("large").await, Some(large), "{}", ground.store);
    assert_eq!(ground.live("empty").await, text(""), "{}", ground.store);
}

pub(super) async fn keys_that_are_hashed_do_not_mix(ground: Ground<'_>) {
    let long = "k".repeat(300);
    let names = [
        "a b",
        "a\tb",
        "schlüssel 清",
        long.as_str(),
        "plain",
        "schlüssel",
    ];

    for name in names {
        let value = Value::Bytes(name.as_bytes().to_vec().into());
        ground
            .put(name, Entry::new(ground.store.clock(), value))
            .await;
    }
    for name in names {
        let value = Value::Bytes(name.as_bytes().to_vec().into());
        assert_eq!(
            ground.live(name).await,
            Some(value),
            "{}: {name:?}",
            ground.store
        );
        assert!(
            ground.head(name).await.is_some(),
            "{}: {name:?}",
            ground.store
        );
        assert!(
            ground.delete(name).await.is_some(),
            "{}: {name:?}",
            ground.store
        );
    }
}

pub(super) async fn clear_removes_its_own_scope_only(ground: Ground<'_>) {
    let prefix = &ground.prefix;
    let own = [
        format!("{prefix}*[a-z]?\\:1:k"),
        format!("{prefix}*[a-z]?\\:2:n"),
    ];
    let foreign = [
        format!("{prefix}xb?\\:1:k"),
        format!("{prefix}:1:k"),
        format!("{prefix}*[a-z]?\\x:1:k"),
        format!("x{prefix}*[a-z]?\\:1:k"),
    ];
    for name in own.iter().chain(&foreign) {
        let put = ground
            .store
            .put(&Key::new(name.as_str()), ground.integer(1), When::Always)
            .await;
        assert!(put.unwrap(), "{}", ground.store);
    }

    ground
        .store
        .clear(&format!("{prefix}*[a-z]?\\:"), ground.space())
        .await
        .unwrap();

    for (names, expected) in [(&own[..], false), (&foreign[..], true)] {
        for name in names {
            let heads = ground
                .store
                .heads(&[Key::new(name.as_str())])
                .await
                .unwrap();
            assert_eq!(heads[0].is_some(), expected, "{}: {name}", ground.store);
        }
    }
}

/// What an entry says that matters at `now`; of a live one the state may be left out, and with it the
/// stamp.
fn said(entry: Option<&Entry>, now: Moment) -> Option<String> {
    let entry = entry?;
    if entry.is_live(now) {
        let value = (&entry.value, entry.codec, &entry.tags);
        return Some(format!(
            "{value:?} {:?}",
            (entry.fresh_until, entry.stale_until)
        ));
    }
    let value = entry.is_within_grace(now).then_some(&entry.value);
    Some(format!(
        "{value:?} {:?} {:?}",
        entry.state_at(now),
        entry.stamp
    ))
}

pub(super) async fn get_now_agrees_with_get(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let live = ground.fresh("v", LONG).with_grace(LONG).with_tags(tags);
    let leased = ground.put("leased", live.clone()).await;
    ground.put("live", live).await;
    ground.put("n", ground.integer(1)).await;
    ground.put("a b", ground.bytes("hashed")).await;
    for name in ["stale", "leased and stale"] {
        let stale = ground.fresh("v", SHORT).with_grace(LONG);
        let stale = ground.put(name, stale).await;
        if name != "stale" {
            ground
                .mark(name, Some(stale.stamp), ground.lease(LONG))
                .await;
        }
    }
    let lease = ground.lease(LONG);
    ground.mark("leased", Some(leased.stamp), lease).await;
    ground.mark("bare", None, ground.lease(LONG)).await;
    ground.pass(SHORT).await;

    for name in [
        "live",
        "leased",
        "n",
        "a b",
        "stale",
        "leased and stale",
        "bare",
        "missing",
    ] {
        let later = ground.get(name).await;
        if let Some(now) = ground.store.get_now(&ground.key(name)) {
            let at = ground.now();
            let (now, later) = (said(now.as_deref(), at), said(later.as_ref(), at));
            assert_eq!(now, later, "{}: {name}", ground.store);
        }
    }
}

pub(super) async fn entries_and_numbers_are_got_together(ground: Ground<'_>) {
    let entry = ground.put("k", ground.fresh("v", LONG)).await;
    let names = ["a".into(), "b".into()];
    let number = ground.raise(&names[..1]).await;
    let keys = [ground.key("missing"), ground.key("k")];
    let tags = Tags {
        space: ground.space(),
        names: &names,
    };

    let found = ground.store.get(&keys, Some(tags)).await.unwrap();

    assert_eq!(found.entries, [None, Some(entry)], "{}", ground.store);
    let numbers = found.numbers.expect("numbers were asked for");
    assert_eq!(
        (numbers.of[0], numbers.of.len(), numbers.seq),
        (Some(number), 2, number),
        "{}",
        ground.store
    );
}

pub(super) async fn a_sum_gives_a_new_stamp(ground: Ground<'_>) {
    ground.put("n", ground.integer(1)).await;
    let seen = ground.get("n").await.expect("it is there").stamp;
    let key = ground.key("n");
    assert_eq!(ground.store.add_to(&key, 1).await.unwrap(), Sum::Is(2));

    // Digits on a server have no stamp of their own.
    if seen != Stamp::PLAIN {
        let when = When::IfStamp(seen);
        let late = ground.put_when("n", ground.integer(7), when).await;
        assert!(!late, "{}", ground.store);
    }
    let live = ground.live("n").await;
    assert_eq!(live, Some(Value::Integer(2)), "{}", ground.store);
}

pub(super) async fn sums_over_a_lease_all_count_and_keep_the_ttl(ground: Ground<'_>) {
    let cache = Cache::builder(Arc::clone(ground.shared)).prefix(ground.prefix.clone());
    let cache = cache.build().unwrap();
    cache.set("n", &0).ttl(LONG).await.unwrap();
    let ticket = cache.ticket("n").await.unwrap();
    let counting = cache.clone();
    let count = move |_, _: Turn| {
        let cache = counting.clone();
        async move { cache.incr("n", 1).await.ok() }
    };

    let sums = ground.at_once(3, count).await;

    let all = i64::try_from(sums.len()).unwrap();
    let given: BTreeSet<i64> = sums.into_iter().filter_map(|(_, sum)| sum).collect();
    assert_eq!(given, (1..=all).collect(), "{}", ground.store);
    let left = cache.ttl("n").await.unwrap();
    assert!(
        matches!(left, Some(Ttl::For(left)) if left <= LONG),
        "{}: {left:?}",
        ground.store
    );
    drop(ticket);
}

pub(super) async fn what_is_too_large_leaves_nothing_behind(ground: Ground<'_>) {
    let length = usize::try_from(MAX_DECODED).unwrap() + 1;
    let large = Entry::new(ground.store.clock(), Value::Bytes(vec![0; length].into()));
    for when in [When::Always, When::IfPresent] {
        ground.put("k", ground.bytes("old")).await;

        let put = ground
            .store
            .put(&ground.key("k"), large.clone(), when)
            .await;

        match put {
            Ok(written) => {
                assert!(written, "{}", ground.store);
                assert!(
                    ground.live("k").await == large.value,
                    "{}: it cannot be read back",
                    ground.store
                );
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::TooLarge,
                    "{}: {error}",
                    ground.store
                );
                assert_eq!(ground.live("k").await, None, "{}", ground.store);
                assert_eq!(ground.head("k").await, None, "{}", ground.store);
            }
        }
    }
}

pub(super) async fn put_many_may_name_a_key_twice(ground: Ground<'_>) {
    let entries = ["1", "other", "2"].map(|text| {
        let name = if text == "other" { text } else { "k" };
        (ground.key(name), ground.bytes(text))
    });

    let refused = ground.store.put_many(entries.to_vec()).await.unwrap();

    assert!(refused.is_empty(), "{}", ground.store);
    let live = ground.live("k").await;
    assert!(live == text("1") || live == text("2"), "{}", ground.store);
    assert_eq!(
        ground.live("other").await,
        text("other"),
        "{}",
        ground.store
    );
}

pub(super) async fn delete_of_a_key_named_twice_counts_once(ground: Ground<'_>) {
    ground.put("k", ground.fresh("v", LONG)).await;
    let keys = ["k", "missing", "k"].map(|name| ground.key(name));

    let heads = ground.store.delete(&keys).await.unwrap();

    assert_eq!(heads.len(), 3, "{}", ground.store);
    assert_eq!(heads.iter().flatten().count(), 1, "{}", ground.store);
    assert_eq!(ground.get("k").await, None, "{}", ground.store);
}

pub(super) async fn what_is_past_its_end_when_put_is_nothing(ground: Ground<'_>) {
    for (when, name) in [(When::Always, "always"), (When::IfPresent, "present")] {
        let old = ground.put(name, ground.bytes("old")).await;
        let late = ground.bytes("late").fresh_until(ground.now());

        assert!(ground.put_when(name, late, when).await, "{}", ground.store);

        assert_eq!(ground.live(name).await, None, "{}: {name}", ground.store);
        assert_eq!(ground.head(name).await, None, "{}: {name}", ground.store);
        let stamp = When::IfStamp(old.stamp);
        let written = ground.put_when(name, ground.bytes("v"), stamp).await;
        assert!(!written, "{}: {name}: the old one is gone", ground.store);
        let added = ground
            .put_when(name, ground.bytes("new"), When::IfAbsent)
            .await;
        assert!(added, "{}: {name}", ground.store);
    }
}

pub(super) async fn deadlines_at_the_end_of_time_are_kept(ground: Ground<'_>) {
    let last = Moment::from_millis(u64::MAX - 1);
    let entry = ground.bytes("v").fresh_until(last).with_grace(LONG);

    let entry = ground.put("k", entry).await;
    ground.put("n", ground.integer(5).fresh_until(last)).await;

    // A store may take what is farther than anybody waits for never.
    let far = Moment::from_millis(1 << 62);
    let kept = ground.get("k").await.unwrap();
    assert!(
        kept.fresh_until >= far && kept.stale_until >= kept.fresh_until,
        "{}: {kept:?}",
        ground.store
    );
    assert_eq!(kept.value, entry.value, "{}", ground.store);
    let head = ground.head("k").await.unwrap();
    assert!(head.fresh_until >= far, "{}: {head:?}", ground.store);
    let live = ground.live("n").await;
    assert_eq!(live, Some(Value::Integer(5)), "{}", ground.store);
    let soon = ground.now().plus(LONG);
    for (name, until) in [("k", soon), ("k", last), ("n", soon), ("n", last)] {
        let touched = ground.store.touch(&ground.key(name), until).await.unwrap();
        assert!(touched.is_some(), "{}: {name}", ground.store);
        assert!(
            ground.live(name).await.is_some(),
            "{}: {name}",
            ground.store
        );
    }
}

pub(super) async fn an_act_that_is_dropped_changes_nothing_else(ground: Ground<'_>) {
    let bystander = ground.put("bystander", ground.fresh("b", LONG)).await;
    for polls in 0..6 {
        ground.put("k", ground.bytes("old")).await;
        let (key, names) = (ground.key("k"), ["a".into()]);
        let tags = Tags {
            space: ground.space(),
            names: &names,
        };
        for_a_while(
            ground.store.get(&[ground.key("bystander")], Some(tags)),
            polls,
        )
        .await;
        for_a_while(
            ground.store.put(&key, ground.bytes("new"), When::Always),
            polls,
        )
        .await;
        for_a_while(ground.store.raise(tags), polls).await;

        // Who cannot know whether a dropped act has happened may trust nothing for a moment.
        let mut seen = ground.get("bystander").await;
        for _ in 0..1000 {
            if seen.is_some() {
                break;
            }
            ground.store.clock().sleep(Duration::from_millis(5)).await;
            seen = ground.get("bystander").await;
        }
        assert_eq!(seen, Some(bystander.clone()), "{}", ground.store);
        // A store that forgives has removed what it cannot vouch for.
        let live = ground.live("k").await;
        assert!(
            live.is_none() || live == text("old") || live == text("new"),
            "{}: {live:?}",
            ground.store
        );
        let key = [ground.key("bystander"), ground.key("missing")];
        let heads = ground.store.heads(&key).await.unwrap();
        assert_eq!(heads, [Some(bystander.head()), None], "{}", ground.store);
    }
}

/// Polls `work` so many times, and drops it.
async fn for_a_while(work: impl Future, polls: usize) {
    let mut work = pin!(work);
    for _ in 0..polls {
        let done = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await;
        if done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn what_is_closed_answers_or_says_that_it_does_not(ground: Ground<'_>) {
    ground.put("k", ground.fresh("v", LONG)).await;
    ground.store.close().await.unwrap();
    ground.store.close().await.unwrap();

    let keys = [ground.key("k")];
    if let Ok(found) = ground.store.get(&keys, None).await {
        let value = found.entries[0]
            .as_ref()
            .and_then(|entry| entry.value.clone());
        assert!(value.is_none() || value == text("v"), "{}", ground.store);
    }
    let put = ground
        .store
        .put(&keys[0], ground.bytes("w"), When::Always)
        .await;
    if put.is_ok() {
        let live = ground.live("k").await;
        assert!(live.is_none() || live == text("w"), "{}", ground.store);
    }
}
