//! `Cache-Status` (RFC 9211): what the cache did, and why.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::event::{Miss, Outcome, Reason};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What became of the handler's response.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    Yes,
    /// Not, or not yet known; and why.
    No(Option<Reason>),
}

/// Adds our member to `Cache-Status`, behind those of caches nearer to the origin (RFC 9211 §2).
pub(super) fn add(headers: &mut HeaderMap, outcome: &Outcome, stored: Stored) {
    let mut text = String::with_capacity(48);
    // Writing into a String cannot fail.
    let _ = match outcome {
        Outcome::Hit(None) => write!(text, "Larder; hit"),
        Outcome::Hit(Some(left)) => write!(text, "Larder; hit; ttl={}", left.as_secs()),
        Outcome::Stale(_) => write!(text, "Larder; hit; ttl=-1; detail={outcome}"),
        Outcome::Joined(miss) => {
            write!(
                text,
                "Larder; fwd={}; collapsed; detail={outcome}",
                forward(miss)
            )
        }
        Outcome::Miss(miss) => write!(text, "Larder; fwd={}", forward(miss)),
        Outcome::Refused(Reason::Method) => write!(text, "Larder; fwd=method"),
        Outcome::Refused(reason @ (Reason::Head | Reason::Partial | Reason::Precondition)) => {
            write!(text, "Larder; fwd=miss; detail={reason}")
        }
        Outcome::Bypass(_) | Outcome::Refused(_) => {
            write!(text, "Larder; fwd=bypass; detail={outcome}")
        }
    };
    let _ = match (outcome, stored) {
        (Outcome::Miss(miss), Stored::Yes) => write!(text, "; stored; detail={miss}"),
        (Outcome::Miss(_), Stored::No(Some(reason))) => write!(text, "; detail={reason}"),
        (Outcome::Miss(miss), Stored::No(None)) => write!(text, "; detail={miss}"),
        _ => Ok(()),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(CACHE_STATUS, value);
    }
}

/// RFC 9211 §2.2.
fn forward(miss: &Miss) -> &'static str {
    match miss {
        Miss::Absent | Miss::Unreadable => "uri-miss",
        Miss::Unsuitable => "vary-miss",
        Miss::Expired | Miss::Invalidated(_) => "stale",
    }
}
