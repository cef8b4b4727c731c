//! Triggers that write the outbox.
//!
//! Each watched table has a function of its own, which names the columns that its tags need. It runs with
//! the rights of whoever installed it, and every name in it has its schema.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::errors::causes;
use super::server::Link;
use super::{MAKING, Postgres};
use crate::outbox::{Part, Template};
use crate::{Error, ErrorKind, Result};

/// How long installing may wait for those who write the table.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the functions are called, before a part of the table's name.
const FUNCTION: &str = "larder_watch_";

/// A table that is there.
struct Watched {
    oid: u32,
    schema: String,
    name: String,
    columns: Vec<String>,
    key: Vec<String>,
}

impl Postgres {
    /// Installs triggers on `table` that put `tags` of `space` into the outbox; the tags.
    pub(crate) async fn watch(
        &self,
        table: &str,
        mut tags: Vec<String>,
        space: &str,
    ) -> Result<Vec<String>> {
        let given = tags.iter().map(|tag| Template::parse(tag));
        let mut templates: Vec<Template> = given.collect::<Result<_>>()?;
        let server = self.0.server();
        let link = server.connect_bare().await?;
        let install = async {
            let watched = self.find(&link, table).await?;
            if tags.is_empty() {
                // Braces in a name are no places for columns.
                let name = watched.name.replace('{', "{{").replace('}', "}}");
                tags = vec![name.clone(), format!("{name}:{{pk}}")];
                templates = tags
                    .iter()
                    .map(|tag| Template::parse(tag))
                    .collect::<Result<_>>()?;
            }
            for part in templates.iter().flat_map(|template| &template.0) {
                watched.check(server, part)?;
            }
            let outbox = self.outbox_place(&link).await?;
            let function = format!(
                "{}.{}",
                quoted(&outbox.0),
                quoted(&function_name(&watched.name, self.0.clock().random()))
            );
            let body = body(&Body {
                watched: &watched,
                templates: &templates,
                outbox: &format!("{}.{}", quoted(&outbox.0), quoted(&outbox.1)),
                space,
                channel: &server.address.table.outbox_name(),
                noted: &format!("larder.w{:016x}", self.0.clock().random()),
            });
            let place = watched.place();
            let [rows, empty] = self.triggers().map(|name| quoted(&name));
            let mut statements = vec![
                "SET LOCAL statement_timeout = 0".to_owned(),
                format!("SELECT pg_advisory_xact_lock({MAKING})"),
            ];
            statements.extend(self.removal(&link, &watched).await?);
            statements.extend([
                format!(
                    "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql \
                     SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {}",
                    literal(&body)
                ),
                format!(
                    "CREATE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON {place} \
                     FOR EACH ROW EXECUTE FUNCTION {function}()"
                ),
                format!(
                    "CREATE TRIGGER {empty} BEFORE TRUNCATE ON {place} \
                     FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
                ),
            ]);
            self.run(&link, &watched, &statements).await?;
            Ok(tags)
        };
        let installed = self.0.clock().timeout(PATIENCE, install).await;
        installed.ok_or_else(|| self.busy(table))?
    }

    /// Removes them; whether there were any.
    pub(crate) async fn unwatch(&self, table: &str) -> Result<bool> {
        let link = self.0.server().connect_bare().await?;
        let remove = async {
            let watched = self.find(&link, table).await?;
            let mut statements = vec!["SET LOCAL statement_timeout = 0".to_owned()];
            let removal = self.removal(&link, &watched).await?;
            let are_there = !removal.is_empty();
            statements.extend(removal);
            self.run(&link, &watched, &statements).await?;
            Ok(are_there)
        };
        let removed = self.0.clock().timeout(PATIENCE, remove).await;
        removed.ok_or_else(|| self.busy(table))?
    }

    /// The names of the triggers, of rows and of `TRUNCATE`: one of each for each outbox.
    fn triggers(&self) -> [String; 2] {
        let outbox = self.0.server().address.table.outbox_name();
        let start = outbox.trim_end_matches("_outbox");
        [format!("{start}_watch"), format!("{start}_empty")]
    }

    async fn find(&self, link: &Link, table: &str) -> Result<Watched> {
        let server = self.0.server();
        let none = || {
            let does = format!("has no table `{}`", table.escape_debug());
            server
                .complaint(ErrorKind::Invalid, &does)
                .with_hint("name it as in SQL: `shop.object`, in quotes where it needs them")
        };
        let text = "SELECT kept.oid, space.nspname::text, kept.relname::text, kept.relkind::text \
                    FROM pg_class AS kept JOIN pg_namespace AS space ON space.oid = kept.relnamespace \
                    WHERE kept.oid = to_regclass($1)";
        let found = match link.client.query_opt(text, &[&table]).await {
            Err(error) if error.code() == Some(&SqlState::INVALID_NAME) => return Err(none()),
            Err(error) => return Err(server.tell(&error)),
            Ok(found) => found.ok_or_else(none)?,
        };
        let (oid, kind): (u32, String) = (found.get(0), found.get(3));
        if kind != "r" && kind != "p" {
            let does = format!("has no table `{table}`: what is called so is a view or the like");
            return Err(server.complaint(ErrorKind::Invalid, &does));
        }
        let names = async |text: &str| -> Result<Vec<String>> {
            let rows = link.client.query(text, &[&oid]).await;
            let rows = rows.map_err(|error| server.tell(&error))?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let columns = "SELECT attname::text FROM pg_attribute \
                       WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
        let key = "SELECT attname::text FROM pg_index \
                   CROSS JOIN unnest(indkey::int2[]) WITH ORDINALITY AS key (number, place) \
                   JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number \
                   WHERE indrelid = $1 AND indisprimary ORDER BY key.place";
        Ok(Watched {
            oid,
            schema: found.get(1),
            name: found.get(2),
            columns: names(columns).await?,
            key: names(key).await?,
        })
    }

    /// Schema and name of the outbox, which is made where it is missing.
    async fn outbox_place(&self, link: &Link) -> Result<(String, String)> {
        let server = self.0.server();
        let text = "SELECT nspname::text, relname::text, \
                    has_table_privilege(pg_class.oid, 'INSERT') FROM pg_class \
                    JOIN pg_namespace ON pg_namespace.oid = relnamespace \
                    WHERE pg_class.oid = to_regclass($1)";
        let place = server.address.table.outbox();
        let find = async || {
            let found = link.client.query_opt(text, &[&place]).await;
            found.map_err(|error| server.tell(&error))
        };
        let mut found = find().await?;
        if found.is_none() {
            self.create_table().await?;
            found = find().await?;
        }
        let found = found.ok_or_else(|| server.odd())?;
        if !found.get::<_, bool>(2) {
            // The triggers would fail, and with them whoever writes the table.
            let does = format!("does not permit writing the outbox {place}");
            let told = server.complaint(ErrorKind::Unavailable, &does);
            return Err(told.with_hint("grant `INSERT` on it to the owner of the table"));
        }
        Ok((found.get(0), found.get(1)))
    }

    /// The statements that remove what is installed.
    async fn removal(&self, link: &Link, watched: &Watched) -> Result<Vec<String>> {
        let text = "SELECT tgname::text, proname::text, tgfoid::regprocedure::text FROM pg_trigger \
                    JOIN pg_proc ON pg_proc.oid = tgfoid \
                    WHERE tgrelid = $1 AND tgname = ANY($2) AND NOT tgisinternal";
        let triggers = self.triggers().to_vec();
        let found = link.client.query(text, &[&watched.oid, &triggers]).await;
        let found = found.map_err(|error| self.0.server().tell(&error))?;
        let (mut triggers, mut functions) = (Vec::new(), Vec::new());
        for row in &found {
            let (trigger, name, function): (String, String, String) =
                (row.get(0), row.get(1), row.get(2));
            let place = watched.place();
            triggers.push(format!("DROP TRIGGER {} ON {place}", quoted(&trigger)));
            if name.starts_with(FUNCTION) {
                functions.push(format!("DROP FUNCTION {function}"));
            }
        }
        functions.sort_unstable();
        functions.dedup();
        triggers.extend(functions);
        Ok(triggers)
    }

    /// Runs `statements` in one transaction.
    async fn run(&self, link: &Link, watched: &Watched, statements: &[String]) -> Result<()> {
        let text = format!("BEGIN; {}; COMMIT", statements.join("; "));
        let done = link.client.batch_execute(&text).await;
        done.map_err(|error| {
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                let server = self.0.server();
                let does = format!("does not permit triggers on `{}`", watched.name);
                let told = server.complaint(ErrorKind::Unavailable, &does);
                return told
                    .with_source(causes(&error))
                    .with_hint("let the owner of the table do it, who also needs `CREATE` on the schema of the outbox");
            }
            self.0.server().tell(&error)
        })
    }

    fn busy(&self, table: &str) -> Error {
        let does = format!("did not let go of `{table}` within {PATIENCE:?}");
        let told = self.0.server().complaint(ErrorKind::Timeout, &does);
        told.with_hint("a long transaction that writes it may hold it")
    }
}

impl Watched {
    /// The table, quoted.
    fn place(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    fn check(&self, server: &super::Server, part: &Part) -> Result<()> {
        let (does, hint) = match part {
            Part::Key if self.key.is_empty() => (
                format!("has no primary key on the table `{}`", self.name),
                "name a column: `--tag 'object:{id}'`".to_owned(),
            ),
            Part::Column(column) if !self.columns.contains(column) => (
                format!("has no column `{column}` in the table `{}`", self.name),
                format!("there are {}", self.columns.join(", ")),
            ),
            _ => return Ok(()),
        };
        Err(server.complaint(ErrorKind::Invalid, &does).with_hint(hint))
    }

    /// The text of a tag, from the row that `row` names.
    fn tag(&self, template: &Template, row: &str) -> String {
        let column = |name: &String| format!("COALESCE({row}.{}::text, '')", quoted(name));
        let parts = template.0.iter().map(|part| match part {
            Part::Text(text) => format!("{}::text", literal(text)),
            Part::Key => {
                let columns: Vec<String> = self.key.iter().map(column).collect();
                columns.join(" || ',' || ")
            }
            Part::Column(name) => column(name),
        });
        parts.collect::<Vec<_>>().join(" || ")
    }
}

/// What the body of a function is made of.
struct Body<'a> {
    watched: &'a Watched,
    templates: &'a [Template],
    outbox: &'a str,
    space: &'a str,
    channel: &'a str,
    /// A setting of the transaction: that it has put the tags there that need no row.
    noted: &'a str,
}

/// What the triggers do. Tags that need no row are put there once in a transaction: a setting that is
/// local to it is undone by whatever undoes the rows that it stands for.
fn body(of: &Body<'_>) -> String {
    let (outbox, space) = (of.outbox, literal(of.space));
    let is_plain = |template: &&Template| {
        let is_text = |part: &Part| matches!(part, Part::Text(_));
        template.0.iter().all(is_text)
    };
    let values = |templates: Vec<&Template>, row: &str| {
        let tags = templates
            .iter()
            .map(|it| format!("({})", of.watched.tag(it, row)));
        tags.collect::<Vec<_>>().join(", ")
    };
    let (plain, of_row): (Vec<_>, Vec<_>) = of.templates.iter().partition(is_plain);
    let insert = |values: String| {
        format!(
            "INSERT INTO {outbox} (space, tag) \
             SELECT DISTINCT {space}::text, held.tag FROM (VALUES {values}) AS held (tag); "
        )
    };
    let mut body = vec!["BEGIN ".to_owned()];
    if !plain.is_empty() {
        let noted = literal(of.noted);
        body.push(format!(
            "IF COALESCE(current_setting({noted}, true), '') <> 'yes' THEN {}\
             PERFORM set_config({noted}, 'yes', true); END IF; ",
            insert(values(plain, ""))
        ));
    }
    if !of_row.is_empty() {
        body.push(format!(
            "IF TG_OP = 'TRUNCATE' THEN INSERT INTO {outbox} (space, tag) \
             SELECT DISTINCT {space}::text, held.tag FROM {} AS gone \
             CROSS JOIN LATERAL (VALUES {}) AS held (tag); ELSE \
             IF TG_OP <> 'INSERT' THEN {}END IF; \
             IF TG_OP <> 'DELETE' THEN {}END IF; END IF; ",
            of.watched.place(),
            values(of_row.clone(), "gone"),
            insert(values(of_row.clone(), "OLD")),
            insert(values(of_row, "NEW")),
        ));
    }
    let channel = literal(of.channel);
    body.push(format!(
        "PERFORM pg_notify({channel}, ''); RETURN NULL; END"
    ));
    body.concat()
}

/// A name that nobody else has, and that tells whose it is.
fn function_name(table: &str, random: u64) -> String {
    let start: String = table
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(20)
        .collect();
    format!("{FUNCTION}{start}_{random:016x}")
}

fn quoted(name: &str) -> String {
    crate::outbox::quoted(crate::outbox::Dialect::Postgres, name)
}

/// A text in quotes, whatever is in it.
fn literal(text: &str) -> String {
    let inner = text.replace('\'', "''");
    if inner.contains('\\') {
        return format!(" E'{}'", inner.replace('\\', "\\\\"));
    }
    format!("'{inner}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_a_text() {
        for (text, expected) in [
            ("a", "'a'"),
            ("a'b", "'a''b'"),
            ("a\\'; --", " E'a\\\\''; --'"),
        ] {
            assert_eq!(literal(text), expected);
        }
    }
}
