//! The whole log, from a slot at its beginning, until the receiver has it for good.

use std::fs;

use anyhow::Result;
use testkit::ownership::server_owner;

use super::running::Running;
use super::source::{SLOT, Source};
use super::{Findings, OURS, Phase, RECEIVEWAL, Sample, in_turn};
use crate::bench::measure::{bytes_below, measure};

pub fn measure_round(source: &Source, is_turned: bool, findings: &mut Findings) -> Result<()> {
    for contestant in in_turn(vec![RECEIVEWAL, OURS], is_turned) {
        source.fresh_slot()?;
        source.settle();
        let sample = if contestant == OURS { ours(source)? } else { theirs(source)? };
        findings.add(sample);
        source.drop_slot()?;
    }
    Ok(())
}

/// Ours compresses, encrypts and stores in the same time, which the other does not. What
/// counts is that the server may forget the log; the store has it soon after.
fn ours(source: &Source) -> Result<Sample> {
    source.forget_log()?;
    let mut running = Running::start(&mut source.ours(&["archive", "bench", "--quiet"]))?;
    let question = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND restart_lsn - '0/0' >= {}",
        source.to
    );
    let cost = running.until("the log to be received", || {
        source.server.query_value(&question).is_ok_and(|count| count == "1")
    })?;
    running.stop()?;
    source.give_away()?;
    let stored_bytes = source.stored_log_bytes()?;
    Ok(Sample { contestant: OURS, phase: Phase::Receive, cost, segments: source.segments(), stored_bytes })
}

fn theirs(source: &Source) -> Result<Sample> {
    let directory = source.path("received");
    fs::create_dir(&directory)?;
    server_owner()?.take(&directory)?;
    let mut command = source.server.tool("pg_receivewal");
    let end = format!("{:X}/{:X}", source.to >> 32, source.to & 0xFFFF_FFFF);
    command.arg("--directory").arg(&directory).args(["--no-loop", "--slot", SLOT, "--endpos", &end]);
    let cost = measure(&mut command)?;
    let stored_bytes = bytes_below(&directory)?;
    fs::remove_dir_all(&directory)?;
    let segments = source.segments();
    Ok(Sample { contestant: RECEIVEWAL, phase: Phase::Receive, cost, segments, stored_bytes })
}
