//! Who may have what, row by row.

use super::*;
use http::{Request, Response};

type Headers<'a> = &'a [(&'a str, &'a str)];

fn request(headers: Headers<'_>) -> request::Parts {
    let request = headers
        .iter()
        .fold(Request::get("/"), |request, &(name, value)| {
            request.header(name, value)
        });
    request
        .body(())
        .expect("the test's headers are sound")
        .into_parts()
        .0
}

fn response(headers: Headers<'_>) -> response::Parts {
    let response = headers
        .iter()
        .fold(Response::builder(), |response, &(name, value)| {
            response.header(name, value)
        });
    response
        .body(())
        .expect("the test's headers are sound")
        .into_parts()
        .0
}

fn keep(asked: Headers<'_>, answered: Headers<'_>, rules: &Rules) -> Result<Kept, Reason> {
    may_use(&request(asked), rules).and_then(|asked| may_keep(asked, &response(answered), rules))
}

fn refused(asked: Headers<'_>, answered: Headers<'_>, rules: &Rules) -> Option<Reason> {
    keep(asked, answered, rules).err()
}

fn serve(kept: &Kept, asked: Headers<'_>, rules: &Rules) -> Option<Reason> {
    let asked = may_use(&request(asked), rules).expect("the test asks for what may be cached");
    may_serve(asked, kept.audience, rules).err()
}

const ALICE: Headers<'_> = &[("cookie", "session=alice")];
const TOKEN: Headers<'_> = &[("authorization", "Bearer alice")];

#[test]
fn requests_that_are_no_plain_get_go_past_the_cache() {
    for (headers, reason) in [
        (&[("content-length", "5")][..], Reason::RequestBody),
        (&[("transfer-encoding", "chunked")], Reason::RequestBody),
        (
            &[("content-length", "0"), ("content-length", "5")],
            Reason::RequestBody,
        ),
        (&[("host", "a"), ("host", "b")], Reason::Hosts),
        (&[("host", "a"), ("host", "a")], Reason::Hosts),
        (&[("upgrade", "websocket")], Reason::Upgrade),
        (&[("connection", "keep-alive, Upgrade")], Reason::Upgrade),
    ] {
        assert_eq!(
            may_use(&request(headers), &Rules::new()).err(),
            Some(reason),
            "{headers:?}"
        );
    }
    for headers in [
        &[("content-length", "0")][..],
        &[("host", "a")],
        &[("connection", "keep-alive")],
        &[],
    ] {
        assert_eq!(
            may_use(&request(headers), &Rules::new()).err(),
            None,
            "{headers:?}"
        );
    }
}

#[test]
fn only_get_and_head_use_the_cache() {
    for (method, reason) in [
        ("GET", None),
        ("HEAD", None),
        ("POST", Some(Reason::Method)),
        ("get", Some(Reason::Method)),
    ] {
        let parts = Request::builder()
            .method(method)
            .body(())
            .expect("a sound request")
            .into_parts()
            .0;

        assert_eq!(may_use(&parts, &Rules::new()).err(), reason, "{method}");
    }
}

#[test]
fn target_and_host_must_name_the_same_host() {
    let to = |host: &str| {
        Request::get("http://a/")
            .header("host", host)
            .body(())
            .expect("a sound request")
            .into_parts()
            .0
    };

    assert_eq!(may_use(&to("b"), &Rules::new()).err(), Some(Reason::Hosts));
    assert_eq!(may_use(&to("a"), &Rules::new()).err(), None);
}

#[test]
fn responses_that_are_somebodys_or_have_no_end_are_not_kept() {
    for (headers, reason) in [
        (&[("set-cookie", "session=alice")][..], Reason::SetCookie),
        (
            &[
                ("set-cookie", "a=b"),
                ("cache-control", "public, s-maxage=60"),
            ],
            Reason::SetCookie,
        ),
        (&[("cache-control", "private")], Reason::Private),
        (&[("cache-control", "public, PRIVATE")], Reason::Private),
        (&[("cache-control", "private=\"x\"")], Reason::Private),
        (
            &[
                ("cache-control", "max-age=60"),
                ("cache-control", "no-store"),
            ],
            Reason::NoStore,
        ),
        (&[("cache-control", "no-cache")], Reason::NoCache),
        (&[("cache-control", "no-cache=\"Link\"")], Reason::NoCache),
        (&[("vary", "Cookie , * ")], Reason::VaryStar),
        (
            &[("content-type", "Text/Event-Stream; charset=utf-8")],
            Reason::EventStream,
        ),
        (&[("content-length", "8388609")], Reason::TooLong),
        (&[("content-range", "bytes 0-1/9")], Reason::Partial),
    ] {
        assert_eq!(
            refused(&[], headers, &Rules::new()),
            Some(reason),
            "{headers:?}"
        );
    }
    for headers in [
        &[][..],
        &[("cache-control", "x-private-thing")],
        &[("cache-control", "foo=\"a, private, no-store\"")],
        &[("content-length", "8388608")],
        &[("vary", "Accept-Encoding")],
        &[("content-type", "text/event-streams")],
    ] {
        assert_eq!(refused(&[], headers, &Rules::new()), None, "{headers:?}");
    }
}

#[test]
fn only_the_listed_statuses_are_kept_and_parts_never() {
    let keep = |status: u16, rules: &Rules| {
        let mut response = response(&[]);
        response.status = StatusCode::from_u16(status).expect("a sound status");
        let asked = may_use(&request(&[]), rules).expect("a plain GET");
        may_keep(asked, &response, rules).err()
    };
    let more = Rules::new()
        .statuses([200, 206, 304, 404].map(|code| StatusCode::from_u16(code).expect("a status")));

    for status in [201, 204, 301, 304, 404, 500] {
        assert_eq!(
            keep(status, &Rules::new()),
            Some(Reason::Status),
            "{status}"
        );
    }
    assert_eq!(keep(200, &Rules::new()), None);
    assert_eq!(keep(404, &more), None);
    assert_eq!(keep(206, &more), Some(Reason::Partial));
    assert_eq!(keep(304, &more), Some(Reason::Status));
}

#[test]
fn page_for_a_request_with_cookies_is_kept_only_if_it_is_said() {
    for (said, reason) in [
        (&[][..], Some(Reason::Cookie)),
        (&[("cache-control", "max-age=60")], Some(Reason::Cookie)),
        (
            &[("cache-control", "must-revalidate")],
            Some(Reason::Cookie),
        ),
        (&[("cache-control", "s-maxage=soon")], Some(Reason::Cookie)),
        (&[("vary", "Accept")], Some(Reason::Cookie)),
        (&[("cache-control", "public")], None),
        (&[("cache-control", "s-maxage=60")], None),
        (&[("vary", "accept, COOKIE")], None),
    ] {
        assert_eq!(refused(ALICE, said, &Rules::new()), reason, "{said:?}");
        assert_eq!(
            refused(ALICE, said, &Rules::new().cookies(["theme"])),
            None,
            "{said:?}"
        );
        assert_eq!(
            refused(ALICE, said, &Rules::new().ignore_cookies()),
            None,
            "{said:?}"
        );
    }
}

#[test]
fn page_for_a_request_with_credentials_is_kept_only_if_it_is_said() {
    for (said, reason) in [
        (&[][..], Some(Reason::Authorization)),
        (
            &[("cache-control", "max-age=60")],
            Some(Reason::Authorization),
        ),
        (
            &[("cache-control", "publicity=1")],
            Some(Reason::Authorization),
        ),
        (&[("vary", "Cookie")], Some(Reason::Authorization)),
        (&[("cache-control", "public")], None),
        (&[("cache-control", "s-maxage=60")], None),
        (
            &[("cache-control", "must-revalidate")],
            Some(Reason::Authorization),
        ),
        (
            &[("cache-control", "s-maxage=0")],
            Some(Reason::Authorization),
        ),
        (&[("vary", "Authorization")], None),
    ] {
        for rules in [
            Rules::new(),
            Rules::new().cookies(["theme"]),
            Rules::new().ignore_cookies(),
        ] {
            assert_eq!(refused(TOKEN, said, &rules), reason, "{said:?}");
        }
    }
}

#[test]
fn page_of_a_stranger_is_not_given_to_somebody() {
    let rules = Rules::new();
    let plain = keep(&[], &[], &rules).expect("nothing is said against it");
    let public = keep(&[], &[("cache-control", "public")], &rules).expect("it is public");
    let by_cookie =
        keep(&[], &[("vary", "Cookie")], &rules).expect("its variants differ by cookie");

    assert_eq!(serve(&plain, &[], &rules), None);
    assert_eq!(serve(&plain, ALICE, &rules), Some(Reason::Cookie));
    assert_eq!(serve(&plain, ALICE, &rules.clone().ignore_cookies()), None);
    assert_eq!(serve(&plain, TOKEN, &rules), Some(Reason::Authorization));
    assert_eq!(serve(&public, ALICE, &rules), None);
    assert_eq!(serve(&public, TOKEN, &rules), None);
    assert_eq!(serve(&by_cookie, ALICE, &rules), None);
    assert_eq!(
        serve(&by_cookie, TOKEN, &rules),
        Some(Reason::Authorization)
    );
}

#[test]
fn pages_kept_under_other_cookie_settings_are_not_trusted() {
    let (private, only, ignored) = (
        Rules::new(),
        Rules::new().cookies(["theme"]),
        Rules::new().ignore_cookies(),
    );
    let alices = keep(ALICE, &[], &ignored).expect("cookies play no part");
    let plain = keep(&[], &[], &private).expect("nothing is said against it");

    assert_eq!(serve(&alices, &[], &private), Some(Reason::Cookie));
    assert_eq!(serve(&plain, ALICE, &only), Some(Reason::Cookie));
    assert_eq!(serve(&plain, &[], &only), Some(Reason::Cookie));
}

#[test]
fn cookies_that_matter_are_part_of_what_the_page_varies_on() {
    let only = Rules::new().cookies(["theme"]);
    let vary = |said: Headers<'_>, rules: &Rules| {
        keep(&[], said, rules)
            .expect("nothing is said against it")
            .vary
    };

    assert_eq!(
        vary(&[("vary", "Accept")], &only),
        ["accept", "cookie:theme"]
    );
    assert_eq!(vary(&[("vary", "Cookie")], &only), ["cookie"]);
    assert_eq!(vary(&[("vary", "Accept")], &Rules::new()), ["accept"]);
    assert_eq!(
        vary(&[("vary", "Cookie")], &Rules::new().ignore_cookies()),
        ["cookie"]
    );
}

#[test]
fn clients_force_no_work_unless_they_may() {
    let lax = Rules::new().clients_decide();
    let page = keep(&[], &[], &lax).expect("nothing is said against it");

    for asked in [
        &[("cache-control", "no-cache")][..],
        &[("cache-control", "max-age=0")],
        &[("pragma", "no-cache")],
    ] {
        assert_eq!(serve(&page, asked, &Rules::new()), None, "{asked:?}");
        assert_eq!(
            serve(&page, asked, &lax),
            Some(Reason::ClientRefused),
            "{asked:?}"
        );
        assert_eq!(refused(asked, &[], &lax), None, "{asked:?}");
    }
    assert_eq!(
        serve(
            &page,
            &[("pragma", "no-cache"), ("cache-control", "max-age=5")],
            &lax
        ),
        None
    );
    assert_eq!(
        refused(&[("cache-control", "no-store")], &[], &lax),
        Some(Reason::ClientRefused)
    );
    assert_eq!(
        refused(&[("cache-control", "no-store")], &[], &Rules::new()),
        None
    );
}

#[test]
fn ranges_are_asked_as_whole_pages() {
    assert_eq!(refused(&[("range", "bytes=0-1")], &[], &Rules::new()), None);
}

#[test]
fn audience_survives_its_bits() {
    for bits in 0..16 {
        assert_eq!(Audience::from_bits(bits).to_bits(), bits);
    }
}
