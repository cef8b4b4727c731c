use std::fmt::Write as _;

use super::*;

fn whole(input: &[u8]) -> (Line, &[u8], usize) {
    match parse(input) {
        Ok(Parsed::Whole { line, value, used }) => (line, &input[value], used),
        other => panic!("{other:?}"),
    }
}

fn line(code: Code) -> Line {
    Line {
        code,
        opaque: None,
        cas: 0,
        left: -1,
        flags: 0,
    }
}

#[test]
fn a_value_is_read_with_all_that_was_asked_for() {
    let (read, value, used) =
        whole(b"VA 4 t58 f4294967295 c18446744073709551615 O7 W\r\na\r\nb\r\nHD");

    let expected = Line {
        opaque: Some(7),
        cas: u64::MAX,
        left: 58,
        flags: u32::MAX,
        ..line(Code::Value)
    };
    assert_eq!((read, value, used), (expected, &b"a\r\nb"[..], 55));
}

#[test]
fn every_first_word_is_told() {
    for (text, code) in [
        ("HD O1\r\n", Code::Done),
        ("EN O1\r\n", Code::Miss),
        ("NF O1\r\n", Code::NotFound),
        ("NS O1\r\n", Code::NotStored),
        ("EX O1\r\n", Code::Exists),
    ] {
        let (read, value, used) = whole(text.as_bytes());
        let expected = Line {
            opaque: Some(1),
            ..line(code)
        };
        assert_eq!((read, value, used), (expected, &b""[..], text.len()));
    }
}

#[test]
fn refusals_are_told_apart() {
    let other = |text: &str| Refusal::Other(text.into());
    for (text, refusal) in [
        ("SERVER_ERROR object too large for cache", Refusal::TooLarge),
        (
            "SERVER_ERROR out of memory storing object",
            Refusal::NoMemory,
        ),
        (
            "CLIENT_ERROR cannot increment or decrement non-numeric value",
            Refusal::NotANumber,
        ),
        ("ERROR", other("ERROR")),
        ("CLIENT_ERROR bad O7 c", other("CLIENT_ERROR bad O7 c")),
    ] {
        let input = format!("{text}\r\n");
        let (read, ..) = whole(input.as_bytes());
        assert_eq!(read, line(Code::Refused(refusal)), "{text}");
    }
}

#[test]
fn what_no_server_sends_is_broken() {
    for text in [
        "STORED\r\n",
        "\r\n",
        "HD\n",
        "VA\r\n",
        "VA x O1\r\n",
        "VA -1 O1\r\n",
        "VA 18446744073709551616 O1\r\n",
        "VA 1073750000 O1\r\n",
        "VA 1 O1\r\nab\r\n",
        "HD O4294967296\r\n",
        "HD c-1\r\n",
        "HD t-2\r\n",
        "HD O\r\n",
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(parse(&[b'x'; LONGEST_LINE]).is_err());
}

/// A stream of replies as a server could send them, and the offsets at which they end.
fn stream(chance: &mut fastrand::Rng) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..chance.usize(1..6) {
        let code = chance.choice([
            "VA",
            "HD",
            "EN",
            "NF",
            "NS",
            "EX",
            "ERROR",
            "SERVER_ERROR x",
        ]);
        let code = code.expect("one of many");
        let mut text = code.to_owned();
        let value: Option<Vec<u8>> = (code == "VA").then(|| {
            let length = chance.usize(0..40);
            (0..length)
                .map(|_| *chance.choice(b"\r\nVAHD 01O").expect("some"))
                .collect()
        });
        let mut say = |text: &mut String, flag: char, number: u64| {
            if chance.bool() {
                write!(text, " {flag}{number}").expect("memory");
            }
        };
        if let Some(value) = &value {
            write!(text, " {}", value.len()).expect("memory");
        }
        if !code.contains("ERROR") {
            say(&mut text, 'O', 17);
            say(&mut text, 'c', u64::MAX);
            say(&mut text, 't', 60);
            say(&mut text, 'f', 5);
            say(&mut text, 'W', 1);
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        if let Some(value) = value {
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Reads `bytes` as they arrive in pieces that end at `cuts`; what was read, and whether it broke.
fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<(Line, Vec<u8>)>, Option<Broken>) {
    let (mut read, mut start) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            let input = &bytes[start..end];
            match parse(input) {
                Ok(Parsed::Short(missing)) => {
                    assert!(missing > 0, "something is missing");
                    break;
                }
                Ok(Parsed::Whole { line, value, used }) => {
                    assert!(value.end <= used && used <= input.len(), "no over-read");
                    read.push((line, input[value].to_vec()));
                    start += used;
                }
                Err(broken) => return (read, Some(broken)),
            }
        }
    }
    (read, None)
}

#[test]
fn however_replies_are_cut_they_read_the_same() {
    let mut chance = fastrand::Rng::with_seed(3);
    for _ in 0..5_000 {
        let (bytes, ends) = stream(&mut chance);
        let (read, broken) = read_in_pieces(&bytes, &[]);
        assert_eq!((read.len(), broken), (ends.len(), None), "{bytes:?}");

        for cut in 0..bytes.len() {
            assert_eq!(read_in_pieces(&bytes, &[cut]), (read.clone(), None));
        }
        let all: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(read_in_pieces(&bytes, &all), (read, None));
    }
}

#[test]
fn no_damage_makes_the_reader_panic_or_depend_on_how_bytes_arrive() {
    let mut chance = fastrand::Rng::with_seed(4);
    for _ in 0..50_000 {
        let (mut bytes, _) = stream(&mut chance);
        for _ in 0..chance.usize(1..4) {
            let at = chance.usize(0..bytes.len());
            match chance.u8(0..4) {
                0 => bytes[at] = chance.u8(..),
                1 => bytes.insert(at, chance.u8(..)),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << chance.u8(0..8),
            }
        }
        let at_once = read_in_pieces(&bytes, &[]);
        let mut cuts: Vec<usize> = (0..4).map(|_| chance.usize(0..=bytes.len())).collect();
        cuts.sort_unstable();
        assert_eq!(read_in_pieces(&bytes, &cuts), at_once, "{bytes:?}");
    }
}

#[test]
fn whatever_is_said_nothing_panics_and_little_is_asked_for() {
    let mut chance = fastrand::Rng::with_seed(5);
    let words: [&[u8]; 16] = [
        b"VA ",
        b"HD",
        b"EN",
        b"ERROR ",
        b"\r\n",
        b"\n",
        b" ",
        b"O",
        b"c",
        b"t-1",
        b"f",
        b"-",
        b"0",
        b"99999999999999999999",
        b"1073741824",
        b"\xff\x00",
    ];
    let mut bytes = Vec::new();
    for round in 0..400_000 {
        // Half of it is a stream that was cut and glued, the rest is made of what replies are made of.
        if round % 2 == 0 {
            let (other, _) = stream(&mut chance);
            bytes.truncate(chance.usize(0..=bytes.len().min(200)));
            bytes.extend_from_slice(&other[chance.usize(0..other.len())..]);
        } else {
            bytes.clear();
            for _ in 0..chance.usize(1..12) {
                bytes.extend_from_slice(chance.choice(words).expect("one of many"));
            }
        }
        match parse(&bytes) {
            Ok(Parsed::Short(missing)) => {
                assert!((1..=LARGEST_VALUE + 2).contains(&missing), "{bytes:?}");
            }
            Ok(Parsed::Whole { line, value, used }) => {
                assert!(value.end <= used && used <= bytes.len(), "{bytes:?}");
                let before = parse(&bytes[..used - 1]);
                assert!(matches!(before, Ok(Parsed::Short(1..))), "{bytes:?}");
                if let Code::Refused(Refusal::Other(text)) = line.code {
                    assert!(text.len() <= 3 * LONGEST_LINE, "{bytes:?}");
                }
            }
            Err(_) => {}
        }
    }
}

#[test]
fn a_stated_length_says_how_much_is_missing() {
    assert_eq!(parse(b"VA 100 O1\r\nabc"), Ok(Parsed::Short(99)));
    assert_eq!(parse(b""), Ok(Parsed::Short(1)));
}
