//! Rows out of the largest tables, read as `COPY` would read them.

use std::time::{Duration, Instant};

use backstay_model::Finding;
use tokio_postgres::Row;

use super::super::super::connect::{Session, column};
use super::Sound;
use crate::{Error, Result};

/// So many tables, the largest first.
const TABLES: i64 = 20;
/// So many pages of each, from anywhere in it, and so many rows of those.
const PAGES: f64 = 200.0;
const ROWS: u32 = 10_000;
/// For one question.
const STATEMENT: Duration = Duration::from_secs(60);

const LARGEST: &str = "
    SELECT format('%I.%I', n.nspname, c.relname),
           (pg_relation_size(c.oid) / current_setting('block_size')::int8)::float8
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relispopulated
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY pg_table_size(c.oid) DESC, c.oid LIMIT $1";

pub(super) async fn read(session: &Session, deadline: Instant, sound: &mut Sound) -> Result<()> {
    for row in &session.query("list the largest tables", LARGEST, &[&TABLES]).await? {
        let (name, pages): (String, f64) = (column(row, 0)?, column(row, 1)?);
        let percent = (100.0 * PAGES / pages.max(PAGES)).min(100.0);
        // Whole rows as text: what lies outside of the table's own pages is read as well.
        let statement = format!(
            "SELECT count(x.r) FROM (SELECT (t.*)::text AS r FROM ONLY {name} AS t \
             TABLESAMPLE SYSTEM ({percent}) LIMIT {ROWS}) AS x"
        );
        match ask(session, deadline, "read rows of a table", &statement).await? {
            Asked::Answered(row) => {
                sound.checks.tables_read += 1;
                sound.checks.rows_read += column::<i64>(&row, 0)?.unsigned_abs();
            }
            Asked::Bad(reason) => sound.findings.push(Finding::error(
                format!("table {name}"),
                format!("cannot be read: {reason}"),
                "look after the server's disk and its log, and restore again",
            )),
            Asked::Unseen(reason) => sound.findings.push(Finding::warning(
                format!("table {name}"),
                format!("was not looked at: {reason}"),
                "read it by hand, or restore as a role that may",
            )),
        }
    }
    Ok(())
}

pub(super) enum Asked {
    Answered(Row),
    /// What lies there is bad.
    Bad(String),
    /// Nothing is known: it takes too long, or is not ours to see.
    Unseen(String),
}

/// Data of a wrong form, a system that fails, and the server's own faults.
const BAD: [&str; 3] = ["22", "58", "XX"];

pub(super) async fn ask(
    session: &Session,
    deadline: Instant,
    action: &'static str,
    statement: &str,
) -> Result<Asked> {
    let left = deadline.saturating_duration_since(Instant::now()).min(STATEMENT);
    if left < Duration::from_secs(1) {
        return Ok(Asked::Unseen("there was no time left for it".to_owned()));
    }
    let bound = format!("SET statement_timeout = {}", left.as_millis());
    session.execute("bound a look", &bound).await?;
    match session.row_within(left + STATEMENT, action, statement, &[]).await {
        Ok(row) => Ok(Asked::Answered(row)),
        Err(Error::Server { source, .. }) => {
            let reason = source.message.clone();
            match BAD.iter().any(|class| source.code.starts_with(class)) {
                true => Ok(Asked::Bad(reason)),
                false => Ok(Asked::Unseen(reason)),
            }
        }
        Err(error) => Err(error),
    }
}
