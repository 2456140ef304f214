//! A private server on a restored directory: it loads what lies there, answers questions, and
//! goes away without a trace.
//!
//! It takes no setting of its source. It listens on one socket in a directory of its own, and
//! whoever may enter that directory is trusted. It is the replica of a master that cannot be: a
//! replica lets nothing expire by itself and takes no writes, so that what it holds stays exactly
//! what was loaded, keys included whose time has come since. Nobody can listen on port 0, so that
//! it never gets the data of a stranger either.
//!
//! Invariant: what was restored is not changed, but by [`ScratchServer::write_snapshot`]. No process
//! outlives the value, and none outlives us.

mod settings;
mod snapshot;
mod view;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection::Connection;
use super::error::RedisError;
use super::facts::{Info, Product, ServerFacts};
use super::place::FileNames;
use super::programs::RedisPrograms;
use super::settings::{Address, CONNECT_LIMIT};
use crate::address::Endpoint;
use crate::private::{Guard, private_directory};
use crate::tls::TlsMode;
use crate::{Error, Result};

/// What of a directory is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The append-only files: a snapshot, and the commands that came after it.
    AppendOnly,
    /// The snapshot alone.
    Snapshot,
}

/// How a scratch server is run.
#[derive(Debug, Clone)]
pub struct ScratchOptions {
    /// Where its program is, when not in the usual places.
    pub bin_directory: Option<PathBuf>,
    pub form: Form,
    /// How long it may take to load everything.
    pub start_limit: Duration,
}

impl Default for ScratchOptions {
    fn default() -> Self {
        Self { bin_directory: None, form: Form::AppendOnly, start_limit: START_LIMIT }
    }
}

/// Redis 7.0 loads some three hundred thousand small values in a second: this is enough for half a billion.
const START_LIMIT: Duration = Duration::from_secs(30 * 60);
/// It has nothing to save, and only to give its memory back.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// From the end of a connection to that of the server.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether it is ready or gone.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Of the end of the log, in an error.
const LOG_LINES_SHOWN: usize = 12;
/// It has nothing that could be lost.
const AT_ONCE: &str = "KILL";

/// A running scratch server.
pub struct ScratchServer {
    process: Option<Child>,
    guard: Option<Guard>,
    directory: PathBuf,
    names: FileNames,
    /// Socket, log and view; removed at the end.
    private: PathBuf,
    product: Product,
    version: String,
    /// It is at work on a file in the directory.
    is_saving: bool,
}

impl ScratchServer {
    /// Starts a server on a settled directory and waits until it has loaded everything.
    ///
    /// # Errors
    ///
    /// Those of [`RedisPrograms::find`]; [`RedisError::Scratch`] with the end of the log for what the server
    /// cannot load; [`Error::Read`] and [`Error::Malformed`] where there is nothing to load.
    pub async fn start(
        directory: &Path,
        names: &FileNames,
        source: &ServerFacts,
        options: &ScratchOptions,
        cancel: &CancellationToken,
    ) -> Result<ScratchServer> {
        let programs = RedisPrograms::find(source, options.bin_directory.as_deref()).await?;
        let directory = fs::canonicalize(directory)
            .map_err(|source| Error::Read { path: directory.to_owned(), source })?;
        let mut server = ScratchServer {
            process: None,
            guard: None,
            directory,
            names: names.clone(),
            // A server of Redis runs as anybody, and only reads.
            private: private_directory(None)?,
            product: programs.product(),
            version: programs.version().to_owned(),
            is_saving: false,
        };
        server.launch(&programs, options.form, source)?;
        tokio::select! {
            () = cancel.cancelled() => Err(Error::Cancelled),
            ready = tokio::time::timeout(options.start_limit, server.ready()) => match ready {
                Ok(ready) => ready.map(|()| server),
                Err(_) => Err(server.failed("load the data in time")),
            },
        }
    }

    fn launch(&mut self, programs: &RedisPrograms, form: Form, source: &ServerFacts) -> Result<()> {
        let view = self.private.join("view");
        view::show(&self.directory, &self.names, form, &view)?;
        let log_path = self.private.join("log");
        let failed = |source| Error::Write { path: log_path.clone(), source };
        let log = File::create(&log_path).map_err(failed)?;
        let mut command = Command::new(programs.server());
        let path = |path: &Path| path.display().to_string();
        let databases = settings::databases(&self.directory, source);
        for (name, values) in settings::of(&path(&view), &path(&self.socket()), form, databases) {
            command.arg(format!("--{name}")).args(values);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .current_dir("/")
            // Ctrl-C goes to the whole group of the terminal; we stop it ourselves.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|source| Error::Program { program: programs.server().display().to_string(), source })?;
        info!(process = child.id(), directory = %self.directory.display(), "scratch server started");
        let guard = Guard::post(&child, AT_ONCE, &self.private, None);
        self.process = Some(child);
        self.guard = Some(guard?);
        Ok(())
    }

    /// While it loads, it says so to everybody who comes.
    async fn ready(&mut self) -> Result<()> {
        loop {
            if let Some(status) = self.ended() {
                warn!(%status, "the scratch server ended");
                return Err(self.obituary("start", status));
            }
            if let Ok(true) = self.has_loaded().await {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn has_loaded(&self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let info = Info::ask(&mut connection, "look at the scratch server", "persistence").await?;
        Ok(info.text("loading")? == "0")
    }

    /// How it is reached.
    pub fn address(&self) -> Address {
        Address {
            endpoint: Endpoint::Unix(self.socket()),
            tls: TlsMode::Disable,
            root_certificate: None,
            own_certificate: None,
            user: None,
            password: None,
            connect_limit: CONNECT_LIMIT,
        }
    }

    pub async fn connection(&self) -> Result<Connection> {
        Connection::open(&self.address()).await
    }

    fn socket(&self) -> PathBuf {
        self.private.join("redis.sock")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Of the program that runs, which may be another than that of the source.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Of the program that runs.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Stops the server. One that is busy for too long is killed, by which nothing is lost; one that had
    /// ended by itself, or ends badly, is an error.
    pub async fn stop(mut self) -> Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        let ended = tokio::time::timeout(STOP_LIMIT, async {
            let asked = async {
                let mut connection = self.connection().await?;
                // Its answer is the end of the connection.
                connection.send("stop the scratch server", &["SHUTDOWN", "NOSAVE"]).await
            };
            if let Err(error) = asked.await {
                info!(%error, "the scratch server does not hear that it is to stop");
            }
            self.end().await
        });
        match ended.await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.obituary("stop in good order", status)),
            Err(_) => {
                warn!(directory = %self.directory.display(), "the scratch server does not stop, and is killed");
                self.kill();
                Ok(())
            }
        }
    }

    /// Why a connection broke off: in the server's words, if it ended.
    pub async fn why_lost(&mut self, lost: Error) -> Error {
        match tokio::time::timeout(END_LIMIT, self.end()).await {
            Ok(status) => self.obituary("answer to the end", status),
            Err(_) => lost,
        }
    }

    async fn end(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A server that cannot go on ends with a code, or by the signal of its own crash. Ended by another
    /// one, or as after a stop, somebody ended it, and that is no fault of the data.
    fn obituary(&self, what: &'static str, status: ExitStatus) -> Error {
        use std::os::unix::process::ExitStatusExt;
        let crashes =
            [rustix::process::Signal::SEGV, rustix::process::Signal::ABORT, rustix::process::Signal::BUS];
        let has_crashed =
            status.signal().is_some_and(|number| crashes.iter().any(|one| one.as_raw() == number));
        if has_crashed || status.code().is_some_and(|code| code != 0) {
            return self.failed(what);
        }
        Error::ScratchEnded { what, status: status.to_string() }
    }

    fn failed(&self, what: &'static str) -> Error {
        RedisError::Scratch { what, log: self.log_end() }.into()
    }

    /// The last lines the server wrote.
    pub fn log_end(&self) -> String {
        let text = fs::read(self.private.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A server looks once more at a snapshot that it cannot load, and writes what it meets there, which pushes
        // out of sight why it cannot.
        let is_look = |line: &str| line.starts_with('[');
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.trim().is_empty() && !is_look(line)).collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        if status.is_some() {
            self.guard = None;
        }
        status
    }

    fn kill(&mut self) {
        let has_ended = self.ended().is_some();
        let Some(mut process) = self.process.take() else { return };
        if !has_ended {
            let _ = process.kill();
            self.guard = None;
            let _ = process.wait();
        }
        self.discard_unfinished(process.id());
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = fs::remove_dir_all(&self.private) {
            warn!(%error, path = %self.private.display(), "a private directory is left behind");
        }
    }
}
