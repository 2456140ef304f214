//! What a sidecar will say of the database: read in the transaction of the snapshot.
//!
//! Sizes need the tables themselves, which somebody may hold: they are waited for a
//! moment and then taken from the statistics. Nothing here may end the transaction.

use backstay_model::dump::{DumpedTable, TimescaleCounts};

use super::super::client_programs::ClientPrograms;
use super::super::connect::{Session, column};
use super::super::reload::timescale::counts;
use super::chosen::Chosen;
use super::{DumpFacts, TABLES_NAMED};
use crate::Result;

const ACTION: &str = "look at the database";

/// Functions that a role may be kept from are not called by one that is.
const DATABASE: &str = "
    SELECT current_setting('server_version'),
           CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
                THEN (SELECT system_identifier FROM pg_control_system()) END,
           CASE WHEN pg_is_in_recovery() THEN
                     CASE WHEN has_function_privilege('pg_last_wal_replay_lsn()', 'EXECUTE')
                          THEN pg_last_wal_replay_lsn()::text END
                WHEN has_function_privilege('pg_current_wal_lsn()', 'EXECUTE')
                THEN pg_current_wal_lsn()::text END,
           CASE WHEN has_function_privilege('pg_database_size(oid)', 'EXECUTE')
                THEN (SELECT pg_database_size(oid) FROM pg_database WHERE datname = current_database()) END,
           pg_is_in_recovery()";

const TABLES: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text,
           CASE WHEN c.reltuples > 0 OR (c.reltuples = 0 AND c.relpages > 0) THEN c.reltuples::float8 END,
           (c.relpages::int8 + coalesce(t.relpages, 0)) * current_setting('block_size')::int8,
           count(*) OVER ()
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
      AND ($1::oid[] IS NULL OR c.oid = ANY($1))
    ORDER BY c.relpages DESC, c.oid LIMIT $2";

pub(super) async fn look(
    session: &Session,
    database: &str,
    version_number: u32,
    programs: &ClientPrograms,
    chosen: &Chosen,
) -> Result<DumpFacts> {
    let row = session.row(ACTION, DATABASE, &[]).await?;
    let version: String = column(&row, 0)?;
    let mut facts = DumpFacts {
        database: database.to_owned(),
        server_version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        version_number,
        tool_version: programs.version().to_owned(),
        system_identifier: column::<Option<i64>>(&row, 1)?.map(|identifier| identifier as u64),
        position: column(&row, 2)?,
        database_bytes: column::<Option<i64>>(&row, 3)?.map(i64::unsigned_abs),
        in_recovery: column(&row, 4)?,
        ..DumpFacts::default()
    };
    let statement = "SELECT extname::text, extversion FROM pg_extension";
    for row in &session.query(ACTION, statement, &[]).await? {
        facts.extensions.insert(column(row, 0)?, column(row, 1)?);
    }
    let rows = session.query(ACTION, TABLES, &[&chosen.numbers, &(TABLES_NAMED as i64)]).await?;
    let mut numbers: Vec<u32> = Vec::with_capacity(rows.len());
    for row in &rows {
        facts.tables_in_all = column::<i64>(row, 5)?.unsigned_abs();
        numbers.push(column(row, 0)?);
        facts.tables.push(DumpedTable {
            schema: column(row, 1)?,
            name: column(row, 2)?,
            estimated_rows: column::<Option<f64>>(row, 3)?.map(|rows| rows as u64),
            bytes: column::<i64>(row, 4)?.unsigned_abs(),
        });
    }
    for (table, bytes) in facts.tables.iter_mut().zip(sizes(session, &numbers).await?) {
        table.bytes = bytes.map_or(table.bytes, i64::unsigned_abs);
    }
    facts
        .tables
        .sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.schema, &a.name).cmp(&(&b.schema, &b.name))));
    if chosen.numbers.is_none() {
        facts.timescaledb = timescaledb(session).await?;
    }
    Ok(facts)
}

/// Nothing when its catalogue is another one, or is kept from our role.
async fn timescaledb(session: &Session) -> Result<Option<TimescaleCounts>> {
    session.execute(ACTION, "SAVEPOINT counts").await?;
    let counted = counts::count(session).await;
    session.execute(ACTION, "ROLLBACK TO SAVEPOINT counts").await?;
    match counted {
        Ok(counts) => Ok(counts),
        Err(crate::Error::Server { .. }) => Ok(None),
        Err(lost) => Err(lost),
    }
}

/// As they are, in the order of the numbers; nothing when a table cannot be had.
async fn sizes(session: &Session, numbers: &[u32]) -> Result<Vec<Option<i64>>> {
    session.execute(ACTION, "SAVEPOINT sizes; SET LOCAL lock_timeout = '2s'").await?;
    let statement = "SELECT pg_table_size(number) FROM unnest($1::oid[]) WITH ORDINALITY AS t(number, place) \
                     ORDER BY place";
    let measured = session.query(ACTION, statement, &[&numbers]).await;
    session.execute(ACTION, "ROLLBACK TO SAVEPOINT sizes").await?;
    match measured {
        Ok(rows) => rows.iter().map(|row| column(row, 0)).collect(),
        Err(crate::Error::Server { .. }) => Ok(Vec::new()),
        Err(lost) => Err(lost),
    }
}
