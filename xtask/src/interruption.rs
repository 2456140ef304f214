//! Ctrl-C and SIGTERM while a chore has servers running.
//!
//! The first signal ends the programs that the chore waits for, so that it fails
//! where it stands, and everything it owns is stopped and removed as on any other
//! failure. The second leaves at once, and so does a terminal that closes: then the
//! watcher of each workspace does that work.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process};
use tokio::signal::unix::{Signal as Heard, SignalKind, signal};

/// A program that is started after the signal is ended within this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const NONE: u8 = 0;
const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// The reason of an early end that nobody has to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted(u8);

impl Interrupted {
    /// What a shell reports for a program that a signal ended.
    pub fn exit_code(self) -> u8 {
        128 + self.0
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; nothing is left running")
    }
}

impl std::error::Error for Interrupted {}

/// Listens until the process ends.
#[derive(Debug, Clone)]
pub struct Interruption(Arc<AtomicU8>);

impl Interruption {
    pub fn watch() -> Result<Interruption> {
        let heard = Interruption(Arc::new(AtomicU8::new(NONE)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("prepare to listen for signals")?;
        let signals = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let told = heard.clone();
        thread::Builder::new()
            .name("interruption".to_owned())
            .spawn(move || runtime.block_on(told.listen(signals)))
            .context("listen for signals")?;
        Ok(heard)
    }

    /// Fails once a signal came: to be asked before each longer step.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::SeqCst) {
            NONE => Ok(()),
            number => Err(Interrupted(number).into()),
        }
    }

    async fn listen(self, (mut interrupt, mut terminate): (Heard, Heard)) {
        let number = next(&mut interrupt, &mut terminate).await;
        self.0.store(number, Ordering::SeqCst);
        eprintln!("\nstopping what runs and removing what was made; press Ctrl-C again to leave at once");
        let mut ticks = tokio::time::interval(LOOK_AGAIN);
        loop {
            tokio::select! {
                _ = ticks.tick() => end_programs(),
                number = next(&mut interrupt, &mut terminate) => {
                    std::process::exit(Interrupted(number).exit_code().into())
                }
            }
        }
    }
}

async fn next(interrupt: &mut Heard, terminate: &mut Heard) -> u8 {
    tokio::select! {
        _ = interrupt.recv() => INTERRUPT,
        _ = terminate.recv() => TERMINATE,
    }
}

/// Ends the programs that we wait for. Servers and the watchers of workspaces have
/// process groups of their own and are left to their owners.
fn end_programs() {
    let (own, group) = (getpid(), getpgrp());
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?))
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if parent_and_group(&stat) == Some((own, group)) {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::TERM);
        }
    }
}

fn parent_and_group(stat: &str) -> Option<(Pid, Pid)> {
    // The second field is the name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
    let mut next = || Pid::from_raw(fields.next()?.parse().ok()?);
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_group_are_found_behind_any_name() {
        let stat = "71 (a ) S 1 2) S 70 68 68 34816 71 4194304";
        let found =
            parent_and_group(stat).map(|(parent, group)| (parent.as_raw_nonzero(), group.as_raw_nonzero()));
        assert_eq!(found.map(|(parent, group)| (parent.get(), group.get())), Some((70, 68)));
        assert_eq!(parent_and_group(""), None);
    }
}
