use super::*;

fn link(timeout: Duration) -> (Link, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(64);
    let hello = Hello {
        incarnation: 1,
        largest: None,
        time: 0,
    };
    let link = Link::new(Box::new(near), hello, &Clock::system(), timeout);
    (link, far)
}

fn batch(link: &Link, bytes: usize) -> Batch {
    use super::super::request::{Beside, Mode};
    let mut batch = link.batch(1);
    batch.set("k", &vec![b'x'; bytes], Beside::default(), Mode::Always);
    batch
}

#[tokio::test]
async fn what_waits_to_be_sent_is_bounded_but_one_batch_may_be_of_any_size() {
    let (link, _far) = link(Duration::from_mins(10));
    drop(link.send(batch(&link, MOST_WAITING + 1)));
    tokio::task::yield_now().await;
    let mut sent = 0;

    let fault = loop {
        match link.send(batch(&link, 1 << 20)) {
            Ok(_) => sent += 1,
            Err(fault) => break fault,
        }
    };

    assert!(matches!(fault, Fault::Full), "{fault:?}");
    assert_eq!(sent, MOST_WAITING / (1 << 20) - 1);
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_late_though_its_caller_has_gone_away() {
    let timeout = Duration::from_secs(1);
    let (link, mut far) = link(timeout);
    drop(link.send(batch(&link, 1)));
    tokio::time::sleep(timeout / 2).await;
    drop(link.send(batch(&link, 1)).expect("it is not late yet"));

    tokio::time::sleep(timeout * 3 / 4).await;
    assert!(matches!(link.send(batch(&link, 1)), Err(Fault::Late)));
    // It goes on, and the second reply has its time from then.
    far.write_all(b"HD O0\r\n").await.expect("somebody reads");
    tokio::time::sleep(timeout * 3 / 4).await;
    drop(link.send(batch(&link, 1)).expect("it went on"));

    tokio::time::sleep(timeout / 2).await;
    assert!(matches!(link.send(batch(&link, 1)), Err(Fault::Late)));
    assert!(!link.is_over());
    tokio::time::sleep(timeout * SILENCE).await;
    assert!(link.is_over());
}
