//! Leases and markers: what every verb sees in each state of a slot.

use std::sync::Arc;

use super::{Ground, LONG, SHORT, Turn, text};
use crate::entry::Tagged;
use crate::store::{Store, Sum, When};
use crate::{Entry, Key, Mark, Moment, Stamp, State, Value};

/// A mark that ends what is going on.
fn ended(ground: &Ground<'_>, state: State, until: Moment) -> Mark {
    Mark {
        stamp: ground.stamp(),
        state,
        until,
    }
}

pub(super) async fn a_lease_on_an_empty_slot_is_taken_once(ground: Ground<'_>) {
    let prefix = ground.prefix.clone();
    let lease = ground.lease(LONG);
    let take = move |store: Arc<dyn Store>, turn: Turn| {
        let key = Key::new(format!("{prefix}:1:{}", turn.round));
        let stamp = Stamp::draw(store.clock());
        async move {
            let lease = Mark { stamp, ..lease };
            store.mark(&key, None, lease).await.unwrap()
        }
    };

    let taken = ground.at_once(20, take).await;

    for round in 0..20 {
        let winners = taken.iter().filter(|taken| **taken == (round, true));
        assert_eq!(winners.count(), 1, "{}: round {round}", ground.store);
    }
    assert!(
        ground.mark("k", None, ground.lease(LONG)).await,
        "{}",
        ground.store
    );
    let slot = ground.get("k").await.expect("the lease is in the slot");
    assert_eq!(
        (slot.value.clone(), slot.state_at(ground.now())),
        (None, State::Loading)
    );
    assert!(
        !ground.mark("k", None, ground.lease(LONG)).await,
        "{}",
        ground.store
    );
}

pub(super) async fn a_lease_is_nothing_to_the_verbs(ground: Ground<'_>) {
    let lease = ground.lease(LONG);
    assert!(ground.mark("k", None, lease).await, "{}", ground.store);

    nothing_to_the_verbs(&ground).await;
    assert!(
        !ground
            .put_when("k", ground.bytes("v"), When::IfPresent)
            .await,
        "{}",
        ground.store
    );
    assert_eq!(
        ground.delete("k").await,
        None,
        "{}: a lease is no value",
        ground.store
    );
    let late = ground
        .put_when("k", ground.bytes("v"), When::IfStamp(lease.stamp))
        .await;
    assert!(!late, "{}: delete takes the lease away", ground.store);

    assert!(
        ground.mark("k", None, ground.lease(LONG)).await,
        "{}",
        ground.store
    );
    assert!(
        ground
            .put_when("k", ground.bytes("v"), When::IfAbsent)
            .await,
        "{}",
        ground.store
    );
    assert_eq!(ground.live("k").await, text("v"), "{}", ground.store);
}

async fn nothing_to_the_verbs(ground: &Ground<'_>) {
    let (store, key) = (ground.store, ground.key("k"));
    assert_eq!(ground.live("k").await, None, "{store}");
    assert_eq!(ground.head("k").await, None, "{store}");
    assert_eq!(
        store.touch(&key, Moment::NEVER).await.unwrap(),
        None,
        "{store}"
    );
    assert_eq!(
        store.add_to(&key, 1).await.unwrap(),
        Sum::NoSuchKey,
        "{store}"
    );
}

pub(super) async fn a_lease_leaves_the_value_and_its_deadlines(ground: Ground<'_>) {
    let tags = Tagged {
        era: 7,
        good_from: vec![("a".into(), 1)],
    };
    let before = ground
        .put(
            "k",
            ground.fresh("v", LONG).with_grace(LONG).with_tags(tags),
        )
        .await;
    let lease = ground.lease(SHORT);

    assert!(
        !ground.mark("k", None, lease).await,
        "{}: the slot is taken",
        ground.store
    );
    assert!(
        !ground.mark("k", Some(ground.stamp()), lease).await,
        "{}",
        ground.store
    );
    assert!(
        ground.mark("k", Some(before.stamp), lease).await,
        "{}",
        ground.store
    );

    let after = ground.get("k").await.unwrap();
    assert_eq!(after, before.clone().marked(lease), "{}", ground.store);
    assert_eq!(
        ground.head("k").await,
        Some(before.head()),
        "{}",
        ground.store
    );
    let late = ground
        .put_when("k", ground.bytes("w"), When::IfStamp(before.stamp))
        .await;
    assert!(!late, "{}: the stamp is the lease's now", ground.store);
}

pub(super) async fn a_lease_on_an_integer_leaves_its_value_and_ttl(ground: Ground<'_>) {
    let deadline = ground.now().plus(LONG);
    for (name, entry) in [
        ("ends", ground.integer(5).fresh_until(deadline)),
        ("never", ground.integer(6)),
    ] {
        ground.put(name, entry).await;
        let seen = ground.get(name).await.unwrap();

        let lease = ground.lease(LONG);
        assert!(
            ground.mark(name, Some(seen.stamp), lease).await,
            "{}: {name}",
            ground.store
        );

        assert_eq!(
            ground.live(name).await,
            seen.value,
            "{}: {name}",
            ground.store
        );
        let until = ground.head(name).await.unwrap().fresh_until;
        if name == "never" {
            assert_eq!(until, Moment::NEVER, "{}", ground.store);
        } else {
            let off = until.as_millis().abs_diff(deadline.as_millis());
            assert!(off < 1000, "{}: the TTL is {off} ms off", ground.store);
        }
        let sum = ground.store.add_to(&ground.key(name), 1).await.unwrap();
        assert_eq!(sum, Sum::NotPlain, "{}: {name}", ground.store);
        let written = ground
            .put_when(name, ground.integer(9), When::IfStamp(lease.stamp))
            .await;
        assert!(written, "{}: {name}", ground.store);
        let sum = ground.store.add_to(&ground.key(name), 1).await.unwrap();
        assert_eq!(sum, Sum::Is(10), "{}: {name}", ground.store);
    }
}

pub(super) async fn a_lease_is_renewed_by_its_holder_only(ground: Ground<'_>) {
    let lease = ground.lease(SHORT);
    assert!(ground.mark("k", None, lease).await, "{}", ground.store);
    let longer = Mark {
        until: ground.now().plus(LONG),
        ..lease
    };

    assert!(
        !ground.mark("k", Some(ground.stamp()), longer).await,
        "{}",
        ground.store
    );
    assert!(
        ground.mark("k", Some(lease.stamp), longer).await,
        "{}",
        ground.store
    );
    ground.pass(2 * SHORT).await;

    let slot = ground
        .get("k")
        .await
        .expect("the renewed lease is in the slot");
    assert_eq!(
        slot.state_at(ground.now()),
        State::Loading,
        "{}",
        ground.store
    );
    let written = ground
        .put_when("k", ground.bytes("v"), When::IfStamp(lease.stamp))
        .await;
    assert!(written, "{}", ground.store);
}

pub(super) async fn a_load_writes_under_its_lease(ground: Ground<'_>) {
    let lease = ground.lease(LONG);
    assert!(ground.mark("k", None, lease).await, "{}", ground.store);

    let entry = ground.fresh("v", LONG);
    let written = ground
        .put_when("k", entry.clone(), When::IfStamp(lease.stamp))
        .await;

    assert!(written, "{}", ground.store);
    assert_eq!(
        ground.get("k").await,
        Some(entry),
        "{}: the lease is over",
        ground.store
    );
}

pub(super) async fn whatever_is_written_takes_the_lease_away(ground: Ground<'_>) {
    for act in ["set", "touch", "delete", "add", "put_many", "bare"] {
        let before = ground.put(act, ground.fresh("old", LONG)).await;
        let lease = ground.lease(LONG);
        assert!(
            ground.mark(act, Some(before.stamp), lease).await,
            "{}: {act}",
            ground.store
        );
        let key = ground.key(act);

        match act {
            "set" => drop(ground.put(act, ground.bytes("new")).await),
            "touch" => drop(ground.store.touch(&key, Moment::NEVER).await.unwrap()),
            "delete" => drop(ground.delete(act).await),
            "put_many" => {
                drop(
                    ground
                        .store
                        .put_many(vec![(key, ground.bytes("new"))])
                        .await
                        .unwrap(),
                );
            }
            "bare" => drop(ground.put(act, Entry::bare(ground.lease(LONG))).await),
            _ => {
                ground.delete(act).await;
                assert!(
                    ground
                        .put_when(act, ground.bytes("new"), When::IfAbsent)
                        .await
                );
            }
        }

        let late = ground
            .put_when(act, ground.bytes("late"), When::IfStamp(lease.stamp))
            .await;
        assert!(!late, "{}: {act}", ground.store);
        let renewed = ground
            .mark(act, Some(lease.stamp), ground.lease(LONG))
            .await;
        assert!(!renewed, "{}: {act}", ground.store);
    }
}

pub(super) async fn a_lease_that_has_lapsed_can_be_taken_by_who_saw_it(ground: Ground<'_>) {
    assert!(
        ground.mark("k", None, ground.lease(SHORT)).await,
        "{}",
        ground.store
    );
    ground.pass(SHORT).await;

    let seen = ground.get("k").await;
    let state = seen
        .as_ref()
        .map_or(State::Idle, |slot| slot.state_at(ground.now()));
    assert_eq!(state, State::Idle, "{}", ground.store);
    let lease = ground.lease(LONG);
    let taken = ground.mark("k", seen.map(|slot| slot.stamp), lease).await;
    // A server may drop what has lapsed between the two.
    assert!(
        taken || ground.mark("k", None, lease).await,
        "{}",
        ground.store
    );
}

pub(super) async fn a_marker_over_a_stale_value_leaves_it(ground: Ground<'_>) {
    let before = ground
        .put("k", ground.fresh("v", SHORT).with_grace(LONG))
        .await;
    ground.pass(SHORT).await;
    let lease = ground.lease(LONG);
    assert!(
        ground.mark("k", Some(before.stamp), lease).await,
        "{}",
        ground.store
    );

    let failed = ended(&ground, State::Failed, ground.now().plus(SHORT));
    assert!(
        ground.mark("k", Some(lease.stamp), failed).await,
        "{}",
        ground.store
    );

    let slot = ground.get("k").await.unwrap();
    assert_eq!(slot, before.marked(failed), "{}", ground.store);
    assert!(slot.is_within_grace(ground.now()), "{}", ground.store);
    ground.pass(SHORT).await;
    let slot = ground
        .get("k")
        .await
        .expect("the value outlives the marker");
    assert_eq!(slot.state_at(ground.now()), State::Idle, "{}", ground.store);
}

pub(super) async fn a_marker_is_nothing_to_the_verbs(ground: Ground<'_>) {
    for state in [State::Failed, State::Pass] {
        let lease = ground.lease(LONG);
        ground.delete("k").await;
        assert!(ground.mark("k", None, lease).await, "{}", ground.store);
        let marker = ended(&ground, state, ground.now().plus(LONG));
        assert!(
            ground.mark("k", Some(lease.stamp), marker).await,
            "{}",
            ground.store
        );

        let slot = ground.get("k").await.expect("the marker is in the slot");
        assert_eq!(slot.state_at(ground.now()), state, "{}", ground.store);
        nothing_to_the_verbs(&ground).await;
        assert!(
            ground
                .put_when("k", ground.bytes("v"), When::IfAbsent)
                .await,
            "{}",
            ground.store
        );
    }
}

pub(super) async fn a_bare_marker_can_be_put(ground: Ground<'_>) {
    ground.put("k", ground.fresh("v", LONG)).await;
    let marker = ended(&ground, State::Pass, ground.now().plus(SHORT));

    ground.put("k", Entry::bare(marker)).await;

    let slot = ground.get("k").await.expect("the marker is in the slot");
    assert_eq!(
        (slot.value.clone(), slot.state_at(ground.now())),
        (None, State::Pass)
    );
    assert_eq!(slot.stamp, marker.stamp, "{}", ground.store);
    nothing_to_the_verbs(&ground).await;
}

pub(super) async fn a_lease_outlives_the_value_and_the_value_the_lease(ground: Ground<'_>) {
    let value = ground.put("value", ground.fresh("v", LONG)).await;
    assert!(
        ground
            .mark("value", Some(value.stamp), ground.lease(SHORT))
            .await
    );
    let short = ground.put("lease", ground.fresh("v", SHORT)).await;
    let lease = ground.lease(LONG);
    assert!(
        ground.mark("lease", Some(short.stamp), lease).await,
        "{}",
        ground.store
    );

    ground.pass(2 * SHORT).await;

    assert_eq!(ground.live("value").await, text("v"), "{}", ground.store);
    assert_eq!(ground.live("lease").await, None, "{}", ground.store);
    let written = ground
        .put_when("lease", ground.bytes("w"), When::IfStamp(lease.stamp))
        .await;
    assert!(written, "{}: the lease was still there", ground.store);
}

pub(super) async fn a_stale_value_is_nothing_to_the_verbs(ground: Ground<'_>) {
    let entry = ground
        .integer(1)
        .fresh_until(ground.now().plus(SHORT))
        .with_grace(LONG);
    let before = ground.put("k", entry).await;
    ground.pass(SHORT).await;

    nothing_to_the_verbs(&ground).await;
    let slot = ground.get("k").await.expect("it is there for the engine");
    assert_eq!(slot.value, Some(Value::Integer(1)), "{}", ground.store);
    assert_eq!(
        slot.stamp, before.stamp,
        "{}: nothing has touched it",
        ground.store
    );
    assert_eq!(ground.delete("k").await, None, "{}", ground.store);
    assert_eq!(ground.get("k").await, None, "{}", ground.store);
}

pub(super) async fn clear_takes_leases_away(ground: Ground<'_>) {
    let lease = ground.lease(LONG);
    assert!(ground.mark("k", None, lease).await, "{}", ground.store);

    let scope = format!("{}:", ground.prefix);
    ground.store.clear(&scope, ground.space()).await.unwrap();

    let late = ground
        .put_when("k", ground.bytes("v"), When::IfStamp(lease.stamp))
        .await;
    assert!(!late, "{}", ground.store);
    assert!(
        ground.mark("k", None, ground.lease(LONG)).await,
        "{}: the slot is empty",
        ground.store
    );
}

pub(super) async fn clear_reaches_names_that_are_hashed(ground: Ground<'_>) {
    let (hashed, long) = ("a b", "k".repeat(300));
    let value = ground.put(hashed, ground.bytes("v")).await;
    let lease = ground.lease(LONG);
    assert!(
        ground.mark(&long, None, lease).await && ground.key(&long).is_hashed(),
        "{}",
        ground.store
    );

    let scope = format!("{}:", ground.prefix);
    ground.store.clear(&scope, ground.space()).await.unwrap();

    assert_eq!(ground.get(hashed).await, None, "{}", ground.store);
    for (name, stamp) in [(hashed, value.stamp), (long.as_str(), lease.stamp)] {
        let late = ground.bytes("late");
        assert!(
            !ground.put_when(name, late, When::IfStamp(stamp)).await,
            "{}: {name}",
            ground.store
        );
    }
}
