//! What a commit waits for: nobody, pg_receivewal or us.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::ownership::server_owner;
use testkit::wait_until;

use super::running::Running;
use super::source::{SLOT, Source};
use super::{ALONE, Findings, Latency, OURS, RECEIVEWAL};
use crate::process::run_quietly;

const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: &str = "8";
const SCRIPT: &str = "INSERT INTO waited VALUES (1);\n";

pub fn measure_round(source: &Source, round: u32, findings: &mut Findings) -> Result<()> {
    let server = &source.server;
    server.sql("CREATE TABLE IF NOT EXISTS waited (n int)")?;
    let mut contestants = [ALONE, RECEIVEWAL, OURS];
    let turn = round as usize % contestants.len();
    contestants.rotate_left(turn);
    for contestant in contestants {
        source.drop_slot()?;
        server.sql(&format!("SELECT pg_create_physical_replication_slot('{SLOT}', true)"))?;
        let received = source.path("synchronous");
        let mut running = match contestant {
            RECEIVEWAL => {
                fs::create_dir(&received)?;
                server_owner()?.take(&received)?;
                let mut command = server.tool("pg_receivewal");
                command.arg("--directory").arg(&received).args(["--synchronous", "--slot", SLOT]);
                Some(Running::start(command.env("PGAPPNAME", "backstay"))?)
            }
            OURS => {
                source.forget_log()?;
                let set = "instance.bench.archive.synchronous=true";
                Some(Running::start(&mut source.ours(&["archive", "bench", "--quiet", "--set", set]))?)
            }
            _ => None,
        };
        let names = if running.is_some() { "backstay" } else { "" };
        server.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))?;
        server.reload()?;
        if running.is_some() {
            let counted = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            wait_until(LIMIT, "a receiver that commits wait for", || {
                server.query_value(counted).is_ok_and(|count| count == "1")
            })?;
        }
        let latency = commits(source, contestant)?;
        eprintln!(
            "  {:<14} commits  p50 {:6.3} ms, p99 {:6.3} ms, {:6.0}/s",
            contestant, latency.p50_milliseconds, latency.p99_milliseconds, latency.per_second
        );
        findings.latencies.push(latency);
        server.sql("ALTER SYSTEM SET synchronous_standby_names = ''")?;
        server.reload()?;
        if let Some(running) = running.take() {
            running.stop()?;
        }
        let _ = fs::remove_dir_all(&received);
        source.give_away()?;
    }
    source.drop_slot()
}

/// Single rows, of two clients, each in a transaction.
fn commits(source: &Source, contestant: &'static str) -> Result<Latency> {
    let place = source.path("latency");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place)?;
    let script = place.join("script.sql");
    fs::write(&script, SCRIPT)?;
    let mut pgbench = source.server.tool("pgbench");
    pgbench.args(["--no-vacuum", "--client=2", "--jobs=1", "--time", SECONDS, "--log", "--log-prefix"]);
    pgbench.arg(place.join("log")).arg("--file").arg(&script);
    server_owner()?.take_all(&place)?;
    run_quietly(&mut pgbench)?;
    let mut waited: Vec<f64> = Vec::new();
    for entry in fs::read_dir(&place)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("log.") {
            // Client, transaction, microseconds, and what it is about.
            let text = fs::read_to_string(entry.path())?;
            waited.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
        }
    }
    waited.sort_by(f64::total_cmp);
    let at = |part: f64| -> Result<f64> {
        let place = ((waited.len() as f64 * part) as usize).min(waited.len().saturating_sub(1));
        Ok(waited.get(place).context("pgbench logged nothing")? / 1000.0)
    };
    let seconds: f64 = SECONDS.parse()?;
    Ok(Latency {
        contestant,
        p50_milliseconds: at(0.5)?,
        p99_milliseconds: at(0.99)?,
        per_second: waited.len() as f64 / seconds,
    })
}
