//! What every [`Store`] must do, as tests that you can run over your own.
//!
//! One private function for each clause of the contract, all listed in [`CLAUSES`]; a function left
//! out of the list is dead code, and the compiler says so. A clause panics when the store breaks it.
//! It uses keys and a tag space of its own, so that clauses can share a server. Those about what happens
//! at once use threads of the tokio runtime that they run on.
//!
//! ```
//! use larder::conformance::CLAUSES;
//! use larder::store::{Memory, Store};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! for (name, clause) in CLAUSES {
//!     println!("{name}");
//!     let store: Arc<dyn Store> = Arc::new(Memory::new());
//!     clause(&store).await;
//! }
//! # }
//! ```
//!
//! `examples/own_store.rs` is a store of one's own with its test.
//!
//! | file | what |
//! | --- | --- |
//! | `values.rs` | reading, writing, counting, deleting |
//! | `slots.rs` | leases and markers: what every verb sees in each state of a slot |
//! | `numbers.rs` | the numbers of tags |
//! | `scans.rs` | listing keys, where a store can |

#![expect(
    clippy::unwrap_used,
    reason = "a clause panics where the store breaks it"
)]

mod numbers;
mod scans;
mod slots;
mod values;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::store::{Found, Store, Tags, When};
use crate::{Entry, Head, Key, Mark, Moment, Stamp, State, Tag, Value};

/// One clause of the contract.
pub type Clause = for<'s> fn(&'s Arc<dyn Store>) -> Pin<Box<dyn Future<Output = ()> + Send + 's>>;

macro_rules! clauses {
    ($($file:ident: $($name:ident),* $(,)?;)*) => {
        &[$($((stringify!($name), |store| Box::pin($file::$name(Ground::new(store)))),)*)*]
    };
}

/// Every clause, by name.
pub const CLAUSES: &[(&str, Clause)] = clauses![
    values:
        a_missing_key_is_nothing,
        what_was_put_is_what_is_got,
        many_are_answered_in_the_order_asked,
        an_empty_batch_is_no_trouble,
        a_put_replaces_all_that_was_there,
        if_absent_keeps_the_first,
        if_absent_writes_over_what_has_expired,
        if_present_writes_only_over_what_is_live,
        if_stamp_writes_only_over_the_stamp_seen,
        of_many_at_once_one_is_the_first,
        put_many_writes_all,
        a_ttl_ends_to_the_millisecond,
        what_is_past_its_grace_is_gone,
        touch_moves_the_deadline_and_nothing_else,
        touch_of_nothing_is_nothing,
        touch_of_an_integer_moves_its_deadline,
        heads_tell_deadlines_and_tags,
        delete_tells_what_was_live,
        a_sum_keeps_the_ttl_and_goes_below_zero,
        a_sum_needs_a_plain_integer,
        a_sum_past_64_bits_changes_nothing,
        sums_at_once_all_count,
        digits_in_bytes_stay_bytes,
        empty_and_large_values_are_kept,
        keys_that_are_hashed_do_not_mix,
        clear_removes_its_own_scope_only,
        get_now_agrees_with_get,
        entries_and_numbers_are_got_together,
        a_sum_gives_a_new_stamp,
        sums_over_a_lease_all_count_and_keep_the_ttl,
        what_is_too_large_leaves_nothing_behind,
        put_many_may_name_a_key_twice,
        delete_of_a_key_named_twice_counts_once,
        what_is_past_its_end_when_put_is_nothing,
        deadlines_at_the_end_of_time_are_kept,
        an_act_that_is_dropped_changes_nothing_else,
        what_is_closed_answers_or_says_that_it_does_not;
    slots:
        a_lease_on_an_empty_slot_is_taken_once,
        a_lease_is_nothing_to_the_verbs,
        a_lease_leaves_the_value_and_its_deadlines,
        a_lease_on_an_integer_leaves_its_value_and_ttl,
        a_lease_is_renewed_by_its_holder_only,
        a_load_writes_under_its_lease,
        whatever_is_written_takes_the_lease_away,
        a_lease_that_has_lapsed_can_be_taken_by_who_saw_it,
        a_marker_over_a_stale_value_leaves_it,
        a_marker_is_nothing_to_the_verbs,
        a_bare_marker_can_be_put,
        a_lease_outlives_the_value_and_the_value_the_lease,
        a_stale_value_is_nothing_to_the_verbs,
        clear_takes_leases_away,
        clear_reaches_names_that_are_hashed;
    numbers:
        numbers_are_given_one_after_the_other,
        tags_raised_together_get_one_number,
        numbers_at_once_are_all_different,
        spaces_count_for_themselves,
        an_era_stays,
        clear_raises_the_floor_over_every_number,
        clear_leaves_the_numbers_of_other_spaces,
        numbers_are_read_after_entries;
    scans:
        keys_are_listed_page_by_page;
];

/// A store under test, with names that no other clause uses.
struct Ground<'s> {
    store: &'s dyn Store,
    shared: &'s Arc<dyn Store>,
    prefix: String,
}

impl<'s> Ground<'s> {
    fn new(shared: &'s Arc<dyn Store>) -> Self {
        let store = &**shared;
        Self {
            store,
            shared,
            prefix: format!("clause{:016x}", store.clock().random()),
        }
    }

    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}:1:{name}", self.prefix))
    }

    /// The tag space of this clause.
    fn space(&self) -> &str {
        &self.prefix
    }

    fn now(&self) -> Moment {
        self.store.clock().now()
    }

    fn stamp(&self) -> Stamp {
        Stamp::draw(self.store.clock())
    }

    fn bytes(&self, text: &'static str) -> Entry {
        Entry::new(self.store.clock(), Value::Bytes(text.into()))
    }

    fn integer(&self, number: i64) -> Entry {
        Entry::new(self.store.clock(), Value::Integer(number))
    }

    /// An entry that is fresh for `ttl`.
    fn fresh(&self, text: &'static str, ttl: Duration) -> Entry {
        self.bytes(text).fresh_until(self.now().plus(ttl))
    }

    fn lease(&self, lasts: Duration) -> Mark {
        Mark {
            stamp: self.stamp(),
            state: State::Loading,
            until: self.now().plus(lasts),
        }
    }

    async fn put(&self, name: &str, entry: Entry) -> Entry {
        let put = self
            .store
            .put(&self.key(name), entry.clone(), When::Always)
            .await;
        assert!(
            put.unwrap(),
            "{}: put says that it did not write",
            self.store
        );
        entry
    }

    async fn put_when(&self, name: &str, entry: Entry, when: When) -> bool {
        self.store.put(&self.key(name), entry, when).await.unwrap()
    }

    /// What the slot holds; what has lapsed there counts as nothing.
    async fn get(&self, name: &str) -> Option<Entry> {
        let Found { mut entries, .. } = self.store.get(&[self.key(name)], None).await.unwrap();
        entries.pop().unwrap()
    }

    /// The value that the verbs see.
    async fn live(&self, name: &str) -> Option<Value> {
        let entry = self.get(name).await?;
        entry.is_live(self.now()).then_some(entry.value?)
    }

    async fn head(&self, name: &str) -> Option<Head> {
        self.store
            .heads(&[self.key(name)])
            .await
            .unwrap()
            .pop()
            .unwrap()
    }

    async fn mark(&self, name: &str, seen: Option<Stamp>, mark: Mark) -> bool {
        self.store.mark(&self.key(name), seen, mark).await.unwrap()
    }

    async fn delete(&self, name: &str) -> Option<Head> {
        self.store
            .delete(&[self.key(name)])
            .await
            .unwrap()
            .pop()
            .unwrap()
    }

    async fn raise(&self, names: &[Tag]) -> u64 {
        self.store
            .raise(Tags {
                space: self.space(),
                names,
            })
            .await
            .unwrap()
    }

    async fn numbers(&self, names: &[Tag]) -> crate::store::Numbers {
        let tags = Tags {
            space: self.space(),
            names,
        };
        self.store
            .get(&[], Some(tags))
            .await
            .unwrap()
            .numbers
            .expect("numbers were asked for")
    }

    /// Runs `act` on several threads, which start each round together; what came of it, with the round.
    ///
    /// Threads, not tasks: a store that never waits would run one task after the other. They use the
    /// runtime of the clause, whose connections they share.
    async fn at_once<F, R>(
        &self,
        rounds: usize,
        act: impl Fn(Arc<dyn Store>, Turn) -> F + Send + Sync + 'static,
    ) -> Vec<(usize, R)>
    where
        F: Future<Output = R>,
        R: Send + 'static,
    {
        let (act, gate) = (Arc::new(act), Arc::new(Barrier::new(THREADS)));
        let start = |thread| {
            let (act, gate) = (Arc::clone(&act), Arc::clone(&gate));
            let (store, runtime) = (Arc::clone(self.shared), Handle::current());
            spawn_blocking(move || {
                let run = |round| {
                    gate.wait();
                    let turn = Turn { thread, round };
                    (round, runtime.block_on(act(Arc::clone(&store), turn)))
                };
                (0..rounds).map(run).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        let mut done = Vec::new();
        for thread in threads {
            done.extend(thread.await.unwrap());
        }
        done
    }

    /// Lets `span` pass: on a manual clock at once, else for real.
    async fn pass(&self, span: Duration) {
        let until = self.now().plus(span);
        self.store.clock().advance(span);
        while self.now() < until {
            self.store.clock().sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Whose turn it is in [`Ground::at_once`].
#[derive(Clone, Copy)]
struct Turn {
    thread: usize,
    round: usize,
}

const THREADS: usize = 6;
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_mins(1);

#[expect(clippy::unnecessary_wraps, reason = "compared with what a verb sees")]
fn text(text: &'static str) -> Option<Value> {
    Some(Value::Bytes(text.into()))
}
