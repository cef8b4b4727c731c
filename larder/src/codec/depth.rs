//! How deep encoded bytes nest, told without recursion: crafted bytes must not use up the stack.
//!
//! The decoders count themselves, but not everywhere: `rmp-serde` leaves out the variants of an enum.

/// How deep a value may nest: what `serde_json` reads back.
pub(super) const MOST: usize = 127;

/// Whether `MessagePack` bytes nest no deeper than [`MOST`]; bytes that end too early do, since
/// whoever reads them finds that out.
pub(super) fn is_bounded_pack(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    // What is still to come of each array or map around.
    let mut open: Vec<u64> = Vec::new();
    loop {
        let Some(items) = skip_one(&mut rest) else {
            return true;
        };
        if items > 0 {
            if open.len() == MOST {
                return false;
            }
            open.push(items);
            continue;
        }
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            return true;
        }
    }
}

/// Takes one marker off the front, with its bytes if it is no array or map; how many items follow
/// that belong to it. `None` where there is too little left.
fn skip_one(rest: &mut &[u8]) -> Option<u64> {
    let marker = take(rest, 1)?;
    let (length, items) = match marker {
        0x80..=0x8f => (0, 2 * (marker & 0x0f)),
        0x90..=0x9f => (0, marker & 0x0f),
        0xa0..=0xbf => (marker & 0x1f, 0),
        0xc4 | 0xd9 => (take(rest, 1)?, 0),
        0xc5 | 0xda => (take(rest, 2)?, 0),
        0xc6 | 0xdb => (take(rest, 4)?, 0),
        0xc7 => (take(rest, 1)? + 1, 0),
        0xc8 => (take(rest, 2)? + 1, 0),
        0xc9 => (take(rest, 4)? + 1, 0),
        0xcc | 0xd0 => (1, 0),
        0xcd | 0xd1 | 0xd4 => (2, 0),
        0xd5 => (3, 0),
        0xca | 0xce | 0xd2 => (4, 0),
        0xd6 => (5, 0),
        0xcb | 0xcf | 0xd3 => (8, 0),
        0xd7 => (9, 0),
        0xd8 => (17, 0),
        0xdc => (0, take(rest, 2)?),
        0xdd => (0, take(rest, 4)?),
        0xde => (0, 2 * take(rest, 2)?),
        0xdf => (0, 2 * take(rest, 4)?),
        _ => (0, 0),
    };
    *rest = rest.get(usize::try_from(length).ok()?..)?;
    Some(items)
}

/// The big-endian number in the next `count` bytes.
fn take(rest: &mut &[u8], count: usize) -> Option<u64> {
    let (number, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(
        number
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

/// Whether a JSON text that is well formed nests no deeper than [`MOST`].
pub(super) fn is_bounded_json(text: &[u8]) -> bool {
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => depth += 1,
            b']' | b'}' if !is_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!("[{\\\"["), |inner, at| {
            if at % 2 == 0 {
                json!([1.5, inner, {}, []])
            } else {
                json!({ "key": inner, "after": [true, null, -70_000, u64::MAX] })
            }
        })
    }

    #[test]
    fn every_kind_of_bytes_is_skipped_whole() {
        for (depth, fits) in [(0, true), (1, true), (MOST - 1, true), (MOST + 1, false)] {
            let value = nested(depth);

            let packed = rmp_serde::to_vec_named(&value).unwrap();
            assert_eq!(is_bounded_pack(&packed), fits, "{depth}");
            let text = serde_json::to_vec(&value).unwrap();
            assert_eq!(is_bounded_json(&text), fits, "{depth}");
        }
    }

    #[test]
    fn markers_with_lengths_of_each_width_are_skipped() {
        let too_deep = [0x91; MOST + 1];
        for before in [
            &[0xc4, 2, 0x91, 0x91][..],
            &[0xc5, 0, 1, 0x91],
            &[0xc6, 0, 0, 0, 1, 0x91],
            &[0xc7, 1, 5, 0x91],
            &[0xd4, 5, 0x91],
            &[0xd8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x91],
            &[0xda, 0, 1, b'['],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0x91],
            &[0xdc, 0, 1, 0xc0],
            &[0xde, 0, 1, 0xa1, b'k', 0xc0],
            &[0xc0],
        ] {
            let pair = |second: &[u8]| [&[0x92], before, second].concat();

            assert!(is_bounded_pack(&pair(&[0xc0])), "{before:?}");
            assert!(!is_bounded_pack(&pair(&too_deep)), "{before:?}");
            for end in 0..before.len() {
                assert!(is_bounded_pack(&pair(&[])[..end]), "{before:?}");
            }
        }
    }
}
