//! What a program costs that runs until something has happened, and is then asked to end.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;
use testkit::wait_until;

use crate::bench::measure::{Cost, memory_of_tree};
use crate::process::line_of;

/// The slowest contestant on the slowest disk.
const LIMIT: Duration = Duration::from_secs(15 * 60);
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Running {
    child: Child,
    log: NamedTempFile,
    line: String,
    begun: Instant,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Running> {
        let log = NamedTempFile::new()?;
        let line = line_of(command);
        command.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("run `{line}`"))?;
        Ok(Running { child, log, line, begun })
    }

    /// Waits until the work is done; what it cost up to then.
    pub fn until(&mut self, what: &str, mut is_done: impl FnMut() -> bool) -> Result<Cost> {
        let (mut largest, mut sum) = (0, 0);
        let mut ended = None;
        wait_until(LIMIT, what, || {
            let (one, all) = memory_of_tree(self.child.id());
            largest = largest.max(one);
            sum = sum.max(all);
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || is_done()
        })?;
        if ended.is_some() {
            bail!("`{}` ended\n{}", self.line, fs::read_to_string(self.log.path()).unwrap_or_default());
        }
        Ok(Cost {
            wall_seconds: self.begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_of(self.child.id())?,
            largest_process_bytes: largest,
            sum_bytes: sum,
        })
    }

    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process that runs.
fn cpu_of(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).context("understand /proc/PID/stat")?;
    // Fields 14 and 15 of proc(5), of which two stand before the parenthesis.
    let ticks = |at: usize| fields.split_whitespace().nth(at - 3).and_then(|text| text.parse::<u64>().ok());
    let sum = ticks(14).zip(ticks(15)).map(|(user, system)| user + system);
    Ok(sum.context("understand /proc/PID/stat")? as f64 / TICKS_PER_SECOND)
}
