//! A process that stays between the calls of a server.
//!
//! A server calls its `restore_command` and its `archive_command` once for each segment, one
//! after the other, and waits each time. A process for each of them opens the repository anew,
//! which takes longer than the segment. So the first one summons an attendant, which has the
//! repository open, works on what the server will come to next, and answers the calls behind it.
//! When nobody has called for a while, it goes.
//!
//! Invariant: an attendant changes nothing about what a call means. It only ever says yes: here is
//! the whole segment, or it is stored. Whatever else there is to say the caller finds out itself,
//! with a repository that it has opened for that: an absence, above all, which a server takes for
//! the end of the log.
//!
//! Its socket lies beside the files, in a directory that nobody but the server's user may write
//! to; elsewhere none is summoned.

use std::cell::Cell;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener as BlockingListener, UnixStream as BlockingStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::desk::{self, Serves, THERE};
use super::foresight::Foresight;
use super::{Fetched, LogFileName, LogSource};
use crate::context::Context;
use crate::error::{Error, Result};

mod as_it_was;
mod opened;
mod pushes;

use as_it_was::AsItWas;
use opened::Opened;
pub use pushes::{Pusher, attend_pushes};

/// So long it waits for the next call. A standby asks again every five seconds.
const IDLE: Duration = Duration::from_secs(20);
/// So long it stays at most: a server that never rests gets a new one then.
const LIFE: Duration = Duration::from_secs(600);
/// So often it looks whether it can still be found, and its server is there.
const LOOK: Duration = Duration::from_secs(1);
/// So long a call waits for one before it does its work itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of larger segments one takes as much memory as a process that stays should.
const LARGEST_SEGMENT: u64 = 32 << 20;
/// What PostgreSQL calls the place of a segment that it asks for.
pub const ASKED_FOR: &str = "RECOVERYXLOG";
/// What tells the program that it is one.
pub const ATTEND: &str = "--attend";

/// Where an attendant may be called.
#[derive(Debug)]
pub struct Bell {
    socket: PathBuf,
}

impl Bell {
    /// Beside a file of the log; `told` is all that makes one attendant differ from another, and
    /// `configuration` the file that all of it was read from.
    ///
    /// `None` for segments that are too large, where others could put something in its place, and
    /// where the first process is the server itself: it takes an orphan that is killed for one of
    /// its own, and restarts everything.
    pub fn beside(
        file: &Path,
        kind: &str,
        segment_bytes: u64,
        configuration: &Path,
        told: &impl Hash,
    ) -> Option<Bell> {
        if segment_bytes > LARGEST_SEGMENT || is_first_process_a_server() {
            return None;
        }
        let directory = file.parent()?;
        let found = std::fs::metadata(directory).ok()?;
        let is_private = found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), configuration, AsItWas::written(configuration)?, told).hash(&mut hasher);
        let socket = directory.join(format!("backstay-{kind}-{:016x}", hasher.finish()));
        is_private.then_some(Bell { socket })
    }

    /// Whether the attendant had the whole segment, and it lies there now.
    pub fn fetch(&self, name: &str, to: &Path) -> bool {
        self.answered(desk::ask(&self.socket, name, to, PATIENCE)) == Some(Fetched::Written)
    }

    /// Whether the attendant has stored it for good.
    pub fn push(&self, name: &str) -> bool {
        let asked = BlockingStream::connect(&self.socket)
            .and_then(|stream| desk::ask_letter(stream, name, PATIENCE))
            .map_err(|source| Error::ReadLogFile { path: self.socket.clone(), source });
        self.answered(asked.map(|(letter, _)| letter)) == Some(THERE)
    }

    fn answered<T>(&self, answer: Result<T>) -> Option<T> {
        answer.inspect_err(|error| tracing::debug!(%error, "no attendant answers")).ok()
    }

    /// Starts one, as this process was started. Whoever calls from now on is answered, as soon
    /// as it is ready.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or one is there already: then calls are answered without.
    pub fn summon(&self, words: &[OsString]) -> io::Result<()> {
        match BlockingStream::connect(&self.socket) {
            // Of one that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(&self.socket)?;
            }
            _ => {}
        }
        let listener = BlockingListener::bind(&self.socket)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words.iter().skip(1)).arg(ATTEND).arg(&self.socket);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
        // The C library would keep what each of its threads had for a segment; read at its start.
        command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "262144");
        // A server that stops its commands does not mean this one.
        let started = command.process_group(0).spawn();
        if started.is_err() {
            let _ = std::fs::remove_file(&self.socket);
        }
        started.map(drop)
    }
}

fn is_first_process_a_server() -> bool {
    match std::fs::read_to_string("/proc/1/comm") {
        Ok(name) => matches!(name.trim(), "postgres" | "postmaster"),
        // Nobody knows who it is.
        Err(_) => true,
    }
}

/// The attendant's side of the bell: the socket that it was started with, as its input.
pub struct Calls {
    listener: UnixListener,
    socket: PathBuf,
    /// What the name leads to, until it is given up. Somebody may make the directory anew, with
    /// another attendant in it.
    own: Cell<Option<AsItWas>>,
    /// What a running server has in its directory; nothing where there was none from the start.
    server: Option<PathBuf>,
    since: Instant,
}

impl Calls {
    pub fn from_input(socket: &Path) -> Result<Calls> {
        let failed = |source| Error::ReadLogFile { path: socket.to_owned(), source };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let listener = BlockingListener::from(input);
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let above = socket.parent().and_then(Path::parent);
        let server = above.map(|above| above.join("postmaster.pid")).filter(|server| server.exists());
        let (own, since) = (Cell::new(AsItWas::written(socket)), Instant::now());
        Ok(Calls { listener, own, socket: socket.to_owned(), server, since })
    }

    /// The next one; `None` when there was none for a while.
    async fn next(&self, cancel: &CancellationToken) -> Option<UnixStream> {
        let since = Instant::now();
        while since.elapsed() < IDLE && self.is_wanted() {
            tokio::select! {
                () = cancel.cancelled() => break,
                called = tokio::time::timeout(LOOK, self.listener.accept()) => if let Ok(called) = called {
                    return called.ok().map(|(stream, _)| stream);
                }
            }
        }
        // Nobody finds it any more; who did so before is answered.
        self.leave();
        let called = tokio::time::timeout(Duration::ZERO, self.listener.accept()).await;
        called.ok()?.ok().map(|(stream, _)| stream)
    }

    fn is_wanted(&self) -> bool {
        let has_server = self.server.as_ref().is_none_or(|server| server.exists());
        has_server && self.since.elapsed() < LIFE && self.is_found()
    }

    fn is_found(&self) -> bool {
        // The number of a file that is gone is given to the next one, with other times.
        self.own.get().is_some_and(|own| AsItWas::written(&self.socket) == Some(own))
    }

    fn leave(&self) {
        if self.is_found() {
            let _ = std::fs::remove_file(&self.socket);
        }
        self.own.set(None);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Answers a recovery whose first call was for this segment.
pub async fn attend_fetches(context: &Context, source: LogSource, first: &LogFileName, calls: Calls) {
    let Ok(repository) = Opened::now(context).await else { return };
    let place = calls.socket.parent().map(Path::to_owned);
    let serves = Serves::WholeSegments(calls.socket.with_file_name(ASKED_FOR));
    let mut foresight = Foresight::new(context, source, place);
    foresight.expect_behind(first);
    while let Some(stream) = calls.next(&context.cancel).await {
        let served = async {
            repository.has(context, &[]).await?;
            desk::serve(&mut foresight, stream, &serves).await
        };
        if let Err(error) = served.await {
            // Whoever comes next may have another view of the store.
            tracing::debug!(%error, "a file of the log was not given out");
            calls.leave();
        }
    }
}
