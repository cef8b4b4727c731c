//! Thousands of random courses over the engine as it is shipped: what it promises holds in each,
//! and every rule that is broken on purpose is noticed.
//!
//! | variable | what |
//! | --- | --- |
//! | `LARDER_SEEDS` | how many courses to run, instead of 10,000 |
//! | `LARDER_SEED` | one course to run, each of its steps printed |
//! | `LARDER_SETUP` | `near`: each process has a near store in it; `watched`: which hears of what changes; `forgiving`: and goes on without the server |
//! | `LARDER_RULE` | a rule to break in it, such as `CheckTags` |

use larder::Rule;
use larder::simulation::Simulation;
use larder::wrap::NearRule;

/// The number in an environment variable.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn seeds() -> u64 {
    variable("LARDER_SEEDS").unwrap_or(10_000)
}

fn no_breach(simulation: Simulation) {
    if let Err(breach) = simulation.seeds(0..seeds()).run() {
        panic!("{breach}\nsee each step with LARDER_SEED={}", breach.seed());
    }
}

#[test]
fn what_the_engine_promises_holds_in_every_course() {
    no_breach(Simulation::plain());
}

/// With a near store in each process: what is promised holds, and what is bounded is within its bound.
#[test]
fn what_the_near_tier_promises_holds_in_every_course() {
    no_breach(Simulation::near());
}

/// With near stores that hear of what changes, however badly: nothing is served that was outdated
/// elsewhere for longer than the bound, and nothing at all that was outdated by the process itself.
#[test]
fn what_the_watched_tier_promises_holds_in_every_course() {
    no_breach(Simulation::watched());
}

/// Whoever goes on without the server serves nothing old when it is back.
#[test]
fn what_the_engine_promises_holds_in_every_course_of_those_who_forgive() {
    no_breach(Simulation::forgiving());
}

#[test]
fn one_seed_is_one_course() {
    for simulation in [
        Simulation::plain(),
        Simulation::near(),
        Simulation::watched(),
        Simulation::forgiving(),
    ] {
        for seed in 0..200 {
            let record = || simulation.record(seed);
            assert_eq!(record(), record(), "{simulation:?}, seed {seed}");
        }
    }
}

#[test]
fn one_course_step_by_step() {
    let Some(seed) = variable("LARDER_SEED") else {
        return;
    };
    let sound = match std::env::var("LARDER_SETUP").as_deref() {
        Ok("near") => Simulation::near(),
        Ok("watched") => Simulation::watched(),
        Ok("forgiving") => Simulation::forgiving(),
        _ => Simulation::plain(),
    };
    let simulation = std::env::var("LARDER_RULE").map_or(sound, |name| {
        let broken = broken();
        let found = broken.iter().find(|(rule, _)| *rule == name);
        let rules = || broken.iter().map(|(rule, _)| rule).collect::<Vec<_>>();
        let found =
            found.unwrap_or_else(|| panic!("there is no rule `{name}` among {:?}", rules()));
        found.1.clone()
    });
    assert_eq!(simulation.trace(seed), None);
}

fn plain(rule: Rule) -> (String, Simulation) {
    (format!("{rule:?}"), Simulation::plain().break_rule(rule))
}

fn near(rule: NearRule) -> (String, Simulation) {
    (
        format!("{rule:?}"),
        Simulation::near().break_near_rule(rule),
    )
}

fn watched(rule: NearRule) -> (String, Simulation) {
    (
        format!("{rule:?}"),
        Simulation::watched().break_near_rule(rule),
    )
}

/// Somebody notices in one of the courses that a rule is broken.
fn is_noticed((rule, simulation): (String, Simulation)) {
    match simulation.seeds(0..seeds()).run() {
        Ok(()) => panic!("nobody notices that a rule is broken: {rule}"),
        Err(breach) => println!("{breach}"),
    }
}

macro_rules! rules {
    ($($setup:ident($rule:path) is_missed_when_broken as $test:ident),* $(,)?) => {
        /// Every rule of the engine and of the near tier, broken.
        fn broken() -> Vec<(String, Simulation)> {
            vec![$($setup($rule)),*]
        }

        #[test]
        fn every_rule_has_a_test() {
            let all = broken();
            let engine = all.iter().filter(|(_, simulation)| format!("{simulation:?}").contains("plain"));
            assert_eq!(engine.count(), Rule::COUNT, "{all:?}");
        }
        $(
            #[test]
            fn $test() {
                is_noticed($setup($rule));
            }
        )*
    };
}

rules! {
    plain(Rule::LeaseBeforeLoad) is_missed_when_broken as a_load_without_a_lease_is_noticed,
    plain(Rule::WriteUnderLease) is_missed_when_broken as a_write_without_a_lease_is_noticed,
    plain(Rule::NoteBeforeLoad) is_missed_when_broken as a_counter_noted_too_late_is_noticed,
    plain(Rule::CheckTags) is_missed_when_broken as tags_that_are_not_checked_are_noticed,
    plain(Rule::CheckEra) is_missed_when_broken as numbers_of_another_era_are_noticed,
    plain(Rule::CountFromFloor) is_missed_when_broken as a_forgotten_number_is_noticed,
    plain(Rule::LookAtEnd) is_missed_when_broken as tags_that_are_not_looked_at_in_the_end_are_noticed,
    plain(Rule::KnowHowFar) is_missed_when_broken as a_joiner_after_the_last_look_is_noticed,
    plain(Rule::PassOn) is_missed_when_broken as tags_lost_with_what_is_not_kept_are_noticed,
    plain(Rule::SetFromScope) is_missed_when_broken as a_set_by_hand_of_what_a_load_read_is_noticed,
    plain(Rule::JoinInOneEra) is_missed_when_broken as a_joiner_of_another_era_is_noticed,
    plain(Rule::JoinUnderLease) is_missed_when_broken as joining_without_a_lease_is_noticed,
    plain(Rule::StartOver) is_missed_when_broken as a_joiner_that_does_not_start_over_is_noticed,
    plain(Rule::ReadAgain) is_missed_when_broken as a_stale_value_not_read_again_is_noticed,
    plain(Rule::Inherit) is_missed_when_broken as tags_that_are_not_inherited_are_noticed,
    plain(Rule::EndLease) is_missed_when_broken as a_lease_left_behind_is_noticed,
    plain(Rule::RenewLease) is_missed_when_broken as a_lease_not_renewed_is_noticed,
    plain(Rule::TellWaiters) is_missed_when_broken as waiters_that_are_not_told_are_noticed,
    plain(Rule::PassIsPrivate) is_missed_when_broken as a_shared_pass_is_noticed,
    near(NearRule::MarkBeforeTheQuestion) is_missed_when_broken as a_refill_without_a_mark_is_noticed,
    near(NearRule::DropAfterTheWrite) is_missed_when_broken as a_near_slot_not_dropped_is_noticed,
    near(NearRule::AskForNumbers) is_missed_when_broken as numbers_older_than_the_entry_are_noticed,
    watched(NearRule::TrustWhileHeard) is_missed_when_broken as trust_in_a_silent_watch_is_noticed,
    watched(NearRule::ForgetWhenLost) is_missed_when_broken as copies_kept_over_a_lost_watch_are_noticed,
    watched(NearRule::DropWhenTold) is_missed_when_broken as a_message_that_drops_nothing_is_noticed,
    watched(NearRule::ForgetNumbersWhenTold) is_missed_when_broken as numbers_kept_over_a_message_are_noticed,
    watched(NearRule::ForgetOwnNumbers) is_missed_when_broken as numbers_that_outlive_ones_own_raise_are_noticed,
}
