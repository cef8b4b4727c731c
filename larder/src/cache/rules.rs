//! The rules of the engine that a simulation can break on purpose, one at a time.

/// A rule whose breach lets an old value through, or lets a caller hang.
///
/// The engine asks before each of its steps whether it obeys the rule. Outside a simulation the
/// answer is a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "simulation"),
    expect(
        unreachable_pub,
        reason = "public in a simulation, where it can be broken"
    )
)]
#[non_exhaustive]
pub enum Rule {
    /// A lease is in the slot before the load begins.
    LeaseBeforeLoad,
    /// A loaded value is written only if the slot still holds the load's lease.
    WriteUnderLease,
    /// The tags' counter is noted before the load.
    NoteBeforeLoad,
    /// A value whose tags have moved is not served.
    CheckTags,
    /// Numbers of another era say nothing.
    CheckEra,
    /// A tag without a number counts as the floor.
    CountFromFloor,
    /// What was loaded in one era is not given to who began in another.
    JoinInOneEra,
    /// A flight is joined only while the slot holds its lease.
    JoinUnderLease,
    /// Who joined a flight after an invalidation starts over.
    StartOver,
    /// The tags are looked at when the load ends, for those who joined.
    LookAtEnd,
    /// Who joined after the tags were looked at looks again.
    KnowHowFar,
    /// A stale value is read again before it is served in place of a load.
    ReadAgain,
    /// Tags read inside a load become tags of its entry, good from the inner number.
    Inherit,
    /// What is loaded and not kept has tags as well.
    PassOn,
    /// What is set by hand in a load is good from when the load began.
    SetFromScope,
    /// Whatever ends a load ends its lease.
    EndLease,
    /// A lease is renewed while its load lives.
    RenewLease,
    /// The waiters of a load that ends without a word are told to look again.
    TellWaiters,
    /// What is not kept is not shared.
    PassIsPrivate,
}

#[cfg(feature = "simulation")]
impl Rule {
    /// How many there are.
    pub const COUNT: usize = Self::PassIsPrivate as usize + 1;
}

/// The rules that are in force.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    #[cfg(feature = "simulation")]
    pub(crate) broken: Option<Rule>,
}

impl Rules {
    /// Whether `rule` is kept.
    #[cfg(feature = "simulation")]
    pub(crate) fn keep(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// Whether `rule` is kept: always.
    #[cfg(not(feature = "simulation"))]
    #[expect(
        clippy::unused_self,
        reason = "asked the same way with and without a simulation"
    )]
    pub(crate) const fn keep(self, _: Rule) -> bool {
        true
    }
}
