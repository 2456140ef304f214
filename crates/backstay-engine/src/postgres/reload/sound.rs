//! Whether a database that was just restored is what its dump says: everything is there,
//! indexes and constraints hold, views have their rows, sequences stand behind their
//! columns, and what lies in the largest tables can be read.
//!
//! Invariant: a copy is never called bad for what its source lacked as well, and nothing
//! here takes longer than its limit. What could not be looked at is said.

mod sample;
mod sequences;

use std::time::{Duration, Instant};

use backstay_model::Finding;
use backstay_model::plan::reload::ReloadChecks;
use tokio_util::sync::CancellationToken;

use super::super::connect::{Session, column};
use super::super::dump::RelationName;
use super::expected::Expected;
use super::target::ReloadTarget;
use crate::{Error, Result};

/// So many of a kind are named.
const NAMED: usize = 5;
const REMEDY: &str = "look into the server's log of this time, and restore again; `backstay verify` tells whether \
                      the dump itself is whole";
const NOT_KNOWN: &str = "the dump is in statements and does not say beforehand: compare it with its source";

/// What a look came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sound {
    pub checks: ReloadChecks,
    pub findings: Vec<Finding>,
}

const RELATIONS: &str = "
    SELECT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
    WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE c.relname = w.name AND (w.schema IS NULL OR n.nspname = w.schema))
    ORDER BY 1, 2";

/// An index over partitions waits for those of all of them, also in the source.
const INDEXES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname), i.indisvalid, c.relkind = 'I'
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1";

/// What a constraint inherits it has from where it was made.
const CONSTRAINTS: &str = "
    SELECT n.nspname::text, format('%s %s', coalesce(c.relname, t.typname), con.conname), con.convalidated
    FROM pg_constraint con JOIN pg_namespace n ON n.oid = con.connamespace
    LEFT JOIN pg_class c ON c.oid = con.conrelid LEFT JOIN pg_type t ON t.oid = con.contypid
    WHERE con.conislocal AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2";

const VIEWS: &str = "
    SELECT n.nspname::text, c.relname::text, c.relispopulated
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                          AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2";

impl ReloadTarget {
    /// Looks at all of it, for about as long as the limit.
    pub async fn check_sound(
        &self,
        database: &str,
        expected: &Expected,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Sound> {
        let session = self.session(Some(database)).await?;
        let leash = session.leash();
        let looked = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            looked = look(&session, expected, Instant::now() + limit) => looked,
        };
        if !matches!(looked, Err(Error::Cancelled | Error::Timeout { .. })) {
            leash.done();
        }
        looked
    }
}

async fn look(session: &Session, expected: &Expected, deadline: Instant) -> Result<Sound> {
    let mut sound = Sound::default();
    relations(session, expected, &mut sound).await?;
    indexes(session, &mut sound).await?;
    constraints(session, expected, &mut sound).await?;
    views(session, expected, &mut sound).await?;
    super::timescale::counts::compare(session, expected, &mut sound).await?;
    sequences::look(session, expected, deadline, &mut sound).await?;
    sample::read(session, deadline, &mut sound).await?;
    Ok(sound)
}

async fn relations(session: &Session, expected: &Expected, sound: &mut Sound) -> Result<()> {
    let schemas: Vec<Option<&str>> = expected.relations.iter().map(|name| name.schema.as_deref()).collect();
    let names: Vec<&str> = expected.relations.iter().map(|name| name.name.as_str()).collect();
    let rows = session.query("look for what was restored", RELATIONS, &[&schemas, &names]).await?;
    sound.checks.relations = names.len() as u64;
    let missing: Result<Vec<String>> = rows
        .iter()
        .map(|row| Ok(RelationName { schema: column(row, 0)?, name: column(row, 1)? }.to_string()))
        .collect();
    sound.miss("not there, though the dump holds it", &missing?);
    Ok(())
}

async fn indexes(session: &Session, sound: &mut Sound) -> Result<()> {
    let (mut invalid, mut unattached) = (Vec::new(), Vec::new());
    for row in &session.query("look at the indexes", INDEXES, &[]).await? {
        let (name, is_valid, is_over_partitions): (String, bool, bool) =
            (column(row, 0)?, column(row, 1)?, column(row, 2)?);
        sound.checks.indexes += 1;
        match (is_valid, is_over_partitions) {
            (true, _) => {}
            (false, true) => unattached.push(format!("index {name}")),
            (false, false) => invalid.push(format!("index {name}")),
        }
    }
    sound.miss("not valid, so queries pass it over", &invalid);
    sound.doubt(
        "not valid, because a partition has no part of it, and may have been so",
        &unattached,
        "compare it with its source",
    );
    Ok(())
}

async fn constraints(session: &Session, expected: &Expected, sound: &mut Sound) -> Result<()> {
    let mut not_valid = Vec::new();
    for row in &session.query("look at the constraints", CONSTRAINTS, &[]).await? {
        let name: (String, String) = (column(row, 0)?, column(row, 1)?);
        sound.checks.constraints += 1;
        let was_so = expected.not_valid.as_ref().is_some_and(|names| names.contains(&name));
        if !column::<bool>(row, 2)? && !was_so {
            not_valid.push(format!("constraint {} in {}", name.1, name.0));
        }
    }
    match &expected.not_valid {
        Some(_) => sound.miss("not valid, and was so in the dump", &not_valid),
        None => sound.doubt("not valid", &not_valid, NOT_KNOWN),
    }
    Ok(())
}

async fn views(session: &Session, expected: &Expected, sound: &mut Sound) -> Result<()> {
    let mut without = Vec::new();
    for row in &session.query("look at the materialised views", VIEWS, &[]).await? {
        let name = RelationName { schema: column(row, 0)?, name: column(row, 1)? };
        sound.checks.views += 1;
        let had_rows = expected.filled.as_ref().is_none_or(|names| names.contains(&name));
        if !column::<bool>(row, 2)? && had_rows {
            without.push(format!("materialised view {name}"));
        }
    }
    match &expected.filled {
        Some(_) => sound.miss("not filled, though it was in the dump", &without),
        None => sound.doubt("not filled", &without, NOT_KNOWN),
    }
    Ok(())
}

impl Sound {
    fn miss(&mut self, what: &str, of: &[String]) {
        self.say(of, |subject| Finding::error(subject, format!("is {what}"), REMEDY));
    }

    fn doubt(&mut self, what: &str, of: &[String], remedy: &str) {
        self.say(of, |subject| Finding::warning(subject, format!("is {what}"), remedy));
    }

    fn say(&mut self, of: &[String], finding: impl Fn(String) -> Finding) {
        let more = of.len().saturating_sub(NAMED);
        self.findings.extend(of.iter().take(NAMED).cloned().map(&finding));
        if more > 0 {
            self.findings.push(finding(format!("each of {more} more")));
        }
    }
}
