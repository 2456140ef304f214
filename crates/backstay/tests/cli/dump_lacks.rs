//! What a target lacks for a dump, and names that match nothing: told before the first
//! byte, with what is near.

use std::os::unix::fs::MetadataExt;

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::dumps::dumping;
use super::program::{server, server_of};
use super::reloads::{databases, restore, shop};
use super::unharmed::{no_sessions, state, unharmed};

fn another(server: &Postgres) -> Postgres {
    Postgres::start_new(server.installation(), &PostgresOptions::default()).unwrap()
}

/// A tablespace in a directory of the server's own user.
fn make_tablespace(server: &Postgres, name: &str) {
    let place = server.workspace().directory(name).unwrap();
    let owner = std::fs::metadata(server.data_directory()).unwrap().uid();
    std::os::unix::fs::chown(&place, Some(owner), None).unwrap();
    server.sql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", place.display())).unwrap();
}

#[test]
fn roles_extensions_and_tablespaces_that_a_target_lacks_are_all_listed_at_once() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let other = another(&server);
        let home = dumping(&server);
        home.add("other", &other, SUPERUSER, PASSWORD, false);
        home.append("environment = \"production\"\n");
        make_tablespace(&server, "far away");
        server.sql("CREATE ROLE clerk; CREATE ROLE reader; CREATE DATABASE shop").unwrap();
        let tables = "CREATE TABLE orders (id int, x text) TABLESPACE \"far away\"; ALTER TABLE orders OWNER TO clerk;
                      GRANT SELECT ON orders TO reader; CREATE INDEX o ON orders (id) TABLESPACE \"far away\"";
        server.sql_in("shop", tables).unwrap();
        for format in ["custom", "directory"] {
            home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
            let words = ["--into-database", "shop", "--to-server", "other"];
            let before = state(&server, &home);
            for more in [&["--dry-run"][..], &[]] {
                let ran = restore(&home, &[&words[..], more].concat());
                // A directory says what it needs when it lies somewhere, which no dry run does.
                if format == "directory" && more == ["--dry-run"] {
                    ran.good();
                    continue;
                }
                assert_eq!(ran.code, 3, "{format}: {ran:#?}");
                for lack in
                    ["role clerk", "role reader", "tablespace far away", "CREATE ROLE", "CREATE TABLESPACE"]
                {
                    assert!(ran.err.contains(lack), "no {lack:?} in {ran:#?}");
                }
            }
            unharmed(&server, &home, &before, format);
            assert_eq!(databases(&other), ["postgres"], "{format}");
            let without = [&words[..], &["--no-owner", "--no-privileges"]].concat();
            let refused = restore(&home, &without);
            assert_eq!(refused.code, 3, "{refused:#?}");
            refused.refused(3, &["tablespace far away", "CREATE TABLESPACE"]);
            assert_eq!(databases(&other), ["postgres"], "{format}");
        }
        make_tablespace(&other, "far away");
        let without = ["--into-database", "shop", "--to-server", "other", "--no-owner", "--no-privileges"];
        restore(&home, &without).good();
    }
}

#[test]
fn statements_that_ask_for_what_is_not_there_end_in_one_error_and_leave_nothing() {
    let Some(server) = server() else { return };
    let other = another(&server);
    let home = dumping(&server);
    home.add("other", &other, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    make_tablespace(&server, "far");
    for (number, (database, made, told)) in [
        ("roles", "CREATE ROLE clerk; ALTER TABLE t OWNER TO clerk", "clerk"),
        ("spaces", "ALTER TABLE t SET TABLESPACE far", "far"),
    ]
    .into_iter()
    .enumerate()
    {
        server.sql(&format!("CREATE DATABASE {database}")).unwrap();
        server.sql_in(database, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n").unwrap();
        for statement in made.split("; ") {
            server.sql_in(database, statement).unwrap();
        }
        home.run(["dump", "orders", "--database", database, "--format", "plain"]).good();
        let ran = home.run([
            "restore",
            "orders",
            "--database",
            database,
            "--into-database",
            database,
            "--to-server",
            "other",
        ]);
        assert_ne!(ran.code, 0, "{number}: {ran:#?}");
        let code = ran.code;
        assert!([3, 4].contains(&code), "{ran:#?}");
        ran.refused(code, &[told]);
        assert_eq!(databases(&other), ["postgres"]);
        no_sessions(&other, database);
    }
}

#[test]
fn a_dump_of_a_newer_server_is_refused_in_every_format_before_a_database_is_made() {
    let Some(new) = server_of(PostgresVersion::V17, &PostgresOptions::default()) else { return };
    let Some(old) = server() else { return };
    let home = shop(&new, &["--layout", "plain"]);
    home.add("old", &old, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    for format in ["custom", "plain", "directory"] {
        home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        for target in [&["--into-database", "shop"][..], &["--swap", "shop"]] {
            let ran = restore(&home, &[target, &["--to-server", "old"]].concat());
            assert_eq!(ran.code, 7, "{format} {target:?}: {ran:#?}");
            ran.refused(7, &["the dump is of PostgreSQL 17", "--to-server"]);
            assert_eq!(databases(&old), ["postgres"]);
        }
    }
    no_sessions(&old, "a newer dump");
}

#[test]
fn a_name_that_matches_nothing_is_told_with_those_that_are_near() {
    let Some(server) = server() else { return };
    let home = shop(&server, &["--layout", "plain"]);
    server.sql_in("shop", "CREATE SCHEMA \"Sales\"; CREATE TABLE \"Sales\".bills (n int)").unwrap();
    for format in ["custom", "directory"] {
        home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        let before = state(&server, &home);
        for (option, name, near) in [
            ("--table", "Orders", "public.orders"),
            ("--table", "ord*", "public.orders"),
            ("--table", "order", "public.orders"),
            ("--table", "nowhere.orders", "public.orders"),
            ("--table", "BILLS", "Sales.bills"),
            ("--schema", "sales", "Sales"),
            ("--schema", "Sal*", "Sales"),
        ] {
            let what = format!("{format} {option} {name}");
            // Elsewhere: in the same second it would have the name of the one before.
            let elsewhere = home.path("elsewhere").display().to_string();
            let dump = home.run(["dump", "orders", "--database", "shop", "--to", &elsewhere, option, name]);
            assert_eq!(dump.code, 3, "{what}: {dump:#?}");
            dump.refused(3, &[name, near]);
            // What is to be changed is dumped first, before a directory says what it holds.
            let targets: &[&str] = if format == "directory" { &["copy"] } else { &["copy", "shop"] };
            for target in targets {
                let words = ["--into-database", target, option, name, "--force", "--confirm", target];
                let ran = restore(&home, &words);
                assert_eq!(ran.code, 3, "{what} into {target}: {ran:#?}");
                ran.refused(3, &[name, near]);
            }
            // Nothing like it at all.
            let words = ["--into-database", "copy", option, "zzz"];
            restore(&home, &words).refused(3, &["zzz"]);
            unharmed(&server, &home, &before, &what);
        }
    }
}
