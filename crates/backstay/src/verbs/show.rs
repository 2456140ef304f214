//! `backstay show`: everything about one backup.

use backstay_model::{BackupId, Fault};

use super::DONE;
use crate::args::ShowArguments;
use crate::error::Error;
use crate::render::backups;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &ShowArguments) -> Result<u8, Fault> {
    let id: BackupId = arguments.backup.parse()?;
    let context = session.context().await?;
    let detail = backstay_ops::list::show(&context, &id).await?;
    session.output.result(&detail, |output| backups::show(output, &detail)).map_err(Error::Print)?;
    Ok(DONE)
}
