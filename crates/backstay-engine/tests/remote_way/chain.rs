//! Increments of PostgreSQL 17: a chain gives what a whole backup gives, and
//! moves what changed.

use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio::runtime::Runtime;

use super::directory::{Written, back_up};
use super::whole::{compare_with_pg_basebackup, prove};

/// Name, rows and content of every table, by one query over all of them.
fn contents(server: &Postgres) -> String {
    let tables = server
        .query_value("SELECT format('%I', relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1")
        .unwrap();
    let of = |table: &str| {
        let sum = format!("SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t");
        format!("{table} {}\n", server.query_value(&sum).unwrap())
    };
    tables.lines().map(of).collect()
}

fn summarizing() -> PostgresOptions {
    PostgresOptions::default().configure("summarize_wal = on").configure("autovacuum = off")
}

fn info(written: &Written) -> &str {
    match written.findings.as_slice() {
        [finding] => &finding.message,
        other => panic!("one finding is expected: {other:?}"),
    }
}

#[test]
fn a_chain_of_increments_is_what_a_whole_backup_is() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &summarizing()).unwrap();
    server.pgbench_init(8).unwrap();
    server.sql(
        "CREATE TABLE shrinking AS SELECT n, repeat('s', 300) AS filler FROM generate_series(1, 40000) AS n;
         CREATE TABLE emptied AS SELECT n FROM generate_series(1, 10000) AS n;
         CREATE TABLE dropped AS SELECT n FROM generate_series(1, 10000) AS n;
         CREATE TABLE still AS SELECT n, repeat('q', 300) AS filler FROM generate_series(1, 40000) AS n;
         VACUUM;",
    )
    .unwrap();
    let first = back_up(&runtime, &server, None).unwrap();
    assert!(!first.was_incremental);

    server
        .sql(
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 500 = 0;
         DELETE FROM shrinking WHERE n > 10000;
         TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(1, 3000);
         DROP TABLE dropped;
         CREATE TABLE born AS SELECT n FROM generate_series(1, 20000) AS n;",
        )
        .unwrap();
    server.sql("VACUUM shrinking").unwrap();
    let second = back_up(&runtime, &server, Some(&first)).unwrap();
    assert_eq!(second.findings, []);
    assert!(second.was_incremental);
    assert!(second.unchanged_bytes > 3 * second.received_bytes / 2, "{}", second.received_bytes);

    server
        .sql(
            "UPDATE pgbench_accounts SET abalance = abalance - 3 WHERE aid BETWEEN 1000 AND 1200;
         INSERT INTO shrinking SELECT n, repeat('t', 300) FROM generate_series(1, 30000) AS n;
         INSERT INTO born SELECT generate_series(1, 90000);",
        )
        .unwrap();
    server.pgbench_transactions(500).unwrap();
    let third = back_up(&runtime, &server, Some(&second)).unwrap();
    assert!(third.was_incremental);
    // Before anything is read: reading sets hint bits.
    compare_with_pg_basebackup(&server, &third);
    let expected = contents(&server);
    let whole = back_up(&runtime, &server, None).unwrap();
    drop(server);

    let restored = prove(&installation, &third);
    assert_eq!(contents(&restored), expected);
    drop(restored);
    let restored = prove(&installation, &whole);
    assert_eq!(contents(&restored), expected);
}

#[test]
fn time_and_bytes_of_an_increment_follow_the_change() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &summarizing()).unwrap();
    server.pgbench_init(20).unwrap();
    server.sql("VACUUM FREEZE; CHECKPOINT").unwrap();
    let first = back_up(&runtime, &server, None).unwrap();
    server.sql("UPDATE pgbench_branches SET bbalance = 1").unwrap();
    let second = back_up(&runtime, &server, Some(&first)).unwrap();
    assert!(second.was_incremental);
    // What is sent whole each time: catalogues' small files, maps of free space, a segment of log.
    let log: u64 = 2 * second.facts.server.wal_segment_size;
    assert!(second.received_bytes < log + (8 << 20), "{} bytes", second.received_bytes);
    assert!(first.received_bytes > 300 << 20, "{} bytes", first.received_bytes);
}

#[test]
fn a_server_that_is_not_set_up_for_increments_sends_everything_and_no_word_is_lost_on_it() {
    let runtime = Runtime::new().unwrap();
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let options = PostgresOptions::default().configure("log_replication_commands = on");
        let server = Postgres::start_new(&installation, &options).unwrap();
        let first = back_up(&runtime, &server, None).unwrap();
        let second = back_up(&runtime, &server, Some(&first)).unwrap();
        assert!(!second.was_incremental && second.unchanged_bytes == 0);
        assert_eq!(second.findings, []);
        let log = server.log_text();
        assert!(log.contains("BASE_BACKUP") && !log.contains("UPLOAD_MANIFEST"), "{log}");
    }
}

#[test]
fn a_parent_the_server_refuses_is_no_reason_to_fail() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(1).unwrap();
    let first = back_up(&runtime, &server, None).unwrap();
    // Summaries begin after the first backup: they do not reach back to its start.
    server.sql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    server.sql("ALTER SYSTEM SET summarize_wal = on").unwrap();
    server.reload().unwrap();
    server.sql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    let second = back_up(&runtime, &server, Some(&first)).unwrap();
    assert!(!second.was_incremental, "summaries cannot reach back");
    assert!(info(&second).contains("summar"), "{}", info(&second));
    drop(server);
    assert!(prove(&installation, &second).pgbench_sums().unwrap().agree());

    // The parent of another server is not even offered.
    let other = Postgres::start_new(&installation, &summarizing()).unwrap();
    let third = back_up(&runtime, &other, Some(&first)).unwrap();
    assert!(info(&third).contains("another server"), "{}", info(&third));
}

#[test]
fn an_idle_standby_that_begins_before_its_parent_ended_sends_everything() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let primary = Postgres::start_new(&installation, &summarizing()).unwrap();
    primary.pgbench_init(1).unwrap();
    let standby = primary.standby().unwrap();
    standby.wait_for_replay_of(&primary).unwrap();
    let first = back_up(&runtime, &standby, None).unwrap();
    let second = back_up(&runtime, &standby, Some(&first)).unwrap();
    assert!(!second.was_incremental);
    assert!(info(&second).contains("starts at"), "{}", info(&second));
    drop(standby);
    drop(primary);
    assert!(prove(&installation, &second).pgbench_sums().unwrap().agree());
}
