//! Disks that can be filled: small file systems in a mount namespace of their own, which
//! is gone with whoever made it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::wait::wait_until;

const MOUNT_LIMIT: Duration = Duration::from_secs(10);
/// What a full disk has left, less than any object.
const LEFT_BYTES: u64 = 64 << 10;
const FILL_ATTEMPTS: u32 = 20;

/// A namespace lives as long as a process in it, which lives as long as a pipe of ours.
pub struct Disks {
    holder: Child,
    _pipe: ChildStdin,
}

impl Disks {
    /// Mounts an empty file system of a size over each directory; `None` where that is not
    /// allowed.
    ///
    /// # Errors
    /// When what should have been mounted cannot be seen.
    pub fn mount(places: &[(&Path, u64)]) -> Result<Option<Disks>> {
        let mut script = String::new();
        for (place, bytes) in places {
            script += &format!("mount -t tmpfs -o size={bytes},mode=0755 tmpfs '{}' && ", place.display());
        }
        script += "echo > \"$0\" && cat";
        let Some((first, _)) = places.first() else { return Ok(None) };
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(first.join("mounted"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must not take the disks away from whoever still writes to them.
            .process_group(0)
            .spawn()
            .context("run unshare")?;
        let pipe = holder.stdin.take().context("a pipe to the holder of the disks")?;
        let mut disks = Disks { holder, _pipe: pipe };
        let mark = disks.seen(&first.join("mounted"));
        let mut has_ended = false;
        wait_until(MOUNT_LIMIT, "the small disks", || {
            has_ended = disks.holder.try_wait().is_ok_and(|ended| ended.is_some());
            has_ended || mark.exists()
        })?;
        if has_ended {
            return Ok(None);
        }
        std::fs::remove_file(mark)?;
        Ok(Some(disks))
    }

    /// A command that sees these disks.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").arg(program);
        command
    }

    /// A path on these disks, as it is reached from outside.
    pub fn seen(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }

    /// Makes the disk as small as what lies on it.
    ///
    /// # Errors
    /// When it cannot be looked at or changed.
    pub fn fill(&self, place: &Path) -> Result<()> {
        // Somebody may write to it meanwhile: then there is more than the new size holds.
        for _ in 1..FILL_ATTEMPTS {
            if self.resize(place, self.used(place)? + LEFT_BYTES).is_ok() {
                return Ok(());
            }
        }
        self.resize(place, self.used(place)? + LEFT_BYTES)
    }

    fn used(&self, place: &Path) -> Result<u64> {
        let disk = rustix::fs::statvfs(self.seen(place)).context("look at a small disk")?;
        Ok((disk.f_blocks - disk.f_bfree) * disk.f_frsize)
    }

    /// # Errors
    /// When it cannot be changed.
    pub fn resize(&self, place: &Path, bytes: u64) -> Result<()> {
        let mut mount = self.command(Path::new("mount"));
        let output = mount.args(["-o", &format!("remount,size={bytes}"), "tmpfs"]).arg(place).output()?;
        ensure!(output.status.success(), "resize a small disk: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
