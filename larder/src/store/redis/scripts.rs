//! The scripts: each is one atomic act of the server.

use std::sync::LazyLock;

use redis::{Cmd, ToRedisArgs, cmd};

/// Fields that a space's numbers may have before its tags are dropped and the floor is raised.
pub(super) const MOST_NUMBERS: usize = 1_000_000;

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)+) => {
        $(
            pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
                Script::new(concat!($(include_str!(concat!("lua/", $file, ".lua"))),+))
            });
        )+

        /// The commands that make the server know every script.
        pub(super) fn load() -> Vec<Cmd> {
            vec![$($name.load()),+]
        }
    };
}

scripts! {
    PUT = "slot" "put";
    MARK = "slot" "mark";
    TOUCH = "slot" "touch";
    HEAD = "slot" "head";
    DELETE = "slot" "delete";
    ADD_TO = "slot" "add_to";
    READ_NUMBERS = "numbers" "read_numbers";
    RAISE = "numbers" "raise";
    RAISE_FLOOR = "numbers" "raise_floor";
    SWEEP = "sweep";
    CLEAR_BEGIN = "clear_begin";
    CLEAR_END = "clear_end";
}

/// A script and the hash by which a server knows it.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        let hash = redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    fn load(&self) -> Cmd {
        cmd("SCRIPT").arg("LOAD").arg(self.code).to_owned()
    }

    /// The command that runs it; arguments are added to what is returned.
    pub(super) fn call(&self, keys: impl ToRedisArgs) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.num_of_args()).arg(keys);
        call
    }
}
