//! A short-lived directory in which servers run.
//!
//! Invariant: when its owner is dropped, or its process ends in any way, every
//! PostgreSQL whose data directory lies in the workspace is stopped, every Redis whose
//! `redis.pid` lies there is killed, and the directory is removed. Dropping covers
//! success and panics; for a process that is killed there is a watcher, a shell that
//! waits for the end of a pipe which only our process holds open.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::ownership::server_owner;

/// Waits for a line or the end of its input; unless the line is `keep`, stops what
/// runs in the directory and removes it. Data directories lie at most four deep. A
/// `postmaster.pid` that came with a copy names the directory it was copied from,
/// and its server is none of our business.
const WATCHER: &str = r#"
read -r word && [ "$word" = keep ] && exit 0
pids=$(find "$1" -maxdepth 4 -name postmaster.pid 2>/dev/null | while read -r file; do
    [ "$(sed -n 2p "$file")" = "${file%/postmaster.pid}" ] && sed -n 1p "$file"
done)
for pid in $pids; do kill -QUIT "$pid" 2>/dev/null; done
# Redis and Valkey. The number of one that was killed may be another's by now.
for file in $(find "$1" -maxdepth 2 -name redis.pid 2>/dev/null); do
    pid=$(cat "$file")
    grep -q -a -F "$file" "/proc/$pid/cmdline" 2>/dev/null && kill -KILL "$pid" 2>/dev/null
done
tries=0
for pid in $pids; do
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
done
rm -rf "$1" && [ "$word" = end ] && exit 0
# A program that outlives its killed owner may still write there, and make the
# directory again: it has ended when there is nothing for a second.
quiet=0
while [ "$quiet" -lt 10 ] && [ "$tries" -lt 400 ]; do
    sleep 0.1
    if [ -e "$1" ]; then quiet=0; rm -rf "$1"; else quiet=$((quiet + 1)); fi
    tries=$((tries + 1))
done
"#;

/// Owns a directory and everything that runs in it.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// `None` once the directory was given away by [`Workspace::keep`].
    watcher: Option<Child>,
}

impl Workspace {
    /// Makes a directory with a short path that the server's user may enter.
    ///
    /// # Errors
    /// When the directory or its watcher cannot be made.
    pub fn new() -> Result<Workspace> {
        Workspace::below(&short_base())
    }

    /// [`Workspace::new`] in a directory of choice, such as one with much space.
    ///
    /// # Errors
    /// When the directory or its watcher cannot be made.
    pub fn below(base: &Path) -> Result<Workspace> {
        let path = open_temp_dir(base)?.keep();
        let watcher = watch(&path).context("start the watcher of a workspace")?;
        Ok(Workspace { path, watcher: Some(watcher) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it that belongs to the server's user.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        server_owner()?.take(&path)?;
        Ok(path)
    }

    /// Gives the directory away: it stays, with all that runs in it.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(mut watcher) = self.watcher.take() {
            if let Some(mut pipe) = watcher.stdin.take() {
                // A watcher that is gone cannot remove anything either.
                let _ = pipe.write_all(b"keep\n");
            }
            let _ = watcher.wait();
        }
        self.path.clone()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The watcher does the work for both ways. Told so, it need not look out for programs without an owner.
        let Some(watcher) = self.watcher.take() else { return };
        if end(watcher) || !self.path.exists() {
            return;
        }
        // A Ctrl-C that came while it was started, and not yet apart from us, ended it.
        if let Ok(second) = watch(&self.path) {
            end(second);
        }
    }
}

fn watch(path: &Path) -> io::Result<Child> {
    let mut watcher = Command::new("/bin/sh");
    watcher
        .args(["-c", WATCHER, "backstay-workspace-watcher"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Ctrl-C reaches the whole foreground group; the watcher must outlive us.
        .process_group(0)
        .spawn()
}

/// Lets it do its work; whether it came to do it.
fn end(mut watcher: Child) -> bool {
    if let Some(mut pipe) = watcher.stdin.take() {
        let _ = pipe.write_all(b"end\n");
    }
    watcher.wait().is_ok_and(|status| status.success())
}

/// A temporary directory with a path short enough for sockets (107 bytes), which
/// every user may enter. Removed on drop.
///
/// # Errors
/// When it cannot be made.
pub fn short_temp_dir() -> Result<TempDir> {
    open_temp_dir(&short_base())
}

fn open_temp_dir(base: &Path) -> Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("bs-")
        .rand_bytes(6)
        .tempdir_in(base)
        .with_context(|| format!("make a temporary directory in {}", base.display()))?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// `TMPDIR` when it leaves room for a socket's name, else `/tmp`.
fn short_base() -> PathBuf {
    const LONGEST_BASE: usize = 40;
    let base = std::env::temp_dir();
    if base.as_os_str().len() <= LONGEST_BASE { base } else { PathBuf::from("/tmp") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_workspace_is_gone() {
        let workspace = Workspace::new().unwrap();
        let path = workspace.path().to_owned();
        workspace.directory("data").unwrap();
        drop(workspace);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_workspace_stays() {
        let mut workspace = Workspace::new().unwrap();
        let path = workspace.keep();
        drop(workspace);
        assert!(path.is_dir());
        fs::remove_dir(path).unwrap();
    }

    #[test]
    fn a_workspace_vanishes_when_its_process_is_killed() {
        let directory = short_temp_dir().unwrap();
        // `cat` stands for a test process: it holds the only end of the watcher's pipe.
        let mut owner = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut watcher = Command::new("/bin/sh")
            .args(["-c", WATCHER, "watcher"])
            .arg(directory.path())
            .stdin(owner.stdout.take().unwrap())
            .spawn()
            .unwrap();
        assert!(directory.path().is_dir());
        owner.kill().unwrap();
        owner.wait().unwrap();
        watcher.wait().unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_workspace_whose_watcher_was_ended_is_removed_all_the_same() {
        let mut workspace = Workspace::new().unwrap();
        let path = workspace.path().to_owned();
        workspace.directory("data").unwrap();
        let watcher = workspace.watcher.as_mut().unwrap();
        watcher.kill().unwrap();
        watcher.wait().unwrap();
        drop(workspace);
        assert!(!path.exists());
    }
}
