//! `docs/benchmarks/postgres-base.md`: the table, the ratios against what was
//! promised, the machine. What a person wrote below the line is kept.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::measure::median;
use super::page::{self, MEBIBYTE, Targets, machine};
use super::{Findings, Phase, Sample, chart};
use crate::process::project;

const DOCUMENT: &str = "docs/benchmarks/postgres-base.md";
const CHART: &str = "docs/benchmarks/postgres-base.svg";

/// The tool all ratios refer to.
const REFERENCE: &str = "pgBackRest";
const OURS: &str = "Backstay";

/// One tool in one phase, as medians over the rounds.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub wall: f64,
    pub fastest: f64,
    pub slowest: f64,
    pub cpu: f64,
    pub largest_mib: f64,
    pub sum_mib: f64,
    pub stored_mib: f64,
}

impl Findings {
    pub fn summary(&self, tool: &str, phase: Phase) -> Option<Summary> {
        let samples: Vec<&Sample> =
            self.samples.iter().filter(|sample| sample.tool == tool && sample.phase == phase).collect();
        if samples.is_empty() {
            return None;
        }
        let values = |of: fn(&Sample) -> f64| samples.iter().map(|sample| of(sample)).collect::<Vec<f64>>();
        let walls = values(|sample| sample.cost.wall_seconds);
        Some(Summary {
            wall: median(&walls),
            fastest: walls.iter().copied().fold(f64::INFINITY, f64::min),
            slowest: walls.iter().copied().fold(0.0, f64::max),
            cpu: median(&values(|sample| sample.cost.cpu_seconds)),
            largest_mib: median(&values(|sample| sample.cost.largest_process_bytes as f64 / MEBIBYTE)),
            sum_mib: median(&values(|sample| sample.cost.sum_bytes as f64 / MEBIBYTE)),
            stored_mib: median(&values(|sample| sample.stored_bytes as f64 / MEBIBYTE)),
        })
    }

    fn database_mib(&self) -> f64 {
        self.database_bytes as f64 / MEBIBYTE
    }
}

pub fn write(findings: &Findings) -> Result<()> {
    page::write(DOCUMENT, &document(findings)?)?;
    fs::write(project().join(CHART), chart::draw(findings)).with_context(|| format!("write {CHART}"))?;
    println!("{}\n{}\nwritten: {DOCUMENT}, {CHART}", tables(findings), targets(findings));
    Ok(())
}

fn document(findings: &Findings) -> Result<String> {
    let mut text = format!(
        "# Base backups of PostgreSQL, measured\n\n\
         Backstay beside its peers on one PostgreSQL {}, in one run of {} rounds, in alternating order; the figures are medians.\n\
         The database has {:.0} MiB of pgbench data with page checksums, all of it in the page cache; {} pages ({:.1} %) are\n\
         changed before the increment, chosen by a hash of their number. Each tool begins each round with an empty repository on the\n\
         same file system, and what a restore has placed stays there until the last round: ext4 is slow in making files where thousands\n\
         were just removed, and whoever came last would pay. Figures of different runs or machines cannot be compared; ratios within\n\
         one run can.\n\n\
         ```\n{}\n```\n\n\
         ![Wall time and stored bytes of each tool](postgres-base.svg)\n\n",
        findings.server_version,
        findings.rounds,
        findings.database_mib(),
        findings.changed_pages,
        100.0 * findings.changed_pages as f64 / (findings.database_bytes as f64 / 8192.0),
        findings.command,
    );
    text.push_str(&targets(findings));
    text.push_str(&tables(findings));
    text.push_str("## The tools\n\n");
    for (name, description) in &findings.tools {
        let _ = writeln!(text, "- **{name}**: {description}");
    }
    text.push_str("\n## The machine\n\n");
    text.push_str(&machine()?);
    Ok(text)
}

/// What was promised, and what came out.
pub fn targets(findings: &Findings) -> String {
    let mut targets = Targets::begin();
    let ours = |phase| findings.summary(OURS, phase);
    let ratio = |phase| Some(ours(phase)?.wall / findings.summary(REFERENCE, phase)?.wall);
    let of_reference = format!("× {REFERENCE}");
    targets.at_most("full backup, wall time", 0.5, &of_reference, ratio(Phase::Full));
    targets.at_most("increment after 4 %, wall time", 0.3, &of_reference, ratio(Phase::Changed));
    let per_1000 = |summary: super::report::Summary| summary.stored_mib * 1000.0 / findings.database_mib();
    let unit = "MiB per 1000 MiB";
    targets.at_most("increment after 4 %, stored", 8.0, unit, ours(Phase::Changed).map(per_1000));
    targets.at_most("unchanged increment, stored", 0.25, "MiB", ours(Phase::Unchanged).map(|s| s.stored_mib));
    targets.at_most("restore, wall time", 0.5, &of_reference, ratio(Phase::Restore));
    let peak = [Phase::Full, Phase::Changed, Phase::Unchanged]
        .iter()
        .filter_map(|phase| ours(*phase))
        .map(|summary| summary.largest_mib)
        .reduce(f64::max);
    targets.at_most("peak memory of a backup", 100.0, "MiB", peak);
    let rate = findings
        .summary("pg_basebackup", Phase::Full)
        .zip(findings.summary("Backstay, remote", Phase::Full))
        .map(|(theirs, ours)| theirs.wall / ours.wall);
    targets.at_least("remote full backup, rate", 0.9, "× pg_basebackup", rate);
    targets.text()
}

pub fn tables(findings: &Findings) -> String {
    let mut text = String::new();
    for phase in Phase::ALL {
        let _ = write!(
            text,
            "## {}\n\n| | wall s | (fastest–slowest) | × {REFERENCE} | cpu s | memory, largest process MiB | all processes MiB |{}\n",
            phase.title(),
            if phase == Phase::Restore { "" } else { " stored MiB |" }
        );
        text.push_str(if phase == Phase::Restore {
            "|---|--:|--:|--:|--:|--:|--:|\n"
        } else {
            "|---|--:|--:|--:|--:|--:|--:|--:|\n"
        });
        let reference = findings.summary(REFERENCE, phase).map(|summary| summary.wall);
        for (tool, _) in &findings.tools {
            let Some(summary) = findings.summary(tool, phase) else { continue };
            let ratio = reference.map_or("–".to_owned(), |wall| format!("{:.2}", summary.wall / wall));
            let _ = write!(
                text,
                "| {tool} | {:.2} | {:.2}–{:.2} | {ratio} | {:.2} | {:.0} | {:.0} |",
                summary.wall,
                summary.fastest,
                summary.slowest,
                summary.cpu,
                summary.largest_mib,
                summary.sum_mib
            );
            text.push_str(&if phase == Phase::Restore {
                "\n".to_owned()
            } else {
                format!(" {:.2} |\n", summary.stored_mib)
            });
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Cost;

    fn findings(ours: f64, theirs: f64) -> Findings {
        let sample = |tool, phase, wall_seconds: f64| Sample {
            tool,
            phase,
            cost: Cost {
                wall_seconds,
                cpu_seconds: 1.0,
                largest_process_bytes: 50 << 20,
                sum_bytes: 60 << 20,
            },
            stored_bytes: 4 << 20,
        };
        let mut samples = Vec::new();
        for phase in Phase::ALL {
            samples.extend([
                sample(OURS, phase, ours),
                sample(OURS, phase, ours),
                sample(REFERENCE, phase, theirs),
            ]);
        }
        Findings {
            samples,
            tools: vec![(OURS, "ours".to_owned()), (REFERENCE, "theirs".to_owned())],
            database_bytes: 1000 << 20,
            changed_pages: 5120,
            server_version: "17".to_owned(),
            rounds: 1,
            command: "cargo xtask bench postgres".to_owned(),
        }
    }

    #[test]
    fn a_promise_is_kept_or_missed_by_the_ratio() {
        let text = targets(&findings(2.0, 5.0));
        assert!(
            text.contains("| full backup, wall time | ≤ 0.5 × pgBackRest | 0.40 × pgBackRest | met |"),
            "{text}"
        );
        assert!(text.contains(
            "| increment after 4 %, wall time | ≤ 0.3 × pgBackRest | 0.40 × pgBackRest | **missed** |"
        ));
        assert!(text.contains(
            "| increment after 4 %, stored | ≤ 8 MiB per 1000 MiB | 4.00 MiB per 1000 MiB | met |"
        ));
        assert!(text.contains("| unchanged increment, stored | ≤ 0.25 MiB | 4.00 MiB | **missed** |"));
        assert!(!text.contains("remote"), "what was not measured was judged: {text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let cells = |line: &str| line.matches('|').count();
        let document = document(&findings(1.0, 2.0)).unwrap();
        let mut head = None;
        for line in document.lines() {
            if !line.starts_with('|') {
                head = None;
                continue;
            }
            assert_eq!(cells(line), cells(head.get_or_insert(line)), "{line}");
        }
    }

    #[test]
    fn the_chart_has_a_bar_for_each_tool_in_each_panel() {
        let chart = chart::draw(&findings(1.0, 2.0));
        assert_eq!(chart.matches("class=\"bar ours\"").count(), 5);
        assert_eq!(chart.matches("class=\"bar\"").count(), 5);
        assert_eq!(chart.matches("<text").count(), chart.matches("</text>").count());
    }
}
