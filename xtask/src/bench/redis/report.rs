//! `docs/benchmarks/redis.md`. What a person wrote below the line is kept.

use std::fmt::Write as _;

use anyhow::Result;

use super::super::measure::median;
use super::super::page::{self, MEBIBYTE, Targets, machine};
use super::{CLI, Findings, OURS, PIPE, Phase, Sample};

const DOCUMENT: &str = "docs/benchmarks/redis.md";

impl Findings {
    fn median(&self, contestant: &str, phase: Phase, value: fn(&Sample) -> f64) -> Option<f64> {
        let of = |sample: &&Sample| sample.contestant == contestant && sample.phase == phase;
        let values: Vec<f64> = self.samples.iter().filter(of).map(value).collect();
        (!values.is_empty()).then(|| median(&values))
    }
}

fn wall(sample: &Sample) -> f64 {
    sample.cost.wall_seconds
}

fn stored(sample: &Sample) -> f64 {
    sample.stored_bytes as f64 / MEBIBYTE
}

fn memory(sample: &Sample) -> f64 {
    sample.cost.largest_process_bytes as f64 / MEBIBYTE
}

pub fn write(findings: &Findings) -> Result<()> {
    let tables = format!("{}{}{}", targets(findings), table(findings), of_stream(findings));
    let text = format!(
        "# Redis, measured\n\n\
         Backstay beside what everybody writes by hand, on one server ({}) with {} keys, whose snapshot has {:.0} MiB, in one run of\n\
         {} rounds, in alternating order; the figures are medians. Only ratios within one run can be compared.\n\n\
         ```\n{}\n```\n\n{tables}## The contestants\n\n\
         - **Backstay**: `backstay backup`, over the wire, sliced, compressed, encrypted and looked at again; *full* reads no parent\n\
         - **redis-cli --rdb**: into a file on the same disk, which it brings there; neither compressed nor encrypted\n\
         - **redis-cli --rdb, gzip, openssl enc**: the pipe of the runbooks, `gzip -6` and `aes-256-cbc`\n\n\
         ## The machine\n\n{}",
        findings.server,
        findings.keys,
        findings.snapshot_bytes as f64 / MEBIBYTE,
        findings.rounds,
        findings.command,
        machine()?,
    );
    page::write(DOCUMENT, &text)?;
    println!("{tables}\nwritten: {DOCUMENT}");
    Ok(())
}

fn targets(findings: &Findings) -> String {
    let of = |contestant, phase, value| findings.median(contestant, phase, value);
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let mut targets = Targets::begin();
    let full = of(OURS, Phase::Full, wall);
    targets.at_most("base, wall time", 1.0, "× redis-cli --rdb", ratio(full, of(CLI, Phase::Full, wall)));
    let changed = ratio(of(OURS, Phase::Changed, stored), of(OURS, Phase::Full, stored));
    targets.at_most("increment, 1 % changed", 10.0, "% of the full", changed.map(|part| part * 100.0));
    if let Some(stream) = &findings.stream {
        let rate = stream.written_bytes as f64 / 1e6 / stream.seconds;
        targets.at_least("stream, received as it was written", 100.0, "MB/s", Some(rate));
        targets.at_most("durable behind the last byte", 1.0, "s", Some(stream.last_seconds));
    }
    let of_bases = [Phase::Full, Phase::Changed, Phase::Unchanged, Phase::Restore];
    let bases = of_bases.iter().filter_map(|phase| of(OURS, *phase, memory)).reduce(f64::max);
    targets.at_most("memory, bases and restores", 64.0, "MiB", bases);
    let archive = findings.stream.as_ref().map(|one| one.cost.largest_process_bytes as f64 / MEBIBYTE);
    targets.at_most("memory, archive", 64.0, "MiB", archive);
    targets.text()
}

fn table(findings: &Findings) -> String {
    let mut text =
        "## Bases\n\n| | | wall s | cpu s | memory MiB | MiB there |\n|---|---|--:|--:|--:|--:|\n".to_owned();
    for (phase, title) in [
        (Phase::Full, "full"),
        (Phase::Changed, "one value in a hundred changed"),
        (Phase::Unchanged, "nothing changed"),
        (Phase::Restore, "restore"),
    ] {
        for contestant in [OURS, CLI, PIPE] {
            let of = |value| findings.median(contestant, phase, value);
            let (Some(wall), Some(memory), Some(stored)) = (of(wall), of(memory), of(stored)) else {
                continue;
            };
            let cpu = of(|sample| sample.cost.cpu_seconds).unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| {title} | {contestant} | {wall:.2} | {cpu:.2} | {memory:.0} | {stored:.1} |"
            );
        }
    }
    text.push('\n');
    text
}

fn of_stream(findings: &Findings) -> String {
    let Some(one) = &findings.stream else { return String::new() };
    format!(
        "## The stream\n\n| MB/s | for s | at most behind, MB | durable after, s | stored after, s | cpu s | memory MiB | stored, % |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n| {:.0} | {:.0} | {:.1} | {:.2} | {:.1} | {:.1} | {:.0} | {:.0} |\n\n",
        one.written_bytes as f64 / 1e6 / one.seconds,
        one.seconds,
        one.most_behind as f64 / 1e6,
        one.last_seconds,
        one.stored_seconds,
        one.cost.cpu_seconds,
        one.cost.largest_process_bytes as f64 / MEBIBYTE,
        one.stored_bytes as f64 / one.written_bytes as f64 * 100.0
    )
}
