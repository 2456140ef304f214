//! `backstay wal fetch` and `backstay wal push`, for `restore_command` and
//! `archive_command`: the exit code is what PostgreSQL acts upon.
//!
//! A server calls for one file after the other. The first call leaves an attendant behind, which
//! answers the others; whatever it cannot answer, the call does itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backstay_model::{Fault, TimelineId};
use backstay_ops::wal::{ASKED_FOR, Bell, Calls, Fetched, LogFileName, LogSource, Pusher};

use super::DONE;
use crate::args::{GlobalOptions, WalFetchArguments, WalPushArguments, WalVerb};
use crate::session::Session;

/// PostgreSQL takes it for the end of the log, and opens for business there.
const ABSENT: u8 = 1;

/// That an attendant did it.
pub fn attended(global: &GlobalOptions, verb: &WalVerb) -> Option<u8> {
    match verb {
        WalVerb::Fetch(arguments) => {
            bell_of_fetches(global, arguments)?.fetch(&arguments.name, &arguments.to).then_some(DONE)
        }
        WalVerb::Push(arguments) => {
            let name = arguments.file.file_name()?.to_str()?;
            bell_of_pushes(global, arguments)?.push(name).then_some(DONE)
        }
    }
}

/// What all of a call was read from.
fn configuration(global: &GlobalOptions) -> Option<PathBuf> {
    crate::config::find(global.config.as_deref()).ok()
}

/// Nothing where no server calls, or this is the attendant.
fn bell_of_fetches(global: &GlobalOptions, arguments: &WalFetchArguments) -> Option<Bell> {
    let is_call = arguments.attend.is_none() && arguments.to.file_name()? == ASKED_FOR;
    let source = source_of(arguments).ok().filter(|_| is_call)?;
    let (segment_bytes, configuration) = (source.segment_bytes, configuration(global)?);
    Bell::beside(&arguments.to, "fetch", segment_bytes, &configuration, &(&global.set, source))
}

fn bell_of_pushes(global: &GlobalOptions, arguments: &WalPushArguments) -> Option<Bell> {
    let is_call = arguments.attend.is_none() && arguments.file.with_file_name("archive_status").is_dir();
    let segment_bytes = arguments.file.metadata().ok().filter(|_| is_call)?.len();
    let told = (&global.set, &arguments.instance);
    Bell::beside(&arguments.file, "push", segment_bytes, &configuration(global)?, &told)
}

/// Whether somebody answers the calls behind this one.
fn summon(bell: Option<Bell>) -> bool {
    let words: Vec<OsString> = std::env::args_os().collect();
    let summoned = bell.map(|bell| bell.summon(&words));
    if let Some(Err(error)) = &summoned {
        tracing::debug!(%error, "no attendant was started");
    }
    matches!(summoned, Some(Ok(())))
}

pub async fn run(session: &Session, global: &GlobalOptions, verb: &WalVerb) -> Result<u8, Fault> {
    match verb {
        WalVerb::Fetch(arguments) => fetch(session, global, arguments).await,
        WalVerb::Push(arguments) => push(session, global, arguments).await,
    }
}

fn source_of(arguments: &WalFetchArguments) -> Result<LogSource, Fault> {
    // Without the one there is the other, or the arguments were refused.
    Ok(LogSource {
        instance: arguments.instance.as_deref().unwrap_or_default().parse()?,
        system_identifier: arguments.system_identifier.unwrap_or_default(),
        segment_bytes: arguments.segment_bytes,
        own_to: arguments.own_to,
        needed_to: arguments.needed_to,
        follows: arguments.timeline.map(TimelineId),
        standby: arguments.standby,
    })
}

async fn fetch(
    session: &Session,
    global: &GlobalOptions,
    arguments: &WalFetchArguments,
) -> Result<u8, Fault> {
    let name: LogFileName = match arguments.name.parse() {
        Ok(name) => name,
        // Nothing of such a name is ever archived.
        Err(_) => return Ok(ABSENT),
    };
    let source = source_of(arguments)?;
    if let Some(socket) = &arguments.attend {
        let calls = Calls::from_input(socket)?;
        backstay_ops::wal::attend_fetches(&session.context().await?, source, &name, calls).await;
        return Ok(DONE);
    }
    if matches!(name, LogFileName::Segment { .. }) {
        summon(bell_of_fetches(global, arguments));
    }
    let context = session.context().await?;
    match backstay_ops::wal::fetch(&context, &source, &name, &arguments.to).await? {
        Fetched::Written => Ok(DONE),
        Fetched::Tail { end } => {
            tracing::info!(file = arguments.name, %end, "the archive ends in this file");
            Ok(DONE)
        }
        Fetched::Absent => {
            tracing::info!(file = arguments.name, "the archive ends before this file");
            Ok(ABSENT)
        }
    }
}

/// Of a server that this program has started: the one that did has the repository open, and
/// this one needs nothing but its socket.
pub fn from_desk(socket: &Path, name: &str, to: &Path) -> Result<u8, Fault> {
    match backstay_ops::wal::ask_desk(socket, name, to)? {
        Fetched::Written | Fetched::Tail { .. } => Ok(DONE),
        Fetched::Absent => Ok(ABSENT),
    }
}

async fn push(session: &Session, global: &GlobalOptions, arguments: &WalPushArguments) -> Result<u8, Fault> {
    let named: Vec<String> = arguments.instance.iter().cloned().collect();
    let named = session.instances(&named)?;
    let [(id, _)] = named.as_slice() else {
        return Err(crate::error::Error::NameOneInstance.into());
    };
    let calls = arguments.attend.as_deref().map(Calls::from_input).transpose()?;
    let most = session.push_ahead(id);
    let context = session.context().await?;
    let level = session.config.settings.repository.log_level();
    let system = backstay_ops::wal::known_system(&context, id).await?;
    if let Some(calls) = calls {
        let pusher = Pusher { instance: id.clone(), system, level, most };
        backstay_ops::wal::attend_pushes(&context, pusher, &arguments.file, calls).await;
        return Ok(DONE);
    }
    backstay_ops::wal::push(&context, id, system, &arguments.file, level).await?;
    tracing::info!(file = %arguments.file.display(), "stored");
    if most == 0 || !backstay_ops::wal::is_more_ready(&arguments.file) {
        return Ok(DONE);
    }
    if !summon(bell_of_pushes(global, arguments)) {
        let ahead = backstay_ops::wal::push_ahead(&context, id, system, &arguments.file, level, most).await;
        tracing::info!(ahead, "stored ahead");
    }
    Ok(DONE)
}
