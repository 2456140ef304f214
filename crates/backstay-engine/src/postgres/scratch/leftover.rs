//! Ends a server that was left behind on a directory.
//!
//! Whoever started it is gone, and with them what they knew of it. What is left is
//! the number in the server's own file, which may by now be another process's: so
//! nothing is ended that does not work in, or was not started on, this directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::info;

use super::LOOK_AGAIN;
use crate::{Error, Result};

/// At once and without a checkpoint takes no time, unless the disk hangs.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// Returns when no server runs on the directory any more. Only for directories
/// that nobody wants: the server is not asked for a checkpoint.
pub async fn end_server_on(directory: &Path) -> Result<()> {
    let Some(server) = Server::on(directory) else { return Ok(()) };
    info!(process = server.number, directory = %directory.display(), "a server was left behind and is ended");
    for signal in [Signal::QUIT, Signal::KILL] {
        // It may have ended by itself; that is what is wanted.
        let _ = kill_process(server.process, signal);
        let limit = Instant::now() + QUIT_LIMIT;
        while Instant::now() < limit {
            if !server.is_there() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Err(Error::TargetRunning { path: directory.to_owned() })
}

struct Server {
    number: i32,
    process: Pid,
    directory: PathBuf,
}

impl Server {
    /// The server of a directory, if one runs there.
    fn on(directory: &Path) -> Option<Server> {
        let directory = fs::canonicalize(directory).ok()?;
        let text = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
        // A server without clients writes its number with a minus.
        let number = text.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?;
        let server = Server { number, process: Pid::from_raw(number)?, directory };
        server.is_there().then_some(server)
    }

    /// A server works in its directory; where we may not see that, it was told it.
    fn is_there(&self) -> bool {
        let process = PathBuf::from(format!("/proc/{}", self.number));
        if let Ok(place) = fs::read_link(process.join("cwd")) {
            return place == self.directory;
        }
        let told = self.directory.as_os_str().as_encoded_bytes();
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == told)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits in a directory.
    fn waiting_in(directory: &Path) -> Child {
        Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .current_dir(directory)
            .spawn()
            .unwrap()
    }

    fn note(directory: &Path, process: &Child) {
        fs::write(directory.join("postmaster.pid"), format!("{}\n/data\n", process.id())).unwrap();
    }

    #[tokio::test]
    async fn a_stranger_under_the_number_of_a_server_is_left_alone() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut stranger = waiting_in(elsewhere.path());
        note(directory.path(), &stranger);
        end_server_on(directory.path()).await.unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "it has nothing to do with the directory");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_works_in_the_directory_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut server = waiting_in(directory.path());
        note(directory.path(), &server);
        // Waiting for it closes what it reads, and it would end by itself, in good order.
        let _open = server.stdin.take();
        // As its parent we have to collect it, or it stays in the list.
        let collected = tokio::task::spawn_blocking(move || server.wait().unwrap());
        end_server_on(directory.path()).await.unwrap();
        assert!(!collected.await.unwrap().success());
    }

    #[tokio::test]
    async fn a_directory_without_a_server_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        end_server_on(directory.path()).await.unwrap();
        fs::write(directory.path().join("postmaster.pid"), "nonsense").unwrap();
        end_server_on(directory.path()).await.unwrap();
        end_server_on(&directory.path().join("absent")).await.unwrap();
    }
}
