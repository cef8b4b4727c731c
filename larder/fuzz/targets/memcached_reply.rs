//! Whatever a memcached says, and however it arrives: no panic, no over-read, one reading.

#![no_main]

#[allow(dead_code, unreachable_pub, reason = "the library uses all of it")]
#[path = "../../src/store/memcached/reply.rs"]
mod reply;

use libfuzzer_sys::fuzz_target;
use reply::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Ok(Parsed::Whole { value, used, .. }) = &whole {
        assert!(value.end <= *used && *used <= bytes.len());
        // What follows changes nothing, and less than all of it is not enough.
        assert_eq!(parse(&bytes[..*used]), whole);
        assert!(matches!(parse(&bytes[..*used - 1]), Ok(Parsed::Short(1..))));
    }
});
