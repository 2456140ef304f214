//! What TimescaleDB wants around a reload.
//!
//! Its catalogue comes with the dump, so the extension is made first, in the version
//! that the dump is of, and told that a restore is going on: its triggers and workers
//! rest meanwhile. Afterwards it is told again, and looked at until it holds: the second
//! call is known to be necessary at times before jobs run.

pub(in crate::postgres) mod counts;
pub(super) mod version;

use std::time::{Duration, Instant};

use backstay_model::Finding;

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::super::settings::Address;
use super::target::ReloadTarget;
use crate::Result;

/// How long its scheduler may take to start.
const SCHEDULER_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// As often as it is told that the restore is over.
const TRIES: u32 = 2;

/// A job, as `timescaledb_information.jobs` shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimescaleJob {
    pub id: i32,
    /// `policy_compression` and the like, with its schema.
    pub procedure: String,
    pub schedule: String,
    pub hypertable: Option<String>,
    pub is_scheduled: bool,
}

impl TimescaleJob {
    /// Those of a database, without the one that reports to the vendor.
    pub async fn list(address: &Address) -> Result<Vec<TimescaleJob>> {
        let session = Session::open(address).await?;
        let statement = "SELECT job_id, format('%I.%I', proc_schema, proc_name), schedule_interval::text, \
                                CASE WHEN hypertable_name IS NOT NULL \
                                     THEN format('%I.%I', hypertable_schema, hypertable_name) END, scheduled \
                         FROM timescaledb_information.jobs WHERE job_id >= 1000 ORDER BY job_id";
        let rows = session.query("list the jobs of TimescaleDB", statement, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(TimescaleJob {
                    id: column(row, 0)?,
                    procedure: column(row, 1)?,
                    schedule: column(row, 2)?,
                    hypertable: column(row, 3)?,
                    is_scheduled: column(row, 4)?,
                })
            })
            .collect()
    }
}

/// A database into which a dump with TimescaleDB goes.
pub struct TimescaleReload {
    database: String,
    /// Of its functions, quoted.
    schema: String,
    /// The extension was not there before.
    is_made: bool,
}

impl TimescaleReload {
    /// Makes the extension, and tells it that a restore begins. The database has nothing
    /// in it yet; what a failed reload leaves of it is good for nothing.
    pub async fn begin(
        target: &ReloadTarget,
        database: &str,
        version: Option<&str>,
    ) -> Result<TimescaleReload> {
        // The first thing in a session of its own: its library is loaded by what is there.
        let session = target.session(Some(database)).await?;
        let statement = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'";
        let row = session.row("look for the extension timescaledb", statement, &[]).await?;
        let is_made = column::<i64>(&row, 0)? == 0;
        let version =
            version.map(|version| format!(" VERSION '{}'", version.replace('\'', "''"))).unwrap_or_default();
        let statement = format!("CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public{version}");
        session.execute("make the extension timescaledb", &statement).await?;
        let session = target.session(Some(database)).await?;
        let statement = "SELECT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                         WHERE p.proname = 'timescaledb_pre_restore'";
        let row = session.row("find the functions of TimescaleDB", statement, &[]).await?;
        let schema = quoted_identifier(&column::<String>(&row, 0)?);
        let statement = format!("SELECT {schema}.timescaledb_pre_restore()");
        session.query("tell TimescaleDB that a restore begins", &statement, &[]).await?;
        Ok(TimescaleReload { database: database.to_owned(), schema, is_made })
    }

    /// Nothing was put back after all: a database that somebody made is as it was.
    pub async fn give_up(self, target: &ReloadTarget) -> Result<()> {
        let session = target.session(Some(&self.database)).await?;
        let statement = format!("SELECT {}.timescaledb_post_restore()", self.schema);
        session.query("tell TimescaleDB that the restore is over", &statement, &[]).await?;
        if self.is_made {
            let session = target.session(Some(&self.database)).await?;
            session.execute("drop the extension timescaledb", "DROP EXTENSION timescaledb").await?;
        }
        Ok(())
    }

    /// Tells it that the restore is over, and looks whether it acts on it. Where the database
    /// is to get another name first, its scheduler is started after that.
    pub async fn finish(self, target: &ReloadTarget, is_to_run: bool) -> Result<Vec<Finding>> {
        let mut holds = false;
        for _ in 0..TRIES {
            let session = target.session(Some(&self.database)).await?;
            let statement = format!("SELECT {}.timescaledb_post_restore()", self.schema);
            session.query("tell TimescaleDB that the restore is over", &statement, &[]).await?;
            drop(session);
            holds = is_over(target, &self.database).await?
                && (!is_to_run || scheduler_runs(target, &self.database).await?);
            if holds {
                break;
            }
        }
        let mut findings = Vec::new();
        if !holds {
            findings.push(not_running(&self.database));
        }
        let jobs = TimescaleJob::list(&target.address().with_database(&self.database)).await?;
        let session = target.session(Some(&self.database)).await?;
        for job in jobs {
            let statement = "SELECT to_regproc($1) IS NOT NULL";
            let row = session.row("look for the procedure of a job", statement, &[&job.procedure]).await?;
            if !column::<bool>(&row, 0)? {
                findings.push(Finding::error(
                    format!("job {} of TimescaleDB in {}", job.id, self.database),
                    format!("calls {}, which is not there", job.procedure),
                    format!("`SELECT public.delete_job({})`, or make the procedure", job.id),
                ));
            }
        }
        Ok(findings)
    }
}

/// Whether the restore is over for new sessions.
async fn is_over(target: &ReloadTarget, database: &str) -> Result<bool> {
    let session = target.session(Some(database)).await?;
    let statement = "SELECT current_setting('timescaledb.restoring', true) IS DISTINCT FROM 'on'";
    column(&session.row("look at TimescaleDB", statement, &[]).await?, 0)
}

/// Whether its scheduler runs where it may; waits for it a while.
pub(super) async fn scheduler_runs(target: &ReloadTarget, database: &str) -> Result<bool> {
    let session = target.session(Some(database)).await?;
    let statement = "SELECT coalesce(current_setting('timescaledb.max_background_workers', true), '0') = '0'";
    if column::<bool>(&session.row("look at TimescaleDB", statement, &[]).await?, 0)? {
        return Ok(true);
    }
    let statement = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND backend_type ILIKE '%timescaledb%scheduler%'";
    let deadline = Instant::now() + SCHEDULER_LIMIT;
    loop {
        let row = session.row("look for the scheduler of TimescaleDB", statement, &[]).await?;
        if column::<i64>(&row, 0)? > 0 {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(super) fn not_running(database: &str) -> Finding {
    Finding::error(
        format!("TimescaleDB in {database}"),
        "does not run its jobs: its scheduler did not start",
        "`SELECT _timescaledb_functions.start_background_workers()`; see the server's log, \
         `timescaledb.max_background_workers` and `max_worker_processes`",
    )
}

/// Starts the scheduler again where it was ended as any other session; nothing where
/// there is no TimescaleDB. Whether there is.
pub(super) async fn start_workers(target: &ReloadTarget, database: &str) -> Result<bool> {
    let session = target.session(Some(database)).await?;
    // Its schema was another one before version 2.12.
    let statement = "SELECT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                     WHERE p.proname = 'start_background_workers' AND n.nspname LIKE '\\_timescaledb%'";
    let rows = session.query("find the functions of TimescaleDB", statement, &[]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let schema = quoted_identifier(&column::<String>(row, 0)?);
    let statement = format!("SELECT {schema}.start_background_workers()");
    session.query("start the jobs of TimescaleDB", &statement, &[]).await.map(|_| true)
}
