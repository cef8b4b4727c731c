//! A MySQL or MariaDB server.
//!
//! A few connections, each lent to one act. A read is one statement, entries and numbers together; so are
//! most writes, and the others are short transactions. Deadlocks are tried again. Works with MySQL 8 and
//! MariaDB 10.3, or later.
//!
//! *Crashes.* A server with its usual settings loses nothing that it has acknowledged, so what is kept is
//! good after a restart. With `innodb_flush_log_at_trx_commit` other than 1, or after a failover to a
//! replica that lagged behind, it may have forgotten an invalidation, and a value from before it is served
//! again.
//!
//! *What it does not do.* It speaks to one server. A value may be no larger than `max_allowed_packet`.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | how an act is done, and once more |
//! | `address.rs` | URLs, and how to show them without the password |
//! | `builder.rs` | settings |
//! | `errors.rs` | what callers are told |
//! | `reply.rs` | rows to values |
//! | `server.rs` | connecting and giving up |
//! | `statements.rs` | the statements in this dialect |

mod act;
mod address;
mod builder;
mod errors;
mod reply;
mod server;
mod statements;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Value as Bound};

use self::act::{Again, change, rows};
pub use self::builder::MysqlBuilder;
use self::server::Server;
use super::cull::{self, BATCH, Cull, Culler, MOST_NUMBERS};
use super::found::{self, Live};
use super::gate::Gate;
use super::outbox::{self, Outgoing, Waiting, settle};
use super::row::{self, Row, after_all, moment, ms, room_for, stamp};
use super::settings::Settings;
use crate::entry::{Entry, Head, Mark, Stamp};
use crate::store::{Found, Scan, Scanned, Store, Sum, Tags, Watch, When};
use crate::{Clock, ErrorKind, Key, Moment, Result};

/// How often an act is tried that clashed with another transaction.
const TRIES: u32 = 5;
/// How long to wait after a clash, about.
const AFTER_CLASH: Duration = Duration::from_millis(10);
/// Names or rows that one statement is about, at most. A server keeps a statement prepared for each count
/// that it is asked about, so the counts are powers of two: what is missing is filled with what is there.
const ROWS: usize = 512;
/// Room in a question for all but the value.
const BESIDE: usize = 64 * 1024;

/// Keeps entries on a MySQL or MariaDB server; a clone shares the connections.
///
/// ```no_run
/// # async fn example() -> larder::Result<()> {
/// use larder::store::Mysql;
///
/// let mysql = Mysql::lazy("mysql://me:secret@db/shop?table=pages")?;
/// mysql.create_table().await?;
/// assert_eq!(mysql.to_string(), "mysql://db:3306/shop?table=pages");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mysql(Arc<Inner>);

struct Inner {
    gate: Arc<Gate<Server>>,
    settings: Settings,
    culler: Culler,
    /// Whose turn it is to work off the outbox.
    turn: tokio::sync::Mutex<()>,
}

impl Mysql {
    /// The store at `url`, connected; its table has to be [there](Self::create_table).
    ///
    /// `mysql://user:password@host:3306/database?table=larder`, or `mariadb://…`; `&sslmode=require` for
    /// TLS, with certificate and name checked.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The store at `url`, which connects when it is first used.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).lazy()
    }

    /// Settings for the store at `url`.
    pub fn builder(url: impl Into<String>) -> MysqlBuilder {
        MysqlBuilder::new(url.into())
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
        let mut lease = server.connect_bare().await?;
        let make = async {
            let there = "SELECT count(*) FROM information_schema.tables \
                         WHERE table_schema = DATABASE() AND table_name = ?";
            let mut is_there = true;
            for name in server.address.table.names() {
                let there: Option<u64> = lease.connection.exec_first(there, (name,)).await?;
                is_there &= there != Some(0);
            }
            for text in self.table_sql() {
                lease.connection.query_drop(text).await?;
            }
            Ok(!is_there)
        };
        let limit = self.0.settings.timeout;
        let outcome = self.0.clock().timeout(limit, make).await;
        self.0.gate.forgive();
        let outcome = outcome.ok_or_else(|| server.late())?;
        outcome.map_err(|error: mysql_async::Error| server.tell(&error))
    }

    /// The statements that make the tables, without running them.
    ///
    /// ```
    /// let mysql = larder::store::Mysql::lazy("mysql://db/shop?table=pages")?;
    /// assert!(mysql.table_sql()[0].starts_with("CREATE TABLE IF NOT EXISTS `pages`"));
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

impl fmt::Display for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.server().fmt(f)
    }
}

impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mysql").field(&self.0.gate).finish()
    }
}

/// When a row is written.
#[derive(Debug, Clone, Copy)]
enum Condition {
    When(When),
    /// Only where nothing matters, not even a lease.
    Gone,
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

    async fn write(self: &Arc<Self>, text: &str, bound: Vec<Bound>) -> Result<(u64, u64)> {
        self.start_culling();
        self.change(text, bound).await
    }

    /// Whether the server takes the entry, and a reader reads it back.
    async fn fits(&self) -> Result<impl Fn(&Entry) -> bool + use<>> {
        let most = self.gate.link().await?.largest.saturating_sub(BESIDE);
        Ok(move |entry: &Entry| {
            let length = entry.value.as_ref().map_or(0, crate::Value::len);
            row::fits(entry) && length <= most
        })
    }

    async fn put_row(self: &Arc<Self>, key: &Key, row: &Row, when: Condition) -> Result<bool> {
        let texts = &self.server().texts;
        let mut columns = reply::bound(key.name(), row);
        let now = Bound::from(self.now());
        let (text, more) = match when {
            Condition::When(When::Always) => (&texts.put, vec![]),
            Condition::When(When::IfAbsent) => (&texts.put_if_absent, vec![now.clone(), now]),
            Condition::Gone => (&texts.put_if_gone, vec![now.clone(), now]),
            Condition::When(When::IfPresent) => (&texts.put_if_present, vec![now]),
            Condition::When(When::IfStamp(seen)) => (&texts.put_if_stamp, vec![stamp(seen).into()]),
        };
        if matches!(when, Condition::When(When::IfPresent | When::IfStamp(_))) {
            // The name is asked for after what is set.
            columns.rotate_left(1);
        }
        columns.extend(more);
        let (changed, _) = self.write(text, columns).await?;
        Ok(changed > 0 || matches!(when, Condition::When(When::Always)))
    }

    async fn put_entry(
        self: &Arc<Self>,
        key: &Key,
        entry: &Entry,
        when: Condition,
    ) -> Result<bool> {
        if self.fits().await?(entry) {
            match self.put_row(key, &Row::of(entry, key), when).await {
                // The server takes less than it said: what was there has to go all the same.
                Err(error) if error.kind() == ErrorKind::TooLarge => {}
                done => return done,
            }
        }
        let nothing = Row::nothing(Stamp::draw(self.clock()), key);
        if self.put_row(key, &nothing, when).await? {
            return Err(self.server().too_large());
        }
        Ok(false)
    }

    fn live(&self, rows: Vec<mysql_async::Row>) -> Result<HashMap<String, Live>> {
        let live: Option<_> = rows.into_iter().map(reply::live).collect();
        live.ok_or_else(|| self.server().odd())
    }

    async fn raise_tags(
        &self,
        connection: &mut Conn,
        tags: Tags<'_>,
        era: i64,
    ) -> mysql_async::Result<u64> {
        let texts = &self.server().texts;
        connection.query_drop("START TRANSACTION").await?;
        // The row of the space is locked from here on, so numbers and tags are written in turn.
        let own = vec![tags.space.into(), era.into()];
        let (changed, number) = change(connection, &texts.next, own).await?;
        let number = if changed == 1 { 1 } else { number };
        for names in tags.names.chunks(ROWS) {
            let names = filled(names.iter().map(|name| found::tag(name).into()).collect());
            let text = texts.raise_tags(names.len());
            let bound = (names.into_iter()).flat_map(|tag| [tags.space.into(), tag, number.into()]);
            change(connection, &text, bound.collect()).await?;
        }
        connection.query_drop("COMMIT").await?;
        Ok(number)
    }

    /// Removes the rows of `names`; what was live among them.
    async fn delete_rows(
        &self,
        connection: &mut Conn,
        names: &[&str],
    ) -> mysql_async::Result<Vec<mysql_async::Row>> {
        let texts = &self.server().texts;
        let mut there = Vec::new();
        connection.query_drop("START TRANSACTION").await?;
        for names in names.chunks(ROWS) {
            let names = filled(names.iter().map(|name| Bound::from(*name)).collect());
            let text = texts.lock(names.len());
            let bound = std::iter::once(self.now().into()).chain(names).collect();
            let rows = rows(connection, &text, bound).await?;
            // Only those that are locked: one that came meanwhile was not there.
            let locked: Vec<Bound> = rows.iter().filter_map(|row| row.get(0)).collect();
            if !locked.is_empty() {
                let locked = filled(locked);
                change(connection, &texts.delete(locked.len()), locked).await?;
            }
            there.extend(rows);
        }
        connection.query_drop("COMMIT").await?;
        Ok(there)
    }

    /// The rows of `names`, and those of the numbers of tags.
    async fn look(&self, names: &[Bound], tags: Option<(&str, &[Bound])>) -> Result<reply::Found> {
        let texts = &self.server().texts;
        // The last names are asked for together with the first tags: numbers older than the entries
        // could hide an invalidation.
        let first = |list: &[Bound]| filled(list[..list.len().min(ROWS)].to_vec());
        let mut found = reply::Found::default();
        let mut parts: Vec<&[Bound]> = names.chunks(ROWS).collect();
        let last = parts.pop().unwrap_or_default();
        let mut questions: Vec<(Vec<Bound>, Option<Vec<Bound>>)> = Vec::new();
        questions.extend(parts.into_iter().map(|part| (filled(part.to_vec()), None)));
        questions.push((filled(last.to_vec()), tags.map(|(_, tags)| first(tags))));
        let more = tags.map_or(&[][..], |(_, tags)| &tags[tags.len().min(ROWS)..]);
        questions.extend(
            more.chunks(ROWS)
                .map(|part| (Vec::new(), Some(filled(part.to_vec())))),
        );
        for (names, of) in questions {
            let text = texts.get(names.len(), of.as_ref().map(Vec::len));
            let mut bound = names;
            if !bound.is_empty() {
                bound.push(self.now().into());
            }
            if let (Some(of), Some((space, _))) = (of, tags) {
                bound.push(space.into());
                bound.extend(of);
                if texts.has_outbox() {
                    bound.push(space.into());
                }
            }
            let rows = self.rows(Again::Once, &text, bound).await?;
            let (rows, numbers) = reply::read(rows).ok_or_else(|| self.server().odd())?;
            found.0.extend(rows);
            found.1.extend(numbers);
        }
        Ok(found)
    }
}

/// As many as the next power of two, the last of them more than once.
fn filled(mut list: Vec<Bound>) -> Vec<Bound> {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two(), last);
    }
    list
}

#[async_trait]
impl Store for Mysql {
    fn clock(&self) -> &Clock {
        self.0.clock()
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        if keys.is_empty() && tags.is_none() {
            return Ok(Found {
                entries: Vec::new(),
                numbers: None,
            });
        }
        let names: Vec<Bound> = keys.iter().map(|key| key.name().into()).collect();
        let wanted = tags.map(|tags| {
            let of = tags.names.iter().map(|name| Bound::from(found::tag(name)));
            let list: Vec<Bound> = std::iter::once("".into()).chain(of).collect();
            (tags.space, list)
        });
        for turn in 0..2 {
            let wanted = wanted.as_ref().map(|(space, list)| (*space, &list[..]));
            let (mut rows, mut numbered) = self.0.look(&names, wanted).await?;
            if let Some(tags) = tags.filter(|_| found::is_waiting(&numbered)) {
                settle(self, &self.0.turn, self.0.settings.timeout, tags.space).await?;
                (rows, numbered) = self.0.look(&names, wanted).await?;
            }
            let entries = found::entries(keys, rows);
            let Some(tags) = tags else {
                return Ok(Found {
                    entries,
                    numbers: None,
                });
            };
            if let Some(numbers) = found::numbers(&numbered, tags.names) {
                let numbers = Some(numbers);
                return Ok(Found { entries, numbers });
            }
            if turn == 0 {
                // Nobody has used the space yet.
                let own = vec![tags.space.into(), self.0.era().into()];
                self.0.write(&self.0.server().texts.draw, own).await?;
            }
        }
        Err(self.0.server().odd())
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        for part in keys.chunks(ROWS) {
            let mut bound = filled(part.iter().map(|key| key.name().into()).collect());
            let text = self.0.server().texts.heads(bound.len());
            bound.push(self.0.now().into());
            rows.extend(self.0.rows(Again::Once, &text, bound).await?);
        }
        let live = self.0.live(rows)?;
        Ok(keys
            .iter()
            .map(|key| live.get(key.name())?.head(key))
            .collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.0.put_entry(key, &entry, Condition::When(when)).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (rows, refused) = row::rows_of(&entries, self.clock(), self.0.fits().await?);
        let most = self.0.gate.link().await?.largest.saturating_sub(BESIDE);
        // Half, since up to as much again is filled in.
        for mut part in row::parts(rows, ROWS, most / 2) {
            let smallest = part.iter().min_by_key(|(_, row)| row.bytes()).cloned();
            if let Some(smallest) = smallest {
                part.resize(part.len().next_power_of_two(), smallest);
            }
            let bound = part.iter().flat_map(|(name, row)| reply::bound(name, row));
            let text = self.0.server().texts.put_many(part.len());
            self.0.write(&text, bound.collect()).await?;
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
        let (new, state, until) = (stamp(mark.stamp), mark.state.number(), ms(mark.until));
        let bound = vec![
            new.into(),
            state.into(),
            until.into(),
            until.into(),
            key.name().into(),
            stamp(seen).into(),
        ];
        let (changed, _) = self.0.write(&self.0.server().texts.mark, bound).await?;
        Ok(changed == 1)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let texts = &self.0.server().texts;
        for _ in 0..TRIES {
            let bound = vec![key.name().into(), self.0.now().into()];
            let rows = self.0.rows(Again::Once, &texts.seen(), bound).await?;
            let Some(row) = rows.into_iter().next() else {
                return Ok(None);
            };
            let (live, stale_until, seen) =
                reply::seen(row).ok_or_else(|| self.0.server().odd())?;
            let grace = moment(stale_until).left(moment(live.fresh_until));
            let stale_until = ms(fresh_until.plus(grace.unwrap_or_default()));
            let bound = vec![
                ms(fresh_until).into(),
                stale_until.into(),
                stale_until.into(),
                self.0.new_stamp().into(),
                key.name().into(),
                seen.into(),
            ];
            // Only the row that was seen: its stamp says that nobody has written it since.
            if self.0.write(&texts.touch, bound).await?.0 == 1 {
                return Ok(live.head(key));
            }
        }
        let does = "is too busy with this key";
        Err(self.0.server().complaint(ErrorKind::Timeout, does))
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let texts = &self.0.server().texts;
        let (least, most) = room_for(delta);
        for _ in 0..TRIES {
            let bound = vec![
                delta.into(),
                self.0.new_stamp().into(),
                key.name().into(),
                self.0.now().into(),
                least.into(),
                most.into(),
            ];
            let (changed, sum) = self.0.write(&texts.add, bound).await?;
            if changed == 1 {
                return Ok(Sum::Is(sum.cast_signed()));
            }
            // Nothing was changed; what is there now says why.
            let bound = vec![key.name().into(), self.0.now().into()];
            let rows = self.0.rows(Again::Once, &texts.plain, bound).await?;
            match rows.into_iter().next().map(reply::plain) {
                None => return Ok(Sum::NoSuchKey),
                Some(None) => return Ok(Sum::NotPlain),
                Some(Some(number)) if number < least || number > most => return Ok(Sum::Overflow),
                // It came between the two: once more.
                Some(Some(_)) => {}
            }
        }
        Err(self.0.server().odd())
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.0.start_culling();
        self.0.culler.note(tags.space);
        let (inner, era) = (&*self.0, self.0.era());
        inner
            .act(Again::Never, |mut lease| async move {
                let number = inner.raise_tags(&mut lease.connection, tags, era).await;
                (lease, number)
            })
            .await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.0.start_culling();
        let mut names: Vec<&str> = keys.iter().map(Key::name).collect();
        // In one order, so that two who delete do not wait for each other in a ring.
        names.sort_unstable();
        let (inner, names) = (&*self.0, &names);
        let rows = inner
            .act(Again::Never, |mut lease| async move {
                let rows = inner.delete_rows(&mut lease.connection, names).await;
                (lease, rows)
            })
            .await?;
        let rows = rows.into_iter().filter(|row| reply::flag(row, 3)).collect();
        let mut live = self.0.live(rows)?;
        // A key that was named twice was there once.
        Ok(keys
            .iter()
            .map(|key| live.remove(key.name())?.head(key))
            .collect())
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let texts = &self.0.server().texts;
        let own = vec![space.into(), self.0.era().into()];
        self.0.culler.note(space);
        self.0.write(&texts.raise_floor, own).await?;
        let end = after_all(scope);
        let mut next = Some(scope.to_owned());
        while let Some(from) = next {
            let bounds = |end: Option<&String>| {
                let end = end.map(|end| end.as_str().into());
                std::iter::once(from.as_str().into()).chain(end).collect()
            };
            let text = texts.next_batch(end.is_some());
            let rows = self
                .0
                .rows(Again::Once, &text, bounds(end.as_ref()))
                .await?;
            next = rows.into_iter().next().and_then(reply::name);
            let end = next.as_ref().or(end.as_ref());
            self.0
                .write(&texts.remove_range(end.is_some()), bounds(end))
                .await?;
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

#[async_trait]
impl Outgoing for Mysql {
    async fn waiting(&self, space: &str) -> Result<Vec<Waiting>> {
        let bound = vec![space.into(), outbox::BATCH.into()];
        let text = &self.0.server().texts.waiting;
        let rows = self.0.rows(Again::Once, text, bound).await?;
        let rows: Option<Vec<_>> = rows.into_iter().map(reply::waiting).collect();
        rows.ok_or_else(|| self.0.server().odd())
    }

    async fn remove(&self, ids: &[i64]) -> Result<()> {
        for ids in ids.chunks(ROWS) {
            let ids = filled(ids.iter().map(|id| Bound::from(*id)).collect());
            let text = self.0.server().texts.remove(ids.len());
            self.0.change(&text, ids).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Scan for Mysql {
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let end = after_all(scope);
        let limit = limit.max(1);
        let mut bound: Vec<Bound> = vec![found::first_name(scope, from).into()];
        bound.extend(end.as_deref().map(Bound::from));
        bound.push(self.0.now().into());
        bound.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let text = self.0.server().texts.names(end.is_some());
        let rows = self.0.rows(Again::Once, &text, bound).await?;
        let rows: Option<Vec<_>> = rows.into_iter().map(reply::named).collect();
        let rows = rows.ok_or_else(|| self.0.server().odd())?;
        Ok(found::page(&rows, limit))
    }
}

#[async_trait]
impl Cull for Inner {
    async fn remove_gone(&self) -> Result<u64> {
        let bound = vec![self.now().into(), BATCH.into()];
        Ok(self
            .change(&self.server().texts.remove_gone, bound)
            .await?
            .0)
    }

    async fn count(&self, most: u64) -> Result<u64> {
        let text = &self.server().texts.count;
        let rows = self.rows(Again::Once, text, vec![most.into()]).await?;
        let count = rows.first().and_then(|row| row.get(0));
        count.ok_or_else(|| self.server().odd())
    }

    async fn remove_soonest(&self, most: u64) -> Result<u64> {
        let text = &self.server().texts.remove_soonest;
        Ok(self.change(text, vec![most.into()]).await?.0)
    }

    async fn lift_floor(&self, space: &str) -> Result<i64> {
        let texts = &self.server().texts;
        let bound = vec![MOST_NUMBERS.into(), space.into(), MOST_NUMBERS.into()];
        self.change(&texts.lift_floor, bound).await?;
        let rows = self.rows(Again::Once, &texts.floor, vec![space.into()]);
        let floor = rows.await?.first().and_then(|row| row.get(0));
        Ok(floor.flatten().unwrap_or(i64::MIN))
    }

    async fn drop_numbers(&self, space: &str, floor: i64) -> Result<u64> {
        let bound = vec![space.into(), floor.into(), BATCH.into()];
        let text = &self.server().texts.drop_numbers;
        Ok(self.change(text, bound).await?.0)
    }
}
