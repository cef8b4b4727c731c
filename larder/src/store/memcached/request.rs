//! Writes commands; each carries a number by which its reply is told.

use std::io::Write as _;

/// Commands that go out together, and whose replies come back together.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    count: u32,
}

/// When a [`set`](Batch::set) may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Always,
    /// Only where there is no item. The reply says what state it has then, as it does after `Cas`.
    Add,
    /// Only if the item is in this state still.
    Cas(u64),
}

impl Mode {
    /// The state that the item has to be in.
    pub(super) const fn cas(self) -> Option<u64> {
        match self {
            Self::Cas(cas) => Some(cas),
            Self::Always | Self::Add => None,
        }
    }
}

/// What is put beside a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Beside {
    /// When the server drops it: 0 never, up to thirty days in seconds from now, else in seconds since 1970.
    pub(super) expires: u64,
    pub(super) flags: u32,
}

/// What a [`get`](Batch::get) asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The value and what is left of its life.
    Value,
    /// The same, and the state to compare by.
    State,
    /// What is left of its life.
    Life,
    /// The value and its state; where there is none, an empty item is made.
    Claim,
}

impl Batch {
    /// No commands yet; their numbers begin with `first`.
    pub(super) fn new(first: u32) -> Self {
        Self {
            bytes: Vec::with_capacity(96),
            first,
            count: 0,
        }
    }

    pub(super) fn get(&mut self, name: &str, what: What) {
        self.begin("mg", name);
        self.bytes.extend_from_slice(match what {
            What::Value => b" v t f",
            What::State => b" v t f c",
            What::Life => b" t f",
            What::Claim => b" v c N0",
        });
        self.end();
    }

    pub(super) fn set(&mut self, name: &str, value: &[u8], beside: Beside, mode: Mode) {
        self.bytes.reserve(value.len() + name.len() + 96);
        self.begin("ms", name);
        self.bytes.push(b' ');
        self.number(value.len() as u64);
        if beside.expires > 0 {
            self.token(b'T', beside.expires);
        }
        if beside.flags > 0 {
            self.token(b'F', beside.flags.into());
        }
        match mode {
            Mode::Always => {}
            Mode::Add => self.bytes.extend_from_slice(b" ME c"),
            Mode::Cas(cas) => {
                self.token(b'C', cas);
                self.bytes.extend_from_slice(b" c");
            }
        }
        self.end();
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(super) fn delete(&mut self, name: &str, cas: Option<u64>) {
        self.begin("md", name);
        if let Some(cas) = cas {
            self.token(b'C', cas);
        }
        self.end();
    }

    /// Adds `delta` to the digits at `name`, and asks for the sum and the state.
    pub(super) fn add_to(&mut self, name: &str, delta: u64) {
        self.begin("ma", name);
        self.bytes.extend_from_slice(b" v c");
        self.token(b'D', delta);
        self.end();
    }

    /// Takes `delta` off the digits at `name` if they are in the state `cas`; the server stops at zero.
    pub(super) fn take_from(&mut self, name: &str, delta: u64, cas: u64) {
        self.begin("ma", name);
        self.bytes.extend_from_slice(b" MD");
        self.token(b'C', cas);
        self.token(b'D', delta);
        self.end();
    }

    /// Adds `delta` to the digits at `name`, which are `initial` where there is no item.
    pub(super) fn count(&mut self, name: &str, delta: u64, initial: u64) {
        self.begin("ma", name);
        self.bytes.extend_from_slice(b" v N0");
        self.token(b'J', initial);
        self.token(b'D', delta);
        self.end();
    }

    /// The bytes, the number of the first command, and how many commands there are.
    pub(super) fn into_parts(self) -> (Vec<u8>, u32, u32) {
        (self.bytes, self.first, self.count)
    }

    fn begin(&mut self, command: &str, name: &str) {
        self.bytes.extend_from_slice(command.as_bytes());
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(name.as_bytes());
    }

    fn end(&mut self) {
        let opaque = self.first.wrapping_add(self.count);
        self.token(b'O', opaque.into());
        self.bytes.extend_from_slice(b"\r\n");
        self.count += 1;
    }

    fn token(&mut self, flag: u8, number: u64) {
        self.bytes.extend_from_slice(&[b' ', flag]);
        self.number(number);
    }

    fn number(&mut self, number: u64) {
        write!(self.bytes, "{number}").expect("memory takes what is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_numbered_one_after_the_other() {
        let mut batch = Batch::new(u32::MAX);
        let beside = Beside {
            expires: 60,
            flags: 7,
        };

        batch.get("a", What::Value);
        batch.set("b", b"xy", beside, Mode::Cas(9));
        batch.delete("c", None);
        batch.count("d", 1, 5);

        let (bytes, first, count) = batch.into_parts();
        let text = String::from_utf8(bytes).expect("ASCII");
        let expected = "mg a v t f O4294967295\r\nms b 2 T60 F7 C9 c O0\r\nxy\r\nmd c O1\r\n\
                        ma d v N0 J5 D1 O2\r\n";
        assert_eq!((text.as_str(), first, count), (expected, u32::MAX, 4));
    }
}
