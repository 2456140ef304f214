//! How much TimescaleDB has in its catalogue, where a dump was taken and where it was put
//! back. Counted by rows of the catalogue: they mean the same while a restore goes on.

use backstay_model::Finding;
use backstay_model::dump::TimescaleCounts;

use super::super::super::connect::{Session, column};
use super::super::expected::Expected;
use super::super::sound::Sound;
use crate::Result;

const ACTION: &str = "count what TimescaleDB has";
/// Its jobs lay in another schema before and after some versions.
const JOBS: &str = "
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'bgw_job' AND c.relkind = 'r' AND n.nspname LIKE '\\_timescaledb%'
      AND EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')";

/// `None` where there is no such extension.
pub(in crate::postgres) async fn count(session: &Session) -> Result<Option<TimescaleCounts>> {
    let rows = session.query(ACTION, JOBS, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let jobs: String = column(row, 0)?;
    // Those below are its own, and are made with it.
    let statement = format!(
        "SELECT (SELECT count(*) FROM _timescaledb_catalog.hypertable), \
                (SELECT count(*) FROM _timescaledb_catalog.chunk), \
                (SELECT count(*) FROM {jobs} WHERE id >= 1000)"
    );
    let row = session.row(ACTION, &statement, &[]).await?;
    let number = |at| column::<i64>(&row, at).map(i64::unsigned_abs);
    Ok(Some(TimescaleCounts { hypertables: number(0)?, chunks: number(1)?, jobs: number(2)? }))
}

/// Before its jobs run, which make chunks and drop them.
pub(in crate::postgres::reload) async fn compare(
    session: &Session,
    expected: &Expected,
    sound: &mut Sound,
) -> Result<()> {
    let Some(found) = count(session).await? else {
        if expected.timescaledb.is_some() {
            sound.findings.push(Finding::error(
                "TimescaleDB",
                "is not there, though the dump has it",
                REMEDY,
            ));
        }
        return Ok(());
    };
    let statement = "SELECT e.extversion::text, m.value::text FROM pg_extension e, _timescaledb_catalog.metadata m \
                     WHERE e.extname = 'timescaledb' AND m.key = 'timescaledb_version'";
    for row in &session.query("compare the versions of TimescaleDB", statement, &[]).await? {
        let (own, of_rows): (String, String) = (column(row, 0)?, column(row, 1)?);
        if own != of_rows {
            sound.findings.push(Finding::error(
                "TimescaleDB",
                format!("is {own} here, and the dump is of {of_rows}"),
                format!("install TimescaleDB {of_rows} on the server, restore, and update it then"),
            ));
        }
    }
    let Some(known) = &expected.timescaledb else { return Ok(()) };
    for (what, before, now) in [
        ("hypertables", known.hypertables, found.hypertables),
        ("chunks", known.chunks, found.chunks),
        ("jobs", known.jobs, found.jobs),
    ] {
        if before != now {
            let message = format!("has {now} {what} here, and the dump has {before}");
            sound.findings.push(Finding::error("TimescaleDB", message, REMEDY));
        }
    }
    Ok(())
}

const REMEDY: &str = "look into the server's log of this time, and restore again";
