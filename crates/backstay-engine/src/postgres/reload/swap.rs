//! Puts a database in the place of another, which is kept under a new name.
//!
//! Both renames are one transaction: at no moment are there two databases of the name,
//! or none. Before it, the old one takes no connections and its sessions are ended.
//! Whatever fails, at the server or here, lets them in again, through a new connection
//! when the old is lost.
//!
//! Refuses a database that something at the server holds by its number or its name, and
//! that would go on working on the wrong one: subscriptions, replication slots,
//! prepared transactions.

mod inherit;
mod remains;

use std::time::{Duration, Instant};

use backstay_model::Finding;
use tracing::warn;

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::target::ReloadTarget;
use super::timescale;
use crate::{Error, Result};

pub use self::remains::{left_by_swaps, temporary_name};

/// For a session to end after it was told to; one that does not is in the kernel.
const SESSIONS_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The server itself waits five seconds for processes of its own.
const RENAME_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a name.
const NAME_MAX: usize = 63;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapStep {
    /// Look for what stands in the way.
    Check,
    /// Let no connections in.
    Block,
    EndSessions,
    /// Begin the transaction and rename the old.
    RenameOld,
    /// Rename the new, and give it owner, settings and grants of the old.
    RenameNew,
    /// Let connections in, and make all of it true.
    Commit,
}

impl SwapStep {
    pub const ALL: [SwapStep; 6] = [
        SwapStep::Check,
        SwapStep::Block,
        SwapStep::EndSessions,
        SwapStep::RenameOld,
        SwapStep::RenameNew,
        SwapStep::Commit,
    ];
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// The name under which the old one is kept; `None` where there was none.
    pub kept: Option<String>,
    pub sessions_ended: u64,
    /// What did not begin to run again.
    pub findings: Vec<Finding>,
}

/// `orders_before_20261121T020000Z`, shortened in its first part to what a name may have.
pub fn kept_name(name: &str, time: &str) -> String {
    let end = format!("_before_{time}");
    let room = NAME_MAX.saturating_sub(end.len()).min(name.len());
    format!("{}{end}", &name[..name.floor_char_boundary(room)])
}

/// The scheduler of TimescaleDB was ended like any session, and does not come back alone.
async fn wake(target: &ReloadTarget, databases: &Databases) -> Vec<Finding> {
    let mut findings = Vec::new();
    let kept = (databases.old_is_open == Some(true)).then_some(databases.kept.as_str());
    for name in [Some(databases.name.as_str()), kept].into_iter().flatten() {
        let started = match timescale::start_workers(target, name).await {
            // The one that is kept rests with right; the other takes a worker first.
            Ok(true) if name == databases.name => timescale::scheduler_runs(target, name).await,
            Ok(_) => Ok(true),
            Err(error) => Err(error),
        };
        if matches!(started, Ok(false)) {
            findings.push(timescale::not_running(name));
        }
        if let Err(error) = started {
            findings.push(Finding::warning(
                format!("TimescaleDB in {name}"),
                format!("may not run its jobs: {error}"),
                "`SELECT _timescaledb_functions.start_background_workers()` in it as a superuser",
            ));
        }
    }
    findings
}

/// Gives `temporary` the name `name`, and what has that name the name `kept`. `watch` is
/// told of each step before it, and may refuse it. Is to be awaited to its end: dropped
/// half-way, the old one stays without connections.
pub async fn swap(
    target: &ReloadTarget,
    name: &str,
    temporary: &str,
    kept: &str,
    watch: &mut (dyn FnMut(SwapStep) -> Result<()> + Send),
) -> Result<Swapped> {
    watch(SwapStep::Check)?;
    let place = ["postgres", "template1"].into_iter().find(|place| ![name, temporary].contains(place));
    let session = target.session(place).await?;
    let databases = Databases::look(&session, name, temporary, kept).await?;
    match exchange(&session, &databases, watch).await {
        Ok(mut swapped) => {
            swapped.findings = wake(target, &databases).await;
            Ok(swapped)
        }
        Err(error) => {
            drop(session);
            // The answer to the last word may be lost, and the word not.
            match undo_at_last(target, place, &databases).await {
                Ok(Undone::WasDone) => {
                    warn!(%error, "the databases were swapped, though the server did not say so");
                    let findings = wake(target, &databases).await;
                    Ok(Swapped { kept: databases.kept(), sessions_ended: 0, findings })
                }
                Ok(_) => Err(error),
                Err(second) => {
                    warn!(error = %second, "what was begun cannot be undone");
                    Err(Error::SwapHalfDone { name: name.to_owned(), source: Box::new(error) })
                }
            }
        }
    }
}

/// The names, and which of the databases let connections in.
struct Databases {
    name: String,
    temporary: String,
    kept: String,
    /// `None` when there is no old one.
    old_is_open: Option<bool>,
}

impl Databases {
    async fn look(session: &Session, name: &str, temporary: &str, kept: &str) -> Result<Databases> {
        let statement =
            "SELECT datname::text, datallowconn, oid FROM pg_database WHERE datname = ANY($1::text[])";
        let names = [name, temporary, kept];
        let rows = session.query("look at the databases", statement, &[&names.as_slice()]).await?;
        let mut databases = Databases {
            name: name.into(),
            temporary: temporary.into(),
            kept: kept.into(),
            old_is_open: None,
        };
        let mut numbers: Vec<u32> = Vec::new();
        for row in &rows {
            let found: String = column(row, 0)?;
            if found == kept {
                return Err(Error::DatabaseExists { name: found });
            }
            if found == name {
                databases.old_is_open = Some(column(row, 1)?);
            }
            numbers.push(column(row, 2)?);
        }
        if numbers.len() != 1 + usize::from(databases.old_is_open.is_some()) || name == temporary {
            return Err(Error::NothingMatches {
                what: "database",
                name: temporary.to_owned(),
                near: Vec::new(),
            });
        }
        refuse_what_holds(session, name, temporary).await?;
        Ok(databases)
    }

    fn kept(&self) -> Option<String> {
        self.old_is_open.map(|_| self.kept.clone())
    }

    /// Those that no connection may come into meanwhile.
    fn both(&self) -> impl Iterator<Item = &str> {
        let old = self.old_is_open.map(|_| self.name.as_str());
        old.into_iter().chain([self.temporary.as_str()])
    }
}

async fn refuse_what_holds(session: &Session, name: &str, temporary: &str) -> Result<()> {
    let statement = "
        SELECT d.datname::text, format('replication slot %s', s.slot_name)
            FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database WHERE d.datname = ANY($1::text[])
        UNION ALL
        SELECT d.datname::text, format('subscription %s', s.subname)
            FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = ANY($1::text[])
        UNION ALL
        SELECT p.database::text, format('prepared transaction %s', p.gid)
            FROM pg_prepared_xacts p WHERE p.database = ANY($1::text[])
        ORDER BY 1, 2";
    let names = [name, temporary];
    let rows = session.query("look for what holds the databases", statement, &[&names.as_slice()]).await?;
    let Some(first) = rows.first() else { return Ok(()) };
    let held: String = column(first, 0)?;
    let mut by = Vec::new();
    for row in &rows {
        if column::<String>(row, 0)? == held {
            by.push(column(row, 1)?);
        }
    }
    Err(Error::SwapBlocked { name: held, by })
}

async fn exchange(
    session: &Session,
    databases: &Databases,
    watch: &mut (dyn FnMut(SwapStep) -> Result<()> + Send),
) -> Result<Swapped> {
    watch(SwapStep::Block)?;
    for name in databases.both() {
        admit(session, name, false).await?;
    }
    watch(SwapStep::EndSessions)?;
    let sessions_ended = end_sessions(session, databases).await?;
    watch(SwapStep::RenameOld)?;
    let run = async |action: &'static str, statement: String| {
        session.query_within(RENAME_LIMIT, action, &statement, &[]).await.map(drop)
    };
    session.execute("begin to swap the databases", "BEGIN").await?;
    let (name, kept) = (quoted_identifier(&databases.name), quoted_identifier(&databases.kept));
    let temporary = quoted_identifier(&databases.temporary);
    if databases.old_is_open.is_some() {
        let left = inherit::statements(session, &databases.name, &databases.temporary).await?;
        run("rename the old database", format!("ALTER DATABASE {name} RENAME TO {kept}")).await?;
        for statement in left {
            run("give the new database what the old one has", statement).await?;
        }
    }
    watch(SwapStep::RenameNew)?;
    run("rename the new database", format!("ALTER DATABASE {temporary} RENAME TO {name}")).await?;
    watch(SwapStep::Commit)?;
    admit(session, &databases.name, true).await?;
    if databases.old_is_open == Some(true) {
        admit(session, &databases.kept, true).await?;
    }
    session.execute("commit the swap of the databases", "COMMIT").await?;
    Ok(Swapped { kept: databases.kept(), sessions_ended, findings: Vec::new() })
}

async fn admit(session: &Session, name: &str, yes: bool) -> Result<()> {
    let statement = format!("ALTER DATABASE {} ALLOW_CONNECTIONS {yes}", quoted_identifier(name));
    let action =
        if yes { "let connections into the database" } else { "keep connections out of the database" };
    session.execute(action, &statement).await
}

/// The server's own cleaners end by themselves when the database is renamed.
const OTHERS: &str = "FROM pg_stat_activity WHERE datname = ANY($1::text[]) AND pid <> pg_backend_pid() \
                      AND backend_type NOT LIKE 'autovacuum%'";

async fn end_sessions(session: &Session, databases: &Databases) -> Result<u64> {
    let names: Vec<&str> = databases.both().collect();
    let deadline = Instant::now() + SESSIONS_LIMIT;
    let mut ended = 0;
    loop {
        let statement = format!(
            "SELECT pg_terminate_backend(pid), format('session %s of %s', pid, coalesce(usename, backend_type)) {OTHERS}"
        );
        let rows = session.query("end the sessions of the databases", &statement, &[&names]).await?;
        if rows.is_empty() {
            return Ok(ended);
        }
        ended = ended.max(rows.len() as u64);
        if Instant::now() >= deadline {
            let by = rows.iter().take(5).map(|row| column(row, 1)).collect::<Result<_>>()?;
            return Err(Error::SwapBlocked { name: databases.name.clone(), by });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A server that restarts, or fails over, answers again before long; until then its
/// databases are shut, and nobody else knows that they are to be opened.
const UNDO_LIMIT: Duration = Duration::from_secs(30);

async fn undo_at_last(target: &ReloadTarget, place: Option<&str>, databases: &Databases) -> Result<Undone> {
    let deadline = Instant::now() + UNDO_LIMIT;
    loop {
        match undo(target, place, databases).await {
            Err(error) if Instant::now() < deadline => {
                warn!(%error, "the databases cannot be opened again yet");
                tokio::time::sleep(LOOK_AGAIN * 10).await;
            }
            ended => return ended,
        }
    }
}

enum Undone {
    WasNotDone,
    WasDone,
}

/// Lets connections in again. A transaction that was not committed is gone with its session.
async fn undo(target: &ReloadTarget, place: Option<&str>, databases: &Databases) -> Result<Undone> {
    let session = target.session(place).await?;
    let statement = "SELECT count(*) FROM pg_database WHERE datname = $1";
    let row =
        session.row("look whether the databases were swapped", statement, &[&databases.temporary]).await?;
    if column::<i64>(&row, 0)? == 0 {
        return Ok(Undone::WasDone);
    }
    admit(&session, &databases.temporary, true).await?;
    if databases.old_is_open == Some(true) {
        admit(&session, &databases.name, true).await?;
    }
    for name in databases.both() {
        if let Err(error) = timescale::start_workers(target, name).await {
            warn!(%error, database = name, "the jobs of TimescaleDB were not started again");
        }
    }
    Ok(Undone::WasNotDone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_time_however_long_it_is() {
        assert_eq!(kept_name("orders", "20261121T020000Z"), "orders_before_20261121T020000Z");
        let long = kept_name(&"ä".repeat(31), "20261121T020000Z");
        assert!(long.len() <= NAME_MAX && long.ends_with("_before_20261121T020000Z"), "{long}");
    }
}
