//! A private server on a restored directory: it recovers, answers questions, and
//! goes away without a trace.
//!
//! It takes none of its settings from the copy's `postgresql.conf`. Whatever in
//! there archives, listens, connects, preloads or schedules belongs to the server
//! the copy was made of. It listens on one socket in a directory of its own, and
//! whoever may enter that directory is trusted.
//!
//! Invariant: no process outlives the value, and none outlives us. A server that
//! does not stop when it is told to is killed; when we are killed, a guard that
//! stays behind ends it.

mod leftover;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backstay_model::TargetAction;
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::leftover::end_server_on;

use super::connect::{Session, column};
use super::facts::ServerFacts;
use super::programs::Programs;
use super::settings::PostgresSettings;
use crate::private::{Guard, private_directory};
use crate::{Error, Result};

/// How a scratch server is run.
#[derive(Debug, Clone)]
pub struct ScratchOptions {
    /// Where its programs are, when not in the usual places.
    pub bin_directory: Option<PathBuf>,
    /// How long it may take to recover and accept connections.
    pub start_limit: Duration,
    /// Whether the directory will be used afterwards. A copy that is thrown away
    /// need not reach the disk.
    pub durable: bool,
    /// It recovers with log of an archive.
    pub recovery: Option<ScratchRecovery>,
}

/// How a scratch server gets the log, and what it does at its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchRecovery {
    pub restore_command: String,
    pub action: TargetAction,
}

impl Default for ScratchOptions {
    fn default() -> Self {
        Self { bin_directory: None, start_limit: START_LIMIT, durable: false, recovery: None }
    }
}

/// Replaying the log of a long backup takes a fraction of the time it took to
/// write it; a server that is silent for longer than this will not come.
const START_LIMIT: Duration = Duration::from_secs(30 * 60);
/// A fast stop writes a checkpoint of at most `shared_buffers`.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// From the death of one of its processes to that of the server.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether it is ready or gone.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Every cluster has it; `postgres` may be dropped.
pub(super) const FIRST_DATABASE: &str = "template1";
/// SQLSTATE of a server that does not take connections yet.
const STARTING_UP: &str = "57P03";
/// Origins of replicated changes that a copy may have kept need as many places.
const ORIGINS: u32 = 64;
/// Ends a server without a checkpoint.
const AT_ONCE: &str = "QUIT";
/// Of the end of the log, in an error.
const LOG_LINES_SHOWN: usize = 12;
/// Extensions that must be loaded at the start or their tables cannot be read.
/// All others that hook into the server may act, and are left out.
const PRELOADED: [&str; 1] = ["timescaledb"];

/// A running scratch server.
pub struct Scratch {
    process: Option<Child>,
    guard: Option<Guard>,
    programs: Programs,
    directory: PathBuf,
    /// Socket, log and access rules; removed at the end.
    private: PathBuf,
    superuser: String,
    owner: Option<(u32, u32)>,
}

impl Scratch {
    /// Starts a server on a sealed directory and waits until it has recovered.
    pub async fn start(
        directory: &Path,
        facts: &ServerFacts,
        options: &ScratchOptions,
        cancel: &CancellationToken,
    ) -> Result<Scratch> {
        Self::prepare(directory, facts, options)?.run(facts, options, cancel).await
    }

    /// Makes the private directory, and starts nothing yet.
    pub fn prepare(directory: &Path, facts: &ServerFacts, options: &ScratchOptions) -> Result<Scratch> {
        let programs = Programs::find(facts.major(), options.bin_directory.as_deref())?;
        let metadata =
            fs::metadata(directory).map_err(|source| Error::Read { path: directory.to_owned(), source })?;
        // The server refuses to run as root; the owner of the data is who it ran as.
        let is_root = rustix::process::geteuid().is_root();
        let owner = is_root.then(|| (metadata.uid(), metadata.gid()));
        Ok(Scratch {
            process: None,
            guard: None,
            programs,
            directory: directory.to_owned(),
            private: private_directory(owner)?,
            superuser: facts.superuser.clone(),
            owner,
        })
    }

    /// Nobody but the server's user may enter it; it goes with the server.
    pub fn private_directory(&self) -> &Path {
        &self.private
    }

    /// The user and the group that the server runs as, where they are not ours.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Starts a prepared server and waits until it has recovered.
    pub async fn run(
        mut self,
        facts: &ServerFacts,
        options: &ScratchOptions,
        cancel: &CancellationToken,
    ) -> Result<Scratch> {
        self.launch(facts, options)?;
        let pauses = options.recovery.as_ref().is_some_and(|recovery| recovery.action == TargetAction::Pause);
        let limit = options.start_limit;
        tokio::select! {
            () = cancel.cancelled() => Err(Error::Cancelled),
            ready = tokio::time::timeout(limit, self.ready(pauses)) => match ready {
                Ok(ready) => ready.map(|()| self),
                Err(_) => Err(Error::Scratch { what: "become ready in time", log: self.log_end() }),
            },
        }
    }

    fn launch(&mut self, facts: &ServerFacts, options: &ScratchOptions) -> Result<()> {
        for (name, text) in [
            ("postgresql.conf", String::new()),
            ("pg_hba.conf", "local all all trust\n".to_owned()),
            ("pg_ident.conf", String::new()),
        ] {
            let path = self.private.join(name);
            fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
        }
        let log_path = self.private.join("log");
        let failed = |source| Error::Write { path: log_path.clone(), source };
        let log = File::create(&log_path).map_err(failed)?;
        let program = self.programs.path("postgres");
        let mut command = Command::new(&program);
        command.arg("-D").arg(&self.directory);
        for setting in settings(&self.private, facts, options) {
            command.arg("-c").arg(setting);
        }
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
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
            .map_err(|source| Error::Program { program: program.display().to_string(), source })?;
        info!(process = child.id(), directory = %self.directory.display(), "scratch server started");
        let guard = Guard::post(&child, AT_ONCE, &self.private, self.owner);
        self.process = Some(child);
        self.guard = Some(guard?);
        Ok(())
    }

    /// One that pauses can be read before it has come to its target.
    async fn ready(&mut self, pauses: bool) -> Result<()> {
        let question = match pauses {
            true => "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE true END",
            false => "SELECT true",
        };
        loop {
            if let Some(status) = self.ended() {
                warn!(%status, "the scratch server ended");
                return Err(Error::Scratch { what: "start", log: self.log_end() });
            }
            match self.session(FIRST_DATABASE).await {
                Ok(session) => {
                    let answer = session.row("look at the scratch server", question, &[]).await;
                    if answer.and_then(|row| column::<bool>(&row, 0)).is_ok_and(|is_ready| is_ready) {
                        return Ok(());
                    }
                }
                // It has recovered and says no: waiting will not change its mind.
                Err(Error::Login { server, user, source }) if source.code != STARTING_UP => {
                    return Err(Error::Login { server, user, source });
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How it is reached, as the superuser.
    pub fn settings(&self) -> PostgresSettings {
        let host = self.private.display().to_string().replace('\'', "\\'");
        let user = self.superuser.replace('\\', "\\\\").replace('\'', "\\'");
        PostgresSettings {
            url: format!("host='{host}' user='{user}' dbname={FIRST_DATABASE} sslmode=disable"),
            ..PostgresSettings::default()
        }
    }

    /// A session in one of its databases.
    pub async fn session(&self, database: &str) -> Result<Session> {
        Session::open(&self.settings().address()?.with_database(database)).await
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stops the server as `pg_ctl stop` does, with a checkpoint, so that the
    /// directory is whole. One that had ended by itself, or ends badly, is an error.
    pub async fn stop(mut self) -> Result<Stopped> {
        self.signal(Signal::INT);
        let Some(status) = self.end_within(STOP_LIMIT).await else {
            return Err(Error::Scratch { what: "stop in time", log: self.log_end() });
        };
        if !status.success() {
            return Err(self.obituary("stop in good order", status));
        }
        self.process = None;
        let (programs, directory) = (self.programs.clone(), self.directory.clone());
        Ok(Stopped { programs, directory, owner: self.owner })
    }

    /// Why a session broke off: in the server's words, if it ended.
    pub async fn why_lost(&mut self, lost: Error) -> Error {
        match self.end_within(END_LIMIT).await {
            Some(status) => self.obituary("answer to the end", status),
            None => lost,
        }
    }

    async fn end_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let ended = async {
            loop {
                if let Some(status) = self.ended() {
                    return status;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(limit, ended).await.ok()
    }

    /// A server that crashes ends with a code of its own. Ended by a signal, or as after
    /// a stop, somebody ended it, and that is no fault of the copy.
    fn obituary(&self, what: &'static str, status: ExitStatus) -> Error {
        match status.code() {
            Some(code) if code != 0 => Error::Scratch { what, log: self.log_end() },
            _ => Error::ScratchEnded { what, status: status.to_string() },
        }
    }

    /// The last lines the server wrote.
    pub fn log_end(&self) -> String {
        let text = fs::read(self.private.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        if status.is_some() {
            self.guard = None;
        }
        status
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // It may have ended by itself; that is what is wanted.
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.process.is_some() && self.ended().is_none() {
            // At once and without a checkpoint: nobody wants this copy.
            self.signal(Signal::QUIT);
            let limit = Instant::now() + Duration::from_secs(10);
            while self.ended().is_none() && Instant::now() < limit {
                std::thread::sleep(LOOK_AGAIN);
            }
            if let Some(process) = &mut self.process
                && let Ok(None) = process.try_wait()
            {
                let _ = process.kill();
                self.guard = None;
                let _ = process.wait();
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.private) {
            warn!(%error, path = %self.private.display(), "a private directory is left behind");
        }
    }
}

/// A directory whose server has stopped.
#[derive(Debug, Clone)]
pub struct Stopped {
    programs: Programs,
    directory: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Stopped {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command of the server's version, run as the owner of the directory.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.path(name));
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }
}

/// Settings of the command line: they win over every file of the copy.
fn settings(private: &Path, facts: &ServerFacts, options: &ScratchOptions) -> Vec<String> {
    let at = |name: &str| format!("{}", private.join(name).display());
    let kept =
        |name: &str, least: &str| facts.settings.get(name).cloned().unwrap_or_else(|| least.to_owned());
    let at_least = |name: &str, least: u32| {
        let known = facts.settings.get(name).and_then(|value| value.parse().ok());
        format!("{name}={}", known.unwrap_or(0).max(least))
    };
    let preloaded: Vec<&str> = facts
        .settings
        .get("shared_preload_libraries")
        .map(|list| list.split(',').map(str::trim).filter(|name| PRELOADED.contains(name)).collect())
        .unwrap_or_default();
    let mut settings = vec![
        format!("config_file={}", at("postgresql.conf")),
        format!("hba_file={}", at("pg_hba.conf")),
        format!("ident_file={}", at("pg_ident.conf")),
        format!("unix_socket_directories={}", private.display()),
        "port=5432".to_owned(),
        "listen_addresses=".to_owned(),
        "external_pid_file=".to_owned(),
        "archive_mode=off".to_owned(),
        "ssl=off".to_owned(),
        "logging_collector=off".to_owned(),
        "log_destination=stderr".to_owned(),
        "log_statement=none".to_owned(),
        "lc_messages=C".to_owned(),
        "max_connections=20".to_owned(),
        // When one of its processes dies it is to end, so that its log says why.
        "restart_after_crash=off".to_owned(),
        "max_wal_senders=0".to_owned(),
        // A subscription of the copy would take the source's changes from its slot.
        "max_logical_replication_workers=0".to_owned(),
        at_least("max_replication_slots", ORIGINS),
        "wal_level=replica".to_owned(),
        "shared_buffers=64MB".to_owned(),
        "huge_pages=off".to_owned(),
        "autovacuum=off".to_owned(),
        "jit=off".to_owned(),
        "synchronous_standby_names=".to_owned(),
        "session_preload_libraries=".to_owned(),
        "local_preload_libraries=".to_owned(),
        // A prepared transaction in the log needs its place.
        format!("max_prepared_transactions={}", kept("max_prepared_transactions", "0")),
        format!("max_locks_per_transaction={}", kept("max_locks_per_transaction", "64")),
        format!("shared_preload_libraries={}", preloaded.join(",")),
    ];
    settings.extend(facts.log_size_settings().into_iter().map(|(name, value)| format!("{name}={value}")));
    if preloaded.contains(&"timescaledb") {
        // Its jobs drop and compress chunks: the copy would change while it is looked at.
        settings.push("timescaledb.max_background_workers=0".to_owned());
    }
    if facts.major() >= 18 {
        settings.push(at_least("max_active_replication_origins", ORIGINS));
    }
    if facts.major() >= 17 {
        settings.push("event_triggers=off".to_owned());
        settings.push("summarize_wal=off".to_owned());
    }
    if !options.durable {
        settings.push("fsync=off".to_owned());
    }
    if let Some(recovery) = &options.recovery {
        settings.extend(recovering(recovery, facts));
    }
    settings
}

/// What comes on top for one that recovers with log of an archive. Of two settings of one
/// name the last counts.
fn recovering(recovery: &ScratchRecovery, facts: &ServerFacts) -> Vec<String> {
    let mut settings = vec![
        format!("restore_command={}", recovery.restore_command),
        format!("recovery_target_action={}", recovery.action),
        "recovery_end_command=".to_owned(),
        "archive_cleanup_command=".to_owned(),
        "primary_conninfo=".to_owned(),
        "primary_slot_name=".to_owned(),
    ];
    match recovery.action {
        // It need not have room for whatever its source could do at once.
        TargetAction::Promote => settings.push("hot_standby=off".to_owned()),
        TargetAction::Pause => {
            settings.push("hot_standby=on".to_owned());
            for name in ["max_connections", "max_worker_processes", "max_wal_senders"] {
                if let Some(value) = facts.settings.get(name) {
                    settings.push(format!("{name}={value}"));
                }
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests;
