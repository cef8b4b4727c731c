//! Counting: by the server where it can, else by comparing.

use super::Memcached;
use super::connection::Link;
use super::reply::{Code, Refusal, number};
use super::request::{Batch, What};
use super::slots::Verdict;
use crate::entry::{Entry, Stamp, Value};
use crate::store::Sum;
use crate::{Key, Result};

impl Memcached {
    /// Adds `delta` to the integer at `key`.
    pub(super) async fn add(&self, key: &Key, delta: i64) -> Result<Sum> {
        // Taken off by the server, it would stop at zero.
        if let Ok(delta) = u64::try_from(delta)
            && let Some(sum) = self.add_on_server(key, delta).await?
        {
            return Ok(sum);
        }
        self.change(key, |entry| self.add_by_comparing(entry, delta))
            .await
    }

    /// Adds to what is not bare digits, or takes off, by comparing.
    fn add_by_comparing(&self, entry: Option<&Entry>, delta: i64) -> Verdict<Sum> {
        let Some(entry) = entry.filter(|entry| entry.is_live(self.now())) else {
            return Verdict::Leave(Sum::NoSuchKey);
        };
        let Some(Value::Integer(before)) = entry.value else {
            return Verdict::Leave(Sum::NotPlain);
        };
        if !entry.is_plain() {
            return Verdict::Leave(Sum::NotPlain);
        }
        let Some(sum) = before.checked_add(delta) else {
            return Verdict::Leave(Sum::Overflow);
        };
        let mut entry = entry.clone();
        entry.value = Some(Value::Integer(sum));
        entry.stamp = Stamp::draw(&self.0.clock);
        Verdict::Write(Box::new(entry), Sum::Is(sum))
    }

    /// Adds `delta` to bare digits in one round trip; `None` if the slot holds something else.
    async fn add_on_server(&self, key: &Key, delta: u64) -> Result<Option<Sum>> {
        let server = self.server_of(key.name());
        let link = self.link(server).await?;
        let ask = |_: &Link, batch: &mut Batch| {
            batch.get(key.name(), What::Life);
            batch.add_to(key.name(), delta);
        };
        let replies = self.ask_on(server, &link, 2, ask).await?;
        let [before, sum] = replies.as_slice() else {
            return Err(self.odd(server, None));
        };
        match sum.line.code {
            Code::NotFound => return Ok(Some(Sum::NoSuchKey)),
            Code::Refused(Refusal::NotANumber) => return Ok(None),
            Code::Value => {}
            _ => return Err(self.odd(server, Some(sum))),
        }
        if before.line.code == Code::Done && self.has_ended(before) {
            return Ok(Some(Sum::NoSuchKey));
        }
        let cas = sum.line.cas;
        let sum: Option<u64> = number(sum.value.trim_ascii_end());
        let sum = sum.ok_or_else(|| self.odd(server, None))?;
        if let Ok(sum) = i64::try_from(sum) {
            return Ok(Some(Sum::Is(sum)));
        }
        // The server counts to twice as much. What somebody else has written since is not ours to change.
        let undo = |_: &Link, batch: &mut Batch| batch.take_from(key.name(), delta, cas);
        self.ask_on(server, &link, 1, undo).await?;
        Ok(Some(Sum::Overflow))
    }
}
