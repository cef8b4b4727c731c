//! Thousands of random courses over the engine as it is shipped: what it promises holds in each,
//! and every rule that is broken on purpose is noticed.
//!
//! | variable | what |
//! | --- | --- |
//! | `LARDER_SEEDS` | how many courses to run, instead of 10,000 |
//! | `LARDER_SEED` | one course to run, each of its steps printed |
//! | `LARDER_RULE` | a rule to break in it, such as `CheckTags` |

mod judge;
mod plan;
mod world;

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::Rule;

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
fn first_breach(broken: Option<Rule>) -> Option<(u64, String)> {
    hush();
    (0..seeds()).find_map(|seed| Some((seed, world::run(seed, broken, false)?)))
}

#[test]
fn what_the_engine_promises_holds_in_every_course() {
    hush();
    let (next, end) = (AtomicU64::new(0), seeds());
    let run = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            if let Some(breach) = world::run(seed, None, false) {
                panic!("seed {seed}: {breach}\nsee each step with LARDER_SEED={seed}");
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
    for seed in 0..200 {
        assert_eq!(world::record(seed), world::record(seed), "seed {seed}");
    }
}

#[test]
fn one_course_step_by_step() {
    let Some(seed) = variable("LARDER_SEED") else {
        return;
    };
    hush();
    let rule = std::env::var("LARDER_RULE").ok().map(|name| {
        let rule = RULES.iter().find(|rule| format!("{rule:?}") == name);
        *rule.unwrap_or_else(|| panic!("there is no rule `{name}`; the rules are {RULES:?}"))
    });
    let breach = world::run(seed, rule, true);
    assert_eq!(breach, None);
}

macro_rules! rules {
    ($($rule:ident is_missed_when_broken as $test:ident),* $(,)?) => {
        /// Every rule of the engine.
        const RULES: &[Rule] = &[$(Rule::$rule),*];

        #[test]
        fn every_rule_has_a_test() {
            assert_eq!(RULES.len(), Rule::COUNT, "{RULES:?}");
        }
        $(
            #[test]
            fn $test() {
                let Some((seed, breach)) = first_breach(Some(Rule::$rule)) else {
                    panic!("nobody notices that {:?} is broken", Rule::$rule);
                };
                println!("{:?}: seed {seed}: {breach}", Rule::$rule);
            }
        )*
    };
}

rules! {
    LeaseBeforeLoad is_missed_when_broken as a_load_without_a_lease_is_noticed,
    WriteUnderLease is_missed_when_broken as a_write_without_a_lease_is_noticed,
    NoteBeforeLoad is_missed_when_broken as a_counter_noted_too_late_is_noticed,
    CheckTags is_missed_when_broken as tags_that_are_not_checked_are_noticed,
    CheckEra is_missed_when_broken as numbers_of_another_era_are_noticed,
    CountFromFloor is_missed_when_broken as a_forgotten_number_is_noticed,
    LookAtEnd is_missed_when_broken as tags_that_are_not_looked_at_in_the_end_are_noticed,
    KnowHowFar is_missed_when_broken as a_joiner_after_the_last_look_is_noticed,
    PassOn is_missed_when_broken as tags_lost_with_what_is_not_kept_are_noticed,
    SetFromScope is_missed_when_broken as a_set_by_hand_of_what_a_load_read_is_noticed,
    JoinInOneEra is_missed_when_broken as a_joiner_of_another_era_is_noticed,
    JoinUnderLease is_missed_when_broken as joining_without_a_lease_is_noticed,
    StartOver is_missed_when_broken as a_joiner_that_does_not_start_over_is_noticed,
    ReadAgain is_missed_when_broken as a_stale_value_not_read_again_is_noticed,
    Inherit is_missed_when_broken as tags_that_are_not_inherited_are_noticed,
    EndLease is_missed_when_broken as a_lease_left_behind_is_noticed,
    RenewLease is_missed_when_broken as a_lease_not_renewed_is_noticed,
    TellWaiters is_missed_when_broken as waiters_that_are_not_told_are_noticed,
    PassIsPrivate is_missed_when_broken as a_shared_pass_is_noticed,
}
