//! `backstay show`: everything about one backup or one dump.

use backstay_model::{BackupId, ErrorKind, Fault};
use backstay_ops::dump::shelved::{self, DumpDetail};

use super::DONE;
use crate::args::ShowArguments;
use crate::error::Error;
use crate::render::errors::Told;
use crate::render::{backups, dumps};
use crate::session::Session;

pub async fn run(session: &Session, arguments: &ShowArguments) -> Result<u8, Fault> {
    let id: BackupId = arguments.backup.parse()?;
    // Dumps first: they are at hand, and need neither repository nor key.
    if let Some(detail) = dump(session, &id).await? {
        session.output.result(&detail, |output| dumps::kept::show(output, &detail)).map_err(Error::Print)?;
        return Ok(DONE);
    }
    let context = session.context().await?;
    let detail = backstay_ops::list::show(&context, &id).await?;
    session.output.result(&detail, |output| backups::show(output, &detail)).map_err(Error::Print)?;
    Ok(DONE)
}

async fn dump(session: &Session, id: &BackupId) -> Result<Option<DumpDetail>, Fault> {
    for kept in session.shelves(&[]) {
        let looked = async { Ok::<_, Fault>(shelved::show(&session.run(), &kept?.policy, id).await?) };
        match looked.await {
            Ok(Some(detail)) => return Ok(Some(detail)),
            Ok(None) => {}
            Err(fault) if fault.kind() == ErrorKind::Cancelled => return Err(fault),
            // It may be a backup, or lie on another shelf.
            Err(fault) => session.output.error(&Told::fault(&fault)),
        }
    }
    Ok(None)
}
