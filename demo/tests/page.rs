//! What a visitor, and whoever starts the demo, gets to see.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod demo;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use demo::Demo;

/// Status line, headers and body of a plain GET.
fn get(demo: &Demo, path: &str) -> String {
    let host = demo.url.strip_prefix("http://").unwrap();
    let head = format!("Host: {}\r\nConnection: close", host.trim_end_matches('/'));
    demo.exchange(&format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn page_shows_what_the_article_shows() {
    let demo = Demo::start(&["--delay", "1ms"]);

    for path in ["/", "/uncached/"] {
        let page = get(&demo, path);

        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(
            page.contains("content-type: text/html; charset=utf-8\r\n"),
            "{page}"
        );
        for part in [
            "<title>Home</title>",
            "<h1>Below is the result of the APICall</h1>",
            r#"<a class="btn btn-success" href="">Get new data</a>"#,
            "Results received!",
        ] {
            assert!(page.contains(part), "{path} lacks {part}:\n{page}");
        }
        let time = page
            .split_once("<time>")
            .unwrap()
            .1
            .split_once("</time>")
            .unwrap()
            .0;
        assert_eq!(
            time.replace(|c: char| c.is_ascii_digit(), "0"),
            "00:00:00",
            "{time}"
        );
    }
}

#[test]
fn uncached_page_calls_the_slow_api_each_time_and_waits_for_it() {
    let demo = Demo::start(&["--delay", "200ms"]);
    assert_eq!(body(&get(&demo, "/api/calls")), "0\n");

    let start = Instant::now();
    get(&demo, "/uncached/");
    get(&demo, "/uncached/");

    assert!(
        start.elapsed() >= Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(body(&get(&demo, "/api/calls")), "2\n");
}

#[test]
fn every_request_logs_its_total_time() {
    let demo = Demo::start(&["--delay", "200ms"]);
    get(&demo, "/");

    let log = demo.stop();

    let line = log
        .lines()
        .find(|line| line.ends_with("path=/"))
        .expect(&log);
    let time = line
        .split_once("Total time: ")
        .expect(line)
        .1
        .split_once("s ")
        .unwrap()
        .0;
    assert!(time.parse::<f64>().unwrap() >= 0.2, "{line}");
}

#[test]
fn slow_api_refuses_a_delay_that_is_none() {
    let demo = Demo::start(&[]);

    for seconds in ["-1", "61", "NaN", "inf", "1e30", "soon"] {
        let answer = get(&demo, &format!("/delay/{seconds}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{seconds}: {answer}");
    }
    assert_eq!(body(&get(&demo, "/api/calls")), "0\n");
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();

    for (flags, words) in [
        (
            ["--listen", taken.as_str()],
            format!("demo: cannot listen on `{taken}`: "),
        ),
        (
            ["--listen", "127.0.0.1:99999"],
            "demo: cannot listen on `127.0.0.1:99999`: ".to_owned(),
        ),
        (
            ["--listen", "8000"],
            "demo: cannot listen on `8000`: ".to_owned(),
        ),
        (
            ["--cache", "disk://here"],
            "demo: no store has the scheme `disk` of `--cache`; ".to_owned(),
        ),
        (
            ["--cache", "here"],
            "demo: the value of `--cache` is not a URL; ".to_owned(),
        ),
        (
            ["--ttl", "soon"],
            "demo: invalid value 'soon' for '--ttl <TIME>': ".to_owned(),
        ),
        (
            ["--delay", "2"],
            "demo: invalid value '2' for '--delay <TIME>': ".to_owned(),
        ),
        (
            ["--delay", "2m"],
            "demo: invalid value '2m' for '--delay <TIME>': ".to_owned(),
        ),
        (
            ["--tll", "5m"],
            "demo: unexpected argument '--tll' found; ".to_owned(),
        ),
    ] {
        let output = demo::command(&flags).output().unwrap();

        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {line}");
        assert!(output.stdout.is_empty(), "{flags:?}");
        assert_eq!(line.lines().count(), 1, "{flags:?}: {line}");
        assert!(
            line.starts_with(&words) && line.contains("hint: "),
            "{flags:?}: {line}"
        );
    }
}

#[test]
fn password_in_a_bad_cache_url_is_not_repeated() {
    for url in ["rdis://:secret@cache:6379/0", ":secret@cache:6379"] {
        let output = demo::command(&["--cache", url]).output().unwrap();

        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(
            !String::from_utf8(output.stderr).unwrap().contains("secret"),
            "{url}"
        );
    }
}
