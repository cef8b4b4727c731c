//! The statements that SQLite and PostgreSQL share, and the conditions that all do.
//!
//! `$1`, `$2` … are what is bound. Each statement is one atomic act of the engine underneath.

use super::row::NEVER;
use super::table::Table;

/// The columns of a row, in the order in which they are written.
pub(super) const COLUMNS: [&str; 12] = [
    "name",
    "number",
    "codec",
    "size",
    "stamp",
    "state",
    "state_until",
    "fresh_until",
    "stale_until",
    "gone_after",
    "meta",
    "body",
];

/// The columns of a row beside its name, in the order in which they are read.
pub(super) const READ: &str =
    "number, codec, stamp, state, state_until, fresh_until, stale_until, meta, body";

/// A deadline from here on is never, so that the sum of two does not overflow.
pub(super) const FAR: i64 = NEVER / 2;

/// Whether an integer can be counted up as it stands, where the row is live.
pub(super) const PLAIN: &str =
    "(number IS NOT NULL AND meta IS NULL AND state = 0 AND stale_until = fresh_until)";

/// Whether a verb sees a value in the row at `now`; `slot` is the row's name with a dot, or nothing.
pub(super) fn live(slot: &str, now: &str) -> String {
    format!(
        "({slot}fresh_until > {now} AND \
         ({slot}number IS NOT NULL OR COALESCE(length({slot}body) = {slot}size, FALSE)))"
    )
}

/// In the place of a tag: that something waits in the outbox. No tag is kept so.
pub(super) const WAITING: &str = "waits";

/// What is asked of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// 1: name, 2: now. Gives the columns to read; of a server, behind the name.
    Get,
    /// The same of a server, for one name.
    GetOne,
    /// 1: name, 2: now. Gives name, deadline and meta of what is live.
    Heads,
    /// 1…12: the columns.
    Put,
    /// 1…12: the columns, 13: now.
    PutIfAbsent,
    PutIfGone,
    PutIfPresent,
    /// 1…12: the columns, 13: the stamp.
    PutIfStamp,
    /// 1…12: the columns, a list each.
    PutMany,
    /// 1: name, 2: stamp, 3: state, 4: until, 5: the stamp seen.
    Mark,
    /// 1: name, 2: the new deadline, 3: stamp, 4: now.
    Touch,
    /// 1: name, 2: delta, 3: stamp, 4: now, 5 and 6: least and most. Gives the sum.
    Add,
    /// 1: name, 2: now. Gives the number of what is live, and whether it is plain.
    Plain,
    /// 1: name, 2: now. Gives name, deadline, meta and whether it was live.
    Delete,
    /// 1: space, 2: tag; the empty one is the space's own. Gives tag, number, floor, era.
    Numbers,
    /// 1: space, 2: an era. Makes the space's own row where it is missing.
    Draw,
    /// 1: space, 2: an era. Gives the next number.
    Next,
    /// 1: space, 2: an era, 3: tags. Raises them to the next number, and gives it.
    Raise,
    /// 1: space, 2: an era. Takes a number, and makes it the floor.
    RaiseFloor,
    /// 1: space, 2: tag, 3: number.
    RaiseTag,
    /// 1: now, 2: how many.
    RemoveGone,
    /// 1: how many.
    RemoveSoonest,
    /// 1: how far.
    Count,
    /// 1: space, 2: how many numbers it keeps.
    LiftFloor,
    /// 1: space. Gives its floor.
    Floor,
    /// 1: space, 2: floor, 3: how many.
    DropNumbers,
    /// 1: the first name. Gives the first name of the next batch.
    NextBatch,
    /// 1: the first name, 2: the name after all.
    NextBatchBefore,
    /// 1: the first name.
    RemoveFrom,
    /// 1: the first name, 2: the name after all.
    RemoveRange,
    /// 1: the first name, 2: now, 3: how many. Gives name and meta of what is live.
    Names,
    /// 1: the first name, 2: now, 3: how many, 4: the name after all.
    NamesBefore,
    /// 1: space. Gives a row if something waits in the outbox.
    IsWaiting,
    /// 1: space, 2: how many. Gives identity and tag of what waits, the oldest first.
    Waiting,
    /// 1: identities, or one. Removes what has waited.
    Remove,
}

/// Where the two dialects differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A file in place: asked name by name, and nobody else writes in a transaction.
    InPlace,
    /// A server: asked for all names at once; rows are locked.
    Served,
}

impl Ask {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Remove as usize + 1;

    /// The text of the statement.
    pub(super) fn text(self, way: Way, table: &Table) -> String {
        let (entries, numbers) = (table.entries(), table.numbers());
        let outbox = table.outbox();
        let in_place = way == Way::InPlace;
        let pick = |in_place_text, served| if in_place { in_place_text } else { served };
        let is_name = match self {
            Self::GetOne => "name = $1",
            _ => pick("name = $1", "name = ANY($1)"),
        };
        let is_tag = pick("tag = $2", "tag = ANY($2)");
        let greatest = pick("max", "GREATEST");
        let own = format!(
            "INSERT INTO {numbers} AS own (space, tag, number, floor, era) \
             VALUES ($1, '', 1, 0, $2) ON CONFLICT (space, tag)"
        );
        let text = match self {
            Self::Get | Self::GetOne => {
                let name = pick("", "name, ");
                // Not by the index over `gone_after`: most rows are not gone.
                let until = pick("gone_after", "gone_after + 0");
                format!("SELECT {name}{READ} FROM {entries} WHERE {is_name} AND {until} > $2")
            }
            Self::Heads => format!(
                "SELECT name, fresh_until, meta FROM {entries} WHERE {is_name} AND {}",
                live("", "$2")
            ),
            Self::Put => put(&entries),
            Self::PutIfAbsent => format!("{} WHERE NOT {}", put(&entries), live("slot.", "$13")),
            Self::PutIfGone => format!("{} WHERE slot.gone_after <= $13", put(&entries)),
            Self::PutIfPresent => format!("{} AND {}", update(&entries), live("", "$13")),
            Self::PutIfStamp => format!("{} AND stamp = $13", update(&entries)),
            Self::PutMany => put_many(&entries),
            Self::Mark => format!(
                "UPDATE {entries} SET stamp = $2, state = $3, state_until = $4, \
                 gone_after = {greatest}(stale_until, $4) WHERE name = $1 AND stamp = $5"
            ),
            Self::Touch => touch(&entries, in_place),
            Self::Add => format!(
                "UPDATE {entries} SET number = number + $2, stamp = $3 WHERE name = $1 \
                 AND fresh_until > $4 AND {PLAIN} AND number BETWEEN $5 AND $6 RETURNING number"
            ),
            Self::Plain => format!(
                "SELECT number, {PLAIN} FROM {entries} WHERE name = $1 AND {}",
                live("", "$2")
            ),
            Self::Delete => format!(
                "DELETE FROM {entries} WHERE {is_name} RETURNING name, fresh_until, meta, {}",
                live("", "$2")
            ),
            Self::Numbers => numbers_of(table, is_tag, in_place),
            Self::Draw => format!("{own} DO NOTHING"),
            Self::Next => format!("{own} DO UPDATE SET number = own.number + 1 RETURNING number"),
            // The row of the space is locked by `next`, so numbers and tags are written in turn.
            Self::Raise => format!(
                "WITH next AS ({own} DO UPDATE SET number = own.number + 1 RETURNING number), \
                 raised AS (INSERT INTO {numbers} AS own (space, tag, number) \
                 SELECT $1, tag, next.number FROM next, unnest($3::text[]) AS tag \
                 ON CONFLICT (space, tag) \
                 DO UPDATE SET number = GREATEST(own.number, excluded.number)) \
                 SELECT number FROM next"
            ),
            Self::RaiseFloor => {
                format!("{own} DO UPDATE SET number = own.number + 1, floor = own.number + 1")
            }
            Self::RaiseTag => raise_tag(&numbers, greatest),
            Self::RemoveGone => remove(&entries, way, "WHERE gone_after <= $1 ", "$2"),
            Self::RemoveSoonest => remove(&entries, way, "", "$1"),
            Self::Count => {
                format!("SELECT count(*) FROM (SELECT 1 FROM {entries} LIMIT $1) AS counted")
            }
            Self::LiftFloor => format!(
                "UPDATE {numbers} SET floor = number - $2 \
                 WHERE space = $1 AND tag = '' AND number - floor - $2 > $2"
            ),
            Self::Floor => format!("SELECT floor FROM {numbers} WHERE space = $1 AND tag = ''"),
            Self::DropNumbers => drop_numbers(&numbers, way),
            Self::NextBatch => next_batch(&entries, ""),
            Self::NextBatchBefore => next_batch(&entries, " AND name < $2"),
            Self::RemoveFrom => format!("DELETE FROM {entries} WHERE name >= $1"),
            Self::RemoveRange => format!("DELETE FROM {entries} WHERE name >= $1 AND name < $2"),
            Self::Names => names(&entries, ""),
            Self::NamesBefore => names(&entries, " AND name < $4"),
            Self::IsWaiting => format!("SELECT 1 FROM {outbox} WHERE space = $1 LIMIT 1"),
            Self::Waiting => {
                format!("SELECT id, tag FROM {outbox} WHERE space = $1 ORDER BY id LIMIT $2")
            }
            Self::Remove => remove_waiting(&outbox, pick("id = $1", "id = ANY($1)")),
        };
        if in_place {
            text.replace('$', "?")
        } else {
            text
        }
    }
}

/// The numbers of tags; of a server, in one statement with whether something waits in the outbox, so that
/// both are of one moment. A file is asked in one transaction.
fn numbers_of(table: &Table, is_tag: &str, in_place: bool) -> String {
    let (numbers, outbox) = (table.numbers(), table.outbox());
    let of_tags =
        format!("SELECT tag, number, floor, era FROM {numbers} WHERE space = $1 AND {is_tag}");
    if in_place || !table.has_outbox() {
        return of_tags;
    }
    format!(
        "{of_tags} UNION ALL SELECT '{WAITING}', 0::bigint, NULL::bigint, NULL::bigint \
         WHERE EXISTS (SELECT FROM {outbox} WHERE space = $1)"
    )
}

fn remove_waiting(outbox: &str, is_id: &str) -> String {
    format!("DELETE FROM {outbox} WHERE {is_id}")
}

/// The bound stands twice: a number may be raised between the look and the lock.
fn drop_numbers(numbers: &str, way: Way) -> String {
    let old = format!(
        "SELECT old.tag FROM {numbers} AS old WHERE old.space = $1 \
         AND old.tag <> '' AND old.number <= $2 LIMIT $3"
    );
    let is_old = match way {
        Way::InPlace => format!("IN ({old})"),
        Way::Served => format!("= ANY(ARRAY({old}))"),
    };
    format!("DELETE FROM {numbers} WHERE space = $1 AND number <= $2 AND tag {is_old}")
}

/// Removes a batch, those rows first that would be gone first. A server is told not to look for each of
/// its rows anew, and to leave what another removes.
fn remove(entries: &str, way: Way, condition: &str, most: &str) -> String {
    let soonest = format!("{entries} {condition}ORDER BY gone_after LIMIT {most}");
    match way {
        Way::InPlace => {
            format!("DELETE FROM {entries} WHERE name IN (SELECT name FROM {soonest})")
        }
        Way::Served => format!(
            "WITH doomed AS MATERIALIZED \
             (SELECT ctid AS place FROM {soonest} FOR UPDATE SKIP LOCKED) \
             DELETE FROM {entries} WHERE ctid = ANY(ARRAY(SELECT place FROM doomed))"
        ),
    }
}

fn next_batch(entries: &str, end: &str) -> String {
    format!("SELECT name FROM {entries} WHERE name >= $1{end} ORDER BY name LIMIT 1 OFFSET 1000")
}

fn names(entries: &str, end: &str) -> String {
    format!(
        "SELECT name, meta FROM {entries} WHERE name >= $1{end} AND {} ORDER BY name LIMIT $3",
        live("", "$2")
    )
}

fn raise_tag(numbers: &str, greatest: &str) -> String {
    format!(
        "INSERT INTO {numbers} AS own (space, tag, number) VALUES ($1, $2, $3) \
         ON CONFLICT (space, tag) \
         DO UPDATE SET number = {greatest}(own.number, excluded.number)"
    )
}

fn put(entries: &str) -> String {
    let bound: Vec<_> = (1..=COLUMNS.len()).map(|at| format!("${at}")).collect();
    format!(
        "INSERT INTO {entries} AS slot ({}) VALUES ({}) {}",
        COLUMNS.join(", "),
        bound.join(", "),
        replace()
    )
}

fn replace() -> String {
    let excluded = COLUMNS[1..]
        .iter()
        .map(|name| format!("{name} = excluded.{name}"));
    let excluded = excluded.collect::<Vec<_>>().join(", ");
    format!("ON CONFLICT (name) DO UPDATE SET {excluded}")
}

/// Many rows at once, in the order of their names, so that two such statements do not wait for each
/// other in a ring.
fn put_many(entries: &str) -> String {
    let types = ["text", "bigint", "smallint", "bigint", "bigint", "smallint"];
    let types = types.into_iter().chain(["bigint"; 4]).chain(["bytea"; 2]);
    let lists: Vec<_> = (1..)
        .zip(types)
        .map(|(at, kind)| format!("${at}::{kind}[]"))
        .collect();
    let columns = COLUMNS.join(", ");
    let rows = format!(
        "SELECT * FROM unnest({}) AS given ({columns}) ORDER BY 1",
        lists.join(", ")
    );
    format!(
        "INSERT INTO {entries} AS slot ({columns}) {rows} {}",
        replace()
    )
}

fn update(entries: &str) -> String {
    let bound = (2..)
        .zip(&COLUMNS[1..])
        .map(|(at, name)| format!("{name} = ${at}"));
    let bound = bound.collect::<Vec<_>>().join(", ");
    format!("UPDATE {entries} SET {bound} WHERE name = $1")
}

/// The grace moves along with the deadline. A server gives deadline and meta as they were.
fn touch(entries: &str, in_place: bool) -> String {
    let live = live("", "$4");
    let stale = format!(
        "CASE WHEN $2 >= {FAR} OR stale_until >= {FAR} OR stale_until <= fresh_until THEN $2 \
         ELSE $2 + (stale_until - fresh_until) END"
    );
    let update = format!(
        "UPDATE {entries} SET fresh_until = $2, stale_until = {stale}, gone_after = {stale}, \
         stamp = $3, state = 0, state_until = 0"
    );
    if in_place {
        return format!("{update} WHERE name = $1 AND {live}");
    }
    format!(
        "{update} FROM (SELECT name AS was_name, fresh_until AS was_fresh, meta AS was_meta \
         FROM {entries} WHERE name = $1 AND {live} FOR UPDATE) AS was \
         WHERE name = was_name RETURNING was_fresh, was_meta"
    )
}
