//! Listing keys, of a store that can.

use std::collections::BTreeSet;

use super::{Ground, LONG};
use crate::store::When;
use crate::{Entry, Key};

pub(super) async fn keys_are_listed_page_by_page(ground: Ground<'_>) {
    let Some(scan) = ground.store.scan() else {
        return;
    };
    let scope = format!("{}:1:", ground.prefix);
    let other = format!("{}x:1:", ground.prefix);
    let whole = |number: usize| match number % 3 {
        0 => format!("{scope}{number}"),
        1 => format!("{scope}with blanks {number}"),
        _ => format!("{scope}{}", "long".repeat(number + 70)),
    };
    let value = || ground.bytes("v");
    let put =
        async |key: &Key, entry: Entry| ground.store.put(key, entry, When::Always).await.unwrap();
    let mut wanted = BTreeSet::new();
    for number in 0..23 {
        let key = Key::new(whole(number));
        wanted.insert(key.whole().to_owned());
        put(&key, value()).await;
    }
    put(&Key::new(format!("{scope}n")), ground.integer(5)).await;
    wanted.insert(format!("{scope}n"));
    // What is none of the scope's, or not there to the verbs.
    put(&Key::new(format!("{other}k")), value()).await;
    let leased = Key::new(format!("{scope}leased"));
    ground
        .store
        .mark(&leased, None, ground.lease(LONG))
        .await
        .unwrap();
    let stale = value().fresh_until(ground.now()).with_grace(LONG);
    put(&Key::new(format!("{scope}stale")), stale).await;

    let (mut found, mut from, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = scan.page(&scope, from.as_deref(), 5).await.unwrap();
        found.extend(page.keys.iter().map(|key| key.whole().to_owned()));
        pages += 1;
        assert!(pages < 100_000, "the pages have no end");
        let Some(next) = page.next else { break };
        from = Some(next);
    }

    assert_eq!(found, wanted);
}
