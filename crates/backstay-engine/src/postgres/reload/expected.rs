//! What a dump says that a database holds when all of it was put back.
//!
//! Archives say it in their table of contents; of statements only the sidecar knows, and
//! less of it. Invariant: what the source itself lacked is not expected of its copy.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::dump::{DumpRecord, TimescaleCounts};

use super::super::dump::RelationName;
use super::archive::{Archive, Entry};

/// Constraints as `pg_dump` calls them after what they are of: `orders orders_customer_fkey`.
pub(super) type ConstraintName = (String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub relations: BTreeSet<RelationName>,
    /// Those that were not valid; `None`: nobody knows.
    pub(super) not_valid: Option<BTreeSet<ConstraintName>>,
    /// Materialised views that had rows; `None`: nobody knows.
    pub(super) filled: Option<BTreeSet<RelationName>>,
    /// Where sequences stood; `None`: nobody knows.
    pub(super) sequences: Option<BTreeMap<RelationName, Stand>>,
    /// Of TimescaleDB's catalogue.
    pub timescaledb: Option<TimescaleCounts>,
}

/// Of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    pub last: i64,
    pub is_called: bool,
}

impl Expected {
    /// What a sidecar knows.
    pub fn of_record(record: &DumpRecord) -> Expected {
        let tables = record.tables.iter();
        Expected {
            relations: tables.map(|table| RelationName::new(&table.schema, &table.name)).collect(),
            timescaledb: record.timescaledb,
            ..Expected::default()
        }
    }

    /// What the entries that were put back say, all when none are named.
    pub fn and_archive(self, archive: &Archive, entries: Option<&[i32]>) -> Expected {
        let is_meant = |entry: &&Entry| entries.is_none_or(|numbers| numbers.contains(&entry.id));
        let meant = || archive.entries.iter().filter(is_meant);
        let of_kind = |kind: &'static str| meant().filter(move |entry| entry.kind == kind);
        let states =
            of_kind("SEQUENCE SET").filter_map(|entry| Some((name(entry), stand(&entry.definition)?)));
        Expected {
            relations: meant().filter(|entry| entry.is_relation()).map(name).collect(),
            not_valid: Some(meant().filter(|entry| is_not_valid(entry)).map(constraint).collect()),
            filled: Some(of_kind("MATERIALIZED VIEW DATA").map(name).collect()),
            sequences: Some(states.collect()),
            timescaledb: self.timescaledb.filter(|_| entries.is_none()),
        }
    }
}

fn name(entry: &Entry) -> RelationName {
    RelationName { schema: entry.schema.clone(), name: entry.name.clone() }
}

fn constraint(entry: &Entry) -> ConstraintName {
    (entry.schema.clone().unwrap_or_default(), entry.name.clone())
}

/// `pg_dump` makes one that is not valid by a statement of its own.
fn is_not_valid(entry: &Entry) -> bool {
    entry.kind.ends_with("CONSTRAINT")
        && [" NOT VALID", " NOT ENFORCED"].iter().any(|word| entry.definition.contains(word))
}

/// Of `SELECT pg_catalog.setval('public.orders_id_seq', 5000, true);`.
fn stand(definition: &str) -> Option<Stand> {
    let inside = definition.trim_end().strip_suffix(");")?;
    let (before, is_called) = inside.rsplit_once(", ")?;
    let (_, last) = before.rsplit_once(", ")?;
    Some(Stand { last: last.parse().ok()?, is_called: is_called.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_sequence_stood_is_read_from_its_statement() {
        let read = |last, is_called| Some(Stand { last, is_called });
        assert_eq!(stand("SELECT pg_catalog.setval('public.\"a, b\"', -5, true);\n"), read(-5, true));
        assert_eq!(stand("SELECT pg_catalog.setval('public.s', 1, false);"), read(1, false));
        assert_eq!(stand("SELECT 1;"), None);
    }
}
