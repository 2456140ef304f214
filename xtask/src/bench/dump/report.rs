//! `docs/benchmarks/portable-dumps.md`. What a person wrote below the line is kept.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::measure::median;
use super::super::page::{self, MEBIBYTE, Targets, machine};
use super::{Findings, OURS, PSQL, Phase, SHELL};

const DOCUMENT: &str = "docs/benchmarks/portable-dumps.md";

/// One contestant in one phase, as medians over the rounds.
struct Summary {
    wall: f64,
    fastest: f64,
    slowest: f64,
    cpu: f64,
    largest_mib: f64,
    stored_mib: f64,
}

impl Findings {
    fn summary(&self, contestant: &str, phase: Phase) -> Option<Summary> {
        let samples = || {
            self.samples.iter().filter(move |sample| sample.contestant == contestant && sample.phase == phase)
        };
        let values = |of: fn(&super::Sample) -> f64| samples().map(of).collect::<Vec<f64>>();
        let walls = values(|sample| sample.cost.wall_seconds);
        if walls.is_empty() {
            return None;
        }
        Some(Summary {
            wall: median(&walls),
            fastest: walls.iter().copied().fold(f64::INFINITY, f64::min),
            slowest: walls.iter().copied().fold(0.0, f64::max),
            cpu: median(&values(|sample| sample.cost.cpu_seconds)),
            largest_mib: median(&values(|sample| sample.cost.largest_process_bytes as f64 / MEBIBYTE)),
            stored_mib: median(&values(|sample| sample.stored_bytes as f64 / MEBIBYTE)),
        })
    }
}

pub fn write(findings: &Findings) -> Result<()> {
    page::write(DOCUMENT, &document(findings)?)?;
    println!("{}{}\nwritten: {DOCUMENT}", targets(findings), tables(findings));
    Ok(())
}

fn document(findings: &Findings) -> Result<String> {
    let mut text = format!(
        "# Portable dumps of PostgreSQL, measured\n\n\
         `backstay dump` beside the pipe of a shell that it replaces, and beside PostgreSQL's own tools, on one PostgreSQL {}, in one\n\
         run of {} rounds, in turns; the figures are medians. The database has {:.0} MiB: accounts of pgbench, and events with text, JSON\n\
         and times. What came back was compared with the source after each restore. Only ratios within one run can be compared.\n\n\
         ```\n{}\n```\n\n",
        findings.server_version,
        findings.rounds,
        findings.database_bytes as f64 / MEBIBYTE,
        findings.command,
    );
    text.push_str(&targets(findings));
    text.push_str(&tables(findings));
    text.push_str("## The contestants\n\n");
    for (name, description) in &findings.contestants {
        let _ = writeln!(text, "- **{name}**: {description}");
    }
    text.push_str("\n## The machine\n\n");
    text.push_str(&machine()?);
    Ok(text)
}

fn targets(findings: &Findings) -> String {
    let mut targets = Targets::begin();
    let of = |name, phase| findings.summary(name, phase);
    let ratio = |theirs, phase| Some(of(OURS, phase)?.wall / of(theirs, phase)?.wall);
    let size = of(OURS, Phase::Dump)
        .zip(of(SHELL, Phase::Dump))
        .map(|(ours, theirs)| ours.stored_mib / theirs.stored_mib);
    targets.at_most("dump, wall time", 0.6, "× the shell's pipe", ratio(SHELL, Phase::Dump));
    targets.at_most("dump, size", 1.0, "× the shell's pipe", size);
    targets.at_most("restore with 2 jobs, wall time", 0.6, "× `psql < dump`", ratio(PSQL, Phase::Restore));
    for (what, phase) in
        [("peak memory of a dump", Phase::Dump), ("peak memory of a restore", Phase::Restore)]
    {
        targets.at_most(what, 100.0, "MiB", of(OURS, phase).map(|summary| summary.largest_mib));
    }
    targets.text()
}

fn tables(findings: &Findings) -> String {
    let mut text = String::new();
    for (phase, title) in [(Phase::Dump, "Dump"), (Phase::Restore, "Restore")] {
        let _ = write!(
            text,
            "## {title}\n\n| | wall s | (fastest–slowest) | cpu s, without the server's | memory, largest process MiB | size MiB |\n\
             |---|--:|--:|--:|--:|--:|\n"
        );
        for (name, _) in &findings.contestants {
            let Some(summary) = findings.summary(name, phase) else { continue };
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.2}–{:.2} | {:.2} | {:.0} | {:.1} |",
                summary.wall,
                summary.fastest,
                summary.slowest,
                summary.cpu,
                summary.largest_mib,
                summary.stored_mib
            );
        }
        text.push('\n');
    }
    text
}
