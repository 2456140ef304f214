//! Recover: a private server on a restored directory replays the log in it, and that of
//! the archive behind it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use backstay_engine::Error as EngineError;
use backstay_engine::postgres::facts::ServerFacts;
use backstay_engine::postgres::programs::Programs;
use backstay_engine::postgres::recovery::RecoverySettings;
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions, ScratchRecovery};
use backstay_model::plan::restore::Recovery;
use backstay_model::{Finding, InstanceId, RecoveryTarget, Secret};

use super::place::Placed;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::wal::desk::Desk;
use crate::wal::{FetchProgram, LogSource};

/// What becomes of the directory afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterlife {
    /// It is going to be used: everything reaches the disk, nothing is added.
    Used,
    /// It is thrown away.
    Discarded,
}

/// How the log of the archive comes to a server.
#[derive(Debug, Clone)]
pub(crate) struct LogSupply {
    pub recovery: Recovery,
    pub source: LogSource,
    pub program: FetchProgram,
}

impl LogSupply {
    /// Nothing, where no such log is needed.
    pub fn of(
        instance: &InstanceId,
        recovery: Option<&Recovery>,
        server: &ServerFacts,
        program: Option<&FetchProgram>,
    ) -> Result<Option<LogSupply>> {
        let Some(recovery) = recovery.cloned() else { return Ok(None) };
        let program = program.cloned();
        let program =
            program.ok_or_else(|| Error::broken("a recovery with log needs a program that fetches it"))?;
        let source = LogSource {
            instance: instance.clone(),
            system_identifier: server.system_identifier,
            segment_bytes: recovery.segment_bytes,
            own_to: Some(recovery.own_to),
            needed_to: (recovery.target != RecoveryTarget::Latest).then_some(recovery.to),
            follows: Some(recovery.timeline),
            standby: false,
        };
        Ok(Some(LogSupply { recovery, source, program }))
    }

    /// For a server that is started by somebody else.
    pub fn settings(&self) -> RecoverySettings {
        RecoverySettings::new(&self.recovery, &self.program.from_repository(&self.source))
    }
}

/// What a standby is told, which fetches its log of the repository as long as it lives.
pub(crate) fn of_a_standby(
    instance: &InstanceId,
    recovery: Option<&Recovery>,
    server: &ServerFacts,
    program: Option<&FetchProgram>,
    primary_conninfo: Option<&Secret>,
) -> Result<RecoverySettings> {
    let program = program.ok_or_else(|| Error::broken("a standby needs a program that fetches its log"))?;
    let source = LogSource {
        instance: instance.clone(),
        system_identifier: server.system_identifier,
        segment_bytes: server.wal_segment_size,
        own_to: recovery.map(|recovery| recovery.own_to),
        needed_to: None,
        follows: None,
        standby: true,
    };
    Ok(RecoverySettings::standby(&program.from_repository(&source), primary_conninfo))
}

/// Refuses where no server could be started on what is restored. Asked before the
/// first byte: hours of placing are too long a way to this answer.
pub(crate) fn check(instance: &Instance, server: &ServerFacts) -> Result<()> {
    Programs::find(server.major(), instance.postgres()?.bin_directory.as_deref())?;
    Ok(())
}

/// No server is expected to replay less than this in a second.
const SLOWEST_REPLAY_BYTES: u64 = 2 << 20;

pub(crate) async fn start(
    context: &Context,
    instance: &Instance,
    placed: &Placed,
    supply: Option<&LogSupply>,
    afterlife: Afterlife,
) -> Result<Scratch> {
    context.progress.enter("recover");
    let mut options = ScratchOptions {
        bin_directory: instance.postgres()?.bin_directory.clone(),
        durable: afterlife == Afterlife::Used,
        ..ScratchOptions::default()
    };
    let server = &placed.facts.server;
    let Some(supply) = supply else {
        return Ok(Scratch::start(&placed.directory, server, &options, &context.cancel).await?);
    };
    let log_bytes = supply.recovery.to - placed.facts.start_lsn;
    options.start_limit += Duration::from_secs(log_bytes / SLOWEST_REPLAY_BYTES);
    let scratch = Scratch::prepare(&placed.directory, server, &options)?;
    let desk = Desk::open(context, supply.source.clone(), scratch.private_directory(), scratch.owner())?;
    options.recovery = Some(ScratchRecovery {
        restore_command: supply.program.from_desk(desk.socket()),
        action: supply.recovery.action,
    });
    let started = scratch.run(server, &options, &context.cancel).await;
    started.map_err(|error| told(error, &desk, supply))
}

/// The server calls the program as its own user, who must be able to do what that does.
pub(crate) fn called_by_another(directory: &Path, program: &FetchProgram) -> Option<Finding> {
    let user = std::fs::metadata(directory).ok()?.uid();
    if user == rustix::process::geteuid().as_raw() {
        return None;
    }
    let config = program.config.display();
    Some(Finding::warning(
        "restore_command",
        format!(
            "the server fetches its log itself, as user {user}: the configuration, the key and the store must be \
             open to that one, or it does not start"
        ),
        format!(
            "see whether `setpriv --reuid {user} --clear-groups backstay --config {config} list` works, or let `--start` replay the log"
        ),
    ))
}

/// What PostgreSQL says when the log ended before what it was to find there.
const ENDED_BEFORE: &str = "recovery ended before configured recovery target was reached";
const INSIDE_BASE: &str = "requested recovery stop point is before consistent recovery point";

/// Why a recovery did not end well, in the words of whoever knows best.
fn told(error: EngineError, desk: &Desk, supply: &LogSupply) -> Error {
    match (&error, desk.failure()) {
        (EngineError::Scratch { .. }, Some(failure)) => failure,
        (EngineError::Scratch { log, .. }, None)
            if log.contains(ENDED_BEFORE) || log.contains(INSIDE_BASE) =>
        {
            Error::TargetNotReached {
                instance: supply.source.instance.clone(),
                target: supply.recovery.target.clone(),
                source: Box::new(error),
            }
        }
        _ => error.into(),
    }
}
