//! A chain of backups under load, restored through the repository, and then handed
//! to PostgreSQL's own judges: pg_verifybackup, pg_amcheck, pg_checksums.

use std::process::Command;

use backstay_model::BackupType;
use backstay_ops::backup::BackupOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::{backup, restore};
use testkit::{Postgres, PostgresOptions, PostgresVersion, StopMode};

use crate::house::House;

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn chain_under_load(version: PostgresVersion, local: bool, summaries: bool) {
    let Some(installation) = testkit::require_postgres(version) else { return };
    let mut options = PostgresOptions::default().configure("wal_level = replica");
    if summaries {
        options = options.configure("summarize_wal = on");
    }
    let server = Postgres::start_new(&installation, &options).unwrap();
    let mut house = House::around(server).await;
    if !local {
        house.settings().data_directory = None;
    }
    house.server.pgbench_init(8).unwrap();
    let load = house.server.pgbench_load().unwrap();
    let options = BackupOptions::default();
    let mut newest = backup::run(&house.context, &house.instance, &options).await.unwrap();
    for _ in 0..3 {
        // A relation that goes and one that comes, beside the pages that change.
        house
            .server
            .sql(
                "DROP TABLE IF EXISTS passing; CREATE TABLE passing AS SELECT generate_series(1, 30000) AS n",
            )
            .unwrap();
        newest = backup::run(&house.context, &house.instance, &options).await.unwrap();
        assert_eq!(newest.backup_type, BackupType::Incremental, "{:?}", newest.findings);
    }
    load.stop();

    let wanted = RestoreOptions { into: house.place("restored"), ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &wanted).await.unwrap();
    assert_eq!(plan.base.as_ref(), Some(&newest.id));
    restore::run(&house.context, &house.instance, &wanted, plan).await.unwrap();

    run(house.server.tool("pg_verifybackup").arg("-n").arg(&wanted.into));
    let mut copy = Postgres::start_on(&installation, &wanted.into).unwrap();
    let sums = copy.pgbench_sums().unwrap();
    assert!(sums.agree(), "{sums:?}");
    assert_eq!(copy.query_value("SELECT count(*) FROM passing").unwrap(), "30000");
    run(copy.tool("pg_amcheck").args(["--all", "--install-missing", "--heapallindexed"]));
    copy.stop(StopMode::Fast).unwrap();
    run(copy.tool("pg_checksums").arg("--check").arg(&wanted.into));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15_finds_nothing_wrong_with_a_chain_read_from_its_directory() {
    chain_under_load(PostgresVersion::V15, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15_finds_nothing_wrong_with_a_chain_that_came_over_the_network() {
    chain_under_load(PostgresVersion::V15, false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17_finds_nothing_wrong_with_a_chain_read_from_its_directory() {
    chain_under_load(PostgresVersion::V17, true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17_finds_nothing_wrong_with_a_chain_of_its_own_increments() {
    chain_under_load(PostgresVersion::V17, false, true).await;
}
