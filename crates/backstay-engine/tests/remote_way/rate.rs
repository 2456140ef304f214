//! How fast the remote way is beside `pg_basebackup`, when both throw away what
//! they receive: a disk would be measured otherwise. Ours parses, sums and checks
//! every page meanwhile. Measured by hand: a shared machine is no judge.

use std::process::Stdio;
use std::time::Instant;

use backstay_model::parts::{ExtentData, PartSource, Step};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::failures::begin;

#[test]
#[ignore = "a measurement: run it with --release on a quiet machine"]
fn the_rate_is_at_least_nine_tenths_of_pg_basebackup() {
    let Some(installation) = require_postgres(PostgresVersion::V17) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(60).unwrap();
    server.sql("CHECKPOINT").unwrap();
    let (mut ours, mut theirs) = (Cost::MOST, Cost::MOST);
    for _ in 0..5 {
        let before = cpu();
        let begun = Instant::now();
        let bytes = receive(&runtime, &server);
        let mine = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu().0 - before.0 };
        let mut tool = server.tool("pg_basebackup");
        tool.args(["--checkpoint=fast", "--wal-method=fetch", "--host=127.0.0.1"]);
        tool.args(["--format=tar", "--pgdata=-"]).stdout(Stdio::null()).stderr(Stdio::inherit());
        tool.env("PGPASSWORD", testkit::postgres::PASSWORD);
        let before = cpu();
        let begun = Instant::now();
        assert!(tool.status().unwrap().success());
        let its = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu().1 - before.1 };
        println!("{:.0} MB: {mine:.2?}, pg_basebackup {its:.2?}", bytes as f64 / 1e6);
        (ours, theirs) = (ours.least(mine), theirs.least(its));
    }
    assert!(ours.wall <= theirs.wall / 0.9, "{ours:.2?} beside {theirs:.2?}");
}

/// Takes every step and every byte; returns how many there were.
fn receive(runtime: &Runtime, server: &Postgres) -> u64 {
    let (mut backup, _) = begin(runtime, server, &CancellationToken::new());
    let (mut bytes, mut buffer) = (0, Vec::new());
    while let Some(step) = backup.next().unwrap() {
        if let Step::Extent { length, data: ExtentData::Read(reader), .. } = step {
            reader.read(&mut buffer).unwrap();
            bytes += u64::from(length);
        }
    }
    bytes
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
