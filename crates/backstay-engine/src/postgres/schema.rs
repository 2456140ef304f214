//! What must be in a copy, exactly: the schema of each database as it was from before
//! a backup to behind its end.
//!
//! A copy shows a database as it was at the end of the backup, and nobody can ask the
//! server for just that moment. So it is asked before and behind: what was the same
//! both times held in between. Only objects count whose number is at most the highest
//! one at the first look, so that a table which comes and goes meanwhile is in nobody's
//! way. Where the two looks differ nothing is recorded, and nothing compared.
//!
//! Refuses: estimates. What is not known exactly proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::connect::{Session, column};
use super::facts;
use super::settings::Address;
use crate::Result;

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
            write!(f, "{} {name}, ", self.relations.get(kind).unwrap_or(&0))?;
        }
        let all: u64 = self.relations.values().sum();
        write!(f, "{all} relations in all, digest {}", self.digest.get(..12).unwrap_or_default())
    }
}

/// Looks at a schema: up to a horizon, or at all of it, which makes one.
pub async fn look(session: &Session, horizon: Option<u32>) -> Result<SchemaFacts> {
    const ACTION: &str = "look at the schema";
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
                   WHERE relpersistence <> 't' AND oid <= $1 GROUP BY relkind";
    let mut relations = BTreeMap::new();
    for row in session.query(ACTION, counted, &[&horizon]).await? {
        relations.insert(column::<String>(&row, 0)?, column::<i64>(&row, 1)?.unsigned_abs());
    }
    // Numbers are the same in a copy, and names can hold anything: each is a field of
    // its own. What vacuum and analyze write stands in none of them.
    let digest = "WITH kept AS (SELECT * FROM pg_catalog.pg_class WHERE relpersistence <> 't' AND oid <= $1), \
         lines(line) AS ( \
         SELECT pg_catalog.jsonb_build_array('relation', c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, \
                                  pg_catalog.pg_get_userbyid(c.relowner))::pg_catalog.text \
         FROM kept c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         UNION ALL SELECT pg_catalog.jsonb_build_array('column', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, \
                                            a.attnotnull, a.attisdropped)::pg_catalog.text \
         FROM pg_catalog.pg_attribute a JOIN kept c ON c.oid = a.attrelid \
         UNION ALL SELECT pg_catalog.jsonb_build_array('index', i.indexrelid, i.indrelid, i.indisunique, i.indisprimary, \
                                            i.indkey::pg_catalog.text)::pg_catalog.text \
         FROM pg_catalog.pg_index i JOIN kept c ON c.oid = i.indexrelid \
         UNION ALL SELECT pg_catalog.jsonb_build_array('constraint', oid, conname, contype, conrelid, convalidated)::pg_catalog.text \
         FROM pg_catalog.pg_constraint WHERE oid <= $1 \
         UNION ALL SELECT pg_catalog.jsonb_build_array('routine', oid, proname, pronamespace, pg_catalog.md5(prosrc))::pg_catalog.text \
         FROM pg_catalog.pg_proc WHERE oid <= $1 \
         UNION ALL SELECT pg_catalog.jsonb_build_array('trigger', t.oid, t.tgname, t.tgrelid, t.tgenabled)::pg_catalog.text \
         FROM pg_catalog.pg_trigger t JOIN kept c ON c.oid = t.tgrelid WHERE t.oid <= $1) \
         SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(pg_catalog.md5(line), '' ORDER BY line COLLATE \"C\"), '')) FROM lines";
    let digest = column(&session.row(ACTION, digest, &[&horizon]).await?, 0)?;
    Ok(SchemaFacts { horizon, relations, digest })
}

/// The schemas of a server's databases, at the first look.
#[derive(Debug, Default)]
pub struct Schemas(BTreeMap<String, SchemaFacts>);

impl Schemas {
    /// As far as the server lets us: a database that cannot be entered is no reason to
    /// fail, here as elsewhere.
    pub async fn look(address: &Address) -> Schemas {
        let mut schemas = BTreeMap::new();
        for name in facts::database_names(address).await.unwrap_or_default() {
            if let Ok(schema) = look_into(address, &name, None).await {
                schemas.insert(name, schema);
            }
        }
        Schemas(schemas)
    }

    /// Those that are at the second look what they were at the first.
    pub async fn unchanged(self, address: &Address) -> BTreeMap<String, SchemaFacts> {
        let mut unchanged = BTreeMap::new();
        for (name, before) in self.0 {
            if look_into(address, &name, Some(before.horizon)).await.is_ok_and(|behind| behind == before) {
                unchanged.insert(name, before);
            }
        }
        unchanged
    }
}

async fn look_into(address: &Address, name: &str, horizon: Option<u32>) -> Result<SchemaFacts> {
    let session = Session::open(&address.with_database(name)).await?;
    look(&session, horizon).await
}
