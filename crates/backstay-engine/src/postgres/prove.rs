//! Proves that a restored copy is a database: it recovered, everything in it that
//! was known to be there is there, and its tables and indexes can be read.
//!
//! A check says what was expected and what was found. A check that fails makes
//! the copy unsound; it is not an error, since the looking worked.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backstay_model::Finding;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::connect::{Session, column};
use super::facts::{lsn, quoted_identifier};
use super::outcome::BackupFacts;
use super::schema::{self, SchemaFacts};
use super::scratch::{FIRST_DATABASE, Scratch, Stopped};
use crate::{Error, Result};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub expected: String,
    pub found: String,
    pub ok: bool,
}

impl Check {
    fn equal(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Check {
        let (expected, found) = (expected.into(), found.into());
        let ok = expected == found;
        Check { name: name.into(), expected, found, ok }
    }

    fn that(ok: bool, name: impl Into<String>, expected: &str, found: impl Into<String>) -> Check {
        Check { name: name.into(), expected: expected.to_owned(), found: found.into(), ok }
    }
}

/// What was found on one copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
}

impl Proof {
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

#[derive(Debug, Clone)]
pub struct ProveOptions {
    /// The largest tables of each database are read to their end: so many.
    pub tables: i64,
    /// The largest B-tree indexes of each database are walked: so many.
    pub indexes: i64,
    /// For all reading together. What does not fit into it is left out and said so.
    pub limit: Duration,
    /// The server has replayed log of what came after the backup: what is known of the
    /// backup's end need not hold any more.
    pub has_gone_on: bool,
    /// It waits at its target, and has not opened for writing.
    pub is_paused: bool,
}

impl Default for ProveOptions {
    fn default() -> Self {
        Self { tables: 5, indexes: 5, limit: Duration::from_secs(120), has_gone_on: false, is_paused: false }
    }
}

/// Whether the server may have ended in the middle of a question: nothing that is asked
/// after this would be an answer of the copy.
pub fn broke_off(error: &Error) -> bool {
    /// Ended by somebody, or because another process died; and what those hear who come
    /// while it goes down.
    const GOING_DOWN: [&str; 3] = ["57P01", "57P02", "57P03"];
    match error {
        Error::ConnectionLost { .. } | Error::Connect { .. } => true,
        Error::Server { source, .. } => GOING_DOWN.contains(&source.code.as_str()),
        Error::Login { source, .. } => GOING_DOWN.contains(&source.code.as_str()),
        _ => false,
    }
}

/// Asks a running scratch server. An error for which [`broke_off`] holds is the end of
/// the server, and [`Scratch::why_lost`] knows more.
pub async fn prove(scratch: &Scratch, facts: &BackupFacts, options: &ProveOptions) -> Result<Proof> {
    let mut proof = Proof::default();
    let session = scratch.session(FIRST_DATABASE).await?;
    proof.checks.extend(prove_cluster(&session, facts, options.is_paused).await?);
    let names = databases(&session).await?;
    let of_backup = if options.has_gone_on { &[][..] } else { &facts.server.databases };
    for known in of_backup {
        if !names.contains(&known.name) {
            proof.checks.push(Check::that(false, format!("database {}", known.name), "there", "absent"));
        }
    }
    drop(session);
    let deadline = Instant::now() + options.limit;
    for name in &names {
        let known = of_backup.iter().find(|known| known.name == *name);
        let session = match scratch.session(name).await {
            Ok(session) => session,
            Err(error) if broke_off(&error) => return Err(error),
            Err(error) => {
                let found = chain(&error);
                proof.checks.push(Check::that(false, format!("database {name}"), "opens", found));
                continue;
            }
        };
        let mut prover = Prover { session, database: name, deadline, proof: &mut proof };
        prover.relations().await?;
        if !options.has_gone_on {
            prover.schema(scratch, known.and_then(|known| known.schema.as_ref())).await?;
        }
        if let Some(known) = known {
            prover.extensions(&known.extensions).await?;
        }
        prover.tables(options.tables).await?;
        prover.indexes(options.indexes).await?;
    }
    Ok(proof)
}

/// Reading every page of the largest databases takes hours; a disk that hangs takes
/// for ever.
pub const PAGES_LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// Whether all pages of a stopped server's directory carry the right checksum. The
/// program that looks is killed when its time is over or somebody asks to stop.
pub async fn prove_pages(stopped: &Stopped, limit: Duration, cancel: &CancellationToken) -> Result<Check> {
    const PROGRAM: &str = "pg_checksums";
    let failed = |source| Error::Program { program: PROGRAM.to_owned(), source };
    let mut command = stopped.program(PROGRAM);
    command.arg("--check").arg("--pgdata").arg(stopped.directory());
    // Ctrl-C goes to the whole group of the terminal; we stop it ourselves.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let looking = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
    let output = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        output = tokio::time::timeout(limit, looking.wait_with_output()) => match output {
            Ok(output) => output.map_err(failed)?,
            Err(_) => return Err(Error::ProgramTimeout { program: PROGRAM, seconds: limit.as_secs() }),
        },
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let bad = text.lines().find_map(|line| line.strip_prefix("Bad checksums:")).map(str::trim);
    let found = match bad {
        Some(count) => format!("{count} wrong pages"),
        None => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    };
    Ok(Check::that(output.status.success(), "page checksums", "0 wrong pages", found))
}

async fn prove_cluster(session: &Session, facts: &BackupFacts, is_paused: bool) -> Result<Vec<Check>> {
    let row = session
        .row(
            "look at the restored cluster",
            "SELECT pg_is_in_recovery(), system_identifier::text, \
                    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text \
                         ELSE pg_current_wal_lsn()::text END, \
                    current_setting('server_version') FROM pg_control_system()",
            &[],
        )
        .await?;
    let reached = lsn(column(&row, 2)?)?;
    let in_recovery: bool = column(&row, 0)?;
    let state = if in_recovery { "still recovering" } else { "recovered" };
    Ok(vec![
        Check::equal("recovery", if is_paused { "still recovering" } else { "recovered" }, state),
        Check::equal(
            "system identifier",
            facts.server.system_identifier.to_string(),
            column::<String>(&row, 1)?,
        ),
        Check::that(
            reached >= facts.stop_lsn,
            "end of the log",
            &format!("at least {}", facts.stop_lsn),
            reached.to_string(),
        ),
    ])
}

async fn databases(session: &Session) -> Result<Vec<String>> {
    let statement =
        "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
    let rows = session.query("list the databases", statement, &[]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// Looks at one database.
struct Prover<'a> {
    session: Session,
    database: &'a str,
    deadline: Instant,
    proof: &'a mut Proof,
}

impl Prover<'_> {
    fn name(&self, subject: &str) -> String {
        format!("{subject} in {}", self.database)
    }

    async fn relations(&mut self) -> Result<()> {
        let row = self
            .session
            .row(
                "count the relations",
                "SELECT count(*), (SELECT count(*) FROM pg_index WHERE NOT indisvalid) FROM pg_class",
                &[],
            )
            .await?;
        let (relations, invalid): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
        let name = self.name("relations");
        self.proof.checks.push(Check::that(relations > 0, name, "some", relations.to_string()));
        if invalid > 0 {
            self.proof.findings.push(Finding::warning(
                self.name("indexes"),
                format!("{invalid} are not valid; they were so when the backup was taken"),
                "`REINDEX INDEX CONCURRENTLY` at the source",
            ));
        }
        Ok(())
    }

    /// Whether the copy has the very schema that the source had. Before anything is
    /// added to the copy.
    async fn schema(&mut self, scratch: &Scratch, known: Option<&SchemaFacts>) -> Result<()> {
        let Some(known) = known else {
            self.proof.findings.push(Finding::info(
                self.name("schema"),
                "was not compared with that of the source, since it is not known for the end of the backup: \
                 it could not be looked at, or changed meanwhile",
                "`backstay backup` records it when no schema changes meanwhile",
            ));
            return Ok(());
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let looked = async {
            let session = scratch.session(self.database).await?;
            schema::look_within(&session, Some(known.horizon), left).await
        };
        match looked.await {
            Ok(found) => {
                // What kind of relation is too many or missing is of interest where something is.
                let said = if found == *known { SchemaFacts::brief } else { SchemaFacts::to_string };
                let (expected, seen) = (said(known), said(&found));
                let check = Check::that(found == *known, self.name("schema"), &expected, seen);
                self.proof.checks.push(check);
            }
            Err(error) if broke_off(&error) => return Err(error),
            // That it cannot be looked at proves nothing of the copy, and hinders no other look.
            Err(error) => self.proof.findings.push(Finding::warning(
                self.name("schema"),
                format!("was not compared with that of the source: {}", chain(&error)),
                "`backstay drill` looks again",
            )),
        }
        Ok(())
    }

    async fn extensions(&mut self, known: &std::collections::BTreeMap<String, String>) -> Result<()> {
        let statement = "SELECT extname::text, extversion FROM pg_extension";
        let rows = self.session.query("list the extensions", statement, &[]).await?;
        let mut found = std::collections::BTreeMap::new();
        for row in &rows {
            found.insert(column::<String>(row, 0)?, column::<String>(row, 1)?);
        }
        for (extension, version) in known {
            let there = found.get(extension).map_or("absent", String::as_str);
            let name = self.name(&format!("extension {extension}"));
            self.proof.checks.push(Check::equal(name, version, there));
        }
        Ok(())
    }

    /// Reads the largest tables from their first row to their last; tables of
    /// people before those of the system.
    async fn tables(&mut self, count: i64) -> Result<()> {
        // Rows can be counted in an index, which would prove nothing of the table.
        let whole = "SET enable_indexonlyscan = off; SET enable_indexscan = off; SET enable_bitmapscan = off";
        self.session.execute("read tables as a whole", whole).await?;
        let rows = self
            .session
            .query(
                "list the largest tables",
                "SELECT n.nspname::text, c.relname::text FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' \
                 ORDER BY n.nspname IN ('pg_catalog', 'information_schema'), \
                          pg_relation_size(c.oid) DESC, c.oid LIMIT $1",
                &[&count],
            )
            .await?;
        for row in &rows {
            let (schema, table): (String, String) = (column(row, 0)?, column(row, 1)?);
            let table = format!("{}.{}", quoted_identifier(&schema), quoted_identifier(&table));
            let statement = format!("SELECT count(*) FROM {table}");
            let name = self.name(&format!("table {table}"));
            match self.bounded("read a table", &statement).await {
                Some(Ok(rows)) => {
                    let rows: i64 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
                    let found = format!("{rows} rows");
                    self.proof.checks.push(Check::that(true, name, "readable", found));
                }
                Some(Err(error)) if broke_off(&error) => return Err(error),
                Some(Err(error)) => {
                    self.proof.checks.push(Check::that(false, name, "readable", chain(&error)));
                }
                None => self.left_out(name),
            }
        }
        Ok(())
    }

    /// Walks the largest indexes, where the server brings the tool along.
    async fn indexes(&mut self, count: i64) -> Result<()> {
        // Nothing is to be walked, so nothing is added to the copy either.
        if count == 0 {
            return Ok(());
        }
        let loaded = self.session.execute("load amcheck", LOAD_AMCHECK).await;
        if let Err(error) = loaded {
            if broke_off(&error) {
                return Err(error);
            }
            self.proof.findings.push(Finding::info(
                self.name("indexes"),
                "were not walked, because the extension amcheck is not installed",
                "install the package `postgresql-contrib`",
            ));
            return Ok(());
        }
        // It may be in any schema, which is not to be searched for other names.
        let statement = "SELECT n.nspname::text FROM pg_extension e \
                         JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
        let row = self.session.row("find amcheck", statement, &[]).await?;
        let home = quoted_identifier(&column::<String>(&row, 0)?);
        let rows = self
            .session
            .query(
                "list the largest indexes",
                "SELECT c.oid::int8, c.oid::regclass::text FROM pg_class c \
                 JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_am a ON a.oid = c.relam \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.amname = 'btree' AND i.indisvalid AND c.relkind = 'i' AND c.relpersistence = 'p' \
                 ORDER BY n.nspname IN ('pg_catalog', 'information_schema'), \
                          pg_relation_size(c.oid) DESC, c.oid LIMIT $1",
                &[&count],
            )
            .await?;
        for row in &rows {
            let (number, index): (i64, String) = (column(row, 0)?, column(row, 1)?);
            let statement = format!("SELECT {home}.bt_index_check({number}::oid::regclass)");
            let name = self.name(&format!("index {index}"));
            match self.bounded("walk an index", &statement).await {
                Some(Ok(_)) => self.proof.checks.push(Check::that(true, name, "ordered", "ordered")),
                Some(Err(error)) if broke_off(&error) => return Err(error),
                Some(Err(error)) => {
                    self.proof.checks.push(Check::that(false, name, "ordered", chain(&error)));
                }
                None => self.left_out(name),
            }
        }
        Ok(())
    }

    /// Runs a statement in the time that is left; `None` when it is not enough.
    async fn bounded(
        &self,
        action: &'static str,
        statement: &str,
    ) -> Option<Result<Vec<tokio_postgres::Row>>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let limit = format!("SET statement_timeout = {}", left.as_millis().max(1));
        if let Err(error) = self.session.execute("limit a statement", &limit).await {
            return Some(Err(error));
        }
        const QUERY_CANCELLED: &str = "57014";
        // The server's own limit comes first; ours is for a server that hangs.
        match self.session.query_within(left + GRACE, action, statement, &[]).await {
            Err(Error::Server { source, .. }) if source.code == QUERY_CANCELLED => None,
            Err(Error::Timeout { .. }) => None,
            other => Some(other),
        }
    }

    fn left_out(&mut self, subject: String) {
        self.proof.findings.push(Finding::info(
            subject,
            "was not read to its end in the time there was",
            "raise the time a drill may take for proving",
        ));
    }
}

/// Nothing of a person's is in the way of it there, and nobody else can make
/// functions there.
const LOAD_AMCHECK: &str = "CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog";

/// For the server to notice its own limit.
const GRACE: Duration = Duration::from_secs(30);

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
