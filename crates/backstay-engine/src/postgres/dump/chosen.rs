//! What of a database is dumped: looked up by name before anything is written.
//!
//! A name is that name and no pattern, in upper and lower case as it is given. `pg_dump`
//! takes patterns, so names are quoted for it until nothing in them means anything.
//!
//! Refuses what would leave rows out without a word: a hypertable alone (its rows lie in
//! chunks elsewhere), and tables together with schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use backstay_model::dump::{DumpWarning, UnknownWord};

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::DumpOptions;
use crate::{Error, Result};

/// A table or another relation, as a person names it: `orders`, `sales.orders`,
/// `"odd.schema"."a ""name"""`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationName {
    /// The only one that has the name when it is left out.
    pub schema: Option<String>,
    pub name: String,
}

impl RelationName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: Some(schema.into()), name: name.into() }
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", shown(schema))?;
        }
        f.write_str(&shown(&self.name))
    }
}

/// Quoted only where it would be read as something else.
fn shown(name: &str) -> String {
    let plain = !name.is_empty() && !name.contains(['"', '.']);
    if plain { name.to_owned() } else { always_quoted(name) }
}

impl FromStr for RelationName {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let wrong =
            || UnknownWord { given: text.to_owned(), known: "TABLE, SCHEMA.TABLE and \"SCHEMA\".\"TABLE\"" };
        let mut parts = vec![String::new()];
        let mut letters = text.chars().peekable();
        let mut quoted = false;
        while let Some(letter) = letters.next() {
            let Some(part) = parts.last_mut() else { return Err(wrong()) };
            match letter {
                '"' if quoted && letters.next_if_eq(&'"').is_some() => part.push('"'),
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(String::new()),
                other => part.push(other),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            _ if quoted => Err(wrong()),
            (Some(name), None, None) if !name.is_empty() => Ok(Self { schema: None, name }),
            (Some(schema), Some(name), None) if !schema.is_empty() && !name.is_empty() => {
                Ok(Self { schema: Some(schema), name })
            }
            _ => Err(wrong()),
        }
    }
}

fn always_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What to do about a name that several relations have.
pub(in crate::postgres) const SEVERAL: &str = "name one of them with its schema, as `--table SCHEMA.TABLE`";

/// What was found by the names.
pub(super) struct Chosen {
    schemas: Vec<String>,
    /// Schema and name, with all that inherit from what was named.
    relations: Vec<(String, String)>,
    /// What comes without its rows, for `pg_dump`.
    without_rows: Vec<String>,
    /// The relations that are dumped, `None` for all.
    pub numbers: Option<Vec<u32>>,
    pub warnings: Vec<DumpWarning>,
}

impl Chosen {
    fn everything() -> Chosen {
        Chosen {
            schemas: Vec::new(),
            relations: Vec::new(),
            without_rows: Vec::new(),
            numbers: None,
            warnings: Vec::new(),
        }
    }

    pub fn nothing() -> Chosen {
        Chosen { numbers: Some(Vec::new()), ..Chosen::everything() }
    }

    pub fn is_everything(&self) -> bool {
        self.numbers.is_none()
    }

    /// As arguments of `pg_dump`.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        let schemas = self.schemas.iter().map(|name| format!("--schema={}", always_quoted(name)));
        let relations = self.relations.iter();
        let relations = relations
            .map(|(schema, name)| format!("--table={}.{}", always_quoted(schema), always_quoted(name)));
        let without_rows = self.without_rows.iter().map(|pattern| format!("--exclude-table-data={pattern}"));
        schemas.chain(relations).chain(without_rows)
    }
}

pub(super) async fn resolve(session: &Session, options: &DumpOptions) -> Result<Chosen> {
    if options.all_definitions {
        return rows_of(session, options).await;
    }
    let mut chosen = Chosen::everything();
    match (options.tables.is_empty(), options.schemas.is_empty()) {
        (true, true) => return Ok(chosen),
        (false, false) => {
            return Err(Error::DumpChoice {
                reason:
                    "tables and schemas were both chosen, and `pg_dump` would leave out of the schemas all \
                         that is no table"
                        .to_owned(),
                hint: "dump them one after the other: `--schema` in one dump, `--table` in another",
            });
        }
        (true, false) => schemas(session, &options.schemas, &mut chosen).await?,
        (false, true) => tables(session, &options.tables, &mut chosen).await?,
    }
    refuse_hypertables(session, chosen.numbers.as_deref().unwrap_or_default()).await?;
    Ok(chosen)
}

/// What has rows, and whether it was chosen or inherits from what was: a partition may lie in
/// any schema.
const WITH_ROWS: &str = "
    WITH RECURSIVE chosen AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY($1::text[])
           OR EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS w(schema, name)
                      WHERE w.name = c.relname AND coalesce(w.schema, n.nspname) = n.nspname)
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN chosen ON chosen.oid = i.inhparent)
    SELECT c.oid, n.nspname::text, c.relname::text, c.oid IN (SELECT oid FROM chosen)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND n.nspname NOT LIKE 'pg\\_toast%' ORDER BY 2, 3";

/// A program takes no more than some megabytes of arguments.
const ARGUMENTS_MAX_BYTES: usize = 1 << 20;

async fn rows_of(session: &Session, options: &DumpOptions) -> Result<Chosen> {
    let schemas: Vec<Option<&str>> = options.tables.iter().map(|table| table.schema.as_deref()).collect();
    let names: Vec<&str> = options.tables.iter().map(|table| table.name.as_str()).collect();
    let rows = session.query("look for rows", WITH_ROWS, &[&options.schemas, &schemas, &names]).await?;
    let mut numbers: Vec<u32> = Vec::new();
    // By schema: those that are left out, and whether that is all of them.
    let mut left_out: BTreeMap<String, (Vec<String>, bool)> = BTreeMap::new();
    for row in &rows {
        let (schema, name): (String, String) = (column(row, 1)?, column(row, 2)?);
        let of_schema = left_out.entry(schema).or_insert_with(|| (Vec::new(), true));
        if column(row, 3)? {
            numbers.push(column(row, 0)?);
            of_schema.1 = false;
        } else {
            of_schema.0.push(name);
        }
    }
    let without_rows: Vec<String> = left_out
        .into_iter()
        .flat_map(|(schema, (names, is_all))| {
            let schema = always_quoted(&schema);
            match is_all {
                true => vec![format!("{schema}.*")],
                false => names.iter().map(|name| format!("{schema}.{}", always_quoted(name))).collect(),
            }
        })
        .collect();
    match without_rows.iter().map(|pattern| pattern.len() + 32).sum::<usize>() > ARGUMENTS_MAX_BYTES {
        // More than is needed, and never less.
        true => Ok(Chosen::everything()),
        false => Ok(Chosen { without_rows, numbers: Some(numbers), ..Chosen::everything() }),
    }
}

async fn schemas(session: &Session, names: &[String], chosen: &mut Chosen) -> Result<()> {
    let statement = "SELECT nspname::text FROM pg_namespace WHERE nspname = ANY($1::text[]) ORDER BY 1";
    let rows = session.query("look for the schemas", statement, &[&names]).await?;
    chosen.schemas = rows.iter().map(|row| column(row, 0)).collect::<Result<_>>()?;
    if let Some(missing) = names.iter().find(|name| !chosen.schemas.contains(name)) {
        let statement = "SELECT nspname::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' \
                         AND (strpos(lower(nspname), lower($1)) > 0 OR strpos(lower($1), lower(nspname)) > 0) \
                         ORDER BY lower(nspname) = lower($1) DESC, 1 LIMIT 5";
        let word = without_wildcards(missing);
        let rows = session.query("look for schemas", statement, &[&word]).await?;
        let near = rows.iter().map(|row| column(row, 0)).collect::<Result<_>>()?;
        return Err(Error::NothingMatches { what: "schema", name: missing.clone(), near });
    }
    let statement = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE n.nspname = ANY($1::text[])";
    let rows = session.query("list the relations of the schemas", statement, &[&names]).await?;
    let numbers: Vec<u32> = rows.iter().map(|row| column(row, 0)).collect::<Result<_>>()?;
    let statement = "SELECT DISTINCT format('%I.%I', n.nspname, p.relname) FROM pg_inherits i \
                     JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace \
                     JOIN pg_class c ON c.oid = i.inhrelid \
                     WHERE i.inhparent = ANY($1::oid[]) AND NOT i.inhrelid = ANY($1::oid[]) \
                     AND c.relkind IN ('r', 'p', 'f') ORDER BY 1";
    for row in &session.query("look for partitions elsewhere", statement, &[&numbers]).await? {
        let parent: String = column(row, 0)?;
        let message = format!("table {parent} has partitions in other schemas, which are not in this dump");
        chosen.warnings.push(DumpWarning { message, harmless: None });
    }
    chosen.numbers = Some(numbers);
    Ok(())
}

async fn tables(session: &Session, names: &[RelationName], chosen: &mut Chosen) -> Result<()> {
    let mut numbers = BTreeSet::new();
    for wanted in names {
        let statement = "SELECT c.oid, n.nspname::text FROM pg_class c \
                         JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.relname = $1 AND ($2::text IS NULL OR n.nspname = $2) \
                         AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' \
                         AND ($2::text IS NOT NULL OR n.nspname NOT IN ('pg_catalog', 'information_schema')) \
                         ORDER BY 2";
        let rows = session.query("look for a table", statement, &[&wanted.name, &wanted.schema]).await?;
        let found: Vec<(u32, String)> =
            rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect::<Result<_>>()?;
        match found.as_slice() {
            [(number, _)] => numbers.insert(*number),
            [] => return Err(no_such_table(session, wanted).await?),
            several => {
                let places: Vec<String> = several
                    .iter()
                    .map(|(_, schema)| RelationName::new(schema, &wanted.name).to_string())
                    .collect();
                return Err(Error::DumpChoice {
                    reason: format!("table {wanted} is in several schemas: {}", places.join(", ")),
                    hint: SEVERAL,
                });
            }
        };
    }
    let numbers: Vec<u32> = numbers.into_iter().collect();
    let statement = "WITH RECURSIVE all_of_them AS ( \
                         SELECT unnest($1::oid[]) AS oid \
                         UNION SELECT i.inhrelid FROM pg_inherits i JOIN all_of_them a ON a.oid = i.inhparent) \
                     SELECT c.oid, n.nspname::text, c.relname::text FROM all_of_them a \
                     JOIN pg_class c ON c.oid = a.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') ORDER BY 2, 3";
    let rows = session.query("list the tables and their partitions", statement, &[&numbers]).await?;
    let mut numbers = Vec::with_capacity(rows.len());
    for row in &rows {
        numbers.push(column(row, 0)?);
        chosen.relations.push((column(row, 1)?, column(row, 2)?));
    }
    chosen.numbers = Some(numbers);
    Ok(())
}

/// A name is no pattern; whoever writes one means what is called like the rest of it.
pub(in crate::postgres) fn without_wildcards(name: &str) -> String {
    name.chars().filter(|character| !matches!(character, '*' | '?' | '%')).collect()
}

async fn no_such_table(session: &Session, wanted: &RelationName) -> Result<Error> {
    let statement = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
                     JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' \
                     AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
                     AND (lower(c.relname) = lower($1) OR strpos(lower(c.relname), lower($1)) > 0 \
                          OR strpos(lower($1), lower(c.relname)) > 0) \
                     ORDER BY lower(c.relname) = lower($1) DESC, length(c.relname), 1, 2 LIMIT 5";
    let word = without_wildcards(&wanted.name);
    let rows = session.query("look for tables with such a name", statement, &[&word]).await?;
    let near = rows
        .iter()
        .map(|row| Ok(RelationName::new(column::<String>(row, 0)?, column::<String>(row, 1)?).to_string()))
        .collect::<Result<_>>()?;
    Ok(Error::NothingMatches { what: "table", name: wanted.to_string(), near })
}

/// `pg_dump` would write their definition and none of their rows.
async fn refuse_hypertables(session: &Session, numbers: &[u32]) -> Result<()> {
    let statement = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'";
    let row = session.row("look for TimescaleDB", statement, &[]).await?;
    if column::<i64>(&row, 0)? == 0 {
        return Ok(());
    }
    let statement = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
                     JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE c.oid = ANY($1::oid[]) AND ( \
                         EXISTS (SELECT FROM timescaledb_information.hypertables h \
                                 WHERE h.hypertable_schema = n.nspname AND h.hypertable_name = c.relname) \
                         OR EXISTS (SELECT FROM timescaledb_information.continuous_aggregates a \
                                    WHERE a.view_schema = n.nspname AND a.view_name = c.relname)) \
                     ORDER BY 1, 2 LIMIT 5";
    let rows = session.query("look for hypertables", statement, &[&numbers]).await?;
    let names: Vec<String> = rows
        .iter()
        .map(|row| {
            Ok(format!("{}.{}", quoted_identifier(column(row, 0)?), quoted_identifier(column(row, 1)?)))
        })
        .collect::<Result<_>>()?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(Error::DumpChoice {
            reason: format!(
                "{} lie in chunks outside of what was chosen, and a dump of the choice would have none of their rows",
                names.join(", ")
            ),
            hint: "leave `--table` and `--schema` out to dump all of the database",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_shown_so_that_it_reads_back() {
        for (text, schema, name) in [
            ("orders", None, "orders"),
            ("Sales.Orders", Some("Sales"), "Orders"),
            ("\"a.b\".\"c \"\"d\"\"\"", Some("a.b"), "c \"d\""),
            ("ord*rs?", None, "ord*rs?"),
        ] {
            let read: RelationName = text.parse().unwrap();
            assert_eq!((read.schema.as_deref(), read.name.as_str()), (schema, name));
            assert_eq!(read.to_string().parse::<RelationName>().unwrap(), read);
        }
        for wrong in ["", ".", "a.", ".a", "a.b.c", "\"a", "a.\"b"] {
            assert!(wrong.parse::<RelationName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_in_a_name_is_left_for_a_pattern_to_mean() {
        let chosen = Chosen {
            schemas: vec!["s*".into()],
            relations: vec![("S.x".into(), "a\"?".into())],
            ..Chosen::everything()
        };
        let patterns: Vec<String> = chosen.patterns().collect();
        assert_eq!(patterns, ["--schema=\"s*\"", "--table=\"S.x\".\"a\"\"?\""]);
    }
}
