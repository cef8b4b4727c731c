//! Several demos over one Redis: one slow call for all of them, and nothing breaks when it dies.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod demo;
#[path = "../../larder/tests/support/redis.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use demo::Demo;
use support::RedisServer;

/// A GET of `path`, as a load balancer hands it on: with the Host that the client asked for.
fn get(demo: &Demo, path: &str) -> String {
    let head = "Host: shop.example\r\nConnection: close";
    demo.exchange(&format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n"))
}

fn calls(demo: &Demo) -> usize {
    let answer = get(demo, "/api/calls");
    answer
        .split_once("\r\n\r\n")
        .unwrap()
        .1
        .trim()
        .parse()
        .unwrap()
}

fn is_hit(answer: &str) -> bool {
    answer.contains("cache-status: Larder; hit")
}

/// A command that a server answers with one line.
fn tell(redis: &RedisServer, command: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    write!(stream, "{command}\r\n").unwrap();
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).unwrap();
    assert!(answer[..count].starts_with(b"+OK"), "{command}");
}

#[test]
fn four_demos_on_one_redis_make_one_slow_call_for_a_hundred_requests() {
    let redis = RedisServer::start();
    let url = redis.url();
    let demos: Vec<_> = (0..4)
        .map(|_| Demo::start(&["--delay", "1s", "--cache", &url]))
        .collect();

    std::thread::scope(|scope| {
        for number in 0..100 {
            let demo = &demos[number % 4];
            scope.spawn(move || {
                let answer = get(demo, "/");
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            });
        }
    });

    assert_eq!(demos.iter().map(calls).sum::<usize>(), 1);
    for demo in demos {
        demo.stop();
    }
}

#[test]
fn no_request_fails_while_redis_dies_and_comes_back() {
    let mut redis = RedisServer::start();
    let demo = Demo::start(&["--delay", "50ms", "--cache", &redis.url()]);
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));

    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(&demo, "/");
                    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more = |count: usize| {
            let until = answered.load(Ordering::Relaxed) + count;
            wait_until(|| answered.load(Ordering::Relaxed) >= until);
        };
        more(50);
        redis.kill();
        more(50);
        redis.start_again();
        wait_until(|| is_hit(&get(&demo, "/")));
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_redis_that_comes_back_with_old_pages_serves_none_of_them() {
    let mut redis = RedisServer::start();
    let demo = Demo::start(&["--delay", "1ms", "--cache", &redis.url()]);
    get(&demo, "/");
    wait_until(|| is_hit(&get(&demo, "/")));
    let before = calls(&demo);

    tell(&redis, "SAVE");
    redis.start_again();
    let first = get(&demo, "/");

    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && !is_hit(&first),
        "{first}"
    );
    assert!(calls(&demo) > before);
    wait_until(|| is_hit(&get(&demo, "/")));
}

#[test]
fn a_redis_that_is_down_at_the_start_is_one_line_and_exit_code_2() {
    let port = support::free_port();
    let url = format!("redis://:secret@127.0.0.1:{port}/0");

    let output = demo::command(&["--cache", &url, "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();

    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), line.lines().count()),
        (Some(2), 1),
        "{line}"
    );
    assert!(
        line.contains("cannot connect to `redis://127.0.0.1:") && !line.contains("secret"),
        "{line}"
    );
}

fn wait_until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "it did not come to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}
