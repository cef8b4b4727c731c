//! The acts on a connection; those that write run in the writer's transaction.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, ToSql};

use super::file::Texts;
use crate::entry::{Mark, Tag};
use crate::store::sql::cull::MOST_NUMBERS;
use crate::store::sql::found::{self, Live, Numbered};
use crate::store::sql::outbox::Waiting;
use crate::store::sql::row::{self, Row, ms, room_for, stamp};
use crate::store::sql::statements::Ask;
use crate::store::{Numbers, Sum, Tags, When};
use crate::{Key, Moment};

/// A connection and the texts of its statements.
#[derive(Clone, Copy)]
pub(super) struct Acts<'a> {
    pub(super) connection: &'a Connection,
    pub(super) texts: &'a Texts,
    pub(super) now: Moment,
}

/// What slots hold, and the numbers of tags if they were asked for and are there.
pub(super) struct Slots {
    pub(super) rows: Vec<Option<Row>>,
    pub(super) numbers: Option<Numbers>,
    /// Whether something waits in the outbox.
    pub(super) is_waiting: bool,
}

/// When a row is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition {
    When(When),
    /// Only where nothing matters, not even a lease.
    Gone,
}

impl Acts<'_> {
    fn statement(&self, ask: Ask) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(self.texts.of(ask))
    }

    fn execute(&self, ask: Ask, bound: impl Params) -> rusqlite::Result<usize> {
        self.statement(ask)?.execute(bound)
    }

    fn now(&self) -> i64 {
        ms(self.now)
    }

    /// Entries, then numbers if they are wanted, seen at one moment.
    pub(super) fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> rusqlite::Result<Slots> {
        let Some(tags) = tags else {
            return Ok(Slots {
                rows: self.rows(keys)?,
                numbers: None,
                is_waiting: false,
            });
        };
        let transaction = self.connection.unchecked_transaction()?;
        let rows = self.rows(keys)?;
        let numbers = self.numbers(tags.space, tags.names)?;
        let is_waiting = self.texts.has_outbox() && self.is_waiting(tags.space)?;
        transaction.commit()?;
        Ok(Slots {
            rows,
            numbers,
            is_waiting,
        })
    }

    fn is_waiting(&self, space: &str) -> rusqlite::Result<bool> {
        self.statement(Ask::IsWaiting)?.exists([space])
    }

    /// Up to `most` rows of the outbox of `space`, the oldest first.
    pub(super) fn waiting(&self, space: &str, most: u32) -> rusqlite::Result<Vec<Waiting>> {
        let waiting = |row: &rusqlite::Row<'_>| {
            // Whoever writes with another program may have put bytes there.
            let tag = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
            let id = row.get(0)?;
            Ok(Waiting { id, tag })
        };
        self.statement(Ask::Waiting)?
            .query_map((space, most), waiting)?
            .collect()
    }

    pub(super) fn remove(&self, ids: &[i64]) -> rusqlite::Result<()> {
        let mut remove = self.statement(Ask::Remove)?;
        ids.iter().try_for_each(|id| remove.execute([id]).map(drop))
    }

    fn rows(&self, keys: &[Key]) -> rusqlite::Result<Vec<Option<Row>>> {
        let mut statement = self.statement(Ask::Get)?;
        let mut get = |key: &Key| {
            statement
                .query_row((key.name(), self.now()), read)
                .optional()
        };
        keys.iter().map(&mut get).collect()
    }

    pub(super) fn numbers(&self, space: &str, names: &[Tag]) -> rusqlite::Result<Option<Numbers>> {
        let mut statement = self.statement(Ask::Numbers)?;
        let mut rows = Vec::with_capacity(names.len() + 1);
        let tags = names.iter().map(|name| found::tag(name));
        for tag in std::iter::once(String::new()).chain(tags) {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Numbered {
                    tag: row.get(0)?,
                    number: row.get(1)?,
                    floor: row.get(2)?,
                    era: row.get(3)?,
                })
            };
            rows.extend(statement.query_row((space, tag), read).optional()?);
        }
        Ok(found::numbers(&rows, names))
    }

    pub(super) fn draw_numbers(
        &self,
        space: &str,
        names: &[Tag],
        era: u64,
    ) -> rusqlite::Result<Option<Numbers>> {
        self.execute(Ask::Draw, (space, era.cast_signed()))?;
        self.numbers(space, names)
    }

    pub(super) fn heads(&self, keys: &[Key]) -> rusqlite::Result<Vec<Option<Live>>> {
        keys.iter().map(|key| self.head(key)).collect()
    }

    fn head(&self, key: &Key) -> rusqlite::Result<Option<Live>> {
        let mut statement = self.statement(Ask::Heads)?;
        let live = |row: &rusqlite::Row<'_>| {
            Ok(Live {
                fresh_until: row.get(1)?,
                meta: blob(row, 2)?,
            })
        };
        statement
            .query_row((key.name(), self.now()), live)
            .optional()
    }

    /// Names and metas of what is live from `first` on, up to `end`.
    pub(super) fn names(
        &self,
        first: &str,
        end: Option<&str>,
        limit: usize,
    ) -> rusqlite::Result<Vec<(String, Option<Bytes>)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, blob(row, 1)?));
        match end {
            None => self
                .statement(Ask::Names)?
                .query_map((first, self.now(), limit), row)?
                .collect(),
            Some(end) => self
                .statement(Ask::NamesBefore)?
                .query_map((first, self.now(), limit, end), row)?
                .collect(),
        }
    }

    pub(super) fn put(&self, key: &Key, row: &Row, when: Condition) -> rusqlite::Result<bool> {
        let (ask, last) = match when {
            Condition::When(When::Always) => (Ask::Put, None),
            Condition::When(When::IfAbsent) => (Ask::PutIfAbsent, Some(self.now())),
            Condition::When(When::IfPresent) => (Ask::PutIfPresent, Some(self.now())),
            Condition::When(When::IfStamp(seen)) => (Ask::PutIfStamp, Some(stamp(seen))),
            Condition::Gone => (Ask::PutIfGone, Some(self.now())),
        };
        let name = key.name();
        let (meta, body) = (row.meta.as_deref(), row.body.as_deref());
        let columns: [&dyn ToSql; 12] = [
            &name,
            &row.number,
            &row.codec,
            &row.size,
            &row.stamp,
            &row.state,
            &row.state_until,
            &row.fresh_until,
            &row.stale_until,
            &row.gone_after,
            &meta,
            &body,
        ];
        let last = last.as_ref().map(|last| last as &dyn ToSql);
        let bound: Vec<&dyn ToSql> = columns.into_iter().chain(last).collect();
        Ok(self.execute(ask, &*bound)? == 1)
    }

    pub(super) fn mark(&self, key: &Key, seen: i64, mark: Mark) -> rusqlite::Result<bool> {
        let state = mark.state.number();
        let bound = (key.name(), stamp(mark.stamp), state, ms(mark.until), seen);
        Ok(self.execute(Ask::Mark, bound)? == 1)
    }

    pub(super) fn touch(
        &self,
        key: &Key,
        fresh_until: Moment,
        new_stamp: i64,
    ) -> rusqlite::Result<Option<Live>> {
        let before = self.head(key)?;
        if before.is_some() {
            let bound = (key.name(), ms(fresh_until), new_stamp, self.now());
            self.execute(Ask::Touch, bound)?;
        }
        Ok(before)
    }

    pub(super) fn add(&self, key: &Key, delta: i64, new_stamp: i64) -> rusqlite::Result<Sum> {
        let (least, most) = room_for(delta);
        let bound = (key.name(), delta, new_stamp, self.now(), least, most);
        let mut add = self.statement(Ask::Add)?;
        if let Some(sum) = add.query_row(bound, |row| row.get(0)).optional()? {
            return Ok(Sum::Is(sum));
        }
        let mut plain = self.statement(Ask::Plain)?;
        let plain = plain.query_row((key.name(), self.now()), |row| row.get(1));
        Ok(match plain.optional()? {
            None => Sum::NoSuchKey,
            Some(false) => Sum::NotPlain,
            Some(true) => Sum::Overflow,
        })
    }

    pub(super) fn delete(&self, keys: &[Key]) -> rusqlite::Result<Vec<Option<Live>>> {
        let mut statement = self.statement(Ask::Delete)?;
        let mut delete = |key: &Key| {
            let live = |row: &rusqlite::Row<'_>| {
                let live = Live {
                    fresh_until: row.get(1)?,
                    meta: blob(row, 2)?,
                };
                Ok(row
                    .get::<_, Option<bool>>(3)?
                    .unwrap_or(false)
                    .then_some(live))
            };
            let deleted = statement.query_row((key.name(), self.now()), live);
            Ok(deleted.optional()?.flatten())
        };
        keys.iter().map(&mut delete).collect()
    }

    pub(super) fn raise(&self, space: &str, names: &[Tag], era: u64) -> rusqlite::Result<u64> {
        let mut next = self.statement(Ask::Next)?;
        let number: i64 = next.query_row((space, era.cast_signed()), |row| row.get(0))?;
        for name in names {
            self.execute(Ask::RaiseTag, (space, found::tag(name), number))?;
        }
        Ok(found::natural(number))
    }

    pub(super) fn raise_floor(&self, space: &str, era: u64) -> rusqlite::Result<()> {
        self.execute(Ask::RaiseFloor, (space, era.cast_signed()))
            .map(|_| ())
    }

    /// Removes a batch of the names from `from` on that lie before `end`; where to go on.
    pub(super) fn remove_batch(
        &self,
        from: &str,
        end: Option<&str>,
    ) -> rusqlite::Result<Option<String>> {
        let first = |row: &rusqlite::Row<'_>| row.get(0);
        let next: Option<String> = match end {
            None => self
                .statement(Ask::NextBatch)?
                .query_row([from], first)
                .optional()?,
            Some(end) => self
                .statement(Ask::NextBatchBefore)?
                .query_row((from, end), first)
                .optional()?,
        };
        match next.as_deref().or(end) {
            None => self.execute(Ask::RemoveFrom, [from])?,
            Some(end) => self.execute(Ask::RemoveRange, (from, end))?,
        };
        Ok(next)
    }

    pub(super) fn remove_gone(&self, most: u32) -> rusqlite::Result<usize> {
        self.execute(Ask::RemoveGone, (self.now(), most))
    }

    pub(super) fn remove_soonest(&self, most: u64) -> rusqlite::Result<usize> {
        self.execute(
            Ask::RemoveSoonest,
            [i64::try_from(most).unwrap_or(row::NEVER)],
        )
    }

    pub(super) fn count(&self, most: u64) -> rusqlite::Result<u64> {
        let most = i64::try_from(most).unwrap_or(row::NEVER);
        let mut statement = self.statement(Ask::Count)?;
        statement
            .query_row([most], |row| row.get(0))
            .map(found::natural)
    }

    pub(super) fn lift_floor(&self, space: &str) -> rusqlite::Result<i64> {
        self.execute(Ask::LiftFloor, (space, MOST_NUMBERS))?;
        let floor = self
            .statement(Ask::Floor)?
            .query_row([space], |row| row.get::<_, Option<i64>>(0))
            .optional()?;
        Ok(floor.flatten().unwrap_or(i64::MIN))
    }

    pub(super) fn drop_numbers(
        &self,
        space: &str,
        floor: i64,
        most: u32,
    ) -> rusqlite::Result<usize> {
        self.execute(Ask::DropNumbers, (space, floor, most))
    }
}

/// Reads the columns of `READ`.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        number: row.get(0)?,
        codec: row.get(1)?,
        size: None,
        stamp: row.get(2)?,
        state: row.get(3)?,
        state_until: row.get(4)?,
        fresh_until: row.get(5)?,
        stale_until: row.get(6)?,
        gone_after: 0,
        meta: blob(row, 7)?,
        body: blob(row, 8)?,
    })
}

fn blob(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<Bytes>> {
    let blob = row.get_ref(at)?.as_blob_or_null()?;
    Ok(blob.map(Bytes::copy_from_slice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::statements::Way;
    use crate::store::sql::table::{Dialect, Parts, Table};

    #[test]
    fn whatever_is_asked_there_is_an_index_for_it() {
        let connection = Connection::open_in_memory().expect("a database in memory");
        let table = Table::parse(Dialect::Sqlite, "sqlite", "larder").expect("a good name");
        let table = table.with(Parts::EntriesAndOutbox);
        for text in table.sql() {
            connection.execute(&text, []).expect("the table is made");
        }
        let plan = |ask: Ask| -> String {
            let text = format!("EXPLAIN QUERY PLAN {}", ask.text(Way::InPlace, &table));
            let mut statement = connection.prepare(&text).expect("it can be asked");
            let nothing = vec![None::<i64>; statement.parameter_count()];
            let steps = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get(3));
            let steps = steps.expect("a plan").map(|step| step.expect("a step"));
            steps.collect::<Vec<String>>().join("; ")
        };

        for ask in [
            Ask::Get,
            Ask::Heads,
            Ask::PutIfStamp,
            Ask::Mark,
            Ask::Touch,
            Ask::Add,
            Ask::Plain,
            Ask::Delete,
            Ask::Numbers,
            Ask::RemoveGone,
            Ask::LiftFloor,
            Ask::Floor,
            Ask::DropNumbers,
            Ask::NextBatch,
            Ask::RemoveFrom,
            Ask::Names,
            Ask::IsWaiting,
            Ask::Waiting,
            Ask::Remove,
        ] {
            let plan = plan(ask);
            assert!(
                !plan.contains("SCAN") && plan.contains("SEARCH"),
                "{ask:?}: {plan}"
            );
        }
        for ask in [Ask::NextBatchBefore, Ask::RemoveRange, Ask::NamesBefore] {
            assert!(plan(ask).contains("name>? AND name<?"), "{ask:?}");
        }
    }
}
