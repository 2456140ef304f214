//! How fast the remote way is beside `pg_basebackup`, which writes the same
//! stream to the same disk. Measured by hand: a shared machine is no judge.

use std::time::Instant;

use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio::runtime::Runtime;

use super::directory::back_up;

#[test]
#[ignore = "a measurement: run it with --release on a quiet machine"]
fn the_rate_is_at_least_nine_tenths_of_pg_basebackup() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(60).unwrap();
    server.sql("CHECKPOINT").unwrap();
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    for round in 0..3 {
        let begun = Instant::now();
        let written = back_up(&runtime, &server, None).unwrap();
        let mine = begun.elapsed().as_secs_f64();
        let bytes = written.received_bytes as f64;
        drop(written);
        let target = server.workspace().directory(&format!("copy{round}")).unwrap();
        testkit::ownership::server_owner().unwrap().take(&target).unwrap();
        let mut tool = server.tool("pg_basebackup");
        tool.args(["--checkpoint=fast", "--wal-method=fetch", "--no-sync", "--host=127.0.0.1"]);
        tool.env("PGPASSWORD", testkit::postgres::PASSWORD).arg("--pgdata").arg(&target);
        let begun = Instant::now();
        testkit::postgres::query::run(&mut tool).unwrap();
        let its = begun.elapsed().as_secs_f64();
        std::fs::remove_dir_all(target).unwrap();
        println!("{:.0} MB: {mine:.2} s, pg_basebackup {its:.2} s", bytes / 1e6);
        (ours, theirs) = (ours.min(mine), theirs.min(its));
    }
    assert!(ours <= theirs / 0.9, "{ours:.2} s beside {theirs:.2} s");
}
