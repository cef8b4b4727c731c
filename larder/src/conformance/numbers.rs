//! The numbers of tags.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Ground, Turn};
use crate::entry::Tagged;
use crate::store::{Store, Tags, When};
use crate::{Entry, Key, Tag, Value};

fn tags<const N: usize>(names: [&str; N]) -> [Tag; N] {
    names.map(Tag::from)
}

pub(super) async fn numbers_are_given_one_after_the_other(ground: Ground<'_>) {
    let before = ground.numbers(&tags(["a", "b"])).await;
    for at in 0..2 {
        assert!(
            before.at(at) <= before.seq,
            "{}: a tag never raised counts as no more than what was given",
            ground.store
        );
    }

    let first = ground.raise(&tags(["a"])).await;
    let second = ground.raise(&tags(["b"])).await;
    let third = ground.raise(&[]).await;

    assert_eq!(
        [first, second, third],
        [1, 2, 3].map(|step| before.seq + step),
        "{}",
        ground.store
    );
    let after = ground.numbers(&tags(["a", "b", "c"])).await;
    assert_eq!(
        after.of[..2],
        [Some(first), Some(second)],
        "{}",
        ground.store
    );
    assert!(after.at(2) <= third, "{}", ground.store);
    assert_eq!(after.seq, third, "{}", ground.store);
}

pub(super) async fn tags_raised_together_get_one_number(ground: Ground<'_>) {
    let names = tags(["a", "b:c", "schlüssel 清", "a"]);

    let number = ground.raise(&names).await;

    let after = ground.numbers(&names).await;
    assert_eq!(after.of, [Some(number); 4], "{}", ground.store);
}

pub(super) async fn numbers_at_once_are_all_different(ground: Ground<'_>) {
    let names = tags(["a"]);
    ground.raise(&names).await;
    let space = ground.prefix.clone();
    let raise = move |store: Arc<dyn Store>, _: Turn| {
        let space = space.clone();
        async move {
            let tags = Tags {
                space: &space,
                names: &tags(["a"]),
            };
            store.raise(tags).await.unwrap()
        }
    };

    let given = ground.at_once(20, raise).await;

    let count = given.len();
    let given: BTreeSet<u64> = given.into_iter().map(|(_, number)| number).collect();
    assert_eq!(given.len(), count, "{}", ground.store);
    let after = ground.numbers(&names).await;
    assert_eq!(
        after.of,
        [given.last().copied()],
        "{}: none was lowered",
        ground.store
    );
}

pub(super) async fn spaces_count_for_themselves(ground: Ground<'_>) {
    let names = tags(["a"]);
    let other = format!("{}other", ground.prefix);
    let other = Tags {
        space: &other,
        names: &names,
    };
    let before = ground
        .store
        .get(&[], Some(other))
        .await
        .unwrap()
        .numbers
        .unwrap();

    ground.raise(&names).await;

    let after = ground
        .store
        .get(&[], Some(other))
        .await
        .unwrap()
        .numbers
        .unwrap();
    assert_eq!(before, after, "{}", ground.store);
    assert_ne!(
        after.era,
        ground.numbers(&names).await.era,
        "{}",
        ground.store
    );
}

pub(super) async fn an_era_stays(ground: Ground<'_>) {
    let first = ground.numbers(&[]).await.era;

    ground.raise(&tags(["a"])).await;
    ground
        .store
        .clear(&format!("{}:", ground.prefix), ground.space())
        .await
        .unwrap();

    assert_eq!(ground.numbers(&[]).await.era, first, "{}", ground.store);
}

pub(super) async fn clear_raises_the_floor_over_every_number(ground: Ground<'_>) {
    let names = tags(["a", "b"]);
    let number = ground.raise(&names[..1]).await;

    ground
        .store
        .clear(&format!("{}:", ground.prefix), ground.space())
        .await
        .unwrap();

    let after = ground.numbers(&names).await;
    assert!(
        after.floor > number && after.seq >= after.floor,
        "{}: {after:?}",
        ground.store
    );
    assert!(
        after.at(0) > number,
        "{}: a number that stayed is below the floor",
        ground.store
    );
    assert!(
        after.at(1) > number,
        "{}: a tag without a number counts as the floor",
        ground.store
    );
    assert!(ground.raise(&names).await > after.floor, "{}", ground.store);
}

pub(super) async fn clear_leaves_the_numbers_of_other_spaces(ground: Ground<'_>) {
    let names = tags(["a"]);
    let other = format!("{}other", ground.prefix);
    let other = Tags {
        space: &other,
        names: &names,
    };
    ground.store.raise(other).await.unwrap();
    let before = ground.store.get(&[], Some(other)).await.unwrap();

    let scope = format!("{}:", ground.prefix);
    ground.store.clear(&scope, ground.space()).await.unwrap();

    let after = ground.store.get(&[], Some(other)).await.unwrap();
    assert_eq!(after, before, "{}", ground.store);
}

/// One thread raises a tag and writes an entry that is good from the number; the others read. Numbers
/// that were read before the entry can be older than it, and hide an invalidation.
pub(super) async fn numbers_are_read_after_entries(ground: Ground<'_>) {
    let names = tags(["a"]);
    ground.raise(&names).await;
    let era = ground.numbers(&names).await.era;
    let prefix = ground.prefix.clone();
    let act = move |store: Arc<dyn Store>, turn: Turn| {
        let (prefix, names) = (prefix.clone(), tags(["a"]));
        async move {
            let key = Key::new(format!("{prefix}:1:k"));
            let tags = Tags {
                space: &prefix,
                names: &names,
            };
            if turn.thread == 0 {
                let number = store.raise(tags).await.unwrap();
                let tagged = Tagged {
                    era,
                    good_from: vec![("a".into(), number)],
                };
                let entry = Entry::new(store.clock(), Value::Integer(1)).with_tags(tagged);
                store.put(&key, entry, When::Always).await.unwrap();
                return None;
            }
            let mut found = store.get(&[key], Some(tags)).await.unwrap();
            let tagged = found.entries.pop().flatten()?.tags?;
            Some((tagged.good_from[0].1, found.numbers?.at(0)))
        }
    };

    for (_, read) in ground.at_once(50, act).await {
        let Some((good_from, number)) = read else {
            continue;
        };
        assert!(
            good_from <= number,
            "{}: {good_from} {number}",
            ground.store
        );
    }
}
