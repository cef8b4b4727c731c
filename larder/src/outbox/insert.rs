//! What a transaction puts into an outbox: a text and values, for any driver.

/// A dialect of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Places are `?`.
    Sqlite,
    /// Places are `$1`, `$2` …
    Postgres,
    /// Places are `?`.
    Mysql,
}

/// A statement that puts tags into an outbox, and what is bound to its places: texts, in order.
///
/// Run it over the connection of the transaction that writes the data. Of no tags it inserts nothing.
/// A tag with a zero byte is refused by PostgreSQL, one of more than 65,535 bytes by MySQL.
///
/// ```
/// use larder::outbox::{Dialect, Insert};
///
/// let insert = Insert::new(Dialect::Postgres, "larder_outbox", "", ["objects", "object:5"]);
/// let text = "INSERT INTO \"larder_outbox\" (space, tag) VALUES ($1, $2), ($3, $4)";
/// assert_eq!(insert.sql(), text);
/// assert_eq!(insert.values(), ["", "objects", "", "object:5"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Insert {
    sql: String,
    values: Vec<String>,
}

impl Insert {
    /// Puts `tags` of the tag space `space` into the outbox `table`, which may be `schema.table`.
    ///
    /// The space of a cache is empty unless its builder says otherwise.
    pub fn new<I>(dialect: Dialect, table: &str, space: &str, tags: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let tags = tags.into_iter().map(|tag| tag.as_ref().to_owned());
        let values: Vec<String> = tags.flat_map(|tag| [space.to_owned(), tag]).collect();
        let table = table.split('.').map(|part| quoted(dialect, part));
        let table = table.collect::<Vec<_>>().join(".");
        let row = |at: usize| match dialect {
            Dialect::Postgres => format!("(${}, ${})", at * 2 + 1, at * 2 + 2),
            Dialect::Sqlite | Dialect::Mysql => "(?, ?)".to_owned(),
        };
        let rows: Vec<String> = (0..values.len() / 2).map(row).collect();
        let rows = if rows.is_empty() {
            // A driver may have nothing to do, and no way to say so.
            "SELECT '', '' FROM (SELECT 1 AS one) AS no_tag WHERE 1 = 0".to_owned()
        } else {
            format!("VALUES {}", rows.join(", "))
        };
        Self {
            sql: format!("INSERT INTO {table} (space, tag) {rows}"),
            values,
        }
    }

    /// The text of the statement.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// What is bound to its places, in order.
    pub fn values(&self) -> &[String] {
        &self.values
    }
}

/// A name in quotes, so that it is a name whatever is in it.
pub(crate) fn quoted(dialect: Dialect, name: &str) -> String {
    let quote = if dialect == Dialect::Mysql { '`' } else { '"' };
    let inner = name.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{inner}{quote}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_a_name() {
        let insert = |dialect, table| Insert::new(dialect, table, "s", ["t"]);

        let evil = insert(Dialect::Sqlite, "a\" (space) SELECT 1; --");
        let start = "INSERT INTO \"a\"\" (space) SELECT 1; --\" (space, tag) VALUES (?, ?)";
        assert_eq!(evil.sql(), start);
        let other = insert(Dialect::Mysql, "web.a`b");
        assert_eq!(
            other.sql(),
            "INSERT INTO `web`.`a``b` (space, tag) VALUES (?, ?)"
        );
    }
}
