//! A server that replays the whole log from the base, fed by us or by `cp`.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testkit::Postgres;
use testkit::ownership::server_owner;

use super::source::Source;
use super::{COPY, Findings, OURS, Phase, Sample, in_turn};
use crate::bench::measure::Cost;
use crate::process::run_quietly;

const QUESTION: &str =
    "SELECT count(*), sum(abalance), (SELECT count(*) FROM pgbench_history) FROM pgbench_accounts";

/// The log that was received last is in the store.
pub fn measure_round(source: &Source, is_turned: bool, findings: &mut Findings) -> Result<()> {
    let archive = source.path("archive");
    if !archive.exists() {
        fs::create_dir(&archive)?;
        for name in source.names() {
            fs::copy(source.server.data_directory().join("pg_wal").join(&name), archive.join(&name))?;
        }
        server_owner()?.take_all(&archive)?;
    }
    let expected = source.server.query_value(QUESTION)?;
    for contestant in in_turn(vec![COPY, OURS], is_turned) {
        let into = source.path("restored");
        let words = ["restore", "bench", "--quiet", "--into", &into.display().to_string()];
        run_quietly(&mut source.ours(&words))?;
        source.give_away()?;
        source.settle();
        let mut settings = vec!["hot_standby=off".to_owned(), "fsync=on".to_owned()];
        if contestant == COPY {
            settings.push(format!("restore_command=cp {}/%f %p", archive.display()));
        }
        let begun = Instant::now();
        let server = Postgres::start_on_with(source.server.installation(), &into, &settings)
            .with_context(|| format!("replay with {contestant}"))?;
        let wall_seconds = begun.elapsed().as_secs_f64();
        let found = server.query_value(QUESTION)?;
        ensure!(found == expected, "{contestant} replayed to {found} instead of {expected}");
        drop(server);
        fs::remove_dir_all(&into)?;
        let cost = Cost { wall_seconds, cpu_seconds: f64::NAN, ..Cost::default() };
        let segments = source.segments();
        findings.add(Sample { contestant, phase: Phase::Replay, cost, segments, stored_bytes: 0 });
    }
    Ok(())
}
