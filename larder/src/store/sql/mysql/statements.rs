//! The statements in the dialect of MySQL and MariaDB.
//!
//! What is written where a condition holds is told by the server's count of changed rows: each statement
//! that changes a row also moves its `turn`, so that a row that was there counts as changed.

use crate::store::sql::statements::{COLUMNS, PLAIN, READ, WAITING, live};
use crate::store::sql::table::Table;

/// The text of each statement that is the same however many it is about.
pub(super) struct Texts {
    entries: String,
    numbers: String,
    outbox: String,
    has_outbox: bool,
    pub(super) put: String,
    /// The columns; now, twice.
    pub(super) put_if_absent: String,
    pub(super) put_if_gone: String,
    /// The columns but the name, the name; now, or the stamp.
    pub(super) put_if_present: String,
    pub(super) put_if_stamp: String,
    /// Stamp, state, until, until; name, stamp seen.
    pub(super) mark: String,
    /// Deadline, grace's end, that once more, stamp; name, stamp seen.
    pub(super) touch: String,
    /// Delta, stamp; name, now, least, most.
    pub(super) add: String,
    /// Name, now.
    pub(super) plain: String,
    /// Space, era.
    pub(super) draw: String,
    pub(super) next: String,
    pub(super) raise_floor: String,
    /// Now, how many.
    pub(super) remove_gone: String,
    /// How many.
    pub(super) remove_soonest: String,
    pub(super) count: String,
    /// How many numbers a space keeps; the space; how many, once more.
    pub(super) lift_floor: String,
    /// Space.
    pub(super) floor: String,
    /// Space, floor, how many.
    pub(super) drop_numbers: String,
    /// Space, how many. Gives identity and tag of what waits in the outbox, the oldest first.
    pub(super) waiting: String,
}

impl Texts {
    pub(super) fn new(table: &Table) -> Self {
        let (entries, numbers) = (table.entries(), table.numbers());
        let outbox = table.outbox();
        let live = live("", "?");
        let put = format!("{} {}", insert(&entries, 1), replace());
        let update = update(&entries);
        let own = format!(
            "INSERT INTO {numbers} (space, tag, number, floor, era) VALUES (?, '', 1, 0, ?) \
             ON DUPLICATE KEY UPDATE"
        );
        Self {
            put_if_absent: put_if(&entries, &format!("NOT {live}")),
            put_if_gone: put_if(&entries, "gone_after <= ?"),
            put_if_present: format!("{update} WHERE name = ? AND {live}"),
            put_if_stamp: format!("{update} WHERE name = ? AND stamp = ?"),
            mark: format!(
                "UPDATE {entries} SET stamp = ?, state = ?, state_until = ?, \
                 gone_after = GREATEST(stale_until, ?), turn = turn + 1 \
                 WHERE name = ? AND stamp = ?"
            ),
            touch: format!(
                "UPDATE {entries} SET fresh_until = ?, stale_until = ?, gone_after = ?, \
                 stamp = ?, state = 0, state_until = 0, turn = turn + 1 \
                 WHERE name = ? AND stamp = ?"
            ),
            // The sum travels in the answer, since no statement gives rows that it has updated; there
            // it has no sign.
            add: format!(
                "UPDATE {entries} SET number = CAST(LAST_INSERT_ID(number + ?) AS SIGNED), stamp = ?, \
                 turn = turn + 1 WHERE name = ? AND fresh_until > ? AND {PLAIN} \
                 AND number BETWEEN ? AND ?"
            ),
            plain: format!("SELECT number, {PLAIN} FROM {entries} WHERE name = ? AND {live}"),
            draw: format!("{own} number = number"),
            next: format!("{own} number = LAST_INSERT_ID(number + 1)"),
            // From left to right: the floor is the new number.
            raise_floor: format!("{own} number = number + 1, floor = number"),
            remove_gone: format!(
                "DELETE FROM {entries} WHERE gone_after <= ? ORDER BY gone_after LIMIT ?"
            ),
            remove_soonest: format!("DELETE FROM {entries} ORDER BY gone_after LIMIT ?"),
            count: format!("SELECT count(*) FROM (SELECT 1 FROM {entries} LIMIT ?) AS counted"),
            lift_floor: format!(
                "UPDATE {numbers} SET floor = number - ? \
                 WHERE space = ? AND tag = '' AND number - floor > 2 * ?"
            ),
            floor: format!("SELECT floor FROM {numbers} WHERE space = ? AND tag = ''"),
            drop_numbers: format!(
                "DELETE FROM {numbers} WHERE space = ? AND tag <> '' AND number <= ? LIMIT ?"
            ),
            waiting: format!("SELECT id, tag FROM {outbox} WHERE space = ? ORDER BY id LIMIT ?"),
            put,
            entries,
            numbers,
            outbox,
            has_outbox: table.has_outbox(),
        }
    }

    /// Names, now; then, for the numbers of tags, space and tags; with an outbox, the space once more. In one statement, so that both are of
    /// one moment. A row of the numbers has the codec -1.
    pub(super) fn get(&self, names: usize, tags: Option<usize>) -> String {
        let (entries, numbers) = (&self.entries, &self.numbers);
        let get = format!(
            // Not by the index over `gone_after`, which is then not even considered.
            "SELECT name, {READ} FROM {entries} WHERE name IN ({}) AND gone_after + 0 > ?",
            places(names)
        );
        let of_tags = tags.map(|tags| {
            let of_tags = format!(
                "SELECT tag, number, -1, floor, 0, era, 0, 0, NULL, NULL FROM {numbers} \
                 WHERE space = ? AND tag IN ({})",
                places(tags)
            );
            if !self.has_outbox {
                return of_tags;
            }
            let outbox = &self.outbox;
            format!(
                "{of_tags} UNION ALL SELECT '{WAITING}', 0, -1, 0, 0, 0, 0, 0, NULL, NULL FROM DUAL \
                 WHERE EXISTS (SELECT 1 FROM {outbox} WHERE space = ?)"
            )
        });
        match of_tags {
            None => get,
            Some(of_tags) if names == 0 => of_tags,
            Some(of_tags) => format!("{get} UNION ALL {of_tags}"),
        }
    }

    /// Names, now. Gives name, deadline and meta of what is live.
    pub(super) fn heads(&self, names: usize) -> String {
        format!(
            "SELECT name, fresh_until, meta FROM {} WHERE name IN ({}) AND {}",
            self.entries,
            places(names),
            live("", "?")
        )
    }

    /// Now, names. Gives name, deadline, meta and whether it is live, and locks the rows.
    pub(super) fn lock(&self, names: usize) -> String {
        format!(
            "SELECT name, fresh_until, meta, {} FROM {} WHERE name IN ({}) FOR UPDATE",
            live("", "?"),
            self.entries,
            places(names)
        )
    }

    /// Whether the outbox is read along with the numbers.
    pub(super) fn has_outbox(&self) -> bool {
        self.has_outbox
    }

    /// Identities. Removes what has waited in the outbox.
    pub(super) fn remove(&self, ids: usize) -> String {
        format!("DELETE FROM {} WHERE id IN ({})", self.outbox, places(ids))
    }

    /// Names.
    pub(super) fn delete(&self, names: usize) -> String {
        format!(
            "DELETE FROM {} WHERE name IN ({})",
            self.entries,
            places(names)
        )
    }

    /// Name, now. Gives deadline, end of the grace, meta and stamp of what is live.
    pub(super) fn seen(&self) -> String {
        format!(
            "SELECT fresh_until, stale_until, meta, stamp FROM {} WHERE name = ? AND {}",
            self.entries,
            live("", "?")
        )
    }

    /// The columns of each row.
    pub(super) fn put_many(&self, rows: usize) -> String {
        format!("{} {}", insert(&self.entries, rows), replace())
    }

    /// Space, tag and number, for each tag.
    pub(super) fn raise_tags(&self, tags: usize) -> String {
        format!(
            "INSERT INTO {} (space, tag, number) VALUES {} \
             ON DUPLICATE KEY UPDATE number = GREATEST(number, VALUES(number))",
            self.numbers,
            vec!["(?, ?, ?)"; tags].join(", ")
        )
    }

    /// The first name; the name after all, if there is one. Gives the first name of the next batch.
    pub(super) fn next_batch(&self, is_bounded: bool) -> String {
        let (entries, end) = (&self.entries, end(is_bounded));
        format!("SELECT name FROM {entries} WHERE name >= ?{end} ORDER BY name LIMIT 1 OFFSET 1000")
    }

    /// The first name; the name after all, if there is one; now; how many. Gives name and meta of what
    /// is live.
    pub(super) fn names(&self, is_bounded: bool) -> String {
        let (entries, end) = (&self.entries, end(is_bounded));
        format!(
            "SELECT name, meta FROM {entries} WHERE name >= ?{end} AND {} ORDER BY name LIMIT ?",
            live("", "?")
        )
    }

    /// The first name; the name after all, if there is one.
    pub(super) fn remove_range(&self, is_bounded: bool) -> String {
        let (entries, end) = (&self.entries, end(is_bounded));
        format!("DELETE FROM {entries} WHERE name >= ?{end}")
    }
}

fn end(is_bounded: bool) -> &'static str {
    if is_bounded { " AND name < ?" } else { "" }
}

fn places(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn insert(entries: &str, rows: usize) -> String {
    let row = format!("({})", places(COLUMNS.len()));
    let columns = COLUMNS.join(", ");
    format!(
        "INSERT INTO {entries} ({columns}) VALUES {}",
        vec![row; rows].join(", ")
    )
}

fn replace() -> String {
    let columns = COLUMNS[1..]
        .iter()
        .map(|name| format!("{name} = VALUES({name})"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("ON DUPLICATE KEY UPDATE {columns}")
}

/// Writes over a row only where `condition` holds. The columns are set from left to right: the condition
/// is judged before any that it names is set, and the stamp tells the others what came of it.
fn put_if(entries: &str, condition: &str) -> String {
    let others = COLUMNS[1..].iter().filter(|name| **name != "stamp");
    let others =
        others.map(|name| format!("{name} = IF(stamp = VALUES(stamp), VALUES({name}), {name})"));
    format!(
        "{} ON DUPLICATE KEY UPDATE turn = IF({condition}, turn + 1, turn), \
         stamp = IF({condition}, VALUES(stamp), stamp), {}",
        insert(entries, 1),
        others.collect::<Vec<_>>().join(", ")
    )
}

fn update(entries: &str) -> String {
    let columns = COLUMNS[1..].iter().map(|name| format!("{name} = ?"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("UPDATE {entries} SET {columns}, turn = turn + 1")
}
