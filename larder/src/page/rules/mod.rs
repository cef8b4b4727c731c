//! What HTTP and Django say about keeping responses, as pure functions: headers and a time in, an answer out.
//!
//! Nothing here reads a clock, a store or a body stream. A refusal carries its [`Reason`], and whoever reports one
//! (`Cache-Status`, a trace, `larder explain`) only prints it.
//!
//! Header lines are read as latin-1, so that no byte of a header is lost or refused.
//!
//! ```
//! use larder::page::rules::{Reason, Rules, storable};
//!
//! let (request, ()) = http::Request::get("/").body(()).expect("a plain request").into_parts();
//! let (response, ()) = http::Response::builder()
//!     .header("set-cookie", "session=alice")
//!     .body(())
//!     .expect("a plain response")
//!     .into_parts();
//!
//! let rules = Rules::new();
//! let asked = storable::may_use(&request, &rules).expect("a plain GET");
//!
//! assert_eq!(storable::may_keep(asked, &response, &rules), Err(Reason::SetCookie));
//! ```
//!
//! | file | what it holds |
//! | --- | --- |
//! | `cache_control.rs` | `Cache-Control` read, and Django's helpers that write it |
//! | `dates.rs` | HTTP dates in and out |
//! | `freshness.rs` | how long a page is kept, how long it may be stale, how old it is |
//! | `settings.rs` | what a program can say about keeping pages |
//! | `storable.rs` | whether a request may use the cache, a response be kept, a page be served |
//! | `validators.rs` | `ETag`, `Last-Modified` and the conditional requests |
//! | `vary.rs` | `Vary`, and the request's values for it |

pub mod cache_control;
pub mod dates;
pub mod freshness;
mod settings;
pub mod storable;
pub mod validators;
pub mod vary;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use crate::event::Reason;
pub use cache_control::{CacheControl, NoCache};
pub use settings::{Cookies, Rules};
pub use vary::Vary;

/// Returns the lines of a header as one text, joined by `between`, or `None` if there is no such header.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName, between: &str) -> Option<String> {
    let mut lines = headers.get_all(name).iter();
    let mut text = latin1(lines.next()?.as_bytes());
    for line in lines {
        text.push_str(between);
        text.push_str(&latin1(line.as_bytes()));
    }
    Some(text)
}

/// Puts `text`, read by [`joined`] and added to, in the place of all lines of a header.
///
/// A text that no header can carry leaves the header as it was.
pub(crate) fn replace(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|char| u8::try_from(u32::from(char)).ok())
        .collect();
    if let Some(value) = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
        headers.insert(name, value);
    }
}

/// Reads bytes as latin-1: every byte is one character.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_header_are_one_list_and_no_byte_is_lost() {
        let mut headers = HeaderMap::new();
        headers.append("vary", HeaderValue::from_static("Cookie"));
        headers.append(
            "vary",
            HeaderValue::from_bytes(b"caf\xe9").expect("a header may carry it"),
        );

        let text = joined(&headers, &http::header::VARY, ", ").expect("it is there");
        replace(&mut headers, http::header::VARY, &text);

        assert_eq!(text, "Cookie, caf\u{e9}");
        assert_eq!(headers["vary"].as_bytes(), b"Cookie, caf\xe9");
        assert_eq!(headers.get_all("vary").iter().count(), 1);
    }

    #[test]
    fn text_that_no_header_can_carry_changes_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("vary", HeaderValue::from_static("Cookie"));

        replace(&mut headers, http::header::VARY, "line\nbreak");
        replace(&mut headers, http::header::VARY, "\u{1F600}");

        assert_eq!(headers["vary"], "Cookie");
    }
}
