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
    let (mut ours, mut theirs) = (Cost::MOST, Cost::MOST);
    for round in 0..3 {
        let before = cpu();
        let begun = Instant::now();
        let written = back_up(&runtime, &server, None).unwrap();
        let mine = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu().0 - before.0 };
        let bytes = written.received_bytes as f64;
        drop(written);
        let target = server.workspace().directory(&format!("copy{round}")).unwrap();
        testkit::ownership::server_owner().unwrap().take(&target).unwrap();
        let mut tool = server.tool("pg_basebackup");
        tool.args(["--checkpoint=fast", "--wal-method=fetch", "--no-sync", "--host=127.0.0.1"]);
        tool.env("PGPASSWORD", testkit::postgres::PASSWORD).arg("--pgdata").arg(&target);
        let before = cpu();
        let begun = Instant::now();
        testkit::postgres::query::run(&mut tool).unwrap();
        let its = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu().1 - before.1 };
        std::fs::remove_dir_all(target).unwrap();
        println!("{:.0} MB: {mine:.2?}, pg_basebackup {its:.2?}", bytes / 1e6);
        (ours, theirs) = (ours.least(mine), theirs.least(its));
    }
    assert!(ours.wall <= theirs.wall / 0.9, "{ours:.2?} beside {theirs:.2?}");
}

/// Seconds of one backup at the client.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

impl Cost {
    const MOST: Cost = Cost { wall: f64::MAX, cpu: f64::MAX };

    fn least(self, other: Cost) -> Cost {
        Cost { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// Processor seconds of this process, and of the children it has waited for.
fn cpu() -> (f64, f64) {
    const TICKS_PER_SECOND: f64 = 100.0;
    let line = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> =
        line.rsplit_once(')').unwrap().1.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect();
    ((fields[11] + fields[12]) / TICKS_PER_SECOND, (fields[13] + fields[14]) / TICKS_PER_SECOND)
}
