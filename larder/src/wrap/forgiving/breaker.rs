//! Whether to call a store that has failed.

use std::time::Duration;

use crate::{Clock, Moment};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts failures in a row; past a limit nobody calls until a pause is over, and then one does.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Failures in a row before it opens.
    limit: u32,
    failures: u32,
    pause: Duration,
    shut_until: Moment,
    probing: bool,
}

/// What [`Breaker::ask`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Call,
    /// Call, alone: the others wait for what comes of it.
    Probe,
    Not,
}

impl Breaker {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit: limit.max(1),
            failures: 0,
            pause: SHORTEST_PAUSE,
            shut_until: Moment::START,
            probing: false,
        }
    }

    /// Whether to call at `now`.
    pub(super) fn ask(&mut self, now: Moment) -> May {
        if self.failures < self.limit {
            return May::Call;
        }
        if self.probing || self.shut_until > now {
            return May::Not;
        }
        self.probing = true;
        May::Probe
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Counts a failure. Of the calls that were under way when it opened, none makes the pause longer.
    pub(super) fn failed(&mut self, may: May, clock: &Clock) {
        if self.failures < self.limit {
            self.failures += 1;
        } else if may != May::Probe {
            return;
        }
        if self.failures >= self.limit {
            self.probing = false;
            self.shut_until = clock.now().plus(clock.jittered(self.pause));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The one who probed went away without an answer.
    pub(super) fn gave_up(&mut self) {
        self.probing = false;
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_at_its_limit_and_lets_one_call_through_when_the_pause_is_over() {
        let clock = Clock::manual();
        let mut breaker = Breaker::new(2);

        breaker.failed(May::Call, &clock);
        assert_eq!(breaker.ask(clock.now()), May::Call);
        breaker.failed(May::Call, &clock);

        assert_eq!(breaker.ask(clock.now()), May::Not);
        clock.advance(SHORTEST_PAUSE * 2);
        assert_eq!(breaker.ask(clock.now()), May::Probe);
        assert_eq!(breaker.ask(clock.now()), May::Not, "one at a time");
        breaker.gave_up();
        assert_eq!(breaker.ask(clock.now()), May::Probe);
        breaker.succeeded();
        assert_eq!(breaker.ask(clock.now()), May::Call);
    }

    #[test]
    fn only_probes_make_the_pause_longer() {
        let clock = Clock::manual();
        let mut breaker = Breaker::new(1);

        for _ in 0..100 {
            breaker.failed(May::Call, &clock);
        }
        clock.advance(SHORTEST_PAUSE * 5 / 4);
        assert_eq!(breaker.ask(clock.now()), May::Probe);

        for _ in 0..100 {
            breaker.failed(May::Probe, &clock);
            clock.advance(LONGEST_PAUSE * 5 / 4);
            assert_eq!(
                breaker.ask(clock.now()),
                May::Probe,
                "never longer than the longest"
            );
        }
    }
}
