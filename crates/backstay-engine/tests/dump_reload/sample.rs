//! A database with odd names, types and objects, a look at all of its rows, and the
//! shortest way through a dump.

use std::process::Stdio;

use backstay_engine::postgres::dump::{DumpFacts, DumpOptions, DumpSource};
use backstay_engine::postgres::reload::{Archive, ArchiveReader, ReloadOptions, ReloadRun, ReloadTarget};
use backstay_engine::postgres::settings::Address;
use backstay_engine::{Error, Result};
use backstay_model::dump::DumpWarning;
use bytes::Bytes;
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio_util::sync::CancellationToken;

use crate::drive;

pub const SAMPLE: &str = r#"
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, extra jsonb, photo bytea);
    INSERT INTO customers (name, extra, photo)
        SELECT 'customer ' || n || E' \t"\\ ü ' || repeat('x', n % 50), jsonb_build_object('n', n),
               decode(md5(n::text), 'hex') FROM generate_series(1, 3000) AS n;
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES customers (id),
        total numeric(12, 2) CHECK (total >= 0), at timestamptz DEFAULT '2026-01-01');
    INSERT INTO orders (customer, total) SELECT n % 3000 + 1, n * 1.25 FROM generate_series(1, 9000) AS n;
    CREATE INDEX orders_at ON orders (at);
    CREATE TABLE audit (line text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.audit VALUES (TG_OP); RETURN NEW; END';
    CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
    CREATE SCHEMA "Odd.Sch";
    CREATE TABLE "Odd.Sch"."a.b""*?'; DROP" ("The x" int PRIMARY KEY, "ü" text);
    INSERT INTO "Odd.Sch"."a.b""*?'; DROP" SELECT n, NULL FROM generate_series(1, 7) AS n;
    CREATE TABLE "Odd.Sch"."a" (x int);
    CREATE TABLE days (at date NOT NULL, n int) PARTITION BY RANGE (at);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO days SELECT '2026-01-01'::date + n, n FROM generate_series(0, 50) AS n;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(total) AS total FROM orders GROUP BY 1;
    CREATE VIEW latest AS SELECT * FROM orders ORDER BY id DESC LIMIT 10;
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE moods (m mood, many mood[]);
    INSERT INTO moods VALUES ('good', '{good,bad}');
    CREATE UNLOGGED TABLE fleeting (n int);
    INSERT INTO fleeting VALUES (1);
    SELECT lo_from_bytea(4711, decode(repeat('00ff', 300000), 'hex'));
    SELECT setval('customers_id_seq', 5000);
    ANALYZE customers, orders;
"#;

/// Rows and a hash over them for every table and sequence, and the big objects.
const LOOK: &str = r#"
    SELECT format('%I.%I', n.nspname, c.relname) || ' ' ||
           (xpath('/row/c/text()', query_to_xml(format(
               'SELECT count(*) || '' '' || coalesce(sum(hashtext(t::text)::numeric), 0) AS c FROM %I.%I t',
               n.nspname, c.relname), false, true, '')))[1]
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND n.nspname NOT LIKE '\_timescaledb%' ORDER BY 1;
    SELECT format('%I.%I ', schemaname, sequencename) || coalesce(last_value, 0) FROM pg_sequences
        WHERE schemaname NOT LIKE '\_timescaledb%' ORDER BY 1;
    SELECT 'object ' || oid || ' ' || md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1;
    SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
          AND connamespace::regnamespace::text NOT LIKE '\_timescaledb%' ORDER BY 1;
    SELECT indexdef FROM pg_indexes
        WHERE schemaname <> 'pg_catalog' AND schemaname NOT LIKE '\_timescaledb%' ORDER BY 1;
    SELECT tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1;
"#;

/// What two equal databases agree in.
pub fn look(server: &Postgres, database: &str) -> String {
    server.query_value_in(database, LOOK).unwrap()
}

pub fn on_each_version(test: impl Fn(&Installation, Postgres)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation, Postgres::start_new(&installation, &PostgresOptions::default()).unwrap());
        }
    }
}

/// With the database `app` on it.
pub fn on_each_version_with_sample(test: impl Fn(&Installation, Postgres)) {
    on_each_version(|installation, server| {
        server.sql("CREATE DATABASE app").unwrap();
        server.sql_in("app", SAMPLE).unwrap();
        test(installation, server);
    });
}

pub fn address(server: &Postgres, database: &str) -> Address {
    drive::settings(server).address().unwrap().with_database(database)
}

pub fn options(installation: &Installation) -> DumpOptions {
    DumpOptions { bin_directory: Some(installation.bin_directory().to_owned()), ..DumpOptions::default() }
}

#[derive(Debug)]
pub struct Dumped {
    pub facts: DumpFacts,
    pub bytes: Vec<u8>,
    pub warnings: Vec<DumpWarning>,
}

pub async fn dump(address: &Address, options: &DumpOptions) -> Result<Dumped> {
    let source = DumpSource::open(address, options, &CancellationToken::new()).await?;
    let facts = source.facts().clone();
    let mut run = source.run().await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = run.next().await? {
        assert!((1..=256 << 10).contains(&chunk.len()), "{} bytes at once", chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(run.next().await.unwrap(), None, "the end stays the end");
    Ok(Dumped { facts, bytes, warnings: run.warnings() })
}

/// What an error says, with its causes.
pub fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// What a tool of the server's makes of a dump on its standard input.
pub fn through(server: &Postgres, tool: &str, arguments: &[&str], input: &[u8]) -> String {
    use std::io::Write;

    let mut command = server.tool(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A tool that has read enough closes its end.
        scope.spawn(move || pipe.write_all(input));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

pub async fn target(installation: &Installation, server: &Postgres) -> ReloadTarget {
    let address = address(server, "postgres");
    ReloadTarget::open(&address, Some(installation.bin_directory())).await.unwrap()
}

/// The head of an archive, from pieces of the size that a pipe brings.
pub fn archive(bytes: &[u8]) -> Archive {
    let mut reader = ArchiveReader::default();
    bytes.chunks(4096).find_map(|piece| reader.push(piece).unwrap()).expect("it has a head")
}

/// Puts a dump into a database that is there.
pub async fn reload(
    target: &ReloadTarget,
    database: &str,
    options: &ReloadOptions,
    bytes: &[u8],
) -> Result<Vec<DumpWarning>> {
    let mut run = ReloadRun::start(target, database, options, &CancellationToken::new()).await?;
    for piece in bytes.chunks(100_000) {
        run.write(&Bytes::copy_from_slice(piece)).await?;
    }
    run.finish().await
}
