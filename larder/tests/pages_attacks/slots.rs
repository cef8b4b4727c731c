//! Slots that hold what they should not: rubbish, halves, pages of other keys.

use bytes::Bytes;
use larder::page::CacheLayer;
use larder::page::keys::{KeyOptions, header_list_key, page_key};
use larder::store::{Memory, Store as _, When};
use larder::{Cache, Clock, Entry, Key, Value};

use crate::{ask, memory, site};

const URL: &str = "http://example.com/";

fn keys(cache: &Cache, url: &str) -> [Key; 2] {
    let options = KeyOptions::default();
    let list = cache.key(header_list_key(url, &options));
    [
        list,
        cache.key(page_key("GET", url, &[] as &[Option<&[u8]>], &options)),
    ]
}

async fn write(memory: &Memory, key: &Key, codec: u8, bytes: Bytes) {
    let clock = memory.clock();
    let mut entry =
        Entry::new(clock, Value::Bytes(bytes)).fresh_until(clock.now().plus(crate::SECOND * 60));
    entry.codec = codec;
    memory.put(key, entry, When::Always).await.unwrap();
}

fn bytes_in(memory: &Memory, key: &Key) -> Bytes {
    match memory.get_now(key).unwrap().unwrap().value.clone() {
        Some(Value::Bytes(bytes)) => bytes,
        other => panic!("there are no bytes but {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn rubbish_in_a_slot_is_a_miss_and_is_replaced() {
    let huge: Vec<u8> = [&u32::MAX.to_be_bytes()[..], b"page"].concat();
    let rubbish: [&[u8]; 9] = [
        b"",
        b"\0",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\x04page",
        &huge,
        b"\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x06\xdf\xff\xff\xff\xff\xc0",
        b"\xdd\xff\xff\xff\xff",
    ];
    for which in [0, 1] {
        for codec in [0, 1, 16, 255] {
            for bytes in rubbish {
                let memory = memory();
                let cache = Cache::new(memory.clone());
                let keys = keys(&cache, URL);
                let (app, calls) = site(CacheLayer::new(cache), |_, _| "page");
                ask(&app, "/", &[]).await;

                write(&memory, &keys[which], codec, Bytes::copy_from_slice(bytes)).await;

                assert_eq!(
                    ask(&app, "/", &[]).await.body,
                    "page",
                    "{which} {codec} {bytes:?}"
                );
                assert_eq!(calls.count(), 2, "{which} {codec} {bytes:?}");
                assert!(
                    ask(&app, "/", &[]).await.is_hit(),
                    "{which} {codec} {bytes:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_broken_byte_of_a_slot_is_a_panic() {
    let memory = memory();
    let cache = Cache::new(memory.clone());
    let keys = keys(&cache, URL);
    let (app, _) = site(CacheLayer::new(cache), |_, _| "page");
    let mut rng = fastrand::Rng::with_seed(7);
    for key in &keys {
        ask(&app, "/", &[]).await;
        let good = bytes_in(&memory, key);
        for at in 0..good.len() {
            for flip in [1, 0x80, rng.u8(1..)] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                write(&memory, key, 16, bad.into()).await;
                ask(&app, "/", &[]).await;
            }
            write(&memory, key, 16, good.slice(..at)).await;
            assert_eq!(ask(&app, "/", &[]).await.status, 200);
        }
        for key in &keys {
            memory.delete(std::slice::from_ref(key)).await.unwrap();
        }
    }
    assert_eq!(ask(&app, "/", &[]).await.body, "page");
}

#[tokio::test(start_paused = true)]
async fn more_headers_than_a_map_can_hold_are_a_miss() {
    let memory = memory();
    let cache = Cache::new(memory.clone());
    let [_, page] = keys(&cache, URL);
    let (app, _) = site(CacheLayer::new(cache), |_, _| "page");
    ask(&app, "/", &[]).await;
    let good = bytes_in(&memory, &page);
    // The list of headers is the one field whose name is followed by an array of pairs.
    let at = good
        .windows(7)
        .position(|window| window == b"headers")
        .unwrap()
        + 7;
    let mut head = good[4..at].to_vec();
    head.push(0xdd);
    head.extend(40_000_u32.to_be_bytes());
    for number in 0..40_000 {
        let name = format!("x-{number:05}");
        head.extend([0x92, 0xa7]);
        head.extend(name.as_bytes());
        head.extend([0xc4, 1, b'1']);
    }
    let count = usize::from(good[at] & 0x0f);
    assert_eq!(
        good[at] & 0xf0,
        0x90,
        "the few headers of the page are a short array"
    );
    let end = good
        .windows(6)
        .position(|window| window == b"stored")
        .unwrap()
        - 1;
    assert!(count > 0 && end > at);
    head.extend(&good[end..]);
    let head_len = u32::from_be_bytes(good[..4].try_into().unwrap()) as usize;
    let body = good.len() - 4 - head_len;
    let length = u32::try_from(head.len() - body).unwrap();

    write(
        &memory,
        &page,
        16,
        [&length.to_be_bytes()[..], &head].concat().into(),
    )
    .await;

    assert_eq!(ask(&app, "/", &[]).await.body, "page");
}

#[tokio::test(start_paused = true)]
async fn a_page_under_the_key_of_another_is_not_served() {
    let memory = memory();
    let cache = Cache::new(memory.clone());
    let [list_a, page_a] = keys(&cache, "http://example.com/a");
    let [list_b, page_b] = keys(&cache, "http://example.com/b");
    let (app, _) = site(CacheLayer::new(cache), |number, _| format!("page {number}"));
    ask(&app, "/a", &[]).await;
    ask(&app, "/b", &[]).await;

    write(&memory, &page_b, 16, bytes_in(&memory, &page_a)).await;
    assert_eq!(ask(&app, "/b", &[]).await.body, "page 3");

    // Also with the list of the other, whose mark the page bears.
    write(&memory, &page_b, 16, bytes_in(&memory, &page_a)).await;
    write(&memory, &list_b, 16, bytes_in(&memory, &list_a)).await;
    assert_eq!(ask(&app, "/b", &[]).await.body, "page 4");
}

#[tokio::test(start_paused = true)]
async fn a_page_from_before_the_list_was_dropped_is_not_served() {
    let memory = memory();
    let cache = Cache::new(memory.clone());
    let [list, page] = keys(&cache, URL);
    let (app, _) = site(CacheLayer::new(cache), |number, _| format!("page {number}"));
    ask(&app, "/", &[]).await;
    let old = bytes_in(&memory, &page);
    memory.delete(&[list]).await.unwrap();
    ask(&app, "/", &[]).await;

    write(&memory, &page, 16, old).await;

    assert_eq!(ask(&app, "/", &[]).await.body, "page 3");
}

#[tokio::test(start_paused = true)]
async fn another_value_under_a_pages_key_is_replaced_and_readable_as_itself_until_then() {
    let clock = Clock::seeded(3);
    let memory = Memory::builder().clock(clock).build();
    let cache = Cache::new(memory.clone());
    let options = KeyOptions::default();
    let list = header_list_key(URL, &options);
    cache.set(&list, &5).await.unwrap();
    let (app, _) = site(CacheLayer::new(cache.clone()), |_, _| "page");

    assert_eq!(ask(&app, "/", &[]).await.body, "page");
    assert!(ask(&app, "/", &[]).await.is_hit());
    assert_eq!(cache.get::<i64>(&list).await.unwrap(), None);
}
