//! What drills leave behind that were killed, and how a living one is told apart.
//!
//! A drill holds a lock on a file in its directory for as long as it lives; the
//! kernel lets it go however the drill ends. So a directory with that file and
//! without a holder is a dead drill's, and the next drill removes it. A copy that a
//! person wanted to keep has no such file, and neither has anything else that lies
//! there: what is not known to be a dead drill's is left alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::scratch;
use backstay_model::{Finding, InstanceId};
use rustix::fs::{FlockOperation, flock};
use tracing::info;

use super::{DATA, remove};
use crate::error::{Error, Result};

/// The file that a living drill holds.
const LOCK: &str = "running";

/// What the name of every drill's directory of an instance begins with.
fn prefix(instance: &InstanceId) -> String {
    format!("backstay-drill-{instance}-")
}

pub(super) fn name(instance: &InstanceId, at: jiff::Timestamp) -> String {
    format!("{}{}", prefix(instance), at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Whether a name is that of a drill of this instance, and not of another whose
/// name begins with the same letters.
fn is_drill_of(instance: &InstanceId, name: &str) -> bool {
    let Some(at) = name.strip_prefix(&prefix(instance)) else { return false };
    let shape = |letter: u8| if letter.is_ascii_digit() { b'0' } else { letter };
    at.bytes().map(shape).eq(b"00000000T000000Z".iter().copied())
}

/// A drill's mark of life.
pub(super) struct Alive {
    path: PathBuf,
    _lock: File,
}

impl Alive {
    pub(super) fn mark(scratch: &Path) -> Result<Alive> {
        let path = scratch.join(LOCK);
        let failed = |source| Error::DrillDirectory { path: scratch.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Alive { path, _lock: file })
    }

    /// From here on the directory is a person's.
    pub(super) fn hand_over(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// The lock of a drill that is dead; `None` for everything else.
fn dead(scratch: &Path) -> Option<File> {
    let file = OpenOptions::new().write(true).open(scratch.join(LOCK)).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Removes what dead drills of the instance left below the directory, and says what
/// could not be removed: the space is needed, but nothing else is wrong.
pub(super) async fn sweep(instance: &InstanceId, directory: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return findings };
    for entry in entries.flatten() {
        if !is_drill_of(instance, &entry.file_name().to_string_lossy()) {
            continue;
        }
        let left = entry.path();
        let Some(_lock) = dead(&left) else { continue };
        info!(path = %left.display(), "a drill was killed here; what it left is removed");
        if let Err(error) = clear(&left).await {
            findings.push(Finding::warning(
                left.display().to_string(),
                format!("what a drill that was killed left here could not be removed: {error}"),
                format!("`rm -r {}` removes it", left.display()),
            ));
        }
    }
    findings
}

async fn clear(left: &Path) -> Result<()> {
    scratch::end_server_on(&left.join(DATA)).await?;
    remove(left.to_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_known_by_its_whole_name() {
        let instance: InstanceId = "orders".parse().unwrap();
        assert!(is_drill_of(&instance, &name(&instance, "2026-11-21T02:00:00Z".parse().unwrap())));
        for other in [
            "backstay-drill-orders-eu-20261121T020000Z",
            "backstay-drill-orders-",
            "backstay-drill-orders-20261121T020000Z.old",
            "orders-20261121T020000Z",
        ] {
            assert!(!is_drill_of(&instance, other), "{other}");
        }
    }

    #[tokio::test]
    async fn only_what_a_dead_drill_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let instance: InstanceId = "orders".parse().unwrap();
        let place = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.join(DATA)).unwrap();
            path
        };
        let alive = place("backstay-drill-orders-20261121T020000Z");
        let mark = Alive::mark(&alive).unwrap();
        let killed = place("backstay-drill-orders-20261121T020001Z");
        drop(Alive::mark(&killed).unwrap());
        let kept = place("backstay-drill-orders-20261121T020002Z");
        Alive::mark(&kept).unwrap().hand_over().unwrap();
        let of_another = place("backstay-drill-orders-eu-20261121T020003Z");
        drop(Alive::mark(&of_another).unwrap());

        assert_eq!(sweep(&instance, directory.path()).await, []);
        assert!(!killed.exists());
        assert!(alive.exists() && kept.exists() && of_another.exists());
        drop(mark);
        sweep(&instance, directory.path()).await;
        assert!(!alive.exists(), "now it is dead, too");
        assert_eq!(sweep(&instance, &directory.path().join("absent")).await, []);
    }
}
