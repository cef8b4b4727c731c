//! Thousands of random courses over the engine as it is shipped: what it promises holds in each,
//! and every rule that is broken on purpose is noticed.
//!
//! | variable | what |
//! | --- | --- |
//! | `LARDER_SEEDS` | how many courses to run, instead of 10,000 |
//! | `LARDER_SEED` | one course to run, each of its steps printed |
//! | `LARDER_SETUP` | `near`: each process has a near store in it; `watched`: which hears of what changes; `forgiving`: and goes on without the server |
//! | `LARDER_RULE` | a rule to break in it, such as `CheckTags` |

mod judge;
mod plan;
mod world;

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::Rule;
use larder::wrap::NearRule;
use world::Setup;

/// The number in an environment variable.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn seeds() -> u64 {
    variable("LARDER_SEEDS").unwrap_or(10_000)
}

/// Keeps the panics that loads are planned to have out of the output.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("planted") {
                tell(info);
            }
        }));
    });
}

/// The first course of those of `seeds` in which something is wrong, and what.
fn first_breach(setup: Setup) -> Option<(u64, String)> {
    hush();
    (0..seeds()).find_map(|seed| Some((seed, world::run(seed, setup, false)?)))
}

#[test]
fn what_the_engine_promises_holds_in_every_course() {
    no_breach(Setup::Plain(None));
}

/// With a near store in each process: what is promised holds, and what is bounded is within its bound.
#[test]
fn what_the_near_tier_promises_holds_in_every_course() {
    no_breach(Setup::Near(None));
}

/// With near stores that hear of what changes, however badly: nothing is served that was outdated
/// elsewhere for longer than the bound, and nothing at all that was outdated by the process itself.
#[test]
fn what_the_watched_tier_promises_holds_in_every_course() {
    no_breach(Setup::Watched(None));
}

/// Whoever goes on without the server serves nothing old when it is back.
#[test]
fn what_the_engine_promises_holds_in_every_course_of_those_who_forgive() {
    no_breach(Setup::Forgiving);
}

fn no_breach(setup: Setup) {
    hush();
    let (next, end) = (AtomicU64::new(0), seeds());
    let run = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            if let Some(breach) = world::run(seed, setup, false) {
                panic!("{setup:?}, seed {seed}: {breach}\nsee each step with LARDER_SEED={seed}");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(run);
        run();
    });
}

#[test]
fn one_seed_is_one_course() {
    hush();
    for setup in [
        Setup::Plain(None),
        Setup::Near(None),
        Setup::Watched(None),
        Setup::Forgiving,
    ] {
        for seed in 0..200 {
            let record = || world::record(seed, setup);
            assert_eq!(record(), record(), "{setup:?}, seed {seed}");
        }
    }
}

#[test]
fn one_course_step_by_step() {
    let Some(seed) = variable("LARDER_SEED") else {
        return;
    };
    hush();
    let sound = match std::env::var("LARDER_SETUP").as_deref() {
        Ok("near") => Setup::Near(None),
        Ok("watched") => Setup::Watched(None),
        Ok("forgiving") => Setup::Forgiving,
        _ => Setup::Plain(None),
    };
    let setup = std::env::var("LARDER_RULE").map_or(sound, |name| {
        let is_named = |setup: &&Setup| setup.rule().as_deref() == Some(&*name);
        let setup = BROKEN.iter().find(is_named);
        *setup.unwrap_or_else(|| panic!("there is no rule `{name}`; the rules are {BROKEN:?}"))
    });
    let breach = world::run(seed, setup, true);
    assert_eq!(breach, None);
}

macro_rules! rules {
    ($($setup:ident($rule:path) is_missed_when_broken as $test:ident),* $(,)?) => {
        /// Every rule of the engine and of the near tier, broken.
        const BROKEN: &[Setup] = &[$(Setup::$setup(Some($rule))),*];

        #[test]
        fn every_rule_has_a_test() {
            let engine = BROKEN.iter().filter(|setup| matches!(setup, Setup::Plain(_)));
            assert_eq!(engine.count(), Rule::COUNT, "{BROKEN:?}");
        }
        $(
            #[test]
            fn $test() {
                let setup = Setup::$setup(Some($rule));
                let Some((seed, breach)) = first_breach(setup) else {
                    panic!("nobody notices that a rule is broken: {setup:?}");
                };
                println!("{setup:?}: seed {seed}: {breach}");
            }
        )*
    };
}

rules! {
    Plain(Rule::LeaseBeforeLoad) is_missed_when_broken as a_load_without_a_lease_is_noticed,
    Plain(Rule::WriteUnderLease) is_missed_when_broken as a_write_without_a_lease_is_noticed,
    Plain(Rule::NoteBeforeLoad) is_missed_when_broken as a_counter_noted_too_late_is_noticed,
    Plain(Rule::CheckTags) is_missed_when_broken as tags_that_are_not_checked_are_noticed,
    Plain(Rule::CheckEra) is_missed_when_broken as numbers_of_another_era_are_noticed,
    Plain(Rule::CountFromFloor) is_missed_when_broken as a_forgotten_number_is_noticed,
    Plain(Rule::LookAtEnd) is_missed_when_broken as tags_that_are_not_looked_at_in_the_end_are_noticed,
    Plain(Rule::KnowHowFar) is_missed_when_broken as a_joiner_after_the_last_look_is_noticed,
    Plain(Rule::PassOn) is_missed_when_broken as tags_lost_with_what_is_not_kept_are_noticed,
    Plain(Rule::SetFromScope) is_missed_when_broken as a_set_by_hand_of_what_a_load_read_is_noticed,
    Plain(Rule::JoinInOneEra) is_missed_when_broken as a_joiner_of_another_era_is_noticed,
    Plain(Rule::JoinUnderLease) is_missed_when_broken as joining_without_a_lease_is_noticed,
    Plain(Rule::StartOver) is_missed_when_broken as a_joiner_that_does_not_start_over_is_noticed,
    Plain(Rule::ReadAgain) is_missed_when_broken as a_stale_value_not_read_again_is_noticed,
    Plain(Rule::Inherit) is_missed_when_broken as tags_that_are_not_inherited_are_noticed,
    Plain(Rule::EndLease) is_missed_when_broken as a_lease_left_behind_is_noticed,
    Plain(Rule::RenewLease) is_missed_when_broken as a_lease_not_renewed_is_noticed,
    Plain(Rule::TellWaiters) is_missed_when_broken as waiters_that_are_not_told_are_noticed,
    Plain(Rule::PassIsPrivate) is_missed_when_broken as a_shared_pass_is_noticed,
    Near(NearRule::MarkBeforeTheQuestion) is_missed_when_broken as a_refill_without_a_mark_is_noticed,
    Near(NearRule::DropAfterTheWrite) is_missed_when_broken as a_near_slot_not_dropped_is_noticed,
    Near(NearRule::AskForNumbers) is_missed_when_broken as numbers_older_than_the_entry_are_noticed,
    Watched(NearRule::TrustWhileHeard) is_missed_when_broken as trust_in_a_silent_watch_is_noticed,
    Watched(NearRule::ForgetWhenLost) is_missed_when_broken as copies_kept_over_a_lost_watch_are_noticed,
    Watched(NearRule::DropWhenTold) is_missed_when_broken as a_message_that_drops_nothing_is_noticed,
    Watched(NearRule::ForgetNumbersWhenTold) is_missed_when_broken as numbers_kept_over_a_message_are_noticed,
    Watched(NearRule::ForgetOwnNumbers) is_missed_when_broken as numbers_that_outlive_ones_own_raise_are_noticed,
}
