//! The tables of a store: what they are called and how they are made.

use crate::{Error, ErrorKind, Result};

/// What a table is called where nothing else is said.
pub(super) const DEFAULT: &str = "larder";
/// Longest name: PostgreSQL cuts what is longer than 63 with the ending `_numbers`.
const LONGEST: usize = 55;

/// The dialects of SQL, where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres { unlogged: bool },
    Mysql,
}

/// Which tables are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Parts {
    /// Those of the entries and of the tags' numbers.
    #[default]
    Entries,
    /// These and the outbox, which is read along with the numbers.
    EntriesAndOutbox,
    /// The outbox alone: the entries are elsewhere.
    Outbox,
}

/// A table by a name that was looked at, so that it can stand in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    dialect: Dialect,
    schema: Option<String>,
    name: String,
    pub(super) parts: Parts,
}

impl Table {
    /// The table `name`; `schema.name` on PostgreSQL.
    pub(super) fn parse(dialect: Dialect, place: &str, name: &str) -> Result<Self> {
        let (schema, table) = match name.split_once('.') {
            Some((schema, table)) if matches!(dialect, Dialect::Postgres { .. }) => {
                (Some(schema), table)
            }
            _ => (None, name),
        };
        if !schema.is_none_or(is_name) || !is_name(table) {
            let shown: String = name.chars().take(80).collect();
            let text = format!("the table name `{}` cannot be used", shown.escape_debug());
            return Err(
                Error::new(ErrorKind::Invalid, place, text).with_hint(format!(
                    "letters, digits and `_`, not beginning with a digit, at most {LONGEST} of them"
                )),
            );
        }
        Ok(Self {
            dialect,
            schema: schema.map(str::to_owned),
            name: table.to_owned(),
            parts: Parts::Entries,
        })
    }

    /// The same name, for these tables.
    pub(super) fn with(mut self, parts: Parts) -> Self {
        self.parts = parts;
        self
    }

    pub(super) fn has_entries(&self) -> bool {
        self.parts != Parts::Outbox
    }

    pub(super) fn has_outbox(&self) -> bool {
        self.parts != Parts::Entries
    }

    /// The name of the table that is missed where it is not there.
    pub(super) fn missed(&self) -> String {
        match self.parts {
            Parts::Outbox => self.outbox_path(),
            _ => self.name(),
        }
    }

    /// How the tables are made at `place`.
    pub(super) fn made_by(&self, place: &impl std::fmt::Display) -> String {
        match self.parts {
            Parts::Outbox => format!("run `larder table outbox --url {place}`"),
            _ => format!("run `larder table create --store {place}`"),
        }
    }

    /// What a URL says of the tables, where it is not what is meant anyway.
    pub(super) fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        if self.name() != DEFAULT {
            settings.push(format!("table={}", self.name()));
        }
        if self.parts == Parts::EntriesAndOutbox {
            settings.push("outbox=true".to_owned());
        }
        settings
    }

    /// The name as it was given.
    pub(super) fn name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The table of the entries, quoted.
    pub(super) fn entries(&self) -> String {
        self.quoted("")
    }

    /// The table of the tags' numbers, quoted.
    pub(super) fn numbers(&self) -> String {
        self.quoted("_numbers")
    }

    /// The outbox, quoted.
    pub(super) fn outbox(&self) -> String {
        self.quoted("_outbox")
    }

    /// The outbox, unquoted.
    pub(super) fn outbox_path(&self) -> String {
        format!("{}_outbox", self.name())
    }

    /// The outbox, without its schema and unquoted.
    pub(super) fn outbox_name(&self) -> String {
        format!("{}_outbox", self.name)
    }

    /// The tables' names without their schema, unquoted.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = self.has_entries().then(|| self.name.clone());
        let outbox = self.has_outbox().then(|| self.outbox_name());
        entries.into_iter().chain(outbox).collect()
    }

    /// The tables, quoted.
    pub(super) fn places(&self) -> Vec<String> {
        let entries = self.has_entries().then(|| self.entries());
        let outbox = self.has_outbox().then(|| self.outbox());
        entries.into_iter().chain(outbox).collect()
    }

    fn quoted(&self, ending: &str) -> String {
        let quote = if self.dialect == Dialect::Mysql {
            '`'
        } else {
            '"'
        };
        let schema = (self.schema.as_ref())
            .map(|schema| format!("{quote}{schema}{quote}."))
            .unwrap_or_default();
        format!("{schema}{quote}{}{ending}{quote}", self.name)
    }

    /// The statements that make the tables where they are missing.
    pub(super) fn sql(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.has_entries() {
            statements.extend(self.entries_sql());
        }
        if self.has_outbox() {
            statements.extend(self.outbox_sql());
        }
        statements
    }

    /// An identity that was given is never given again: whoever has read a row deletes that row.
    fn outbox_sql(&self) -> Vec<String> {
        let outbox = self.outbox();
        let index = format!("\"{}_waiting\"", self.name);
        match self.dialect {
            Dialect::Sqlite => vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {outbox} (id INTEGER PRIMARY KEY AUTOINCREMENT, \
                     space TEXT NOT NULL, tag TEXT NOT NULL)"
                ),
                format!("CREATE INDEX IF NOT EXISTS {index} ON {outbox} (space, id)"),
            ],
            // Never unlogged: it would lose what a commit has said.
            Dialect::Postgres { .. } => vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {outbox} \
                     (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                     space text COLLATE \"C\" NOT NULL, tag text NOT NULL)"
                ),
                format!("CREATE INDEX IF NOT EXISTS {index} ON {outbox} (space, id)"),
            ],
            Dialect::Mysql => vec![format!(
                "CREATE TABLE IF NOT EXISTS {outbox} (id BIGINT AUTO_INCREMENT PRIMARY KEY, \
                 space VARBINARY(500) NOT NULL, tag BLOB NOT NULL, \
                 INDEX waiting (space, id)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
            )],
        }
    }

    /// The body stands last: what lies behind it would be read through it.
    fn entries_sql(&self) -> Vec<String> {
        let (entries, numbers) = (self.entries(), self.numbers());
        // The index lies in the schema of its table, and its name may not say so.
        let index = format!("\"{}_gone\"", self.name);
        match self.dialect {
            Dialect::Sqlite => vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {entries} (name TEXT NOT NULL PRIMARY KEY, \
                     number INTEGER, codec INTEGER NOT NULL, size INTEGER, \
                     stamp INTEGER NOT NULL, state INTEGER NOT NULL, \
                     state_until INTEGER NOT NULL, fresh_until INTEGER NOT NULL, \
                     stale_until INTEGER NOT NULL, gone_after INTEGER NOT NULL, \
                     meta BLOB, body BLOB)"
                ),
                format!("CREATE INDEX IF NOT EXISTS {index} ON {entries} (gone_after)"),
                format!(
                    "CREATE TABLE IF NOT EXISTS {numbers} (space TEXT NOT NULL, \
                     tag TEXT NOT NULL, number INTEGER NOT NULL, floor INTEGER, era INTEGER, \
                     PRIMARY KEY (space, tag)) WITHOUT ROWID"
                ),
            ],
            Dialect::Postgres { unlogged } => {
                let kind = if unlogged { "UNLOGGED TABLE" } else { "TABLE" };
                vec![
                    format!(
                        "CREATE {kind} IF NOT EXISTS {entries} \
                         (name text COLLATE \"C\" NOT NULL PRIMARY KEY, \
                         number bigint, codec smallint NOT NULL, size bigint, \
                         stamp bigint NOT NULL, state smallint NOT NULL, \
                         state_until bigint NOT NULL, fresh_until bigint NOT NULL, \
                         stale_until bigint NOT NULL, gone_after bigint NOT NULL, \
                         meta bytea, body bytea)"
                    ),
                    format!("CREATE INDEX IF NOT EXISTS {index} ON {entries} (gone_after)"),
                    format!(
                        "CREATE {kind} IF NOT EXISTS {numbers} (space text COLLATE \"C\" NOT NULL, \
                         tag text COLLATE \"C\" NOT NULL, number bigint NOT NULL, \
                         floor bigint, era bigint, PRIMARY KEY (space, tag))"
                    ),
                ]
            }
            Dialect::Mysql => vec![
                format!(
                    "CREATE TABLE IF NOT EXISTS {entries} (name VARBINARY(250) NOT NULL PRIMARY KEY, \
                     number BIGINT, codec SMALLINT NOT NULL, size BIGINT, \
                     stamp BIGINT NOT NULL, state SMALLINT NOT NULL, \
                     state_until BIGINT NOT NULL, fresh_until BIGINT NOT NULL, \
                     stale_until BIGINT NOT NULL, gone_after BIGINT NOT NULL, \
                     turn BIGINT NOT NULL DEFAULT 0, meta LONGBLOB, body LONGBLOB, \
                     INDEX gone (gone_after)) ENGINE=InnoDB"
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {numbers} (space VARBINARY(500) NOT NULL, \
                     tag VARBINARY(250) NOT NULL, number BIGINT NOT NULL, floor BIGINT, era BIGINT, \
                     PRIMARY KEY (space, tag)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
                ),
            ],
        }
    }
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    starts_well && name.len() <= LONGEST && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_more_than_names_are_refused() {
        let postgres = Dialect::Postgres { unlogged: false };
        let long = "t".repeat(56);
        for (dialect, name) in [
            (postgres, ""),
            (postgres, "1st"),
            (postgres, "a b"),
            (postgres, "a\"b"),
            (postgres, "a;b"),
            (postgres, "a.b.c"),
            (postgres, ".a"),
            (postgres, "tablé"),
            (postgres, long.as_str()),
            (Dialect::Sqlite, "main.larder"),
            (Dialect::Mysql, "a`b"),
        ] {
            let error = Table::parse(dialect, "sql", name).expect_err(name);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
            let told = format!("the table name `{}` cannot be used", name.escape_debug());
            assert_eq!(error.to_string(), format!("sql: {told}"));
        }
    }

    #[test]
    fn a_name_is_quoted_so_that_a_word_of_sql_can_be_one() {
        let postgres = Dialect::Postgres { unlogged: false };
        for (dialect, name, entries, numbers) in [
            (Dialect::Sqlite, "order", r#""order""#, r#""order_numbers""#),
            (postgres, "web.c", r#""web"."c""#, r#""web"."c_numbers""#),
            (Dialect::Mysql, "order", "`order`", "`order_numbers`"),
        ] {
            let table = Table::parse(dialect, "sql", name).expect(name);

            assert_eq!(
                (table.entries(), table.numbers()),
                (entries.into(), numbers.into())
            );
            assert_eq!(table.name(), name);
        }
    }
}
