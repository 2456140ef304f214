//! Dumps put back: into a database, beside it and in its place.

use std::path::PathBuf;

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::dumps::{dumping, shown, without_backstay};
use super::program::{Home, Ran, flip_a_bit, on_each_version, server, server_of};

const ROWS: &str = "SELECT concat_ws('|', count(*), min(x), max(x), sum(id)) FROM orders";

/// A database `shop` with tables that depend on each other, dumped as these words say.
pub fn shop(server: &Postgres, words: &[&str]) -> Home {
    let home = dumping(server);
    server.sql("CREATE DATABASE shop").unwrap();
    server
        .sql_in(
            "shop",
            "CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL);
             CREATE TABLE orders (id serial PRIMARY KEY, customer int NOT NULL REFERENCES customers, x text);
             INSERT INTO customers (name) SELECT 'c' || g FROM generate_series(1, 100) g;
             INSERT INTO orders (customer, x) SELECT 1 + g % 100, md5(g::text) FROM generate_series(1, 5000) g;
             CREATE INDEX ON orders (x)",
        )
        .unwrap();
    home.run([&["dump", "orders", "--database", "shop"], words].concat()).good();
    home
}

pub fn rows(server: &Postgres, database: &str) -> String {
    server.query_value_in(database, ROWS).unwrap()
}

pub fn restore(home: &Home, words: &[&str]) -> Ran {
    home.run([&["restore", "orders", "--database", "shop"], words].concat())
}

pub fn databases(server: &Postgres) -> Vec<String> {
    let all = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
    server.query_value(all).unwrap().split(' ').map(str::to_owned).collect()
}

#[test]
fn a_dump_in_every_form_comes_back_into_a_new_database() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        for (number, words) in [
            &["--encrypt", "openssl"][..],
            &["--format", "plain", "--compress", "gzip", "--encrypt", "openpgp"],
            &["--format", "directory"],
            &["--compress", "inside"],
        ]
        .into_iter()
        .enumerate()
        {
            let home = if number == 0 { shop(&server, words) } else { dumping(&server) };
            if number > 0 {
                home.run([&["dump", "orders", "--database", "shop"], words].concat()).good();
            }
            let copy = format!("copy_{number}");
            let jobs = if number == 0 { "3" } else { "1" };
            let ran = restore(&home, &["--into-database", &copy, "--jobs", jobs]).good();
            assert!(ran.out.contains("restored") && ran.out.contains(&copy), "{ran:#?}");
            assert_eq!(rows(&server, &copy), rows(&server, "shop"), "{words:?}");
            let next = "INSERT INTO orders (customer) VALUES (1) RETURNING id";
            assert_eq!(server.query_value_in(&copy, next).unwrap(), "5001", "{words:?}");
            let left = std::fs::read_dir(home.path("dumps")).unwrap().flatten();
            let left: Vec<_> =
                left.filter(|entry| entry.file_name().to_string_lossy().contains("spool")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[test]
fn lost_rows_of_one_table_come_back_into_the_database_that_lost_them() {
    on_each_version(|server| {
        let home = shop(server, &[]);
        let before = rows(server, "shop");
        server.sql_in("shop", "DELETE FROM orders").unwrap();
        let words = ["--into-database", "shop", "--table", "orders"];
        restore(&home, &words)
            .refused(4, &["is not empty", "is what was dumped", "--force --confirm 'shop'"]);
        restore(&home, &[&words[..], &["--force"]].concat()).refused(4, &["--confirm"]);
        restore(&home, &[&words[..], &["--force", "--confirm", "shopping"]].concat())
            .refused(4, &["shopping"]);
        assert_eq!(server.query_value_in("shop", "SELECT count(*) FROM orders").unwrap(), "0");

        let files = shown(&home.path("dumps")).len();
        let told =
            restore(&home, &[&words[..], &["--force", "--confirm", "shop", "--json"]].concat()).good().json();
        assert_eq!(rows(server, "shop"), before);
        // What was there before was dumped first, with its sidecar.
        assert!(shown(&home.path("dumps")).len() >= files + 2);
        let safety = told["safety"]["id"].as_str().unwrap().to_owned();
        restore(&home, &["--backup", &safety, "--into-database", "as_it_was"]).good();
        assert_eq!(server.query_value_in("as_it_was", "SELECT count(*) FROM orders").unwrap(), "0");
        // The sequence stands behind what came back, though the dump's own state was left out.
        let next = "INSERT INTO orders (customer) VALUES (1) RETURNING id";
        assert_eq!(server.query_value_in("shop", next).unwrap(), "5001");
        server.sql_in("shop", "DELETE FROM orders WHERE id = 5001").unwrap();

        // Again: the keys are taken, so all of it is undone.
        restore(&home, &[&words[..], &["--force", "--confirm", "shop"]].concat())
            .refused(4, &["duplicate key"]);
        assert_eq!(rows(server, "shop"), before);

        // Into a database that has none of it, with what it needs and nothing else.
        restore(&home, &["--into-database", "beside", "--table", "customers"]).good();
        let tables = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
        assert_eq!(server.query_value_in("beside", tables).unwrap(), "customers");
        restore(&home, &["--into-database", "none", "--table", "order"]).refused(3, &["order"]);
        assert!(!databases(server).contains(&"none".to_owned()));
    });
}

#[test]
fn a_spoiled_database_is_swapped_for_its_dump_and_kept() {
    on_each_version(|server| {
        let home = shop(server, &[]);
        let before = rows(server, "shop");
        server.sql_in("shop", "DELETE FROM orders WHERE id > 10").unwrap();
        let swap = ["restore", "orders", "--swap", "shop"];
        home.run(swap).refused(4, &["database shop is in use", "--confirm 'shop'"]);
        let planned = home.run([&swap[..], &["--force", "--confirm", "shop", "--dry-run"]].concat()).good();
        assert!(planned.out.contains("rename it to shop_before_"), "{planned:#?}");
        assert_eq!(databases(server), ["postgres", "shop"]);
        // A dump of a part never takes the place of the whole.
        let part =
            ["dump", "orders", "--json", "--database", "shop", "--table", "customers", "--layout", "plain"];
        let part = home.run(part).good().json()["dumps"][0]["id"].as_str().unwrap().to_owned();
        let of_part = [&swap[..], &["--backup", &part, "--force", "--confirm", "shop"]].concat();
        home.run(of_part).refused(2, &["holds parts of a database", "--into-database"]);
        let told = home.run([&swap[..], &["--force", "--confirm", "shop", "--json"]].concat()).good().json();
        assert_eq!(rows(server, "shop"), before);
        let kept = told["kept"].as_str().unwrap();
        assert_eq!(databases(server), ["postgres", "shop", kept]);
        assert_eq!(server.query_value_in(kept, "SELECT count(*) FROM orders").unwrap(), "10");
    });
}

#[test]
fn what_is_damaged_or_closed_changes_nothing() {
    let Some(server) = server() else { return };
    let home = shop(&server, &["--layout", "plain", "--encrypt", "openssl"]);
    std::fs::write(home.path("another"), "another phrase").unwrap();
    let another = format!("dump.passphrase.file={}", home.path("another").display());
    let into = ["--into-database", "copy"];
    restore(&home, &[&into[..], &["--set", &another]].concat()).refused(5, &["pass phrase is not that of"]);
    let is_dump = |file: &PathBuf| file.to_string_lossy().ends_with(".enc") && !file.is_symlink();
    let file = shown(&home.path("dumps")).into_iter().find(is_dump).unwrap();
    flip_a_bit(&file);
    let refused = restore(&home, &into);
    assert_eq!(refused.code, 8, "{refused:#?}");
    // In place of what is there, too: the damage is met before anything is committed.
    let before = rows(&server, "shop");
    let swap = ["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"];
    assert_eq!(home.run(swap).code, 8);
    assert_eq!((rows(&server, "shop"), databases(&server)), (before, vec!["postgres".into(), "shop".into()]));
    // A verification knows it from then on: a restore takes the one before, and says so.
    assert_eq!(home.run(["verify", "orders"]).code, 20);
    restore(&home, &into).refused(8, &["is damaged", "backstay dump"]);
    home.run(["dump", "orders", "--database", "shop"]).good();
    let ran = restore(&home, &into).good();
    assert!(!ran.err.contains("is damaged"), "{ran:#?}");
    for file in shown(&home.path("dumps")) {
        std::fs::remove_file(&file).unwrap();
    }
    restore(&home, &["--into-database", "none"])
        .refused(3, &["no dump of database shop", "backstay dump orders"]);
}

#[test]
fn what_the_target_lacks_is_told_before_the_first_byte() {
    let Some(new) = server_of(PostgresVersion::V17, &PostgresOptions::default()) else { return };
    let Some(old) = server() else { return };
    let home = shop(&new, &[]);
    home.add("old", &old, SUPERUSER, PASSWORD, false);
    home.append("environment = \"staging\"\n");
    let words = ["--into-database", "shop", "--to-server", "old"];
    let ran = restore(&home, &[&words[..], &["--dry-run"]].concat());
    assert_eq!(ran.code, 4, "{ran:#?}");
    for word in ["the dump is of production, and the server is staging", "the dump is of PostgreSQL 17"] {
        assert!(ran.err.contains(word), "no {word:?} in {ran:#?}");
    }
    assert!(!databases(&old).contains(&"shop".to_owned()));

    // The other way round: an older dump, and a role that the target does not have.
    old.sql("CREATE ROLE clerk; CREATE DATABASE stock").unwrap();
    old.sql_in("stock", "CREATE TABLE t (n int); ALTER TABLE t OWNER TO clerk").unwrap();
    home.run(["dump", "old", "--database", "stock"]).good();
    let words =
        ["restore", "old", "--database", "stock", "--into-database", "stock", "--to-server", "orders"];
    let words = [&words[..], &["--force", "--confirm", "stock"]].concat();
    home.run(&words).refused(3, &["role clerk", "CREATE ROLE"]);
    assert!(!databases(&new).contains(&"stock".to_owned()));
    home.run([&words[..], &["--no-owner"]].concat()).good();
    assert!(databases(&new).contains(&"stock".to_owned()));
}

#[test]
fn hypertables_come_back_with_their_chunks_and_take_rows_again() {
    let Some(installation) = testkit::require_timescaledb() else { return };
    let options = PostgresOptions::default()
        .configure("shared_preload_libraries = timescaledb")
        .configure("timescaledb.telemetry_level = off");
    let server = Postgres::start_new(&installation, &options).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server
        .sql_in(
            "shop",
            "CREATE EXTENSION timescaledb;
             CREATE TABLE measured (at timestamptz NOT NULL, value float NOT NULL);
             SELECT create_hypertable('measured', 'at', chunk_time_interval => interval '1 day');
             INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '10 minutes', n
                 FROM generate_series(1, 3000) AS n",
        )
        .unwrap();
    let all = "SELECT concat_ws(' ', count(*), sum(value), (SELECT count(*) FROM \
               timescaledb_information.chunks)) FROM measured";
    let expected = server.query_value_in("shop", all).unwrap();
    let home = dumping(&server);
    let more = "INSERT INTO measured VALUES ('2027-01-01', 1)";
    for (format, copy) in [("custom", "one"), ("plain", "two"), ("directory", "three")] {
        let dumped = home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        // What is known to be harmless is kept in the sidecar and told nobody.
        assert!(!dumped.out.contains("warning"), "{dumped:#?}");
        restore(&home, &["--into-database", copy, "--jobs", "2"]).good();
        assert_eq!(server.query_value_in(copy, all).unwrap(), expected, "{format}");
        server.sql_in(copy, more).unwrap();
    }
    // What a script took says nowhere but in its statements that TimescaleDB is in it.
    for (number, taken) in
        ["pg_dump shop | gzip > left/shop_1.sql.gz", "pg_dumpall | gzip > left/all_2.sql.gz"]
            .into_iter()
            .enumerate()
    {
        let _ = std::fs::remove_dir_all(home.path("left"));
        std::fs::create_dir(home.path("left")).unwrap();
        without_backstay(&server, &home, taken);
        let adopted = home.run(["adopt", "left", "--instance", "orders", "--json"]).good().json();
        let id = adopted["files"][0]["record"]["id"].as_str().unwrap().to_owned();
        let copy = format!("taken_{number}");
        let to = format!("dump.to=file://{}", home.path("left").display());
        let words = [
            "--set",
            &to,
            "restore",
            "orders",
            "--backup",
            &id,
            "--database",
            "shop",
            "--into-database",
            &copy,
        ];
        home.run(words).good();
        assert_eq!(server.query_value_in(&copy, all).unwrap(), expected, "{taken}");
        server.sql_in(&copy, more).unwrap();
        let restoring = "SELECT current_setting('timescaledb.restoring', true)";
        assert_ne!(server.query_value_in(&copy, restoring).unwrap(), "on", "{taken}");
    }
    server.sql_in("shop", "SELECT drop_chunks('measured', '2026-01-10'::timestamptz)").unwrap();
    home.run(["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"]).good();
    assert_eq!(server.query_value_in("shop", all).unwrap(), expected);
    server.sql_in("shop", more).unwrap();
    let scheduler = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' \
                     AND backend_type ILIKE '%timescaledb%scheduler%'";
    let limit = std::time::Duration::from_secs(30);
    testkit::wait_until(limit, "the scheduler of the swapped database", || {
        server.query_value(scheduler).is_ok_and(|count| count == "1")
    })
    .unwrap();
}
