//! Single tables and schemas out of what scripts left in statements.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::dumps::{dumping, without_backstay};
use super::program::{Home, run, server, server_of};
use super::reloads::databases;
use super::unharmed::{no_sessions, strays};

const LIMIT: Duration = Duration::from_secs(60);

/// Layouts whose scripts leave statements, and all databases in one stream.
const SCRIPTS: [(&str, &str); 4] = [
    ("modulo", "mkdir -p left/full; pg_dump shop | gzip > left/full/modulo_full_20231201_020000.sql.gz"),
    ("auto-recovery", "mkdir -p left; pg_dump shop | gzip > left/backup_20250613_180002.sql.gz"),
    (
        "save-it-ai",
        "mkdir -p left gnupg; pg_dump shop | gzip > backup.sql.gz
         gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --symmetric --cipher-algo AES256 \
             -o left/backup-2024-01-24.sql.gz.gpg backup.sql.gz",
    ),
    ("plain", "mkdir -p left; pg_dumpall | gzip > left/all_20240101_020000.sql.gz"),
];

/// A table that needs a type and a schema, with partitions in another schema, a key to
/// another table and a sequence.
const TABLES: &str = "
    CREATE SCHEMA \"Sales\"; CREATE SCHEMA parts; CREATE SCHEMA other;
    CREATE TYPE \"Sales\".state AS ENUM ('new', 'old');
    CREATE TABLE customers (id int PRIMARY KEY);
    INSERT INTO customers SELECT generate_series(1, 10);
    CREATE TABLE \"Sales\".orders (id serial, day date, state \"Sales\".state, customer int REFERENCES customers)
        PARTITION BY RANGE (day);
    CREATE TABLE parts.one PARTITION OF \"Sales\".orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE \"Sales\".two PARTITION OF \"Sales\".orders FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO \"Sales\".orders (day, state, customer) SELECT '2026-01-01'::date + g % 59, 'new', 1 + g % 10
        FROM generate_series(1, 3000) g;
    CREATE TABLE other.\"a.b \"\"c\"\"\" AS SELECT generate_series(1, 7) AS n";

const ROWS: &str =
    "SELECT concat_ws('|', count(*), sum(id), min(day), max(day), sum(customer)) FROM \"Sales\".orders";

/// What a script left, taken in: restores of it.
fn left<'a>(
    server: &Postgres,
    home: &'a Home,
    script: &str,
    layout: &str,
) -> impl Fn(&[&str]) -> Command + use<'a> {
    let _ = std::fs::remove_dir_all(home.path("left"));
    let _ = std::fs::remove_file(home.path("backup.sql.gz"));
    without_backstay(server, home, script);
    let settings = [
        format!("dump.to=file://{}", home.path("left").display()),
        format!("dump.layout={layout}"),
        format!("dump.spool={}", home.path("spool").display()),
    ];
    let settings: Vec<String> = settings.into_iter().flat_map(|word| ["--set".to_owned(), word]).collect();
    std::fs::create_dir_all(home.path("spool")).unwrap();
    let adopt = ["adopt", "left", "--instance", "orders", "--json"];
    let told = home.run(settings.iter().map(String::as_str).chain(adopt)).good().json();
    // Not every name of a file says of which database it is.
    let id = told["files"][0]["record"]["id"].as_str().unwrap().to_owned();
    move |words: &[&str]| {
        let of = ["restore", "orders", "--database", "shop", "--backup", &id];
        home.command(settings.iter().map(String::as_str).chain(of).chain(words.iter().copied()))
    }
}

#[test]
fn a_table_comes_out_of_the_statements_of_each_runbook() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = dumping(&server);
        server.sql("CREATE DATABASE shop").unwrap();
        server.sql_in("shop", TABLES).unwrap();
        let expected = server.query_value_in("shop", ROWS).unwrap();
        for (layout, script) in SCRIPTS {
            let restore = left(&server, &home, script, layout);
            let before = databases(&server);
            let one = ["--table", "Sales.orders"];
            // Whoever only asks gets a plan that says where all of it goes, and changes nothing.
            let new = [&one[..], &["--into-database", "new"]].concat();
            let planned = run(&mut restore(&[&new[..], &["--dry-run"]].concat())).good();
            for word in ["new_fills_", "room for", "Sales.orders"] {
                assert!(planned.out.contains(word), "{layout}: no {word:?} in {planned:#?}");
            }
            assert_eq!(databases(&server), before, "{layout}");

            // With the type, the schema and the partitions that it needs, and nothing else.
            run(&mut restore(&new)).good();
            assert_eq!(server.query_value_in("new", ROWS).unwrap(), expected, "{layout}");
            let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class c JOIN pg_namespace n \
                          ON n.oid = relnamespace WHERE relkind IN ('r', 'p') AND nspname IN ('public', 'Sales', 'parts', 'other')";
            assert_eq!(server.query_value_in("new", tables).unwrap(), "one orders two", "{layout}");
            server.sql("DROP DATABASE new").unwrap();

            // Back into the database that lost it, after a dump of what is there.
            let lost = "DELETE FROM \"Sales\".orders; ALTER SEQUENCE \"Sales\".orders_id_seq RESTART";
            server.sql_in("shop", lost).unwrap();
            let into = [&one[..], &["--into-database", "shop"]].concat();
            run(&mut restore(&into)).refused(4, &["is not empty", "--force --confirm 'shop'"]);
            let sure = [&into[..], &["--force", "--confirm", "shop", "--json", "--jobs", "1"]].concat();
            let told = run(&mut restore(&sure)).good().json();
            assert_eq!(server.query_value_in("shop", ROWS).unwrap(), expected, "{layout}");
            assert_eq!(told["safety"]["safety"], true, "{layout}: {told}");
            let next = "INSERT INTO \"Sales\".orders (day) VALUES ('2026-01-01') RETURNING id";
            assert_eq!(server.query_value_in("shop", next).unwrap(), "3001", "{layout}");
            server.sql_in("shop", "DELETE FROM \"Sales\".orders WHERE id = 3001").unwrap();

            // A whole schema, by several sessions, and names that say nothing without quotes.
            let schema = ["--schema", "Sales", "--schema", "other", "--into-database", "new", "--jobs", "2"];
            run(&mut restore(&schema)).good();
            assert_eq!(server.query_value_in("new", ROWS).unwrap(), expected, "{layout}");
            let odd = "SELECT sum(n) FROM other.\"a.b \"\"c\"\"\"";
            assert_eq!(server.query_value_in("new", odd).unwrap(), "28", "{layout}");
            server.sql("DROP DATABASE new").unwrap();
            let odd_table = ["--table", "other.\"a.b \"\"c\"\"\"", "--into-database", "new"];
            run(&mut restore(&odd_table)).good();
            assert_eq!(server.query_value_in("new", odd).unwrap(), "28", "{layout}");
            server.sql("DROP DATABASE new").unwrap();

            assert_eq!(databases(&server), before, "{layout}");
            assert!(strays(&home.path("spool")).is_empty(), "{layout}");
            no_sessions(&server, layout);
        }
    }
}

#[test]
fn a_name_that_statements_do_not_have_is_told_with_those_that_are_near_and_changes_nothing() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", TABLES).unwrap();
    let hooks =
        format!("\n[instance.orders.hooks]\nbefore_restore = \"touch '{}'\"\n", home.path("ran").display());
    home.append(&hooks);
    for (layout, script) in [SCRIPTS[1], SCRIPTS[3]] {
        let restore = left(&server, &home, script, layout);
        let files = super::dumps::shown(&home.path("left"));
        let before = databases(&server);
        let all = "SELECT count(*) FROM pg_class";
        let objects = server.query_value_in("shop", all).unwrap();
        for (option, name, near) in [
            ("--table", "order", "Sales.orders"),
            ("--table", "Customers", "public.customers"),
            ("--schema", "sales", "Sales"),
        ] {
            for into in ["shop", "new"] {
                let words = [option, name, "--into-database", into, "--force", "--confirm", into];
                run(&mut restore(&words)).refused(3, &[name, near]);
            }
        }
        // Neither the application nor a dump of the present state was troubled.
        assert!(!home.path("ran").exists(), "{layout}");
        assert_eq!(super::dumps::shown(&home.path("left")), files, "{layout}");
        assert_eq!(databases(&server), before, "{layout}");
        assert_eq!(server.query_value_in("shop", all).unwrap(), objects, "{layout}");
        no_sessions(&server, layout);
    }
}

/// Puts a statement before the end marker.
fn ending_with(statement: &str) -> String {
    format!(
        "mkdir -p left; pg_dump shop | sed 's/^-- PostgreSQL database dump complete/{statement}\\n\\n--\\n&/' | gzip \
         > left/backup_20250613_180002.sql.gz"
    )
}

#[test]
fn what_fails_or_is_stopped_leaves_nothing_and_what_is_killed_a_database_that_is_named() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", TABLES).unwrap();
    let before = databases(&server);
    let words = ["--table", "customers", "--into-database", "new"];

    let restore = left(&server, &home, &ending_with("SELECT 1\\/0;"), "auto-recovery");
    let failed = run(&mut restore(&words));
    let code = failed.code;
    failed.refused(code, &["division by zero"]);
    assert_ne!(code, 0);
    assert_eq!(databases(&server), before);
    no_sessions(&server, "failed");

    let start = left(&server, &home, &ending_with("SELECT pg_sleep(600);"), "auto-recovery");
    let filled = "SELECT datname FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname LIKE 'new_fills_%'";
    let sleeping = || {
        let child = start(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut found = String::new();
        wait_until(LIMIT, "the statements", || {
            found = server.query_value(filled).unwrap_or_default();
            !found.is_empty()
        })
        .unwrap();
        (child, found)
    };
    let (mut child, _) = sleeping();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(10));
    assert_eq!(databases(&server), before);
    assert!(strays(&home.path("spool")).is_empty());
    no_sessions(&server, "stopped");

    let (mut child, temporary) = sleeping();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    server.query_value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()").unwrap();
    no_sessions(&server, "killed");
    let mut expected = before;
    expected.push(temporary.clone());
    expected.sort();
    assert_eq!(databases(&server), expected);
    let status = home.run(["status", "orders"]);
    let named = format!("database {temporary}: a restore that was killed has left this database");
    assert!(status.out.contains(&named), "{status:#?}");
    let planned = run(&mut start(&[&words[..], &["--dry-run"]].concat())).good();
    assert!(planned.out.contains(&format!("DROP DATABASE \"{temporary}\"")), "{planned:#?}");
}
