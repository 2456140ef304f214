//! What a command costs: wall time, processor time of its whole tree, peak memory.
//!
//! Processor time comes from the kernel's accounts of ended children, so it holds
//! every descendant that was waited for. Memory is sampled from `/proc`; the high
//! water mark that the kernel keeps per process makes the largest process exact
//! up to what it grew after the last sample.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::line_of;

/// Reading a few files of `/proc` takes well below a millisecond.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(25);

/// Linux reports to programs in hundredths, whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// The highest resident memory of one process of the tree.
    pub largest_process_bytes: u64,
    /// The highest sum over the tree, shared pages counted as often as they are mapped.
    pub sum_bytes: u64,
}

/// Runs a command to its end; its output is shown only when it fails.
pub fn measure(command: &mut Command) -> Result<Cost> {
    let log = tempfile::NamedTempFile::new()?;
    command.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?);
    let cpu_before = cpu_of_children()?;
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run `{}`", line_of(command)))?;
    let process = child.id();
    let (stop, stopped) = channel::<()>();
    let sampler = thread::spawn(move || {
        let (mut largest, mut sum) = (0, 0);
        loop {
            let (one, all) = memory_of_tree(process);
            largest = largest.max(one);
            sum = sum.max(all);
            if stopped.recv_timeout(SAMPLE_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return (largest, sum);
            }
        }
    });
    let status = child.wait()?;
    let wall_seconds = begun.elapsed().as_secs_f64();
    drop(stop);
    let Ok((largest_process_bytes, sum_bytes)) = sampler.join() else { bail!("sample the memory") };
    if !status.success() {
        let said = fs::read(log.path())?;
        bail!("`{}` ended with {status}\n{}", line_of(command), String::from_utf8_lossy(&said));
    }
    let cpu_seconds = cpu_of_children()? - cpu_before;
    Ok(Cost { wall_seconds, cpu_seconds, largest_process_bytes, sum_bytes })
}

/// The largest and the sum over a process and all below it.
pub fn memory_of_tree(process: u32) -> (u64, u64) {
    let (mut largest, mut sum) = (0, 0);
    let mut waiting = vec![process];
    while let Some(process) = waiting.pop() {
        if let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) {
            largest = largest.max(kibibytes(&status, "VmHWM:") << 10);
            sum += kibibytes(&status, "VmRSS:") << 10;
        }
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    (largest, sum)
}

/// The same of every process that runs a program of this name: some stay behind when the one that
/// began them has ended.
pub fn memory_of_called(program: &Path) -> (u64, u64) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let called =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|process| {
            let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word)));
            words.any(|word| word.file_name() == program.file_name())
        });
    called
        .filter_map(|process| fs::read_to_string(format!("/proc/{process}/status")).ok())
        .map(|status| (kibibytes(&status, "VmHWM:") << 10, kibibytes(&status, "VmRSS:") << 10))
        .fold((0, 0), |(largest, sum), (one, all)| (largest.max(one), sum + all))
}

fn kibibytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time of all children that ended and were waited for.
fn cpu_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).context("understand /proc/self/stat")?;
    // Fields 16 and 17 of proc(5), of which two stand before the parenthesis.
    let ticks = |at: usize| fields.split_whitespace().nth(at - 3).and_then(|text| text.parse::<u64>().ok());
    let sum = ticks(16).zip(ticks(17)).map(|(user, system)| user + system);
    Ok(sum.context("understand /proc/self/stat")? as f64 / TICKS_PER_SECOND)
}

/// The bytes of all files below a directory.
pub fn bytes_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in files_below(directory)? {
        sum += file.symlink_metadata().with_context(|| format!("look at {}", file.display()))?.len();
    }
    Ok(sum)
}

/// The plain files below a directory; links are neither followed nor among them.
pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_tree_is_seen() {
        // A child of a child that holds 64 MiB and works for a while.
        let script = "exec sh -c 'head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; \
                      i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'";
        let cost = measure(Command::new("sh").args(["-c", script])).unwrap();
        assert!(cost.wall_seconds > 0.05 && cost.cpu_seconds > 0.05, "{cost:?}");
        assert!(cost.largest_process_bytes > 1 << 20, "{cost:?}");
    }

    #[test]
    fn a_failed_command_says_why() {
        let error = measure(Command::new("sh").args(["-c", "echo the reason; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("the reason"), "{error}");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
