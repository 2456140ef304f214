//! A page of `docs/benchmarks/`: what a run measured, and below a line what a person made of it.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{project, run_quietly};

/// Everything below is written by hand and survives the next run.
const LINE: &str = "<!-- written by hand below this line -->";

pub const MEBIBYTE: f64 = 1_048_576.0;

/// Writes what was measured, with its path below the project, and keeps what is below the line.
pub fn write(document: &str, measured: &str) -> Result<()> {
    let path = project().join(document);
    let by_hand = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.split_once(LINE).map(|(_, below)| below.to_owned()))
        .unwrap_or_else(|| "\n".to_owned());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, format!("{}\n\n{LINE}{by_hand}", measured.trim_end()))
        .with_context(|| format!("write {document}"))
}

/// What was promised, and what came out.
pub struct Targets(String);

impl Targets {
    pub fn begin() -> Targets {
        Targets(
            "## Against what was promised\n\n| what | to reach | measured | |\n|---|---|---|---|\n"
                .to_owned(),
        )
    }

    pub fn at_most(&mut self, what: &str, limit: f64, unit: &str, value: Option<f64>) {
        self.row(what, ("≤", limit), unit, value, |value| value <= limit);
    }

    pub fn at_least(&mut self, what: &str, limit: f64, unit: &str, value: Option<f64>) {
        self.row(what, ("≥", limit), unit, value, |value| value >= limit);
    }

    /// Nothing for what was not measured in this run.
    fn row(
        &mut self,
        what: &str,
        (sign, limit): (&str, f64),
        unit: &str,
        value: Option<f64>,
        is_met: impl Fn(f64) -> bool,
    ) {
        let Some(value) = value else { return };
        let verdict = if is_met(value) { "met" } else { "**missed**" };
        let _ = writeln!(self.0, "| {what} | {sign} {limit} {unit} | {value:.2} {unit} | {verdict} |");
    }

    pub fn text(self) -> String {
        format!("{}\n", self.0)
    }
}

pub fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kibibytes: f64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN);
    let kernel = run_quietly(Command::new("uname").arg("-r"))?;
    Ok(format!(
        "{model}, {cores} processors, {:.0} GiB of memory, Linux {}\n",
        kibibytes / MEBIBYTE,
        kernel.trim()
    ))
}
