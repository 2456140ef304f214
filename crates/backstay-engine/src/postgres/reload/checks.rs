//! What a reload of single tables leaves to be put right and looked at: sequences that
//! would hand out numbers that are taken, and foreign keys that nobody checked because
//! triggers were off.

use std::time::Duration;

use backstay_model::Finding;
use tokio_util::sync::CancellationToken;

use super::super::connect::{Session, column};
use super::super::dump::RelationName;
use super::target::ReloadTarget;
use super::used_sequences::USED;
use crate::{Error, Result};

/// The tables that are meant, by name; all that somebody made when none is named.
const MEANT: &str = "
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND (cardinality($1::text[]) = 0 OR EXISTS (
           SELECT FROM unnest($1::text[], $2::text[]) AS w(schema, name)
           WHERE w.name = c.relname AND coalesce(w.schema, n.nspname) = n.nspname))";

/// A sequence belongs to a column, or gives it its default without belonging to it; what is
/// in the table says what is taken. Behind [`USED`]; where a parent is asked as well, it is asked
/// for all of its partitions.
const SEQUENCES: &str = "
    SELECT format('%I.%I', n.nspname, s.relname),
           format('SELECT setval(%L, x.m) FROM (SELECT %s(%I)::int8 AS m FROM %I.%I) x '
                  'WHERE x.m %s (SELECT CASE WHEN is_called THEN last_value ELSE last_value - %s END FROM %I.%I)',
                  format('%I.%I', n.nspname, s.relname),
                  CASE WHEN q.seqincrement > 0 THEN 'max' ELSE 'min' END, a.attname, tn.nspname, t.relname,
                  CASE WHEN q.seqincrement > 0 THEN '>' ELSE '<' END, sign(q.seqincrement)::int8,
                  n.nspname, s.relname)
    FROM used u JOIN pg_class s ON s.oid = u.sequence AND s.relkind = 'S'
    JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_namespace n ON n.oid = s.relnamespace
    JOIN pg_class t ON t.oid = u.relation JOIN pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.number JOIN pg_type y ON y.oid = a.atttypid
    WHERE u.relation = ANY($1::oid[])
      AND NOT (u.by_default AND EXISTS (
               SELECT FROM pg_inherits i WHERE i.inhrelid = u.relation AND i.inhparent = ANY($1::oid[])))
      AND coalesce(nullif(y.typbasetype, 0), y.oid)
          IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
    ORDER BY 1";

/// One question for each foreign key from or to a table: how many rows point nowhere. The
/// operators are those of the key, and rows with a null point to nothing by right, unless
/// the key is a full one.
const FOREIGN_KEYS: &str = "
    SELECT con.conname::text, format('%I.%I', cn.nspname, c.relname), format('%I.%I', pn.nspname, p.relname),
           format('SELECT count(*) FROM %s%I.%I c WHERE (%s) AND NOT EXISTS (SELECT FROM %s%I.%I p WHERE %s)',
                  CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END, cn.nspname, c.relname,
                  string_agg(format('c.%I IS NOT NULL', ca.attname),
                             CASE WHEN con.confmatchtype = 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY k.place),
                  CASE WHEN p.relkind = 'p' THEN '' ELSE 'ONLY ' END, pn.nspname, p.relname,
                  string_agg(format('p.%I OPERATOR(%I.%s) c.%I', pa.attname, opn.nspname, o.oprname, ca.attname),
                             ' AND ' ORDER BY k.place))
    FROM pg_constraint con
    JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_class p ON p.oid = con.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
    CROSS JOIN LATERAL unnest(con.conkey, con.confkey, con.conpfeqop) WITH ORDINALITY
         AS k(child, parent, equals, place)
    JOIN pg_attribute ca ON ca.attrelid = c.oid AND ca.attnum = k.child
    JOIN pg_attribute pa ON pa.attrelid = p.oid AND pa.attnum = k.parent
    JOIN pg_operator o ON o.oid = k.equals JOIN pg_namespace opn ON opn.oid = o.oprnamespace
    WHERE con.contype = 'f' AND (con.conrelid = ANY($1::oid[]) OR con.confrelid = ANY($1::oid[]))
      AND (con.conparentid = 0 OR NOT EXISTS (SELECT FROM pg_constraint up WHERE up.oid = con.conparentid
           AND (up.conrelid = ANY($1::oid[]) OR up.confrelid = ANY($1::oid[]))))
    GROUP BY con.oid, con.conname, con.confmatchtype, c.relkind, p.relkind, cn.nspname, c.relname, pn.nspname,
             p.relname
    ORDER BY 2, 1";

/// The largest number of a column without an index is looked for row by row.
const SEQUENCE_LIMIT: Duration = Duration::from_secs(600);

/// What became of the sequences of some tables.
#[derive(Debug, Default)]
pub struct SetSequences {
    pub moved: Vec<String>,
    /// Those that may hand out numbers that are taken.
    pub findings: Vec<Finding>,
}

fn not_set(name: &str, error: &Error) -> Finding {
    let reason = match error {
        Error::Server { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Finding::error(
        format!("sequence {name}"),
        format!("was not set right, and may hand out numbers that are taken: {reason}"),
        format!(
            "as its owner: `SELECT setval('{}', …)` with the largest number of its column",
            name.replace('\'', "''")
        ),
    )
}

impl ReloadTarget {
    /// How many of these tables are in the database.
    pub async fn count_tables(&self, database: &str, tables: &[RelationName]) -> Result<usize> {
        let session = self.session(Some(database)).await?;
        Ok(meant(&session, tables).await?.len())
    }

    /// Moves the sequences of these tables past what is in their columns. One that cannot be
    /// moved keeps no other from it.
    pub async fn set_sequences(&self, database: &str, tables: &[RelationName]) -> Result<SetSequences> {
        let mut session = self.session(Some(database)).await?;
        let numbers = meant(&session, tables).await?;
        let mut set = SetSequences::default();
        for row in &session.query("list the sequences", &format!("{USED}{SEQUENCES}"), &[&numbers]).await? {
            let (name, statement): (String, String) = (column(row, 0)?, column(row, 1)?);
            match session.query_within(SEQUENCE_LIMIT, "set a sequence", &statement, &[]).await {
                Ok(rows) if rows.is_empty() => {}
                Ok(_) => set.moved.push(name),
                Err(error @ (Error::Server { .. } | Error::Timeout { .. })) => {
                    if matches!(error, Error::Timeout { .. }) {
                        session = self.session(Some(database)).await?;
                    }
                    set.findings.push(not_set(&name, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(set)
    }

    /// Looks for rows that point to nothing, by every foreign key from or to these tables.
    pub async fn check_foreign_keys(
        &self,
        database: &str,
        tables: &[RelationName],
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Finding>> {
        let session = self.session(Some(database)).await?;
        session.execute("prepare to look at foreign keys", "SET statement_timeout = 0").await?;
        let leash = session.leash();
        let checked = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            checked = check(&session, tables, limit) => checked,
        };
        if !matches!(checked, Err(Error::Cancelled | Error::Timeout { .. })) {
            leash.done();
        }
        checked
    }
}

async fn check(session: &Session, tables: &[RelationName], limit: Duration) -> Result<Vec<Finding>> {
    let numbers = meant(session, tables).await?;
    let mut findings = Vec::new();
    for row in &session.query("list the foreign keys", FOREIGN_KEYS, &[&numbers]).await? {
        let (name, child, parent): (String, String, String) =
            (column(row, 0)?, column(row, 1)?, column(row, 2)?);
        let statement: String = column(row, 3)?;
        let row = session.row_within(limit, "look at a foreign key", &statement, &[]).await?;
        let orphans: i64 = column(&row, 0)?;
        if orphans > 0 {
            findings.push(Finding::error(
                format!("foreign key {name} of {child}"),
                format!("{orphans} rows point to rows of {parent} that are not there"),
                format!("`backstay restore … --table` brings {parent} back as well, from the same dump"),
            ));
        }
    }
    Ok(findings)
}

async fn meant(session: &Session, tables: &[RelationName]) -> Result<Vec<u32>> {
    let schemas: Vec<Option<&str>> = tables.iter().map(|table| table.schema.as_deref()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = session.query("look for the tables", MEANT, &[&schemas, &names]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}
