//! A list that is a fragment, pages that are kept, and forms: what is written shows at once, in every
//! process.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod demo;
#[path = "../../larder/tests/support/redis.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use demo::Demo;
use support::RedisServer;

/// How often one process writes and another is asked.
const EDITS: usize = 1000;
/// What every request says, with the Host that the client asked for.
const HEAD: &str = "Host: shop.example\r\nConnection: close\r\n";

fn get(demo: &Demo, path: &str) -> String {
    let answer = get_with(demo, path, "");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "{path}: {answer}"
    );
    answer
}

/// A GET with more `headers`, each a line of its own.
fn get_with(demo: &Demo, path: &str, headers: &str) -> String {
    demo.exchange(&format!("GET {path} HTTP/1.1\r\n{HEAD}{headers}\r\n"))
}

/// Sends a form.
fn send(demo: &Demo, path: &str, body: &str) -> String {
    let form = "Content-Type: application/x-www-form-urlencoded";
    let length = body.len();
    demo.exchange(&format!(
        "POST {path} HTTP/1.1\r\n{HEAD}{form}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

/// Sends a form, which is answered by a redirect.
fn post(demo: &Demo, path: &str, body: &str) -> String {
    let answer = send(demo, path, body);
    assert!(answer.starts_with("HTTP/1.1 303"), "{path}: {answer}");
    answer
}

fn queries(demo: &Demo) -> usize {
    let answer = get(demo, "/api/queries");
    answer
        .rsplit("\r\n\r\n")
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn is_hit(answer: &str) -> bool {
    answer.contains("cache-status: Larder; hit")
}

/// Asks until the page is one that was kept: it is written behind the first answer.
fn until_hit(demo: &Demo, path: &str) -> String {
    for _ in 0..1000 {
        let answer = get(demo, path);
        if is_hit(&answer) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{path} is never kept");
}

/// A folder for the file that demos share.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("larder-demo-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> String {
        self.0.join("shop.db").display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_written_shows_at_once() {
    let demo = Demo::start(&[]);
    let list = get(&demo, "/objects");
    assert!(
        list.contains(r#"<a href="/objects/1">a lamp</a>"#),
        "{list}"
    );
    until_hit(&demo, "/objects");
    let read = queries(&demo);
    until_hit(&demo, "/objects");
    assert_eq!(queries(&demo), read, "a hit reads no rows");
    until_hit(&demo, "/objects/1");

    let answer = post(&demo, "/objects/1", "name=a+%3Cred%3E+lamp");
    assert!(answer.contains("location: /objects\r\n"), "{answer}");
    for path in ["/objects", "/objects/1"] {
        let page = get(&demo, path);
        assert!(page.contains("a &lt;red&gt; lamp"), "{page}");
        assert!(!page.contains("a lamp"), "{page}");
    }

    post(&demo, "/objects", "name=a+bed");
    assert!(get(&demo, "/objects").contains(r#"<a href="/objects/4">a bed</a>"#));
    get(&demo, "/objects/4");
    until_hit(&demo, "/objects/4");
    post(&demo, "/objects/4/delete", "");
    assert!(!get(&demo, "/objects").contains("a bed"));
    let gone = get_with(&demo, "/objects/4", "");
    assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");
    demo.stop();
}

#[test]
fn an_edit_of_one_object_leaves_the_pages_of_others() {
    let demo = Demo::start(&[]);
    until_hit(&demo, "/objects/1");
    until_hit(&demo, "/objects/2");
    post(&demo, "/objects/1", "name=b");
    assert!(is_hit(&get(&demo, "/objects/2")));
    assert!(!is_hit(&get(&demo, "/objects/1")));
    demo.stop();
}

#[test]
fn a_name_that_is_none_is_refused() {
    let demo = Demo::start(&[]);
    let long = format!("name={}", "x".repeat(81));
    for body in ["name=", "name=+", "name=a%00b", long.as_str(), ""] {
        for path in ["/objects", "/objects/1", "/account"] {
            let answer = send(&demo, path, body);
            assert!(answer.starts_with("HTTP/1.1 4"), "{path} {body}: {answer}");
        }
    }
    let answer = send(&demo, "/objects/99", "name=a");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(get(&demo, "/objects").contains("a lamp"));
    demo.stop();
}

#[test]
fn the_account_is_ones_own_inside_a_page_for_everybody() {
    let demo = Demo::start(&[]);
    let stranger = until_hit(&demo, "/account");
    assert!(stranger.contains("Hello stranger."), "{stranger}");
    let read = queries(&demo);

    let cookie = |name: &str| {
        let answer = post(&demo, "/account", &format!("name={name}"));
        let (_, rest) = answer.split_once("set-cookie: ").unwrap();
        format!("Cookie: {}\r\n", rest.split_once(';').unwrap().0)
    };
    let (ann, bob) = (cookie("ann"), cookie("bob"));
    let mut greetings = Vec::new();
    for _ in 0..2 {
        for (cookie, name) in [(&ann, "ann"), (&bob, "bob")] {
            let page = get_with(&demo, "/account", cookie);
            assert!(page.contains(&format!("Hello {name}.")), "{page}");
            assert!(page.contains("a lamp"), "the list for everybody: {page}");
            assert!(!is_hit(&page), "{page}");
            let (_, rest) = page.split_once("<p>Hello ").unwrap();
            greetings.push(rest.split_once("</p>").unwrap().0.to_owned());
        }
    }
    assert_eq!(greetings[..2], greetings[2..], "each kept its own");
    assert_eq!(queries(&demo), read, "the list was there for all");
    assert!(until_hit(&demo, "/account").contains("Hello stranger."));
    demo.stop();
}

#[test]
fn an_edit_in_one_process_shows_on_the_next_page_of_another_every_time() {
    let (redis, folder) = (RedisServer::start(), Folder::new("edits"));
    let (url, file) = (redis.url(), folder.file());
    let start = || Demo::start(&["--cache", &url, "--shop", &file]);
    let (here, there) = (start(), start());
    until_hit(&there, "/objects");
    until_hit(&there, "/objects/1");

    let mut hits = 0;
    for edit in 0..EDITS {
        let name = format!("lamp+{edit}");
        post(&here, "/objects/1", &format!("name={name}"));
        let shown = format!("lamp {edit}<");
        let path = ["/objects", "/objects/1"][edit % 2];
        let page = get(&there, path);
        assert!(page.contains(&shown), "edit {edit}: {page}");
        hits += usize::from(is_hit(&get(&there, path)));
    }
    assert!(hits > EDITS / 2, "pages are kept between edits: {hits}");
    here.stop();
    there.stop();
}
