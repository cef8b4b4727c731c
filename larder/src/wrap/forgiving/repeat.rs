//! Repeating what is owed, in a task of its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::owed::Act;
use super::turn::{Failed, is_uncertain};
use super::{Forgiving, Shared};
use crate::store::Tags;
use crate::{ErrorKind, Key, Tag};

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Forgiving {
    /// Repeats what is owed, in a task of its own; does nothing where one is at it.
    pub(super) fn repeat(&self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        {
            let mut book = self.book();
            if book.repeating || book.owed.count() == 0 {
                return;
            }
            book.repeating = true;
        }
        let mut repeating = Repeating {
            of: Arc::downgrade(&self.shared),
            is_over: false,
        };
        let (store, clock) = (Arc::clone(&self.store), self.store.clock().clone());
        clock.clone().spawn(async move {
            let mut pause = SHORTEST_PAUSE;
            while let Some(shared) = repeating.of.upgrade() {
                let store = Arc::clone(&store);
                let forgiving = Self { store, shared };
                if forgiving.pay().await && repeating.is_over() {
                    return;
                }
                drop(forgiving);
                clock.sleep(clock.jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Sends what is owed; says whether that was all.
    pub(super) async fn pay(&self) -> bool {
        loop {
            let batch = self.book().owed.batch();
            if batch.is_empty() {
                return true;
            }
            for (numbers, act) in grouped(batch) {
                let sent = match act {
                    Group::Delete(keys) => self.send(self.store.delete(&keys)).await.map(drop),
                    Group::Raise(space, names) => {
                        let tags = Tags {
                            space: &space,
                            names: &names,
                        };
                        self.send(self.store.raise(tags)).await.map(drop)
                    }
                    Group::Clear(scope, space) => self.send(self.store.clear(&scope, &space)).await,
                };
                let mut book = self.book();
                match sent {
                    Ok(()) => {
                        book.forgiven.repeated += numbers.len() as u64;
                        book.owed.settle(numbers);
                    }
                    // What the caller's own act was not refused for can change again: a table that is
                    // missing is made anew.
                    Err(Failed::Sent(error)) if error.kind() == ErrorKind::Invalid => return false,
                    Err(Failed::Sent(error)) if !is_uncertain(&error) => {
                        tracing::error!(store = %self.store, %error, "write_not_repeated");
                        book.owed.give_up(&numbers);
                    }
                    Err(_) => return false,
                }
                self.shared.look_sound(&mut book);
            }
        }
    }
}

/// Acts that go out in one call.
enum Group {
    Delete(Vec<Key>),
    Raise(Box<str>, Vec<Tag>),
    Clear(Box<str>, Box<str>),
}

/// The acts of a batch, one group for all deletes and one for each space, with their numbers.
fn grouped(batch: Vec<(u64, Act)>) -> Vec<(Vec<u64>, Group)> {
    let mut groups: Vec<(Vec<u64>, Group)> = Vec::new();
    for (number, act) in batch {
        let place = groups.iter_mut().find_map(|(numbers, group)| {
            match (group, &act) {
                (Group::Delete(keys), Act::Delete(key)) => keys.push(key.clone()),
                (Group::Raise(of, tags), Act::Raise { space, tag }) if of == space => {
                    tags.push(tag.clone());
                }
                _ => return None,
            }
            Some(numbers)
        });
        if let Some(numbers) = place {
            numbers.push(number);
            continue;
        }
        let group = match act {
            Act::Delete(key) => Group::Delete(vec![key]),
            Act::Raise { space, tag } => Group::Raise(space, vec![tag]),
            Act::Clear { scope, space } | Act::Instead { scope, space } => {
                Group::Clear(scope, space)
            }
        };
        groups.push((vec![number], group));
    }
    groups
}

/// Says that a task repeats what is owed, for as long as it does.
struct Repeating {
    of: Weak<Shared>,
    is_over: bool,
}

impl Repeating {
    /// Ends it, unless something is owed again; the next debt takes a new task.
    fn is_over(&mut self) -> bool {
        if let Some(shared) = self.of.upgrade() {
            let mut book = shared.book();
            book.repeating = book.owed.count() > 0;
            self.is_over = !book.repeating;
        }
        self.is_over
    }
}

impl Drop for Repeating {
    fn drop(&mut self) {
        if let (false, Some(shared)) = (self.is_over, self.of.upgrade()) {
            shared.book().repeating = false;
        }
    }
}
