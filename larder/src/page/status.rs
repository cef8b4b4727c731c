//! `Cache-Status` (RFC 9211): what the cache did, and why.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::event::{Miss, Outcome, Reason};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Adds our member to `Cache-Status`, behind those of caches nearer to the origin (RFC 9211 §2).
pub(super) fn add(headers: &mut HeaderMap, outcome: &Outcome, kept: Option<Reason>) {
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
        Outcome::Refused(Reason::Head) => write!(text, "Larder; fwd=miss; detail=head"),
        Outcome::Bypass(_) | Outcome::Refused(_) => {
            write!(text, "Larder; fwd=bypass; detail={outcome}")
        }
    };
    if let (Outcome::Miss(miss), None) = (outcome, kept) {
        let _ = write!(text, "; stored; detail={miss}");
    }
    if let (Outcome::Miss(_), Some(reason)) = (outcome, kept) {
        let _ = write!(text, "; detail={reason}");
    }
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
