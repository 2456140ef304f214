//! What the planner needs to know of the rows that came: a database without statistics can
//! be as slow as a dead one.

use std::iter::once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backstay_model::Finding;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::super::connect::{Session, column};
use super::target::ReloadTarget;
use crate::{Error, Result};

/// What `ANALYZE` without names goes through, the largest first, so that no session is left
/// with a large one at the end. A partitioned table brings its partitions along; tables of other
/// servers are not asked for.
const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
    ORDER BY coalesce((SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t),
                      pg_relation_size(c.oid)) DESC, c.oid";

/// Of a database, or a table of it, without statistics.
pub const ANALYZE_REMEDY: &str = "run `ANALYZE` in it, or its queries may be slow";

impl ReloadTarget {
    /// Collects statistics of all tables, in so many sessions. Of those where that failed there is a
    /// finding each; those that the role may not analyse the server passes over. One session takes tables as the server does, which
    /// knows best about those that TimescaleDB has an order for.
    pub async fn analyze(
        &self,
        database: &str,
        jobs: u32,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Finding>> {
        let names = match jobs {
            0 | 1 => vec![None],
            _ => self.tables(database).await?.into_iter().map(Some).collect(),
        };
        let sessions = names.len().min(jobs.max(1) as usize);
        let taken = AtomicUsize::new(0);
        let first = self.session_for_long(database).await?;
        let work = async |first: Option<Session>| {
            let session = match first {
                Some(session) => session,
                None => match self.session_for_long(database).await {
                    Ok(session) => session,
                    // The first does the work of those that the server has no place for.
                    Err(error) => {
                        tracing::debug!(%error, "there is one session less");
                        return Ok::<_, crate::Error>(Vec::new());
                    }
                },
            };
            let mut findings = Vec::new();
            while let Some(name) = names.get(taken.fetch_add(1, Ordering::Relaxed)) {
                findings.extend(one(&session, database, name.as_deref(), limit).await?);
            }
            Ok(findings)
        };
        let analysed = try_join_all(once(Some(first)).chain((1..sessions).map(|_| None)).map(&work));
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            analysed = analysed => Ok(analysed?.into_iter().flatten().collect()),
        }
    }

    async fn tables(&self, database: &str) -> Result<Vec<String>> {
        let session = self.session(Some(database)).await?;
        session.query("list the tables", TABLES, &[]).await?.iter().map(|row| column(row, 0)).collect()
    }

    async fn session_for_long(&self, database: &str) -> Result<Session> {
        let session = self.session(Some(database)).await?;
        session.execute("prepare to analyse", "SET statement_timeout = 0").await?;
        Ok(session)
    }
}

/// A table that the server cannot analyse (a function of an index on it may fail) keeps no
/// other from it.
async fn one(
    session: &Session,
    database: &str,
    name: Option<&str>,
    limit: Duration,
) -> Result<Option<Finding>> {
    let statement = format!("ANALYZE {}", name.unwrap_or_default());
    let leash = session.leash();
    let analysed = session.query_within(limit, "analyse the database", &statement, &[]).await;
    if !matches!(analysed, Err(Error::Timeout { .. })) {
        leash.done();
    }
    match analysed {
        Ok(_) => Ok(None),
        Err(Error::Server { source, .. }) => {
            let subject = name.map_or_else(|| database.to_owned(), |name| format!("table {name}"));
            let fact = format!("could not be analysed: {}", source.message);
            Ok(Some(Finding::warning(subject, fact, ANALYZE_REMEDY)))
        }
        Err(error) => Err(error),
    }
}
