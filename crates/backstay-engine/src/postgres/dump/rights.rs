//! Whether our role may read all that is to be dumped. Asked at once for everything,
//! since `pg_dump` would name the first thing only, and name it at its end.

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::chosen::Chosen;
use crate::{Error, Result};

/// So many are named; who lacks one right lacks it for many tables.
const NAMED: usize = 10;

/// Tables, partitioned tables and sequences that somebody made; what an extension made
/// is not dumped.
const UNREADABLE: &str = "
    SELECT format('%I.%I', n.nspname, c.relname), n.nspname::text,
           has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
           row_security_active(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
      AND ($1::oid[] IS NULL OR c.oid = ANY($1))
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
      AND (NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')
           OR row_security_active(c.oid))
    ORDER BY 1";

pub(super) async fn require(session: &Session, chosen: &Chosen, version_number: u32) -> Result<()> {
    let rows = session.query("look for tables that may not be read", UNREADABLE, &[&chosen.numbers]).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let statement = "SELECT current_user::text, current_database()::text";
    let row = session.row("ask for the role", statement, &[]).await?;
    let (role, database): (String, String) = (column(&row, 0)?, column(&row, 1)?);
    let mut missing = Vec::new();
    let mut schemas = Vec::new();
    let (mut read, mut bypass) = (false, false);
    for row in &rows {
        let (table, schema): (String, String) = (column(row, 0)?, column(row, 1)?);
        let (usage, select): (bool, bool) = (column(row, 2)?, column(row, 3)?);
        if !usage || !select {
            read = true;
            if !schemas.contains(&schema) {
                schemas.push(schema.clone());
            }
        }
        missing.push(match (usage, select) {
            (_, false) => format!("SELECT on {table} of database {database}"),
            (false, true) => format!("USAGE on the schema of {table} of database {database}"),
            (true, true) => {
                bypass = true;
                format!("BYPASSRLS, for {table} has policies that hide rows from it")
            }
        });
    }
    if missing.len() > NAMED {
        let more = missing.len() - NAMED;
        missing.truncate(NAMED);
        missing.push(format!("the same on {more} more"));
    }
    let grants = grants(&role, read.then_some(schemas.as_slice()), bypass, version_number);
    Err(Error::Privilege { role, missing, grants })
}

fn grants(role: &str, schemas: Option<&[String]>, bypass: bool, version_number: u32) -> Vec<String> {
    let role = quoted_identifier(role);
    let mut grants = Vec::new();
    match schemas {
        Some(_) if version_number >= 140_000 => grants.push(format!("GRANT pg_read_all_data TO {role}")),
        Some(schemas) => {
            for schema in schemas.iter().take(NAMED).map(|schema| quoted_identifier(schema)) {
                grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
                grants.push(format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"));
                grants.push(format!("GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"));
            }
        }
        None => {}
    }
    if bypass {
        grants.push(format!("ALTER ROLE {role} BYPASSRLS"));
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_version_14_each_schema_has_its_grants() {
        let schemas = ["public".to_owned(), "Odd".to_owned()];
        assert_eq!(grants("r-1", Some(&schemas), false, 140_001), ["GRANT pg_read_all_data TO \"r-1\""]);
        let old = grants("r", Some(&schemas), true, 130_001);
        assert_eq!(old.len(), 7);
        assert_eq!(old[4], "GRANT SELECT ON ALL TABLES IN SCHEMA \"Odd\" TO r");
        assert_eq!(old[6], "ALTER ROLE r BYPASSRLS");
    }
}
