//! What is read, what is ignored, and what a patch leaves.

use super::*;

#[expect(
    clippy::unnecessary_wraps,
    reason = "what it is compared with may be absent"
)]
const fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn commas_and_names_in_quotes_are_not_directives() {
    let said = CacheControl::parse(r#"foo="private, no-store, \", public", max-age=5"#);

    assert_eq!(
        said,
        CacheControl {
            max_age: secs(5),
            ..CacheControl::default()
        }
    );
}

#[test]
fn quote_that_is_never_closed_hides_nothing() {
    let mut headers = HeaderMap::new();
    headers.append(CACHE_CONTROL, HeaderValue::from_static("x=\"a"));
    headers.append(CACHE_CONTROL, HeaderValue::from_static("private, y=\"b"));

    assert!(CacheControl::parse("x=\"abc, private").private);
    assert!(CacheControl::of(&headers).private);
}

#[test]
fn only_whole_directive_names_count() {
    let said = CacheControl::parse("x-private-thing, no-store-ever, publicity=1, no-cached");

    assert_eq!(said, CacheControl::default());
}

#[test]
fn several_lines_are_one_list_and_case_does_not_matter() {
    let mut headers = HeaderMap::new();
    headers.append(CACHE_CONTROL, HeaderValue::from_static("Max-Age=60"));
    headers.append(
        CACHE_CONTROL,
        HeaderValue::from_static(" PRIVATE , S-MaxAge=7"),
    );

    let said = CacheControl::of(&headers);

    assert!(said.private);
    assert_eq!((said.max_age, said.s_maxage), (secs(60), secs(7)));
}

#[test]
fn times_are_read_or_ignored() {
    for (text, expected) in [
        ("max-age=60", secs(60)),
        ("max-age=\"60\"", secs(60)),
        ("max-age= 7", secs(7)),
        ("max-age=-1", secs(0)),
        ("max-age=99999999999999999999999", secs(LONGEST)),
        ("max-age=4294967296", secs(LONGEST)),
        ("max-age", None),
        ("max-age=", None),
        ("max-age=abc", None),
        ("max-age=1.5", None),
        ("max-age=1_000", None),
        ("max-age=+5", None),
        ("max-age = 60", None),
        ("max-age=5, max-age=abc", secs(5)),
        ("max-age=1, max-age=2", secs(2)),
    ] {
        assert_eq!(CacheControl::parse(text).max_age, expected, "{text}");
    }
}

#[test]
fn blank_before_the_equals_sign_does_not_hide_a_refusal() {
    let said = CacheControl::parse("private = \"x\", no-cache = \"Link\"");

    assert!(said.private);
    assert_eq!(said.no_cache, NoCache::All);
}

#[test]
fn no_cache_collects_fields_until_a_bare_one() {
    let fields = |names: &[&str]| NoCache::Fields(names.iter().map(ToString::to_string).collect());

    assert_eq!(
        CacheControl::parse("no-cache=\"Link, Set-Cookie\"").no_cache,
        fields(&["link", "set-cookie"])
    );
    assert_eq!(
        CacheControl::parse("no-cache=a, no-cache=b").no_cache,
        fields(&["a", "b"])
    );
    assert_eq!(
        CacheControl::parse("no-cache=a, no-cache").no_cache,
        NoCache::All
    );
    assert_eq!(
        CacheControl::parse("no-cache, no-cache=a").no_cache,
        NoCache::All
    );
    assert_eq!(CacheControl::parse("no-cache=\"\"").no_cache, NoCache::All);
}

#[test]
fn request_directives_are_read() {
    let said = CacheControl::parse("only-if-cached, max-stale, min-fresh=3");

    assert!(said.only_if_cached);
    assert_eq!(
        (said.max_stale, said.min_fresh),
        (Some(Duration::MAX), secs(3))
    );
    assert_eq!(CacheControl::parse("max-stale=9").max_stale, secs(9));
}

#[test]
fn quoted_commas_survive_a_patch() {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("foo=\"a,b\""));

    patch_cache_control(&mut headers, &[("public", None)]);

    assert_eq!(headers[CACHE_CONTROL], "foo=\"a,b\", public");
}

#[test]
fn unreadable_max_age_gives_way_to_a_new_one() {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=abc"));

    patch_response_headers(
        &mut headers,
        Duration::from_millis(5_900),
        SystemTime::UNIX_EPOCH,
    );

    assert_eq!(headers[CACHE_CONTROL], "max-age=5");
}

#[test]
fn endless_ttl_stays_within_what_headers_can_say() {
    let mut headers = HeaderMap::new();

    patch_response_headers(&mut headers, Duration::MAX, SystemTime::UNIX_EPOCH);

    assert_eq!(headers[CACHE_CONTROL], "max-age=2147483648");
    assert!(headers.contains_key(EXPIRES));
}
