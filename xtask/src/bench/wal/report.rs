//! `docs/benchmarks/wal.md`. What a person wrote below the line is kept.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::measure::median;
use super::super::page::{self, MEBIBYTE, Targets, machine};
use super::{ALONE, COPY, Findings, OURS, PGBACKREST, Phase, RECEIVEWAL, Sample};

const DOCUMENT: &str = "docs/benchmarks/wal.md";

/// One contestant in one phase, as medians over the rounds.
struct Summary {
    wall: f64,
    per_second: f64,
    cpu: f64,
    largest_mib: f64,
    stored_mib: f64,
}

impl Findings {
    fn summary(&self, contestant: &str, phase: Phase) -> Option<Summary> {
        let samples = || {
            self.samples.iter().filter(move |sample| sample.contestant == contestant && sample.phase == phase)
        };
        samples().next()?;
        let of = |value: fn(&Sample) -> f64| median(&samples().map(value).collect::<Vec<f64>>());
        Some(Summary {
            wall: of(|sample| sample.cost.wall_seconds),
            per_second: of(|sample| sample.segments as f64 / sample.cost.wall_seconds),
            cpu: of(|sample| sample.cost.cpu_seconds),
            largest_mib: of(|sample| sample.cost.largest_process_bytes as f64 / MEBIBYTE),
            stored_mib: of(|sample| sample.stored_bytes as f64 / MEBIBYTE),
        })
    }

    fn latency(&self, contestant: &str) -> Option<[f64; 3]> {
        let of = |value: fn(&super::Latency) -> f64| {
            let samples = self.latencies.iter().filter(|one| one.contestant == contestant);
            median(&samples.map(value).collect::<Vec<f64>>())
        };
        self.latencies.iter().any(|one| one.contestant == contestant).then(|| {
            [of(|one| one.p50_milliseconds), of(|one| one.p99_milliseconds), of(|one| one.per_second)]
        })
    }
}

pub fn write(findings: &Findings) -> Result<()> {
    let tables = format!("{}{}", targets(findings), tables(findings));
    let text = format!(
        "# The log of PostgreSQL, measured\n\n\
         Backstay beside its peers on one PostgreSQL {}, in one run of {} rounds, in alternating order; the figures are medians. The\n\
         log has {:.0} MiB, written by pgbench with a checkpoint now and then, and every contestant handles the same bytes. Only ratios\n\
         within one run can be compared.\n\n```\n{}\n```\n\n{tables}{}\n## The machine\n\n{}",
        findings.server_version,
        findings.rounds,
        findings.log_bytes as f64 / MEBIBYTE,
        findings.command,
        contestants(),
        machine()?,
    );
    page::write(DOCUMENT, &text)?;
    println!("{tables}\nwritten: {DOCUMENT}");
    Ok(())
}

fn contestants() -> &'static str {
    "## The contestants\n\n\
     - **Backstay**: `backstay archive` receives into its spool, and compresses, encrypts and stores at the same time; the time of \
     *received* ends when the server may forget the log. `backstay wal push` as `archive_command`, `backstay wal fetch` as \
     `restore_command`\n\
     - **pg_receivewal**: plain files, neither compressed nor encrypted; for the latency with `--synchronous`\n\
     - **pgBackRest**: `archive-push` and `archive-get`, both asynchronous with two processes, zst level 3, aes-256-cbc\n\
     - **cp**: `restore_command = 'cp …'` from a directory on the same disk\n\n\
     *Pushed*: the archiver of the server finds the segments waiting, and calls its `archive_command` for each. *Fetched*: a script\n\
     asks for each segment in order. *Replayed*: a server starts on the restored base and is open when all is replayed.\n"
}

fn targets(findings: &Findings) -> String {
    let mut targets = Targets::begin();
    let of = |name, phase| findings.summary(name, phase);
    let rate = |theirs, phase| Some(of(OURS, phase)?.per_second / of(theirs, phase)?.per_second);
    targets.at_least(
        "received, segments per second",
        1.0,
        "× pg_receivewal",
        rate(RECEIVEWAL, Phase::Receive),
    );
    targets.at_least("pushed, segments per second", 2.0, "× pgBackRest", rate(PGBACKREST, Phase::Push));
    let replay =
        of(OURS, Phase::Replay).zip(of(COPY, Phase::Replay)).map(|(ours, theirs)| ours.wall / theirs.wall);
    targets.at_most("replayed, wall time", 1.1, "× cp", replay);
    let stored = of(OURS, Phase::Push)
        .zip(of(PGBACKREST, Phase::Push))
        .map(|(ours, theirs)| ours.stored_mib / theirs.stored_mib);
    targets.at_most("stored bytes", 1.0, "× pgBackRest", stored);
    let peak = [Phase::Receive, Phase::Push, Phase::Fetch]
        .iter()
        .filter_map(|phase| of(OURS, *phase))
        .map(|summary| summary.largest_mib)
        .reduce(f64::max);
    targets.at_most("peak memory", 64.0, "MiB", peak);
    targets.text()
}

fn tables(findings: &Findings) -> String {
    let mut text = String::new();
    for phase in Phase::ALL {
        let title = match phase {
            Phase::Receive => "Received",
            Phase::Push => "Pushed",
            Phase::Fetch => "Fetched",
            Phase::Replay => "Replayed",
        };
        let _ = write!(
            text,
            "## {title}\n\n| | wall s | segments/s | cpu s | memory, largest process MiB | stored MiB |\n\
             |---|--:|--:|--:|--:|--:|\n"
        );
        for name in [OURS, RECEIVEWAL, PGBACKREST, COPY] {
            let Some(summary) = findings.summary(name, phase) else { continue };
            // What is of the server's children, or the server itself, was not measured.
            let shown = |value: f64, digits: usize| {
                if value.is_nan() || value == 0.0 { "–".to_owned() } else { format!("{value:.digits$}") }
            };
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.1} | {} | {} | {} |",
                summary.wall,
                summary.per_second,
                shown(summary.cpu, 2),
                shown(summary.largest_mib, 0),
                shown(summary.stored_mib, 1)
            );
        }
        text.push('\n');
    }
    text.push_str("## A commit, and who it waits for\n\n| | p50 ms | p99 ms | commits/s of two clients |\n|---|--:|--:|--:|\n");
    for name in [ALONE, RECEIVEWAL, OURS] {
        if let Some([p50, p99, per_second]) = findings.latency(name) {
            let _ = writeln!(text, "| {name} | {p50:.2} | {p99:.2} | {per_second:.0} |");
        }
    }
    text.push('\n');
    text
}
