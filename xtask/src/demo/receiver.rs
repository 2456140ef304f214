//! `backstay archive` in the background, for as long as a chapter needs it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use testkit::wait_until;

use crate::backstay::Backstay;

const LIMIT: Duration = Duration::from_secs(60);

/// The log's receiver, for as long as this lives.
pub struct Receiver(Child);

impl Receiver {
    /// Returns when the server knows it.
    pub fn start(backstay: &Backstay, instance: &str, said: &Path) -> Result<Receiver> {
        let mut command = backstay.command(&["archive", instance]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(said)?);
        let mut receiver = Receiver(command.spawn().context("start the receiver")?);
        let told = || fs::read_to_string(said).unwrap_or_default();
        let mut ended = None;
        wait_until(LIMIT, "the receiver of the log", || {
            ended = receiver.0.try_wait().ok().flatten();
            ended.is_some() || told().contains("receiving")
        })?;
        match ended {
            Some(status) => bail!("`backstay archive` ended with {status}: {}", told().trim_end()),
            None => Ok(receiver),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}
