//! `backstay wal fetch` and `backstay wal push`, for `restore_command` and
//! `archive_command`: the exit code is what PostgreSQL acts upon.

use std::path::Path;

use backstay_model::{Fault, TimelineId};
use backstay_ops::wal::{Fetched, LogFileName, LogSource};

use super::DONE;
use crate::args::{WalFetchArguments, WalPushArguments, WalVerb};
use crate::session::Session;

/// PostgreSQL takes it for the end of the log, and opens for business there.
const ABSENT: u8 = 1;

pub async fn run(session: &Session, verb: &WalVerb) -> Result<u8, Fault> {
    match verb {
        WalVerb::Fetch(arguments) => fetch(session, arguments).await,
        WalVerb::Push(arguments) => push(session, arguments).await,
    }
}

async fn fetch(session: &Session, arguments: &WalFetchArguments) -> Result<u8, Fault> {
    let name: LogFileName = match arguments.name.parse() {
        Ok(name) => name,
        // Nothing of such a name is ever archived.
        Err(_) => return Ok(ABSENT),
    };
    // Without the one there is the other, or the arguments were refused.
    let source = LogSource {
        instance: arguments.instance.as_deref().unwrap_or_default().parse()?,
        system_identifier: arguments.system_identifier.unwrap_or_default(),
        segment_bytes: arguments.segment_bytes,
        own_to: arguments.own_to,
        needed_to: arguments.needed_to,
        follows: arguments.timeline.map(TimelineId),
        standby: arguments.standby,
    };
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

async fn push(session: &Session, arguments: &WalPushArguments) -> Result<u8, Fault> {
    let named: Vec<String> = arguments.instance.iter().cloned().collect();
    let named = session.instances(&named)?;
    let [(id, _)] = named.as_slice() else {
        return Err(crate::error::Error::NameOneInstance.into());
    };
    let context = session.context().await?;
    let level = session.config.settings.repository.level();
    let system = backstay_ops::wal::known_system(&context, id).await?;
    backstay_ops::wal::push(&context, id, system, &arguments.file, level).await?;
    let most = session.push_ahead(id);
    let ahead = backstay_ops::wal::push_ahead(&context, id, system, &arguments.file, level, most).await;
    tracing::info!(file = %arguments.file.display(), ahead, "stored");
    Ok(DONE)
}
