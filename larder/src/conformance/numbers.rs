//! The numbers of tags.

use std::collections::BTreeSet;

use super::Ground;
use crate::Tag;
use crate::store::Tags;

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
    let raise = || async {
        let mut given = Vec::new();
        for _ in 0..25 {
            given.push(ground.raise(&names).await);
        }
        given
    };

    let (a, b, c, d) = tokio::join!(raise(), raise(), raise(), raise());

    let given: BTreeSet<u64> = [a, b, c, d].concat().into_iter().collect();
    assert_eq!(given.len(), 100, "{}", ground.store);
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
