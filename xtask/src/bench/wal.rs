//! `cargo xtask bench wal`: the log received, pushed, fetched and replayed, beside
//! pg_receivewal, pgBackRest and `cp`; and what a commit waits for when it waits for the log.
//!
//! One PostgreSQL 17 with a base of it and a log of pgbench behind that, on one disk, the
//! contestants taking turns. All of them handle the same log.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use testkit::PostgresVersion;

use super::measure::Cost;
use crate::backstay::{self, Profile};
use crate::servers;

mod latency;
mod receive;
mod replay;
mod report;
pub(super) mod running;
mod segments;
mod source;

use source::Source;

#[derive(Args)]
pub struct Options {
    /// How much log is received and replayed
    #[arg(long, default_value = "2GiB", value_parser = super::mebibytes)]
    size: u64,
    /// How many segments of it are pushed and fetched
    #[arg(long, default_value_t = 48)]
    segments: usize,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where all of it lies, with room for six times the size
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Measure this binary of Backstay instead of one built now
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Measure this alone, and leave the page as it is
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Receive,
    Replay,
    Segments,
    Latency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the receiver has it for good.
    Receive,
    Push,
    Fetch,
    Replay,
}

impl Phase {
    pub const ALL: [Phase; 4] = [Phase::Receive, Phase::Push, Phase::Fetch, Phase::Replay];
}

/// One measured piece of work.
#[derive(Debug, Clone)]
pub struct Sample {
    pub contestant: &'static str,
    pub phase: Phase,
    pub cost: Cost,
    /// Of the log that was handled.
    pub segments: usize,
    /// What lies in the repository for it afterwards.
    pub stored_bytes: u64,
}

/// What commits waited, in one run.
#[derive(Debug, Clone)]
pub struct Latency {
    pub contestant: &'static str,
    pub p50_milliseconds: f64,
    pub p99_milliseconds: f64,
    pub per_second: f64,
}

pub struct Findings {
    pub samples: Vec<Sample>,
    pub latencies: Vec<Latency>,
    pub log_bytes: u64,
    pub server_version: String,
    pub rounds: u32,
    pub command: String,
}

pub const OURS: &str = "Backstay";
pub const RECEIVEWAL: &str = "pg_receivewal";
pub const PGBACKREST: &str = "pgBackRest";
pub const COPY: &str = "cp";
pub const ALONE: &str = "nobody";

pub fn run(options: &Options) -> Result<()> {
    servers::prepare_all()?;
    let installation = testkit::servers::find(PostgresVersion::V17).context("find PostgreSQL 17")?;
    let program = match &options.program {
        Some(program) => program.canonicalize().context("--program")?,
        None => backstay::build(Profile::Release)?,
    };
    eprintln!("writing {} MiB of log", options.size);
    let source = Source::prepare(options, &installation, &program)?;
    let mut findings = Findings {
        samples: Vec::new(),
        latencies: Vec::new(),
        log_bytes: source.log_bytes(),
        server_version: source.server.query_value("SHOW server_version")?,
        rounds: options.rounds,
        command: format!(
            "cargo xtask bench wal --size {}MiB --segments {} --rounds {}",
            options.size, options.segments, options.rounds
        ),
    };
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        // Whoever came first comes last, so that nobody always pays for the others' dirt.
        let is_turned = round % 2 == 1;
        let wanted = |part: Part| options.only.is_none_or(|only| only == part);
        // A replay is of the log that was received.
        if wanted(Part::Receive) || (round == 0 && wanted(Part::Replay)) {
            receive::measure_round(&source, is_turned, &mut findings)?;
        }
        if wanted(Part::Replay) {
            replay::measure_round(&source, is_turned, &mut findings)?;
        }
        if wanted(Part::Segments) {
            segments::measure_round(&source, options.segments, is_turned, &mut findings)?;
        }
        if wanted(Part::Latency) {
            latency::measure_round(&source, round, &mut findings)?;
        }
    }
    match options.only {
        Some(_) => Ok(()),
        None => report::write(&findings),
    }
}

impl Findings {
    fn add(&mut self, sample: Sample) {
        let per_second = sample.segments as f64 / sample.cost.wall_seconds;
        eprintln!(
            "  {:<14} {:<8} {:6.2} s, {per_second:6.1} segments/s, {:6.2} s cpu, {:4} MiB of memory, {:7.1} MiB stored",
            sample.contestant,
            format!("{:?}", sample.phase).to_lowercase(),
            sample.cost.wall_seconds,
            sample.cost.cpu_seconds,
            sample.cost.largest_process_bytes >> 20,
            sample.stored_bytes as f64 / f64::from(1 << 20)
        );
        self.samples.push(sample);
    }
}

/// In order, or the other way round.
fn in_turn<T>(mut contestants: Vec<T>, is_turned: bool) -> Vec<T> {
    if is_turned {
        contestants.reverse();
    }
    contestants
}
