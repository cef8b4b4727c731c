//! Reads a server's replies: a pure function over bytes, so that it can be fuzzed.

use std::ops::Range;

use bytes::Bytes;

/// The longest line that is read, its end included; ours are far shorter.
const LONGEST_LINE: usize = 2048;
/// The largest value that a server can be told to keep (`-I`), with a little room.
const LARGEST_VALUE: usize = (1 << 30) + 4096;

/// What a reply's first word says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Code {
    /// `VA`: a value follows.
    Value,
    /// `HD`: done, or there.
    Done,
    /// `EN`: a read found nothing.
    Miss,
    /// `NF`: a write found nothing.
    NotFound,
    /// `NS`: the condition was not met.
    NotStored,
    /// `EX`: somebody has written meanwhile.
    Exists,
    /// An error of this one command.
    Refused(Refusal),
}

/// Why a server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    NoMemory,
    NotANumber,
    Other(Box<str>),
}

/// The line of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) code: Code,
    /// What the request gave to tell its reply by.
    pub(super) opaque: Option<u32>,
    /// Tells this state of the item from every other on this run of the server.
    pub(super) cas: u64,
    /// Seconds left to live; negative: no end.
    pub(super) left: i64,
    /// What the writer noted beside the value.
    pub(super) flags: u32,
}

/// A line, and the value that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) line: Line,
    pub(super) value: Bytes,
}

/// What the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not yet a whole reply; at least so many bytes are missing.
    Short(usize),
    /// A reply of `used` bytes whose value is at `value`.
    Whole {
        line: Line,
        value: Range<usize>,
        used: usize,
    },
}

/// Bytes that no server of this protocol sends: nothing after them can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// Reads the reply at the front of `input`.
pub(super) fn parse(input: &[u8]) -> Result<Parsed, Broken> {
    let window = &input[..input.len().min(LONGEST_LINE)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() < LONGEST_LINE {
            Ok(Parsed::Short(1))
        } else {
            Err(Broken("a line without end"))
        };
    };
    let text = (window[..end].strip_suffix(b"\r")).ok_or(Broken("a line that ends oddly"))?;
    let start = end + 1;
    let (line, length) = read_line(text)?;
    let Some(length) = length else {
        let value = start..start;
        return Ok(Parsed::Whole {
            line,
            value,
            used: start,
        });
    };
    let value = start..start + length;
    let used = value.end + 2;
    if input.len() < used {
        return Ok(Parsed::Short(used - input.len()));
    }
    if &input[value.end..used] != b"\r\n" {
        return Err(Broken("a value that does not end where it should"));
    }
    Ok(Parsed::Whole { line, value, used })
}

/// The line without its end, and the length of the value that follows, if one does.
fn read_line(text: &[u8]) -> Result<(Line, Option<usize>), Broken> {
    let mut words = text.split(|byte| *byte == b' ');
    let first = words.next().unwrap_or_default();
    let code = match first {
        b"VA" => Code::Value,
        b"HD" => Code::Done,
        b"EN" => Code::Miss,
        b"NF" => Code::NotFound,
        b"NS" => Code::NotStored,
        b"EX" => Code::Exists,
        b"SERVER_ERROR" | b"CLIENT_ERROR" | b"ERROR" => Code::Refused(refusal(text)),
        _ => return Err(Broken("a word that is no reply")),
    };
    let mut line = Line {
        code,
        opaque: None,
        cas: 0,
        left: -1,
        flags: 0,
    };
    if matches!(line.code, Code::Refused(_)) {
        return Ok((line, None));
    }
    let mut length = None;
    if line.code == Code::Value {
        let stated = words.next().and_then(number::<usize>);
        let stated = stated.ok_or(Broken("a value without a length"))?;
        if stated > LARGEST_VALUE {
            return Err(Broken("a value larger than any server keeps"));
        }
        length = Some(stated);
    }
    for word in words {
        read_flag(word, &mut line)?;
    }
    Ok((line, length))
}

fn read_flag(word: &[u8], line: &mut Line) -> Result<(), Broken> {
    let Some((flag, token)) = word.split_first() else {
        return Ok(());
    };
    let odd = Broken("a flag whose token is no number");
    match flag {
        b'O' => line.opaque = Some(number(token).ok_or(odd)?),
        b'c' => line.cas = number(token).ok_or(odd)?,
        b't' => line.left = left(token).ok_or(odd)?,
        b'f' => line.flags = number(token).ok_or(odd)?,
        // Who won a refresh, or other things that were not asked for.
        _ => {}
    }
    Ok(())
}

fn left(token: &[u8]) -> Option<i64> {
    if token == b"-1" {
        return Some(-1);
    }
    number::<u32>(token).map(i64::from)
}

/// A number in digits alone: no sign, no blanks.
pub(super) fn number<N: TryFrom<u64>>(digits: &[u8]) -> Option<N> {
    if digits.is_empty() {
        return None;
    }
    let mut sum: u64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        sum = sum.checked_mul(10)?.checked_add(digit.into())?;
    }
    sum.try_into().ok()
}

fn refusal(text: &[u8]) -> Refusal {
    let says = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if says(b"too large for cache") {
        Refusal::TooLarge
    } else if says(b"out of memory") {
        Refusal::NoMemory
    } else if says(b"non-numeric value") {
        Refusal::NotANumber
    } else {
        Refusal::Other(String::from_utf8_lossy(text).into())
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
