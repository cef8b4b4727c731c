//! Reading, writing, counting, deleting.

use std::time::Duration;

use super::{Ground, LONG, SHORT, text};
use crate::entry::Tagged;
use crate::store::{Sum, Tags, When};
use crate::{Entry, Key, Moment, Stamp, Value};

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
    let add = || ground.put_when("k", ground.bytes("v"), When::IfAbsent);

    let won = tokio::join!(add(), add(), add(), add());

    let winners = [won.0, won.1, won.2, won.3]
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(winners, 1, "{}", ground.store);
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
    let key = ground.key("n");
    ground.put("n", ground.integer(0)).await;
    let add = || async {
        for _ in 0..25 {
            ground.store.add_to(&key, 1).await.unwrap();
        }
    };

    tokio::join!(add(), add(), add(), add());

    assert_eq!(
        ground.live("n").await,
        Some(Value::Integer(100)),
        "{}",
        ground.store
    );
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

pub(super) async fn get_now_agrees_with_get(ground: Ground<'_>) {
    let entry = ground.put("k", ground.fresh("v", LONG)).await;

    if let Some(now) = ground.store.get_now(&ground.key("k")) {
        assert_eq!(now.as_deref(), Some(&entry), "{}", ground.store);
        let missing = ground.store.get_now(&ground.key("missing"));
        assert_eq!(missing, Some(None), "{}", ground.store);
    }
    let _: Stamp = entry.stamp;
}
