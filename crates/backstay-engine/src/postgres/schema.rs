//! What must be in a copy, exactly: the schema of each database as it was from before
//! a backup to behind its end.
//!
//! A copy shows a database as it was at the end of the backup, and nobody can ask the
//! server for just that moment. So it is asked before and behind: what was the same
//! both times held in between. Only objects count whose number is at most the highest
//! one at the first look, so that a table which comes and goes meanwhile is in nobody's
//! way. Where the two looks differ nothing is recorded, and nothing compared. What was
//! changed and changed back is the same twice, and still was another in between: so the
//! two looks also compare which transactions wrote the rows. A copy is only compared in
//! what the rows say.
//!
//! A look is a guest on somebody's server: it waits for no lock for long, has one limit
//! for all databases together, and what runs ends with it.
//!
//! What `initdb` made is in every database alike, some seven thousand rows of it: it is
//! passed over by its numbers, or looking would take longer than an increment.
//!
//! Refuses: estimates. What is not known exactly proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connect::{Session, column};
use super::facts;
use super::settings::Address;
use crate::{Error, Result};

/// For one look at all databases of a server together.
pub const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// The server ends a statement of ours before we stop waiting for it.
const SERVER_LIMIT: Duration = Duration::from_secs(55);
/// Somebody changes the catalogue itself; whoever waits behind us must not wait long.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

const ACTION: &str = "look at the schema";

/// The first number of what users made (`FirstNormalObjectId` in `access/transam.h`).
const FIRST_OF_USERS: u32 = 16384;

/// The schema of one database, without what sessions have for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaFacts {
    /// The highest number of an object at the first look.
    pub horizon: u32,
    /// By kind, in the letters of `pg_class.relkind`.
    pub relations: BTreeMap<String, u64>,
    /// Over relations, columns, constraints, indexes, routines and triggers.
    pub digest: String,
}

impl fmt::Display for SchemaFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(&str, &str); 4] =
            [("r", "tables"), ("i", "indexes"), ("v", "views"), ("S", "sequences")];
        for (kind, name) in NAMES {
            write!(f, "{name} {}, ", self.relations.get(kind).unwrap_or(&0))?;
        }
        write!(f, "all {}", self.brief())
    }
}

impl SchemaFacts {
    /// Enough to be recognised by: how many relations, and the digest.
    pub fn brief(&self) -> String {
        let all: u64 = self.relations.values().sum();
        format!("relations {all}, digest {}", self.digest.get(..12).unwrap_or_default())
    }
}

/// What one look shows.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    facts: SchemaFacts,
    /// Over the transactions that wrote the rows that the digest is over.
    writers: String,
}

/// Looks at what users made: up to a horizon, or at all of it, which makes one.
pub async fn look(session: &Session, horizon: Option<u32>) -> Result<SchemaFacts> {
    Ok(see(session, horizon).await?.facts)
}

/// The same, for so long at most, here as on the server. The session is used for
/// nothing else afterwards: it keeps the limits, and may be busy.
pub(super) async fn look_within(
    session: &Session,
    horizon: Option<u32>,
    limit: Duration,
) -> Result<SchemaFacts> {
    Ok(see_within(session, horizon, limit).await?.facts)
}

async fn see_within(session: &Session, horizon: Option<u32>, limit: Duration) -> Result<Seen> {
    let leash = session.leash();
    let limited = format!(
        "SET statement_timeout = {}; SET lock_timeout = {}",
        limit.min(SERVER_LIMIT).as_millis().max(1),
        LOCK_LIMIT.as_millis()
    );
    let seeing = async {
        session.execute(ACTION, &limited).await?;
        see(session, horizon).await
    };
    let seen = tokio::time::timeout(limit, seeing)
        .await
        .unwrap_or(Err(Error::Timeout { action: ACTION, seconds: limit.as_secs() }));
    if !matches!(seen, Err(Error::Timeout { .. })) {
        leash.done();
    }
    seen
}

async fn see(session: &Session, horizon: Option<u32>) -> Result<Seen> {
    let horizon = match horizon {
        Some(horizon) => horizon,
        None => {
            let highest = "SELECT greatest((SELECT pg_catalog.max(oid) FROM pg_catalog.pg_class), \
                                  (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_proc), \
                                  (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_constraint), \
                                  (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_trigger))";
            column::<u32>(&session.row(ACTION, highest, &[]).await?, 0)?
        }
    };
    let counted = "SELECT relkind::pg_catalog.text, pg_catalog.count(*) FROM pg_catalog.pg_class \
                   WHERE relpersistence <> 't' AND oid BETWEEN $2 AND $1 GROUP BY relkind";
    let mut relations = BTreeMap::new();
    for row in session.query(ACTION, counted, &[&horizon, &FIRST_OF_USERS]).await? {
        relations.insert(column::<String>(&row, 0)?, column::<i64>(&row, 1)?.unsigned_abs());
    }
    // Numbers are the same in a copy, and names can hold anything: each is a field of
    // its own. What vacuum and analyze write stands in none of them.
    let digests = "WITH kept AS (SELECT *, xmin AS writer FROM pg_catalog.pg_class \
                          WHERE relpersistence <> 't' AND oid BETWEEN $2 AND $1), \
         parts(line, writers) AS ( \
         SELECT pg_catalog.jsonb_build_array('relation', c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, \
                    pg_catalog.pg_get_userbyid(c.relowner))::pg_catalog.text, \
                pg_catalog.jsonb_build_array(c.writer::pg_catalog.text, n.xmin::pg_catalog.text)::pg_catalog.text \
         FROM kept c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         UNION ALL SELECT pg_catalog.jsonb_build_array('column', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, \
                              a.attnotnull, a.attisdropped)::pg_catalog.text, a.xmin::pg_catalog.text \
         FROM pg_catalog.pg_attribute a JOIN kept c ON c.oid = a.attrelid \
         UNION ALL SELECT pg_catalog.jsonb_build_array('index', i.indexrelid, i.indrelid, i.indisunique, i.indisprimary, \
                              i.indkey::pg_catalog.text)::pg_catalog.text, i.xmin::pg_catalog.text \
         FROM pg_catalog.pg_index i JOIN kept c ON c.oid = i.indexrelid \
         UNION ALL SELECT pg_catalog.jsonb_build_array('constraint', oid, conname, contype, conrelid, convalidated)::pg_catalog.text, xmin::pg_catalog.text \
         FROM pg_catalog.pg_constraint \
         WHERE oid BETWEEN $2 AND $1 AND (conrelid = 0 OR conrelid IN (SELECT oid FROM kept)) \
         UNION ALL SELECT pg_catalog.jsonb_build_array('routine', oid, proname, pronamespace, pg_catalog.md5(prosrc))::pg_catalog.text, xmin::pg_catalog.text \
         FROM pg_catalog.pg_proc WHERE oid BETWEEN $2 AND $1 \
         UNION ALL SELECT pg_catalog.jsonb_build_array('trigger', t.oid, t.tgname, t.tgrelid, t.tgenabled)::pg_catalog.text, t.xmin::pg_catalog.text \
         FROM pg_catalog.pg_trigger t JOIN kept c ON c.oid = t.tgrelid WHERE t.oid BETWEEN $2 AND $1), \
         sums(line, written) AS ( \
         SELECT pg_catalog.md5(line), pg_catalog.md5(line || writers) FROM parts) \
         SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(line, '' ORDER BY line COLLATE pg_catalog.\"C\"), '')), \
                pg_catalog.md5(coalesce(pg_catalog.string_agg(written, '' ORDER BY written COLLATE pg_catalog.\"C\"), '')) \
         FROM sums";
    let row = session.row(ACTION, digests, &[&horizon, &FIRST_OF_USERS]).await?;
    let (digest, writers) = (column(&row, 0)?, column(&row, 1)?);
    Ok(Seen { facts: SchemaFacts { horizon, relations, digest }, writers })
}

/// The schemas of a server's databases, at the first look.
#[derive(Debug, Default)]
pub struct Schemas(BTreeMap<String, Seen>);

impl Schemas {
    /// As far as the server lets us: a database that cannot be entered is no reason to
    /// fail, here as elsewhere.
    pub async fn look(address: &Address) -> Schemas {
        Schemas::look_for(address, LOOK_LIMIT).await
    }

    /// What is not seen within the limit is not compared.
    pub async fn look_for(address: &Address, limit: Duration) -> Schemas {
        let deadline = Instant::now() + limit;
        let mut schemas = BTreeMap::new();
        let Ok(Ok(names)) = tokio::time::timeout(limit, facts::database_names(address)).await else {
            return Schemas::default();
        };
        for name in names {
            if let Ok(seen) = look_into(address, &name, None, deadline).await {
                schemas.insert(name, seen);
            }
        }
        Schemas(schemas)
    }

    /// Those that are at the second look what they were at the first.
    pub async fn unchanged(self, address: &Address) -> BTreeMap<String, SchemaFacts> {
        self.unchanged_for(address, LOOK_LIMIT).await
    }

    /// Those of them that can be seen within the limit.
    pub async fn unchanged_for(self, address: &Address, limit: Duration) -> BTreeMap<String, SchemaFacts> {
        let deadline = Instant::now() + limit;
        let mut unchanged = BTreeMap::new();
        for (name, before) in self.0 {
            let behind = look_into(address, &name, Some(before.facts.horizon), deadline).await;
            if behind.is_ok_and(|behind| behind == before) {
                unchanged.insert(name, before.facts);
            }
        }
        unchanged
    }
}

async fn look_into(address: &Address, name: &str, horizon: Option<u32>, deadline: Instant) -> Result<Seen> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = || Error::Timeout { action: ACTION, seconds: LOOK_LIMIT.as_secs() };
    if left().is_zero() {
        return Err(late());
    }
    let inside = address.with_database(name);
    let session = tokio::time::timeout(left(), Session::open(&inside)).await.map_err(|_| late())??;
    see_within(&session, horizon, left()).await
}
