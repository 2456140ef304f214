//! A child that puts a dump back, fed as the bytes come.
//!
//! All or nothing where that is possible: one transaction, committed after the last byte
//! was found to be the last. Several sessions at once have no transaction in common, so
//! they are for databases that nobody uses yet.

use std::path::PathBuf;
use std::process::Stdio;

use backstay_model::dump::DumpWarning;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio_util::sync::CancellationToken;

use super::super::answering::while_it_answers;
use super::super::client_programs::Child;
use super::super::inspect::{InspectKind, Tail};
use super::super::settings::Address;
use super::guard::Guard;
use super::target::ReloadTarget;
use super::use_list::UseList;
use crate::{Error, Result};

/// Where the dump comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadInput {
    /// An archive, as it is written to the run.
    Archive,
    /// Statements, as they are written to the run.
    Statements,
    /// An archive that can be read anywhere: a file in the custom format, or a directory.
    Lying { path: PathBuf, jobs: u32 },
}

#[derive(Debug, Clone)]
pub struct ReloadOptions {
    pub input: ReloadInput,
    /// The version of the `pg_dump` that wrote an archive, where known.
    pub tool_major: Option<u32>,
    /// Entries of an archive, by [`super::Archive::select`]; all when there are none.
    pub entries: Option<Vec<i32>>,
    /// No trigger fires and no foreign key is looked at while rows come in.
    pub triggers_off: bool,
    pub owners: bool,
    pub privileges: bool,
    /// Not for more than one job.
    pub in_one_transaction: bool,
}

impl Default for ReloadOptions {
    fn default() -> Self {
        Self {
            input: ReloadInput::Archive,
            tool_major: None,
            entries: None,
            triggers_off: false,
            owners: true,
            privileges: true,
            in_one_transaction: true,
        }
    }
}

/// A dump that is being put back.
pub struct ReloadRun {
    child: Child,
    input: Option<ChildStdin>,
    /// Of statements.
    script: Option<(Tail, Guard)>,
    /// It has taken what was chosen, and reads no further.
    has_all: bool,
    address: Address,
    cancel: CancellationToken,
    _list: Option<UseList>,
}

impl ReloadRun {
    /// Into a database that is there.
    pub async fn start(
        target: &ReloadTarget,
        database: &str,
        options: &ReloadOptions,
        cancel: &CancellationToken,
    ) -> Result<ReloadRun> {
        let programs = target.programs(options.tool_major)?;
        let address = target.address().with_database(database);
        let session = options.triggers_off.then_some("-c session_replication_role=replica");
        let list = options.entries.as_deref().map(UseList::write).transpose()?;
        let is_script = options.input == ReloadInput::Statements;
        if is_script && (list.is_some() || !options.owners || !options.privileges) {
            return Err(Error::DumpChoice {
                reason: "statements cannot be chosen from: only all of a plain dump can be put back"
                    .to_owned(),
                hint: "restore it into a database of its own with `--into-database`, and copy from there",
            });
        }
        let program = if is_script { "psql" } else { "pg_restore" };
        let mut command = programs.connected(program, &address, session)?;
        let jobs = match &options.input {
            ReloadInput::Lying { jobs, path } if *jobs > 1 => {
                refuse_an_order(path.clone()).await?;
                *jobs
            }
            ReloadInput::Lying { .. } | ReloadInput::Archive | ReloadInput::Statements => 1,
        };
        if options.in_one_transaction && jobs == 1 {
            command.arg("--single-transaction");
        }
        if is_script {
            command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]);
        } else {
            command.arg("--exit-on-error");
            for (wanted, argument) in
                [(options.owners, "--no-owner"), (options.privileges, "--no-privileges")]
            {
                if !wanted {
                    command.arg(argument);
                }
            }
            if jobs > 1 {
                command.arg(format!("--jobs={jobs}"));
            }
            if let Some(list) = &list {
                command.arg("--use-list").arg(list.path());
            }
        }
        match &options.input {
            ReloadInput::Lying { path, .. } => command.arg(path).stdin(Stdio::null()),
            ReloadInput::Archive | ReloadInput::Statements => command.stdin(Stdio::piped()),
        };
        // The results of statements that set something.
        command.stdout(Stdio::null());
        let mut child = Child::spawn(program, command)?;
        let input = child.take_input();
        let cancel = cancel.clone();
        let mut run = ReloadRun { child, input, script: None, has_all: false, address, cancel, _list: list };
        if is_script {
            let guard = Guard::draw(&programs)?;
            run.hand_on(guard.opening().as_bytes()).await?;
            run.script = Some((Tail::default(), guard));
        }
        Ok(run)
    }

    /// Hands on the next bytes, as fast as the server takes them. Of an archive, those
    /// that nothing chosen is in any more are let go.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<()> {
        let Some((tail, guard)) = &mut self.script else { return self.hand_on(bytes).await };
        tail.push(bytes);
        let passed = guard.pass(bytes);
        self.hand_on_all(passed).await
    }

    async fn hand_on_all(&mut self, passed: Result<Vec<Bytes>>) -> Result<()> {
        match passed {
            Ok(passed) => {
                for bytes in passed {
                    self.hand_on(&bytes).await?;
                }
                Ok(())
            }
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    async fn hand_on(&mut self, bytes: &[u8]) -> Result<()> {
        if self.has_all {
            return Ok(());
        }
        let Some(input) = &mut self.input else {
            return Err(Error::Protocol { reason: "more came after the end of a dump".to_owned() });
        };
        let cancel = self.cancel.clone();
        let written = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                self.abandon().await;
                return Err(Error::Cancelled);
            }
            written = while_it_answers(&self.address, input.write_all(bytes)) => written,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
            // It ended while there was more: its own words say why, unless it is content.
            Ok(Err(_)) => {
                self.input = None;
                self.child.end_soon().await.map_err(restricted)?;
                self.has_all = self.script.is_none();
                match self.has_all {
                    true => Ok(()),
                    false => Err(Error::Archive { reason: "one of its statements ends `psql`".to_owned() }),
                }
            }
        }
    }

    /// All bytes were written, and are those of a whole dump. What the child said.
    pub async fn finish(mut self) -> Result<Vec<DumpWarning>> {
        if let Some((tail, guard)) = &mut self.script {
            if !tail.ends_as(InspectKind::Statements) {
                self.abandon().await;
                return Err(Error::Archive {
                    reason: "its statements end before their end marker".to_owned(),
                });
            }
            let last = guard.end();
            self.hand_on_all(last).await?;
        }
        self.input = None;
        let cancel = self.cancel.clone();
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            ended = while_it_answers(&self.address, self.child.end()) => ended,
        };
        match ended {
            Ok(ended) => ended.map_err(restricted)?,
            Err(error) => {
                self.abandon().await;
                return Err(error);
            }
        }
        let messages = self.child.messages().into_iter();
        Ok(messages.map(|message| DumpWarning { message, harmless: None }).collect())
    }

    /// Ends it before its input ends, for an end would be taken for that of the dump.
    pub async fn abandon(&mut self) {
        self.child.stop().await;
        self.input = None;
    }
}

/// `<stdin>:33: error: backslash commands are restricted`, where the first line was ours.
fn restricted(error: Error) -> Error {
    match &error {
        Error::ClientProgram { said, .. }
            if ["backslash commands are restricted", "\\unrestrict: wrong key"]
                .iter()
                .any(|word| said.contains(word)) =>
        {
            let number = said.split(':').nth(1).and_then(|number| number.parse::<u64>().ok());
            let line = number.map(|number| number.saturating_sub(1));
            Error::CommandInStatements { line, command: String::new(), is_guess: false }
        }
        _ => error,
    }
}

/// Several sessions bring the rows of tables in any order, and those of TimescaleDB's
/// catalogue have one.
async fn refuse_an_order(path: PathBuf) -> Result<()> {
    let read = tokio::task::spawn_blocking(move || super::archive::read_lying(&path)).await;
    let archive = read.map_err(|error| Error::Protocol { reason: error.to_string() })??;
    match archive.has_timescaledb() {
        true => Err(Error::DumpChoice {
            reason:
                "a dump with TimescaleDB is put back by one session, for rows of its catalogue have an order"
                    .to_owned(),
            hint: "leave `--jobs` out",
        }),
        false => Ok(()),
    }
}

impl Drop for ReloadRun {
    fn drop(&mut self) {
        // Killed before its input is closed, which would commit what came so far.
        self.child.kill();
    }
}
