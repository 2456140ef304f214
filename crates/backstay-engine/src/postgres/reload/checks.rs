//! What a reload of single tables leaves to be put right and looked at: sequences that
//! would hand out numbers that are taken, and foreign keys that nobody checked because
//! triggers were off.

use std::time::Duration;

use backstay_model::Finding;
use tokio_util::sync::CancellationToken;

use super::super::connect::{Session, column};
use super::super::dump::RelationName;
use super::target::ReloadTarget;
use crate::{Error, Result};

/// The tables that are meant, by name; all that somebody made when none is named.
const MEANT: &str = "
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND (cardinality($1::text[]) = 0 OR EXISTS (
           SELECT FROM unnest($1::text[], $2::text[]) AS w(schema, name)
           WHERE w.name = c.relname AND coalesce(w.schema, n.nspname) = n.nspname))";

/// A sequence belongs to one column, and its table says what is taken.
const OWNED_SEQUENCES: &str = "
    SELECT format('%I.%I', n.nspname, s.relname),
           format('SELECT setval(%L, x.m) FROM (SELECT %s(%I)::int8 AS m FROM %I.%I) x '
                  'WHERE x.m %s (SELECT CASE WHEN is_called THEN last_value ELSE last_value - %s END FROM %I.%I)',
                  format('%I.%I', n.nspname, s.relname),
                  CASE WHEN q.seqincrement > 0 THEN 'max' ELSE 'min' END, a.attname, tn.nspname, t.relname,
                  CASE WHEN q.seqincrement > 0 THEN '>' ELSE '<' END, sign(q.seqincrement)::int8,
                  n.nspname, s.relname)
    FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_namespace n ON n.oid = s.relnamespace
    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND d.refobjid = ANY($1::oid[]) ORDER BY 1";

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

impl ReloadTarget {
    /// How many of these tables are in the database.
    pub async fn count_tables(&self, database: &str, tables: &[RelationName]) -> Result<usize> {
        let session = self.session(Some(database)).await?;
        Ok(meant(&session, tables).await?.len())
    }

    /// Moves the sequences of these tables past what is in their columns. Those that moved.
    pub async fn set_sequences(&self, database: &str, tables: &[RelationName]) -> Result<Vec<String>> {
        let session = self.session(Some(database)).await?;
        let numbers = meant(&session, tables).await?;
        let mut moved = Vec::new();
        for row in &session.query("list the sequences", OWNED_SEQUENCES, &[&numbers]).await? {
            let (name, statement): (String, String) = (column(row, 0)?, column(row, 1)?);
            if !session.query("set a sequence", &statement, &[]).await?.is_empty() {
                moved.push(name);
            }
        }
        Ok(moved)
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
