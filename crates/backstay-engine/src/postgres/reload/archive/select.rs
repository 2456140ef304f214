//! What of an archive belongs to chosen tables and schemas.
//!
//! `pg_restore --table` takes the table and its rows and nothing that makes it what it
//! was: no keys, no indexes, no sequences, no triggers. Here a table comes with all
//! that hangs on it, and with its partitions.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::dump::{RelationName, SEVERAL, without_wildcards};
use super::{Archive, Entry};
use crate::{Error, Result};

/// How much of what was chosen is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Definitions and rows, and the types, functions and schemas that they need: for a
    /// database that has none of it.
    WithNeeds,
    /// Definitions and rows: for a database that has the types and the schemas.
    Whole,
    /// The rows: for tables that are there.
    RowsOnly,
}

/// Called as the relation is.
const SAME_NAME: [&str; 7] = [
    "MATERIALIZED VIEW DATA",
    "ROW SECURITY",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS DATA",
    "TABLE DATA",
    "EXTENDED STATISTICS DATA",
];
/// Called after the relation, `orders orders_pkey`: they may depend on others as well.
const NAMED_AFTER: [&str; 7] =
    ["CHECK CONSTRAINT", "CONSTRAINT", "DEFAULT", "FK CONSTRAINT", "POLICY", "RULE", "TRIGGER"];
/// With names of their own, and depending on the relation.
const DEPENDING: [&str; 5] = ["ACL", "COMMENT", "INDEX", "SECURITY LABEL", "STATISTICS"];
/// Tie two together, so that both must be there.
const TIES: [&str; 2] = ["TABLE ATTACH", "INDEX ATTACH"];
/// The state of a sequence is none of them: `setval` is in no transaction, and the old
/// value would hand out numbers that are taken, in a database that others use. Sequences
/// are moved past the rows afterwards.
const ROWS: [&str; 1] = ["TABLE DATA"];
const RELATIONS: [&str; 6] =
    ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE", "PARTITIONED TABLE"];

impl Entry {
    /// What has a name among tables.
    pub(in crate::postgres::reload) fn is_relation(&self) -> bool {
        RELATIONS.contains(&self.kind.as_str())
    }
}

impl Archive {
    /// Relations that can be chosen.
    pub fn relations(&self) -> impl Iterator<Item = RelationName> {
        let relations = self.entries.iter().filter(|entry| RELATIONS.contains(&entry.kind.as_str()));
        relations.map(|entry| RelationName { schema: entry.schema.clone(), name: entry.name.clone() })
    }

    /// The entries to restore, in the order of the archive.
    pub fn select(
        &self,
        tables: &[RelationName],
        schemas: &[String],
        selection: Selection,
    ) -> Result<Vec<&Entry>> {
        let mut chosen = BTreeSet::new();
        for schema in schemas {
            self.add_schema(schema, &mut chosen)?;
        }
        for table in tables {
            chosen.insert(self.find(table)?.id);
        }
        self.refuse_hypertables(&chosen)?;
        self.add_partitions(&mut chosen);
        self.add_parts(&mut chosen);
        if selection == Selection::WithNeeds {
            self.add_needs(&mut chosen);
        }
        let wanted = |entry: &&Entry| {
            chosen.contains(&entry.id)
                && (selection != Selection::RowsOnly || ROWS.contains(&entry.kind.as_str()))
        };
        Ok(self.entries.iter().filter(wanted).collect())
    }

    fn add_schema(&self, schema: &str, chosen: &mut BTreeSet<i32>) -> Result<()> {
        let before = chosen.len();
        let is_inside = |entry: &&Entry| {
            entry.schema.as_deref() == Some(schema) || (entry.kind == "SCHEMA" && entry.name == schema)
        };
        chosen.extend(self.entries.iter().filter(is_inside).map(|entry| entry.id));
        if chosen.len() > before {
            return Ok(());
        }
        let near: BTreeSet<String> = self
            .entries
            .iter()
            .filter_map(|entry| entry.schema.clone())
            .filter(|name| alike(name, schema))
            .collect();
        let near = near.into_iter().take(5).collect();
        Err(Error::NothingMatches { what: "schema", name: schema.to_owned(), near })
    }

    fn find(&self, wanted: &RelationName) -> Result<&Entry> {
        let is_it = |entry: &&Entry| {
            RELATIONS.contains(&entry.kind.as_str())
                && entry.name == wanted.name
                && (wanted.schema.is_none() || entry.schema == wanted.schema)
        };
        let found: Vec<&Entry> = self.entries.iter().filter(is_it).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => {
                let near = self.relations().filter(|relation| alike(&relation.name, &wanted.name)).take(5);
                let near = near.map(|relation| relation.to_string()).collect();
                Err(Error::NothingMatches { what: "table", name: wanted.to_string(), near })
            }
            several => {
                let places = several.iter().filter_map(|entry| entry.schema.as_deref());
                let names: Vec<String> =
                    places.map(|schema| RelationName::new(schema, &wanted.name).to_string()).collect();
                let reason = format!("table {wanted} is in several schemas: {}", names.join(", "));
                Err(Error::DumpChoice { reason, hint: SEVERAL })
            }
        }
    }

    /// Their rows lie in chunks with names of their own, compressed ones in tables that
    /// do not even depend on them, and TimescaleDB's catalogue says which is which.
    fn refuse_hypertables(&self, chosen: &BTreeSet<i32>) -> Result<()> {
        if !self.has_timescaledb() {
            return Ok(());
        }
        let is_internal =
            |entry: &&Entry| entry.schema.as_deref().is_some_and(|s| s.starts_with("_timescaledb"));
        let internal: BTreeSet<i32> = self.entries.iter().filter(is_internal).map(|entry| entry.id).collect();
        // Chunks depend on a hypertable, a continuous aggregate on the table behind it.
        let parents: BTreeSet<i32> =
            self.of_kind("TABLE").filter(is_internal).flat_map(|chunk| chunk.depends_on.clone()).collect();
        let blocked: BTreeSet<(Option<&str>, &str)> = self
            .of_kind("TRIGGER")
            .filter_map(|entry| {
                Some((entry.schema.as_deref(), entry.name.strip_suffix(" ts_insert_blocker")?))
            })
            .collect();
        let is_hyper = |entry: &&Entry| {
            let own = (entry.schema.as_deref(), entry.name.as_str());
            match entry.kind.as_str() {
                "TABLE" => parents.contains(&entry.id) || blocked.contains(&own),
                "VIEW" => entry.depends_on.iter().any(|on| internal.contains(on)),
                _ => false,
            }
        };
        let found: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| chosen.contains(&entry.id))
            .filter(is_hyper)
            .map(|entry| RelationName { schema: entry.schema.clone(), name: entry.name.clone() }.to_string())
            .collect();
        match found.is_empty() {
            true => Ok(()),
            false => Err(Error::DumpChoice {
                reason: format!(
                    "the rows of {} lie in chunks, which cannot be taken out of an archive alone",
                    found.join(", ")
                ),
                hint: "restore the whole dump with `--into-database`, and copy the rows from there with `\\copy`",
            }),
        }
    }

    /// A partition is attached by an entry that depends on it and on its parent; a child
    /// by inheritance depends on its parent itself.
    fn add_partitions(&self, chosen: &mut BTreeSet<i32>) {
        let tables: BTreeSet<i32> = self.of_kind("TABLE").map(|entry| entry.id).collect();
        let by_name: BTreeMap<(Option<&str>, &str), i32> = self
            .of_kind("TABLE")
            .map(|table| ((table.schema.as_deref(), table.name.as_str()), table.id))
            .collect();
        loop {
            let before = chosen.len();
            for entry in self.of_kind("TABLE ATTACH") {
                // It is called as the partition is, and depends on it and its parent.
                let Some(partition) = by_name.get(&(entry.schema.as_deref(), entry.name.as_str())) else {
                    continue;
                };
                let mut others = entry.depends_on.iter().filter(|id| *id != partition);
                if others.any(|id| chosen.contains(id) && tables.contains(id)) {
                    chosen.insert(*partition);
                }
            }
            for table in self.of_kind("TABLE").filter(|table| table.definition.contains("INHERITS (")) {
                if table.depends_on.iter().any(|id| tables.contains(id) && chosen.contains(id)) {
                    chosen.insert(table.id);
                }
            }
            if chosen.len() == before {
                return;
            }
        }
    }

    /// What depends on something chosen and is a part of it.
    fn add_parts(&self, chosen: &mut BTreeSet<i32>) {
        let tables: BTreeSet<i32> = self.of_kind("TABLE").map(|entry| entry.id).collect();
        // A sequence depends on the table whose column it belongs to, and on no other.
        for entry in self.of_kind("SEQUENCE") {
            if entry.depends_on.iter().any(|on| chosen.contains(on) && tables.contains(on)) {
                chosen.insert(entry.id);
            }
        }
        let by_id: BTreeMap<i32, &Entry> = self.entries.iter().map(|entry| (entry.id, entry)).collect();
        loop {
            let before = chosen.len();
            for entry in &self.entries {
                let mut on = entry.depends_on.iter().filter(|on| chosen.contains(on)).peekable();
                let is_part = match entry.kind.as_str() {
                    kind if DEPENDING.contains(&kind) => on.peek().is_some(),
                    kind if TIES.contains(&kind) => {
                        on.peek().is_some() && entry.depends_on.iter().all(|on| chosen.contains(on))
                    }
                    kind if SAME_NAME.contains(&kind) => {
                        on.any(|on| by_id.get(on).is_some_and(|other| is_same(entry, other)))
                    }
                    kind if NAMED_AFTER.contains(&kind) => {
                        on.any(|on| by_id.get(on).is_some_and(|other| is_named_after(entry, other)))
                    }
                    _ => false,
                };
                if is_part {
                    chosen.insert(entry.id);
                }
            }
            if chosen.len() == before {
                return;
            }
        }
    }

    /// What the chosen depend on, and what that depends on; of other tables no rows. A
    /// foreign key to a table that was not chosen is left out: it would bring the table
    /// along without the rows it points to.
    fn add_needs(&self, chosen: &mut BTreeSet<i32>) {
        for entry in self.of_kind("FK CONSTRAINT") {
            if !entry.depends_on.iter().all(|on| chosen.contains(on)) {
                chosen.remove(&entry.id);
            }
        }
        loop {
            let needed: BTreeSet<i32> = self
                .entries
                .iter()
                .filter(|entry| chosen.contains(&entry.id))
                .flat_map(|entry| entry.depends_on.iter().copied())
                .collect();
            let before = chosen.len();
            chosen.extend(needed);
            if chosen.len() == before {
                return;
            }
        }
    }
}

fn is_same(entry: &Entry, relation: &Entry) -> bool {
    entry.name == relation.name && entry.schema == relation.schema
}

/// `orders orders_customer_fkey` belongs to `orders`.
fn is_named_after(entry: &Entry, relation: &Entry) -> bool {
    entry.schema == relation.schema
        && entry.name.strip_prefix(relation.name.as_str()).is_some_and(|rest| rest.starts_with(' '))
}

fn alike(one: &str, wanted: &str) -> bool {
    let (one, wanted) = (one.to_lowercase(), without_wildcards(wanted).to_lowercase());
    one.contains(&wanted) || wanted.contains(&one)
}
