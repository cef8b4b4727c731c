//! The near tier: what it serves, for how long, and what happens when reads and writes meet.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "support/faulty.rs"]
mod faulty;

use std::convert::Infallible;
use std::time::Duration;

use faulty::{Faulty, How};
use larder::store::{Memory, News, Store, Sum, Tags, When};
use larder::wrap::{NearRule, Tiered};
use larder::{Cache, Clock, Entry, ErrorKind, Key, Value};

const SECOND: Duration = Duration::from_secs(1);

/// A near store, the far one, and tiers of both, on a clock that is moved by hand.
struct Ground {
    near: Faulty,
    far: Faulty,
    tiers: Tiered,
    /// What another process does at the far store.
    elsewhere: Cache,
}

impl Ground {
    fn new() -> Self {
        Self::with(|tiers| tiers)
    }

    fn with(set: impl FnOnce(Tiered) -> Tiered) -> Self {
        let clock = Clock::manual();
        let (near, far) = (Faulty::new(&clock), Faulty::new(&clock));
        Self {
            tiers: set(Tiered::new(near.memory.clone(), far.clone())),
            elsewhere: Cache::new(far.memory.clone()),
            near,
            far,
        }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.tiers.clone())
    }

    fn pass(&self, span: Duration) {
        self.far.clock().advance(span);
    }
}

async fn get(cache: &Cache) -> Option<String> {
    cache.get("k").await.unwrap()
}

/// Fetches with a load that gives "loaded".
async fn fetch(cache: &Cache) -> String {
    let load = || async { Ok::<_, Infallible>("loaded".to_owned()) };
    cache.fetch("k", load).tags(["t"]).await.unwrap()
}

#[tokio::test]
async fn a_get_is_answered_near_and_a_fetch_is_not() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "v").await.unwrap();
    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    ground.far.calls();

    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    assert_eq!(ground.far.calls(), []);

    assert_eq!(fetch(&cache).await, "v");
    assert_eq!(ground.far.calls(), [("get", 1)]);
}

#[tokio::test]
async fn with_numbers_only_no_value_with_tags_is_sent_again() {
    let ground = Ground::with(Tiered::numbers_only);
    let cache = ground.cache();
    cache.set("k", "v").tags(["t"]).await.unwrap();
    fetch(&cache).await;
    ground.far.calls();

    assert_eq!(fetch(&cache).await, "v");
    assert_eq!(ground.far.calls(), [("get", 0)]);

    ground.elsewhere.invalidate(["t"]).await.unwrap();
    assert_eq!(
        fetch(&cache).await,
        "loaded",
        "the numbers are the far store's"
    );
}

#[tokio::test]
async fn what_others_delete_is_served_by_get_for_near_for_and_by_fetch_not_at_all() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "old").await.unwrap();
    get(&cache).await;
    ground.elsewhere.delete("k").await.unwrap();

    ground.pass(Duration::from_millis(999));
    assert_eq!(get(&cache).await.as_deref(), Some("old"), "bounded");
    ground.pass(Duration::from_millis(1));
    assert_eq!(get(&cache).await, None);

    cache.set("k", "old").await.unwrap();
    get(&cache).await;
    ground.elsewhere.delete("k").await.unwrap();
    assert_eq!(fetch(&cache).await, "loaded");
    assert_eq!(get(&cache).await.as_deref(), Some("loaded"), "never back");
}

#[tokio::test]
async fn a_tag_invalidated_elsewhere_is_seen_at_once() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "old").tags(["t"]).await.unwrap();
    get(&cache).await;
    assert_eq!(get(&cache).await.as_deref(), Some("old"));

    ground.elsewhere.invalidate(["t"]).await.unwrap();

    assert_eq!(get(&cache).await, None);
}

#[tokio::test]
async fn every_write_drops_the_near_copy() {
    let ground = Ground::new();
    let (cache, tiers) = (ground.cache(), &ground.tiers);
    let key = cache.key("k");
    let space = Tags {
        space: "",
        names: &[],
    };
    for act in [
        "set", "set_many", "touch", "delete", "clear", "incr", "lease",
    ] {
        cache.set("k", "v").tags(["t"]).await.unwrap();
        tiers.get(std::slice::from_ref(&key), None).await.unwrap();
        assert!(!ground.near.memory.is_empty(), "{act}: a copy was made");

        match act {
            "set" => cache.set("k", "w").await.unwrap(),
            "set_many" => drop(cache.set_many([("k", "w")]).await.unwrap()),
            "touch" => drop(cache.touch("k", SECOND).await.unwrap()),
            "delete" => drop(cache.delete("k").await.unwrap()),
            "clear" => tiers.clear(":", space.space).await.unwrap(),
            "incr" => drop(tiers.add_to(&key, 1).await.unwrap()),
            _ => drop(cache.ticket("k").await.unwrap()),
        }

        assert!(ground.near.memory.is_empty(), "{act}");
    }
}

#[tokio::test]
async fn a_refill_overtaken_by_a_write_is_refused() {
    for act in ["delete", "set", "clear"] {
        let ground = Ground::new();
        let cache = ground.cache();
        cache.set("k", "old").await.unwrap();
        ground.far.go(How::Held);
        let reading = {
            let cache = cache.clone();
            tokio::spawn(async move { get(&cache).await })
        };
        ground.far.until_held().await;

        match act {
            "delete" => drop(cache.delete("k").await.unwrap()),
            "set" => cache.set("k", "new").await.unwrap(),
            _ => cache.clear().await.unwrap(),
        }
        ground.far.release();
        assert_eq!(
            reading.await.unwrap().as_deref(),
            Some("old"),
            "it began before"
        );

        let expected = (act == "set").then_some("new");
        assert_eq!(get(&cache).await.as_deref(), expected, "{act}");
    }
}

#[tokio::test]
async fn a_refill_while_a_write_is_on_its_way_does_not_outlast_it() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "old").await.unwrap();
    ground.far.go(How::Held);
    let deleting = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.delete("k").await.unwrap() })
    };
    ground.far.until_held().await;
    // As it looks to who reads just before the delete is done.
    ground.elsewhere.set("k", "old").await.unwrap();
    get(&cache).await;
    ground.elsewhere.delete("k").await.unwrap();
    assert_eq!(get(&cache).await.as_deref(), Some("old"));

    ground.far.release();
    deleting.await.unwrap();

    assert_eq!(get(&cache).await, None);
}

#[tokio::test]
async fn a_copy_lives_from_the_question_on_and_not_from_the_answer() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "old").await.unwrap();
    ground.far.go(How::Held);
    let reading = {
        let cache = cache.clone();
        tokio::spawn(async move { get(&cache).await })
    };
    ground.far.until_held().await;
    ground.elsewhere.delete("k").await.unwrap();

    ground.pass(SECOND);
    ground.far.release();
    reading.await.unwrap();

    assert_eq!(get(&cache).await, None);
}

#[tokio::test]
async fn a_read_that_is_dropped_midway_keeps_others_from_refilling_for_a_moment_only() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "v").await.unwrap();
    ground.far.go(How::Held);
    let reading = {
        let cache = cache.clone();
        tokio::spawn(async move { get(&cache).await })
    };
    ground.far.until_held().await;
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());

    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    assert!(ground.near.memory.is_empty(), "the mark stands");
    ground.pass(SECOND);
    get(&cache).await;
    assert_eq!(ground.near.memory.len(), 1);
}

#[tokio::test]
async fn what_is_handed_out_has_the_far_deadlines_tags_and_stamp() {
    let ground = Ground::new();
    let key = Key::new(":1:a b");
    let minute = ground.far.clock().now().plus(60 * SECOND);
    let entry = Entry::new(ground.far.clock(), Value::Bytes("v".into()))
        .fresh_until(minute)
        .with_grace(SECOND);
    ground
        .tiers
        .put(&key, entry.clone(), When::Always)
        .await
        .unwrap();
    let keys = std::slice::from_ref(&key);
    ground.tiers.get(keys, None).await.unwrap();
    ground.far.calls();

    let found = ground.tiers.get(keys, None).await.unwrap();

    assert_eq!(found.entries, [Some(entry.clone())]);
    assert_eq!(ground.far.calls(), [], "from the near store");
    let now = ground.tiers.get_now(&key).unwrap();
    assert_eq!(now.as_deref(), Some(&entry));
    assert!(
        ground
            .tiers
            .put(&key, entry.clone(), When::IfStamp(entry.stamp))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn plain_integers_count_at_the_far_store() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("n", &1).await.unwrap();
    assert_eq!(cache.get("n").await.unwrap(), Some(1));

    let key = cache.key("n");
    assert_eq!(ground.far.memory.add_to(&key, 1).await.unwrap(), Sum::Is(2));

    assert_eq!(cache.get("n").await.unwrap(), Some(2), "seen at once");
}

#[tokio::test]
async fn what_is_past_its_ttl_or_being_loaded_is_not_copied() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "v").ttl(SECOND / 2).await.unwrap();
    get(&cache).await;
    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    ground.pass(SECOND / 2);
    assert_eq!(get(&cache).await, None, "its own TTL is shorter");

    cache.set("k", "v").await.unwrap();
    let ticket = ground.elsewhere.ticket("k").await.unwrap();
    get(&cache).await;
    assert!(ground.near.memory.is_empty(), "there is a lease");
    drop(ticket);
}

#[tokio::test]
async fn a_near_store_that_fails_costs_round_trips_and_no_answer() {
    let clock = Clock::manual();
    let (near, far) = (Faulty::new(&clock), Faulty::new(&clock));
    let cache = Cache::new(Tiered::new(near.clone(), far.clone()));
    cache.set("k", "v").await.unwrap();

    near.go(How::Refused);
    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    far.calls();

    // A copy that cannot be dropped would belie the acknowledgement.
    let error = cache.delete("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(far.calls(), [], "nothing was sent");
}

#[tokio::test]
async fn a_far_write_that_failed_leaves_no_copy() {
    let ground = Ground::new();
    let cache = ground.cache();
    cache.set("k", "old").await.unwrap();
    get(&cache).await;

    ground.far.go(How::Lost);
    cache.delete("k").await.unwrap_err();
    ground.far.go(How::Sound);

    assert_eq!(get(&cache).await, None);
}

#[tokio::test]
async fn without_time_near_nothing_is_kept_there() {
    let ground = Ground::with(|tiers| tiers.near_for(Duration::ZERO));
    let cache = ground.cache();
    cache.set("k", "v").await.unwrap();

    assert_eq!(get(&cache).await.as_deref(), Some("v"));
    assert_eq!(get(&cache).await.as_deref(), Some("v"));

    assert!(ground.near.memory.is_empty());
}

#[tokio::test]
async fn a_value_kept_decoded_is_decoded_once_near_as_well() {
    let clock = Clock::manual();
    let near = Memory::builder()
        .keep_decoded()
        .clock(clock.clone())
        .build();
    let cache = Cache::new(Tiered::new(near, Faulty::new(&clock)));
    cache.set("names", &["ann", "bob"]).await.unwrap();
    cache.get::<Vec<String>>("names").await.unwrap();

    let first = cache
        .get_shared::<Vec<String>>("names")
        .await
        .unwrap()
        .unwrap();
    let second = cache
        .get_shared::<Vec<String>>("names")
        .await
        .unwrap()
        .unwrap();

    assert!(std::sync::Arc::ptr_eq(&first, &second));
}

/// A watched tier, and one in which a rule is broken, with a copy of "old" near.
async fn watched(broken: Option<NearRule>, tags: &[&str]) -> (Ground, Cache) {
    let ground = Ground::with(|tiers| match broken {
        Some(rule) => tiers.watched().break_rule(rule),
        None => tiers.watched(),
    });
    let cache = ground.cache();
    get(&cache).await;
    ground
        .far
        .tell(News::Current(ground.far.clock().now()))
        .await;
    let set = cache.set("k", "old").ttl(3600 * SECOND);
    set.tags(tags.iter().copied()).await.unwrap();
    (ground, cache)
}

#[tokio::test]
async fn a_watched_copy_is_served_while_the_far_store_says_that_all_is_told() {
    let (ground, cache) = watched(None, &["t"]).await;
    fetch(&cache).await;
    ground.elsewhere.delete("k").await.unwrap();
    ground.far.calls();

    assert_eq!(fetch(&cache).await, "old", "nobody has told");
    ground.pass(Duration::from_millis(999));
    assert_eq!(fetch(&cache).await, "old");
    assert_eq!(ground.far.calls(), []);
    ground.pass(Duration::from_millis(1));

    assert_eq!(fetch(&cache).await, "loaded", "silence is not trusted");
}

#[tokio::test]
async fn a_refill_overtaken_by_a_message_is_refused() {
    for broken in [None, Some(NearRule::UnmarkWhenTold)] {
        let (ground, cache) = watched(broken, &[]).await;
        ground.far.go(How::Held);
        let reading = {
            let cache = cache.clone();
            tokio::spawn(async move { get(&cache).await })
        };
        ground.far.until_held().await;
        ground.elsewhere.delete("k").await.unwrap();
        let name = cache.key("k").name().into();
        ground.far.tell(News::Changed(vec![name])).await;
        ground.far.release();
        let read = reading.await.unwrap();
        assert_eq!(read.as_deref(), Some("old"), "it began before");

        assert_eq!(get(&cache).await.is_some(), broken.is_some(), "{broken:?}");
    }
}

#[tokio::test]
async fn numbers_overtaken_by_a_message_are_not_kept() {
    for broken in [None, Some(NearRule::NumbersInFlight)] {
        let (ground, cache) = watched(broken, &["t"]).await;
        fetch(&cache).await;
        ground.far.tell(News::Space("".into())).await;
        ground.far.go(How::Held);
        let reading = {
            let cache = cache.clone();
            tokio::spawn(async move { fetch(&cache).await })
        };
        ground.far.until_held().await;
        ground.elsewhere.invalidate(["t"]).await.unwrap();
        ground.far.tell(News::Space("".into())).await;
        ground.far.release();
        assert_eq!(reading.await.unwrap(), "old", "it began before");

        let expected = if broken.is_some() { "old" } else { "loaded" };
        assert_eq!(fetch(&cache).await, expected, "{broken:?}");
    }
}
