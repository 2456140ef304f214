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

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener as BlockingListener, UnixStream as BlockingStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backstay_model::InstanceId;
use rustix::process::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ahead::{AT_ONCE, ready_behind};
use super::desk::{self, FAILED, Serves, THERE};
use super::foresight::Foresight;
use super::{Fetched, LogFileName, LogSource, Pushed, push};
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// So long it waits for the next call. A standby asks again every five seconds.
const IDLE: Duration = Duration::from_secs(20);
/// What tells the program that it is one.
pub const ATTEND: &str = "--attend";

/// Where an attendant may be called.
#[derive(Debug)]
pub struct Bell {
    socket: PathBuf,
}

impl Bell {
    /// Beside a file of the log; `told` is all that makes one attendant differ from another.
    /// `None` where others could put something in its place.
    pub fn beside(file: &Path, kind: &str, told: &impl Hash) -> Option<Bell> {
        let directory = file.parent()?;
        let found = std::fs::metadata(directory).ok()?;
        let is_private = found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), told).hash(&mut hasher);
        let socket = directory.join(format!("backstay-{kind}-{:016x}", hasher.finish()));
        is_private.then_some(Bell { socket })
    }

    /// Whether the attendant had the whole segment, and it lies there now.
    pub fn fetch(&self, name: &str, to: &Path) -> bool {
        self.answered(desk::ask(&self.socket, name, to)) == Some(Fetched::Written)
    }

    /// Whether the attendant has stored it for good.
    pub fn push(&self, name: &str) -> bool {
        let asked = BlockingStream::connect(&self.socket)
            .and_then(|stream| desk::ask_letter(stream, name))
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
        // A server that stops its commands does not mean this one.
        let started = command.process_group(0).spawn();
        if started.is_err() {
            let _ = std::fs::remove_file(&self.socket);
        }
        started.map(drop)
    }
}

/// The attendant's side of the bell: the socket that it was started with, as its input.
pub struct Calls {
    listener: UnixListener,
    socket: PathBuf,
}

impl Calls {
    pub fn from_input(socket: &Path) -> Result<Calls> {
        let failed = |source| Error::ReadLogFile { path: socket.to_owned(), source };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let listener = BlockingListener::from(input);
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Calls { listener, socket: socket.to_owned() })
    }

    /// The next one; `None` when there was none for a while.
    async fn next(&self, cancel: &CancellationToken) -> Option<UnixStream> {
        let called = tokio::select! {
            () = cancel.cancelled() => None,
            called = tokio::time::timeout(IDLE, self.listener.accept()) => called.ok(),
        };
        let called = match called {
            Some(called) => called,
            None => {
                // Nobody finds it any more; who did so before is answered.
                let _ = std::fs::remove_file(&self.socket);
                tokio::time::timeout(Duration::ZERO, self.listener.accept()).await.ok()?
            }
        };
        called.ok().map(|(stream, _)| stream)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Answers a recovery whose first call was for this segment.
pub async fn attend_fetches(context: &Context, source: LogSource, first: &LogFileName, calls: Calls) {
    let mut foresight = Foresight::new(context, source);
    foresight.expect_behind(first);
    while let Some(stream) = calls.next(&context.cancel).await {
        if let Err(error) = desk::serve(&mut foresight, stream, Serves::WholeSegments).await {
            tracing::debug!(%error, "a file of the log was not given out");
        }
    }
}

/// Whose segments are pushed, and how.
#[derive(Debug, Clone)]
pub struct Pusher {
    pub instance: InstanceId,
    /// The cluster that they are of, where that is known.
    pub system: Option<u64>,
    pub level: i32,
    /// Segments that go ahead.
    pub most: u32,
}

/// Answers an archiver whose first call was for this segment.
pub async fn attend_pushes(context: &Context, pusher: Pusher, first: &Path, calls: Calls) {
    let mut coming =
        Coming { context, pusher, at_once: Arc::new(Semaphore::new(AT_ONCE)), segments: BTreeMap::new() };
    coming.go_ahead(first).await;
    while let Some(stream) = calls.next(&context.cancel).await {
        let answered = async {
            let (name, mut writing) = desk::question(stream).await?;
            let stored = coming.store(first, &name).await;
            let letter = if matches!(stored, Ok(true)) { THERE } else { FAILED };
            writing.write_all(&[letter]).await.map_err(|error| Error::broken(error.to_string()))?;
            stored
        };
        if let Err(error) = answered.await {
            tracing::debug!(%error, "a file of the log was not stored");
        }
    }
}

/// A file as it was when it was read. Whoever changes it afterwards changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AsItWas {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl AsItWas {
    async fn of(path: &Path) -> Option<AsItWas> {
        let path = path.to_owned();
        let found = off_thread(move || Ok(std::fs::metadata(path).ok())).await.ok()??;
        Some(AsItWas {
            file: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Segments on their way to the store, or there.
struct Coming<'a> {
    context: &'a Context,
    pusher: Pusher,
    at_once: Arc<Semaphore>,
    /// Each with the one task that stores it.
    segments: BTreeMap<String, (AsItWas, JoinSet<Result<Pushed>>)>,
}

impl Coming<'_> {
    /// When this is true, the segment is in the store as it is here.
    async fn store(&mut self, beside: &Path, name: &str) -> Result<bool> {
        if !matches!(name.parse(), Ok(LogFileName::Segment { .. })) {
            return Ok(false);
        }
        let path = beside.with_file_name(name);
        self.begin(&path).await;
        self.go_ahead(&path).await;
        let Some((as_it_was, mut pushing)) = self.segments.remove(name) else { return Ok(false) };
        // The server does not come back to what is before it.
        self.segments = self.segments.split_off(name);
        let Some(pushed) = pushing.join_next().await else { return Ok(false) };
        pushed.map_err(|error| Error::broken(error.to_string()))??;
        Ok(AsItWas::of(&path).await == Some(as_it_was))
    }

    async fn go_ahead(&mut self, path: &Path) {
        let (from, most) = (path.to_owned(), self.pusher.most as usize);
        let ready = off_thread(move || Ok(ready_behind(&from, most))).await.unwrap_or_default();
        for next in ready {
            self.begin(&next).await;
        }
    }

    async fn begin(&mut self, path: &Path) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        if self.segments.contains_key(name) {
            return;
        }
        let Some(as_it_is) = AsItWas::of(path).await else { return };
        let (context, pusher, path) = (self.context.clone(), self.pusher.clone(), path.to_owned());
        let at_once = Arc::clone(&self.at_once);
        let mut pushing = JoinSet::new();
        pushing.spawn(async move {
            let permit = at_once.acquire_owned().await;
            let _permit = permit.map_err(|error| Error::broken(error.to_string()))?;
            push(&context, &pusher.instance, pusher.system, &path, pusher.level).await
        });
        self.segments.insert(name.to_owned(), (as_it_is, pushing));
    }
}
