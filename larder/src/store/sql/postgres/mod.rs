//! A PostgreSQL server, version 14 or later.
//!
//! One connection, shared by all who call, on which statements follow each other without waiting for
//! answers; it is made again when it breaks. Each verb is one statement, and so is a batch.
//!
//! *Crashes.* A server with its usual settings loses nothing that it has acknowledged, so what is kept
//! is good after a restart. With `synchronous_commit = off`, or after a failover to a replica that
//! lagged behind, it may have forgotten an invalidation, and a value from before it is served again.
//! [Unlogged](PostgresBuilder::unlogged) tables are emptied by a crash, entries and numbers together.
//!
//! *What it does not do.* It speaks to one server. A pooler between has to keep a session for each
//! client, since statements are prepared.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | how a statement is sent, and once more |
//! | `address.rs` | URLs, and how to show them without the password |
//! | `builder.rs` | settings |
//! | `errors.rs` | what callers are told |
//! | `listen.rs` | hearing that something waits in the outbox |
//! | `server.rs` | connecting and giving up |
//! | `tls.rs` | TLS |
//! | `watch.rs` | triggers that write the outbox |

mod act;
mod address;
mod builder;
mod errors;
mod listen;
mod server;
mod tls;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::Row as Answer;
use tokio_postgres::types::ToSql;

use self::act::{Answers, Bound, Send};
pub use self::builder::PostgresBuilder;
use self::server::Server;
use super::cull::{self, BATCH, Cull, Culler, MOST_NUMBERS};
use super::found::{self, Live, Numbered};
use super::gate::Gate;
use super::outbox::{self, Outgoing, Waiting, settle};
use super::row::{self, Row, after_all, fits, ms, room_for, stamp};
use super::settings::Settings;
use super::statements::Ask;
use crate::entry::{Entry, Head, Mark, Stamp, Tag};
use crate::store::{Found, Numbers, Scan, Scanned, Store, Sum, Tags, Watch, When};
use crate::{Clock, ErrorKind, Key, Moment, Result};

/// How often an act is tried that clashed with another transaction.
const TRIES: u32 = 5;
/// How long to wait after a clash, about.
const AFTER_CLASH: Duration = Duration::from_millis(10);
/// The lock under which tables are made: "larder", as a number.
const MAKING: i64 = 0x6c61_7264_6572;
/// Bytes of a batch that are sent in one go.
const PART: usize = 64 * 1024 * 1024;

/// Keeps entries on a PostgreSQL server; a clone shares the connection.
///
/// ```no_run
/// # async fn example() -> larder::Result<()> {
/// use larder::store::Postgres;
///
/// let postgres = Postgres::lazy("postgres://me:secret@db/shop?table=pages")?;
/// postgres.create_table().await?;
/// assert_eq!(postgres.to_string(), "postgres://db:5432/shop?table=pages");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    gate: Arc<Gate<Server>>,
    settings: Settings,
    culler: Culler,
    /// Whose turn it is to work off the outbox.
    turn: tokio::sync::Mutex<()>,
}

impl Postgres {
    /// The store at `url`, connected; its table has to be [there](Self::create_table).
    ///
    /// `postgres://user:password@host:5432/database?table=larder`, where the table may be
    /// `schema.table`; `&sslmode=require` for TLS, with certificate and name checked;
    /// `postgres://user@/database?host=/run/postgresql` for a socket.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The store at `url`, which connects when it is first used.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).lazy()
    }

    /// Settings for the store at `url`.
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder::new(url.into())
    }

    fn new(server: Server, settings: Settings) -> Self {
        let patience = 2 * settings.connect_timeout + settings.timeout;
        Self(Arc::new(Inner {
            gate: Gate::new(server, settings.clock.clone(), patience),
            settings,
            culler: Culler::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Makes the tables; whether they were not there.
    pub async fn create_table(&self) -> Result<bool> {
        let server = self.0.server();
        let link = server.connect_bare().await?;
        let make = async {
            let there =
                "SELECT bool_and(to_regclass(place) IS NOT NULL) FROM unnest($1::text[]) AS place";
            let places = server.address.table.places();
            let there = link.client.query_one(there, &[&places]).await?;
            // One at a time, since "if not exists" does not see what another is about to make. Sent
            // together, the statements are one transaction.
            let statements = self.table_sql().join(";");
            link.client
                .batch_execute(&format!(
                    "SELECT pg_advisory_xact_lock({MAKING}); {statements}"
                ))
                .await?;
            Ok(!there.get::<_, bool>(0))
        };
        let limit = self.0.settings.timeout;
        let outcome = self.0.clock().timeout(limit, make).await;
        self.0.gate.forgive();
        let outcome = outcome.ok_or_else(|| server.late())?;
        outcome.map_err(|error: tokio_postgres::Error| server.tell(&error))
    }

    /// The statements that make the tables, without running them.
    ///
    /// ```
    /// let postgres = larder::store::Postgres::lazy("postgres://db/shop?table=pages")?;
    /// assert!(postgres.table_sql()[0].starts_with("CREATE TABLE IF NOT EXISTS \"pages\""));
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn table_sql(&self) -> Vec<String> {
        self.0.server().address.table.sql()
    }

    /// What the outbox is called, behind its schema.
    pub(crate) fn outbox_name(&self) -> String {
        self.0.server().address.table.outbox_path()
    }

    /// Removes what has expired, and what is past `max_entries`; how many rows.
    ///
    /// A background task of the store does so about every minute.
    pub async fn cull(&self) -> Result<u64> {
        let Inner {
            settings, culler, ..
        } = &*self.0;
        cull::cull(&*self.0, culler, settings.max_entries).await
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.server().fmt(f)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.0.gate).finish()
    }
}

impl Inner {
    fn server(&self) -> &Server {
        &self.gate.connect
    }

    fn clock(&self) -> &Clock {
        &self.settings.clock
    }

    fn now(&self) -> i64 {
        ms(self.clock().now())
    }

    fn era(&self) -> i64 {
        self.clock().random().cast_signed()
    }

    fn new_stamp(&self) -> i64 {
        stamp(Stamp::draw(self.clock()))
    }

    fn start_culling(self: &Arc<Self>) {
        let Settings {
            cull_every,
            max_entries,
            ..
        } = self.settings;
        self.culler
            .start(self, self.clock(), cull_every, max_entries, |inner| {
                &inner.culler
            });
    }

    /// The rows that a statement gives, which writes.
    async fn write(self: &Arc<Self>, ask: Ask, bound: Bound<'_>) -> Result<Vec<Answer>> {
        self.start_culling();
        Ok(self.call(Send::Write(ask, bound)).await?.rows)
    }

    /// How many rows a statement writes.
    async fn write_rows(self: &Arc<Self>, ask: Ask, bound: Bound<'_>) -> Result<u64> {
        self.start_culling();
        Ok(self.call(Send::Count(ask, bound)).await?.count)
    }

    async fn put_row(self: &Arc<Self>, key: &Key, row: &Row, when: Condition) -> Result<bool> {
        let (ask, last) = match when {
            Condition::When(When::Always) => (Ask::Put, None),
            Condition::When(When::IfAbsent) => (Ask::PutIfAbsent, Some(self.now())),
            Condition::When(When::IfPresent) => (Ask::PutIfPresent, Some(self.now())),
            Condition::When(When::IfStamp(seen)) => (Ask::PutIfStamp, Some(stamp(seen))),
            Condition::Gone => (Ask::PutIfGone, Some(self.now())),
        };
        let (name, meta, body) = (key.name(), row.meta.as_deref(), row.body.as_deref());
        let bound: [&(dyn ToSql + Sync); 13] = [
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
            &last,
        ];
        let bound = if last.is_some() {
            &bound[..]
        } else {
            &bound[..12]
        };
        Ok(self.write_rows(ask, bound).await? == 1)
    }

    async fn put_entry(
        self: &Arc<Self>,
        key: &Key,
        entry: &Entry,
        when: Condition,
    ) -> Result<bool> {
        if fits(entry) {
            match self.put_row(key, &Row::of(entry, key), when).await {
                // The server takes less than it said: what was there has to go all the same.
                Err(error) if error.kind() == ErrorKind::TooLarge => {}
                done => return done,
            }
        }
        let nothing = Row::nothing(Stamp::draw(self.clock()), key);
        if self.put_row(key, &nothing, when).await? {
            return Err(super::too_large("postgres"));
        }
        Ok(false)
    }

    async fn put_part(self: &Arc<Self>, part: Vec<(String, Row)>) -> Result<()> {
        fn column<'a, T>(
            part: &'a [(String, Row)],
            pick: impl Fn(&'a (String, Row)) -> T,
        ) -> Vec<T> {
            part.iter().map(pick).collect()
        }
        let bound: [&(dyn ToSql + Sync); 12] = [
            &column(&part, |it| it.0.as_str()),
            &column(&part, |it| it.1.number),
            &column(&part, |it| it.1.codec),
            &column(&part, |it| it.1.size),
            &column(&part, |it| it.1.stamp),
            &column(&part, |it| it.1.state),
            &column(&part, |it| it.1.state_until),
            &column(&part, |it| it.1.fresh_until),
            &column(&part, |it| it.1.stale_until),
            &column(&part, |it| it.1.gone_after),
            &column(&part, |it| it.1.meta.as_deref()),
            &column(&part, |it| it.1.body.as_deref()),
        ];
        self.write_rows(Ask::PutMany, &bound).await.map(|_| ())
    }

    /// The numbers of a space that had no row of its own yet.
    async fn draw_numbers(self: &Arc<Self>, tags: Tags<'_>) -> Result<Numbers> {
        self.write_rows(Ask::Draw, &[&tags.space, &self.era()])
            .await?;
        let bound = tag_list(tags.names);
        let bound: Bound<'_> = &[&tags.space, &bound];
        let answers = self.call(Send::Read(Ask::Numbers, bound, None)).await?;
        let numbered = numbered(&answers.rows).ok();
        let numbers = numbered.and_then(|rows| found::numbers(&rows, tags.names));
        numbers.ok_or_else(|| self.server().odd())
    }

    /// What rows of name, deadline and meta say.
    fn live(&self, rows: &[Answer]) -> Result<HashMap<String, Live>> {
        let live = rows.iter().map(|row| Ok((row.try_get(0)?, live(row, 1)?)));
        let live: Result<_, tokio_postgres::Error> = live.collect();
        live.map_err(|_| self.server().odd())
    }
}

/// When a row is written.
#[derive(Debug, Clone, Copy)]
enum Condition {
    When(When),
    /// Only where nothing matters, not even a lease.
    Gone,
}

#[async_trait]
impl Store for Postgres {
    fn clock(&self) -> &Clock {
        self.0.clock()
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let (mut answers, mut numbered) = self.look(keys, tags).await?;
        if let Some(tags) = tags.filter(|_| found::is_waiting(&numbered)) {
            settle(self, &self.0.turn, self.0.settings.timeout, tags.space).await?;
            (answers, numbered) = self.look(keys, Some(tags)).await?;
        }
        let odd = |_| self.0.server().odd();
        let rows: Result<Vec<_>, _> = answers.rows.iter().map(read).collect();
        let entries = found::entries(keys, rows.map_err(odd)?);
        let Some(tags) = tags else {
            return Ok(Found {
                entries,
                numbers: None,
            });
        };
        let numbers = match found::numbers(&numbered, tags.names) {
            Some(numbers) => numbers,
            None => self.0.draw_numbers(tags).await?,
        };
        Ok(Found {
            entries,
            numbers: Some(numbers),
        })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = keys.iter().map(Key::name).collect();
        let (now, none) = (self.0.now(), None);
        let bound: Bound<'_> = &[&names, &now];
        let answers = self.0.call(Send::Read(Ask::Heads, bound, none)).await?;
        let live = self.0.live(&answers.rows)?;
        Ok(keys
            .iter()
            .map(|key| live.get(key.name())?.head(key))
            .collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.0.put_entry(key, &entry, Condition::When(when)).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let (rows, refused) = row::rows_of(&entries, self.clock(), fits);
        for part in row::parts(rows, usize::MAX, PART) {
            self.0.put_part(part).await?;
        }
        Ok(refused)
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let Some(seen) = seen else {
            return self
                .0
                .put_entry(key, &Entry::bare(mark), Condition::Gone)
                .await;
        };
        let (new, until, seen) = (stamp(mark.stamp), ms(mark.until), stamp(seen));
        let state = i16::from(mark.state.number());
        let bound: Bound<'_> = &[&key.name(), &new, &state, &until, &seen];
        Ok(self.0.write_rows(Ask::Mark, bound).await? == 1)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let (until, new, now) = (ms(fresh_until), self.0.new_stamp(), self.0.now());
        let bound: Bound<'_> = &[&key.name(), &until, &new, &now];
        let rows = self.0.write(Ask::Touch, bound).await?;
        let before = rows.first().map(|row| live(row, 0)).transpose();
        let before = before.map_err(|_| self.0.server().odd())?;
        Ok(before.and_then(|before| before.head(key)))
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let (least, most) = room_for(delta);
        let (new, now) = (self.0.new_stamp(), self.0.now());
        let bound: Bound<'_> = &[&key.name(), &delta, &new, &now, &least, &most];
        let odd = |_| self.0.server().odd();
        for _ in 0..TRIES {
            let rows = self.0.write(Ask::Add, bound).await?;
            if let Some(row) = rows.first() {
                return row.try_get(0).map(Sum::Is).map_err(odd);
            }
            // Nothing was changed; what is there now says why.
            let there: Bound<'_> = &[&key.name(), &now];
            let rows = self.0.call(Send::Read(Ask::Plain, there, None)).await?.rows;
            let Some(row) = rows.first() else {
                return Ok(Sum::NoSuchKey);
            };
            let number: Option<i64> = row.try_get(0).map_err(odd)?;
            match number.filter(|_| row.try_get(1).unwrap_or(false)) {
                None => return Ok(Sum::NotPlain),
                Some(number) if number < least || number > most => return Ok(Sum::Overflow),
                // It came between the two: once more.
                Some(_) => {}
            }
        }
        Err(self.0.server().odd())
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.0.culler.note(tags.space);
        let mut list: Vec<String> = tags.names.iter().map(|name| found::tag(name)).collect();
        // A statement may not write a row twice.
        list.sort_unstable();
        list.dedup();
        let bound: Bound<'_> = &[&tags.space, &self.0.era(), &list];
        let rows = self.0.write(Ask::Raise, bound).await?;
        let number = rows.first().and_then(|row| row.try_get(0).ok());
        number
            .map(found::natural)
            .ok_or_else(|| self.0.server().odd())
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = keys.iter().map(Key::name).collect();
        let now = self.0.now();
        let mut rows = self.0.write(Ask::Delete, &[&names, &now]).await?;
        rows.retain(|row| row.try_get(3).unwrap_or(false));
        let mut live = self.0.live(&rows)?;
        // A key that was named twice was there once.
        Ok(keys
            .iter()
            .map(|key| live.remove(key.name())?.head(key))
            .collect())
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.0.culler.note(space);
        self.0
            .write_rows(Ask::RaiseFloor, &[&space, &self.0.era()])
            .await?;
        let end = after_all(scope);
        let mut next = Some(scope.to_owned());
        while let Some(from) = next {
            let bound: [&(dyn ToSql + Sync); 2] = [&from, &end];
            let ask = match end {
                None => Send::Read(Ask::NextBatch, &bound[..1], None),
                Some(_) => Send::Read(Ask::NextBatchBefore, &bound, None),
            };
            let rows = self.0.call(ask).await?.rows;
            next = rows.first().and_then(|row| row.try_get(0).ok());
            match next.as_ref().or(end.as_ref()) {
                None => self.0.write_rows(Ask::RemoveFrom, &[&from]).await?,
                Some(end) => self.0.write_rows(Ask::RemoveRange, &[&from, end]).await?,
            };
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        drop(self.0.gate.close());
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

impl Postgres {
    /// The rows of slots and, if they are wanted, of numbers.
    async fn look(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<(Answers, Vec<Numbered>)> {
        let now = self.0.now();
        let names: Vec<&str> = keys.iter().map(Key::name).collect();
        let wanted = tags.map(|tags| (tags.space, tag_list(tags.names)));
        let wanted: Option<[&(dyn ToSql + Sync); 2]> =
            wanted.as_ref().map(|(space, list)| [space as _, list as _]);
        let wanted = wanted.as_ref().map(|wanted| &wanted[..]);
        let answers = match (names.as_slice(), wanted) {
            ([], None) => Answers::default(),
            ([], Some(wanted)) => {
                let answers = self.0.call(Send::Read(Ask::Numbers, wanted, None)).await?;
                Answers {
                    numbers: answers.rows,
                    ..Answers::default()
                }
            }
            ([name], wanted) => {
                let bound: Bound<'_> = &[name, &now];
                self.0.call(Send::Read(Ask::GetOne, bound, wanted)).await?
            }
            (_, wanted) => {
                let bound: Bound<'_> = &[&names, &now];
                self.0.call(Send::Read(Ask::Get, bound, wanted)).await?
            }
        };
        let numbered = numbered(&answers.numbers).map_err(|_| self.0.server().odd())?;
        Ok((answers, numbered))
    }
}

#[async_trait]
impl Outgoing for Postgres {
    async fn waiting(&self, space: &str) -> Result<Vec<Waiting>> {
        let bound: Bound<'_> = &[&space, &i64::from(outbox::BATCH)];
        let rows = self.0.call(Send::Read(Ask::Waiting, bound, None)).await?;
        let waiting = |row: &Answer| {
            Ok(Waiting {
                id: row.try_get(0)?,
                tag: row.try_get(1)?,
            })
        };
        let rows: Result<_, tokio_postgres::Error> = rows.rows.iter().map(waiting).collect();
        rows.map_err(|_| self.0.server().odd())
    }

    async fn remove(&self, ids: &[i64]) -> Result<()> {
        let sent = self.0.call(Send::Count(Ask::Remove, &[&ids])).await;
        sent.map(|_| ())
    }
}

#[async_trait]
impl Scan for Postgres {
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let (first, end) = (found::first_name(scope, from), after_all(scope));
        let limit = limit.max(1);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let now = self.0.now();
        let bound: [&(dyn ToSql + Sync); 4] = [&first, &now, &most, &end];
        let ask = match end {
            None => Send::Read(Ask::Names, &bound[..3], None),
            Some(_) => Send::Read(Ask::NamesBefore, &bound, None),
        };
        let answers = self.0.call(ask).await?;
        let row = |row: &Answer| Ok((row.try_get(0)?, blob(row, 1)?));
        let rows: Result<Vec<_>, tokio_postgres::Error> = answers.rows.iter().map(row).collect();
        let rows = rows.map_err(|_| self.0.server().odd())?;
        Ok(found::page(&rows, limit))
    }
}

#[async_trait]
impl Cull for Inner {
    async fn remove_gone(&self) -> Result<u64> {
        let bound: Bound<'_> = &[&self.now(), &i64::from(BATCH)];
        Ok(self.call(Send::Count(Ask::RemoveGone, bound)).await?.count)
    }

    async fn count(&self, most: u64) -> Result<u64> {
        let bound: Bound<'_> = &[&i64::try_from(most).unwrap_or(row::NEVER)];
        let rows = self.call(Send::Read(Ask::Count, bound, None)).await?.rows;
        let count = rows.first().and_then(|row| row.try_get(0).ok());
        count.map(found::natural).ok_or_else(|| self.server().odd())
    }

    async fn remove_soonest(&self, most: u64) -> Result<u64> {
        let bound: Bound<'_> = &[&i64::try_from(most).unwrap_or(row::NEVER)];
        Ok(self
            .call(Send::Count(Ask::RemoveSoonest, bound))
            .await?
            .count)
    }

    async fn lift_floor(&self, space: &str) -> Result<i64> {
        self.call(Send::Count(Ask::LiftFloor, &[&space, &MOST_NUMBERS]))
            .await?;
        let answers = self.call(Send::Read(Ask::Floor, &[&space], None)).await?;
        let floor = answers.rows.first().and_then(|row| row.try_get(0).ok());
        Ok(floor.flatten().unwrap_or(i64::MIN))
    }

    async fn drop_numbers(&self, space: &str, floor: i64) -> Result<u64> {
        let bound: Bound<'_> = &[&space, &floor, &i64::from(BATCH)];
        Ok(self.call(Send::Count(Ask::DropNumbers, bound)).await?.count)
    }
}

/// The rows to read for these tags: the space's own, and one each.
fn tag_list(names: &[Tag]) -> Vec<String> {
    let tags = names.iter().map(|name| found::tag(name));
    std::iter::once(String::new()).chain(tags).collect()
}

fn numbered(rows: &[Answer]) -> Result<Vec<Numbered>, tokio_postgres::Error> {
    let read = |row: &Answer| {
        Ok(Numbered {
            tag: row.try_get(0)?,
            number: row.try_get(1)?,
            floor: row.try_get(2)?,
            era: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Reads a name and the columns of `READ`.
fn read(row: &Answer) -> Result<(String, Row), tokio_postgres::Error> {
    let columns = Row {
        number: row.try_get(1)?,
        codec: row.try_get(2)?,
        size: None,
        stamp: row.try_get(3)?,
        state: row.try_get(4)?,
        state_until: row.try_get(5)?,
        fresh_until: row.try_get(6)?,
        stale_until: row.try_get(7)?,
        gone_after: 0,
        meta: blob(row, 8)?,
        body: blob(row, 9)?,
    };
    Ok((row.try_get(0)?, columns))
}

/// A deadline and a meta, from the column `at` on.
fn live(row: &Answer, at: usize) -> Result<Live, tokio_postgres::Error> {
    Ok(Live {
        fresh_until: row.try_get(at)?,
        meta: blob(row, at + 1)?,
    })
}

fn blob(row: &Answer, at: usize) -> Result<Option<Bytes>, tokio_postgres::Error> {
    let bytes: Option<&[u8]> = row.try_get(at)?;
    Ok(bytes.map(Bytes::copy_from_slice))
}
