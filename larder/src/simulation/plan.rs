//! What happens in a course: drawn from its seed before it begins.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::Faults;

/// What a course may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody writes, nothing is lost: one load per key and freshness period.
    Calm,
    /// Writers, tickets, callers that go away; the server is sound.
    Busy,
    /// And a server that fails and forgets, and processes that crash.
    Faulty,
}

/// A course.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) faults: Faults,
    pub(crate) processes: usize,
    pub(crate) rows: usize,
    pub(crate) keys: Vec<KeyPlan>,
    pub(crate) steps: Vec<Step>,
}

/// The near tier of each process.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_field_names,
    reason = "`near_for` is the name of the setting"
)]
pub(crate) struct Near {
    pub(crate) near_for: Duration,
    pub(crate) numbers_only: bool,
    /// Whether it hears of what changes.
    pub(crate) is_watched: bool,
}

impl Near {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut chance = Rng::with_seed(!seed);
        Self {
            near_for: ms(pick(&mut chance, &[50, 300, 1000, 5000])),
            numbers_only: chance.bool(),
            is_watched: false,
        }
    }
}

/// What the value of a key is made of.
#[derive(Debug)]
pub(crate) struct KeyPlan {
    /// The rows that it is made of, besides those of the inner key.
    pub(crate) rows: Vec<usize>,
    /// Whether it carries the tags of these rows.
    pub(crate) is_tagged: bool,
    /// Whether they are known only after the load.
    pub(crate) late_tags: bool,
    /// A key whose value is part of this one's.
    pub(crate) inner: Option<usize>,
    /// Which of the two prefixes it is under.
    pub(crate) prefix: usize,
}

/// Something that begins at a moment of the course.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    pub(crate) act: Act,
}

#[derive(Debug)]
pub(crate) enum Act {
    Fetch(Arc<FetchPlan>),
    Get(usize),
    /// Fetch keys with one load, by the same plan.
    FetchMany(Vec<usize>, Arc<FetchPlan>),
    /// Take a ticket, read, think, set.
    Ticket {
        key: usize,
        think: Duration,
        ttl: Duration,
        gives_up: bool,
    },
    /// Read, think, set by hand.
    Set {
        key: usize,
        think: Duration,
        ttl: Duration,
    },
    /// Write the rows, then delete the key.
    Delete(usize),
    /// Write the row, then invalidate its tag.
    Invalidate(usize),
    /// Write all rows, then clear a prefix.
    Clear(usize),
    Sweep,
    /// The oldest numbers of tags go.
    Forget,
    /// All numbers of tags go, and the counter with them.
    LoseNumbers,
    Snapshot,
    Restart,
    Restore,
    /// For so long the process hears nothing of what changes, or only afterwards.
    Cut(Duration),
    /// For so long nothing that changes finds room on its way to the process.
    Overflow(Duration),
    /// The process dies, and another begins in its place.
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    Fails,
    Panics,
    Passes,
    Never,
}

/// How a key is fetched.
#[derive(Debug)]
pub(crate) struct FetchPlan {
    pub(crate) key: usize,
    pub(crate) ttl: Duration,
    pub(crate) grace: Duration,
    pub(crate) if_error: Duration,
    pub(crate) soft_limit: Option<Duration>,
    pub(crate) wait: Duration,
    pub(crate) time_limit: Duration,
    /// By `fetch_here`.
    pub(crate) is_here: bool,
    /// When the caller goes away.
    pub(crate) gives_up: Option<Duration>,
    /// Before the rows are read, and after.
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) end: End,
    pub(crate) inner: Option<Arc<Self>>,
    pub(crate) inner_first: bool,
    /// A key that the load sets by hand, with what it has read.
    pub(crate) sets: Option<usize>,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut chance = Rng::with_seed(seed);
        let kind = match chance.u8(..100) {
            ..22 => Kind::Calm,
            22..62 => Kind::Busy,
            _ => Kind::Faulty,
        };
        let faults = Faults {
            longest: ms(pick(&mut chance, &[0, 2, 20, 20, 100])),
            at_once: chance.u8(..4) == 0,
            ..Faults::default()
        };
        let faults = match kind {
            Kind::Faulty => Faults {
                refused: pick(&mut chance, &[0, 0, 20, 80]),
                lost: pick(&mut chance, &[0, 0, 20, 80]),
                late: pick(&mut chance, &[0, 0, 20, 80]),
                ..faults
            },
            _ => faults,
        };
        let rows = chance.usize(1..=3);
        let keys: Vec<KeyPlan> = (0..chance.usize(1..=3))
            .map(|number| key(&mut chance, number, rows))
            .collect();
        let mut plan = Self {
            kind,
            faults,
            processes: chance.usize(1..=3),
            rows,
            keys,
            steps: Vec::new(),
        };
        plan.steps = plan.steps(&mut chance);
        plan
    }

    /// With plain reads among the steps: near slots answer little else.
    pub(crate) fn with_reads(mut self, seed: u64) -> Self {
        let mut chance = Rng::with_seed(!seed);
        let reads: Vec<Step> = self
            .steps
            .iter()
            .flat_map(|step| [step.at.saturating_sub(ms(60)), step.at + ms(30)])
            .map(|at| Step {
                at,
                process: chance.usize(..self.processes),
                act: Act::Get(chance.usize(..self.keys.len())),
            })
            .collect();
        self.steps.extend(reads);
        self.steps.sort_by_key(|step| step.at);
        self
    }

    /// With times in which a process hears nothing, and reads that long for what it should have heard.
    pub(crate) fn with_silence(mut self, seed: u64) -> Self {
        if self.kind == Kind::Calm {
            return self;
        }
        let mut chance = Rng::with_seed(seed ^ 0x5eed);
        let end = self.steps.last().map_or(Duration::ZERO, |step| step.at);
        let moment = |chance: &mut Rng| end.mul_f64(chance.f64());
        for _ in 0..chance.usize(..3) {
            let span = ms(pick(&mut chance, &[20, 200, 900, 3000, 20_000]));
            let act = if chance.bool() {
                Act::Cut(span)
            } else {
                Act::Overflow(span)
            };
            self.steps.push(Step {
                at: moment(&mut chance),
                process: chance.usize(..self.processes),
                act,
            });
        }
        for _ in 0..chance.usize(..6) {
            self.steps.push(Step {
                at: moment(&mut chance) + ms(pick(&mut chance, &[0, 400, 1500, 6000])),
                process: chance.usize(..self.processes),
                act: Act::Get(chance.usize(..self.keys.len())),
            });
        }
        self.steps.sort_by_key(|step| step.at);
        self
    }

    fn steps(&self, chance: &mut Rng) -> Vec<Step> {
        let span = pick(chance, &[100, 600, 600, 4000, 20_000]);
        let mut steps: Vec<Step> = (0..chance.usize(5..=20))
            .map(|_| Step {
                at: ms(chance.u64(..span)),
                process: chance.usize(..self.processes),
                act: self.act(chance),
            })
            .collect();
        steps.sort_by_key(|step| step.at);
        steps
    }

    fn act(&self, chance: &mut Rng) -> Act {
        let key = chance.usize(..self.keys.len());
        let thinking = pick(chance, &[0, 10, 50, 400, 2000]);
        let think = ms(chance.u64(..=thinking));
        let ttl = ttl(chance);
        let fetch = |chance: &mut Rng| Act::Fetch(Arc::new(self.fetch(chance, key)));
        let choice = match self.kind {
            Kind::Calm => chance.u8(..62),
            Kind::Busy => chance.u8(..100),
            Kind::Faulty => chance.u8(..118),
        };
        match choice {
            ..45 => fetch(chance),
            45..50 => self.fetch_many(chance, key),
            50..60 => Act::Get(key),
            60..62 => Act::Sweep,
            62..69 => Act::Ticket {
                key,
                think,
                ttl,
                gives_up: chance.u8(..4) == 0,
            },
            69..72 => Act::Set { key, think, ttl },
            72..75 => Act::Forget,
            75..83 => Act::Delete(key),
            83..96 => Act::Invalidate(chance.usize(..self.rows)),
            96..100 => Act::Clear(chance.usize(..2)),
            100..103 => Act::Snapshot,
            103..105 => Act::Restart,
            105..108 => Act::Restore,
            108..114 => Act::LoseNumbers,
            _ => Act::Crash,
        }
    }

    /// All keys of one prefix that are made of nothing but rows.
    fn fetch_many(&self, chance: &mut Rng, key: usize) -> Act {
        let prefix = self.keys[key].prefix;
        let keys = (0..self.keys.len())
            .filter(|key| self.keys[*key].prefix == prefix && self.keys[*key].inner.is_none())
            .collect();
        let plan = self.fetch(chance, 0);
        let end = match plan.end {
            End::Passes => End::Good,
            end => end,
        };
        let soft_limit = None;
        Act::FetchMany(
            keys,
            Arc::new(FetchPlan {
                soft_limit,
                end,
                ..plan
            }),
        )
    }

    fn fetch(&self, chance: &mut Rng, key: usize) -> FetchPlan {
        let is_calm = self.kind == Kind::Calm;
        let end = match chance.u8(..100) {
            70..82 => End::Fails,
            82..87 => End::Panics,
            87..97 if !is_calm => End::Passes,
            97.. if !is_calm => End::Never,
            _ => End::Good,
        };
        let is_here = chance.u8(..6) == 0;
        let may_give_up = !(is_calm && is_here);
        let gives_up = (may_give_up && chance.u8(..8) == 0).then(|| ms(chance.u64(..600)));
        let grace = pick(chance, &[0, 0, 500, 60_000]);
        let if_error = pick(chance, &[0, 0, 500, 60_000]);
        let soft_limit =
            (grace == 0 && if_error > 0 && chance.bool()).then(|| ms(pick(chance, &[5, 50, 500])));
        let (wait, time_limit) = if is_calm {
            (300_000, 100_000)
        } else {
            (
                pick(chance, &[300, 2000, 10_000]),
                pick(chance, &[1000, 30_000]),
            )
        };
        let pause = |chance: &mut Rng| {
            let longest = pick(chance, &[0, 0, 30, 30, 300, 300, 3000, 12_000]);
            ms(chance.u64(..=longest))
        };
        FetchPlan {
            key,
            ttl: ttl(chance),
            grace: ms(grace),
            if_error: ms(if_error),
            soft_limit,
            wait: ms(wait),
            time_limit: ms(time_limit),
            is_here,
            gives_up,
            before: pause(chance),
            after: pause(chance),
            end,
            inner: self.keys[key].inner.map(|inner| {
                let inner = self.fetch(chance, inner);
                let end = match inner.end {
                    End::Good if !is_calm && chance.u8(..4) == 0 => End::Passes,
                    end => end,
                };
                Arc::new(FetchPlan {
                    gives_up: None,
                    end,
                    ..inner
                })
            }),
            inner_first: chance.bool(),
            sets: (!is_calm && chance.u8(..8) == 0).then(|| chance.usize(..self.keys.len())),
        }
    }

    /// A fetch at the end of the course, when all is well.
    pub(crate) fn last_fetch(&self, key: usize) -> FetchPlan {
        FetchPlan {
            key,
            ttl: ms(600_000),
            grace: Duration::ZERO,
            if_error: Duration::ZERO,
            soft_limit: None,
            wait: ms(60_000),
            time_limit: ms(60_000),
            is_here: false,
            gives_up: None,
            before: Duration::ZERO,
            after: Duration::ZERO,
            end: End::Good,
            inner: self.keys[key]
                .inner
                .map(|inner| Arc::new(self.last_fetch(inner))),
            inner_first: true,
            sets: None,
        }
    }
}

fn key(chance: &mut Rng, number: usize, rows: usize) -> KeyPlan {
    let own: Vec<usize> = (0..rows).filter(|_| chance.bool()).collect();
    KeyPlan {
        rows: if own.is_empty() { vec![0] } else { own },
        is_tagged: chance.u8(..4) != 0,
        late_tags: chance.bool(),
        inner: (number > 0 && chance.bool()).then(|| chance.usize(..number)),
        prefix: usize::from(chance.u8(..4) == 0),
    }
}

fn ttl(chance: &mut Rng) -> Duration {
    ms(pick(chance, &[40, 300, 2000, 60_000, 60_000]))
}

fn pick<T: Copy>(chance: &mut Rng, of: &[T]) -> T {
    of[chance.usize(..of.len())]
}
