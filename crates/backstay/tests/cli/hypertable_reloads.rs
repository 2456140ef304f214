//! Dumps with TimescaleDB put back where somebody made a database for them, and copies
//! that lack something of its catalogue.

use testkit::{Postgres, PostgresOptions};

use super::dumps::{dumping, without_backstay};
use super::program::Home;
use super::reloads::{databases, restore};

const ALL: &str = "SELECT concat_ws(' ', count(*), sum(value), (SELECT count(*) FROM \
                   timescaledb_information.chunks)) FROM measured";

/// Whether the extension is there, and rests.
const STATE: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'), \
                     coalesce(current_setting('timescaledb.restoring', true), 'off'))";

fn measured() -> Option<(Postgres, Home)> {
    let installation = testkit::require_timescaledb()?;
    let options = PostgresOptions::default()
        .configure("shared_preload_libraries = timescaledb")
        .configure("timescaledb.telemetry_level = off")
        .configure("max_worker_processes = 32");
    let server = Postgres::start_new(&installation, &options).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server
        .sql_in(
            "shop",
            "CREATE EXTENSION timescaledb;
             CREATE TABLE measured (at timestamptz NOT NULL, value float NOT NULL);
             SELECT create_hypertable('measured', 'at', chunk_time_interval => interval '1 day');
             INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '10 minutes', n
                 FROM generate_series(1, 1000) AS n;
             CREATE PROCEDURE nothing(job_id int, config jsonb) LANGUAGE sql AS '';
             INSERT INTO _timescaledb_config.bgw_job (application_name, schedule_interval, max_runtime, max_retries,
                 retry_period, proc_schema, proc_name, fixed_schedule)
             VALUES ('a test''s', '1 hour', '1 minute', -1, '1 second', 'public', 'nothing', false)",
        )
        .unwrap();
    let home = dumping(&server);
    Some((server, home))
}

/// A view whose filling does this, anywhere but in the source.
fn spoil(server: &Postgres, how: &str) {
    server
        .sql_in(
            "shop",
            &format!(
                "DROP MATERIALIZED VIEW IF EXISTS spoils;
                 DROP FUNCTION IF EXISTS spoil();
                 CREATE FUNCTION spoil() RETURNS int LANGUAGE plpgsql AS $$
                 BEGIN IF current_database() <> 'shop' THEN {how} END IF; RETURN 1; END $$;
                 CREATE MATERIALIZED VIEW spoils AS SELECT public.spoil()"
            ),
        )
        .unwrap();
}

fn dump(home: &Home, format: &str) -> String {
    let words = ["dump", "orders", "--database", "shop", "--format", format, "--json"];
    home.run(words).good().json()["dumps"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_database_that_somebody_made_takes_a_whole_dump_and_its_jobs_run() {
    let Some((server, home)) = measured() else { return };
    let expected = server.query_value_in("shop", ALL).unwrap();
    for (format, copy) in [("custom", "one"), ("plain", "two"), ("directory", "three")] {
        let id = dump(&home, format);
        server.sql(&format!("CREATE DATABASE {copy}")).unwrap();
        if format == "plain" {
            server.sql_in(copy, "CREATE EXTENSION timescaledb").unwrap();
        }
        restore(&home, &["--backup", &id, "--into-database", copy]).good();
        assert_eq!(server.query_value_in(copy, ALL).unwrap(), expected, "{format}");
        assert_eq!(server.query_value_in(copy, STATE).unwrap(), "1 off", "{format}");
        server.sql_in(copy, "INSERT INTO measured VALUES ('2027-01-01', 1)").unwrap();
        let chunks = "SELECT count(*) FROM show_chunks('measured')";
        assert_eq!(server.query_value_in(copy, chunks).unwrap(), "8", "{format}");
    }
    // What somebody works with is no place for another catalogue.
    let words = ["--into-database", "shop", "--force", "--confirm", "shop"];
    restore(&home, &words).refused(4, &["only into an empty database", "--swap"]);
    assert_eq!(server.query_value_in("shop", ALL).unwrap(), expected);
}

#[test]
fn a_database_that_somebody_made_is_empty_again_when_nothing_came() {
    let Some((server, home)) = measured() else { return };
    spoil(&server, "RAISE 'never';");
    dump(&home, "custom");
    server.sql("CREATE DATABASE made").unwrap();
    restore(&home, &["--into-database", "made"]).refused(4, &["never"]);
    assert_eq!(server.query_value_in("made", STATE).unwrap(), "0 off");
    server.sql("CREATE DATABASE prepared").unwrap();
    server.sql_in("prepared", "CREATE EXTENSION timescaledb").unwrap();
    restore(&home, &["--into-database", "prepared"]).refused(4, &["never"]);
    assert_eq!(server.query_value_in("prepared", STATE).unwrap(), "1 off");
}

#[test]
fn what_a_copy_lacks_of_the_catalogue_is_an_error() {
    let Some((server, home)) = measured() else { return };
    let ways = [
        ("DELETE FROM _timescaledb_config.bgw_job WHERE id >= 1000;", "has 0 jobs here, and the dump has 1"),
        (
            "UPDATE _timescaledb_catalog.metadata SET value = '0.0.1' WHERE key = 'timescaledb_version';",
            "here, and the dump is of 0.0.1",
        ),
    ];
    for (number, (how, said)) in ways.into_iter().enumerate() {
        spoil(&server, how);
        let id = dump(&home, ["custom", "plain"][number]);
        let copy = format!("copy{number}");
        let ran = restore(&home, &["--backup", &id, "--into-database", &copy]);
        assert_eq!(ran.code, 20, "{ran:#?}");
        assert!(ran.out.contains(said), "no {said:?} in {ran:#?}");
        // What the extension itself says of it is told as well.
        assert_eq!(ran.out.contains("TimescaleDB was not told"), number == 1, "{ran:#?}");
        server.sql(&format!("DROP DATABASE {copy} WITH (FORCE)")).unwrap();
        home.run(["restore", "orders", "--swap", "shop", "--backup", &id, "--force", "--confirm", "shop"])
            .refused(4, &["did not take the place of shop", said]);
        assert_eq!(restore(&home, &["--backup", &id, "--test"]).code, 20);
        assert_eq!(databases(&server), ["postgres", "shop"]);
    }
}

#[test]
fn the_version_of_what_others_dumped_is_known_where_statements_say_it() {
    let Some((server, home)) = measured() else { return };
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
    let version = server.query_value_in("shop", version).unwrap();
    for (taken, content) in [("pg_dump shop", "postgres"), ("pg_dumpall", "shop")] {
        let _ = std::fs::remove_dir_all(home.path("left"));
        std::fs::create_dir(home.path("left")).unwrap();
        without_backstay(&server, &home, &format!("{taken} | gzip > left/shop_1.sql.gz"));
        let adopted = home.run(["adopt", "left", "--instance", "orders", "--json"]).good().json();
        let record = &adopted["files"][0]["record"];
        assert_eq!(record["needs"][content]["versions"]["timescaledb"], version.as_str(), "{record}");
        let id = record["id"].as_str().unwrap();
        let to = format!("dump.to=file://{}", home.path("left").display());
        let words = ["--set", &to, "restore", "orders", "--backup", id, "--database", "shop", "--test"];
        let ran = home.run(words).good();
        assert!(!ran.err.contains("it does not say"), "{ran:#?}");
    }
    std::fs::remove_dir_all(home.path("left")).unwrap();
    std::fs::create_dir(home.path("left")).unwrap();
    without_backstay(
        &server,
        &home,
        "pg_dump shop | sed 's/^timescaledb_version\t[0-9.]*/timescaledb_version\t0.0.1/' > left/shop_2.sql",
    );
    let adopted = home.run(["adopt", "left", "--instance", "orders", "--json"]).good().json();
    let id = adopted["files"][0]["record"]["id"].as_str().unwrap();
    let to = format!("dump.to=file://{}", home.path("left").display());
    let words = ["--set", &to, "restore", "orders", "--backup", id, "--database", "shop", "--test"];
    home.run(words).refused(7, &["timescaledb", "0.0.1"]);

    // An archive keeps it among its rows, and one that is packed otherwise keeps it to itself.
    for (taken, knows) in [
        ("pg_dump -Fc shop > left/shop_3.dump", true),
        ("pg_dump -Fc -Z0 shop > left/shop_4.dump", true),
        ("pg_dump -Fc -Zlz4 shop > left/shop_5.dump", false),
    ] {
        std::fs::remove_dir_all(home.path("left")).unwrap();
        std::fs::create_dir(home.path("left")).unwrap();
        without_backstay(&server, &home, taken);
        let adopted = home.run(["adopt", "left", "--instance", "orders", "--json"]).good().json();
        let record = &adopted["files"][0]["record"];
        let known = record["extensions"]["timescaledb"].as_str();
        assert_eq!(known, knows.then_some(version.as_str()), "{taken}: {record}");
        let id = record["id"].as_str().unwrap();
        let words = ["--set", &to, "restore", "orders", "--backup", id, "--database", "shop", "--test"];
        let ran = home.run(words).good();
        let says = ran.err.contains("of which version of timescaledb the dump is, it does not say");
        assert_eq!(says, !knows, "{ran:#?}");
    }
}
