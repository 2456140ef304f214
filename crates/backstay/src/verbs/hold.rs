//! `backstay hold`: a backup or a dump stays, or is left to retention again.

use backstay_model::{BackupId, Fault, Hold};
use backstay_ops::hold;

use super::{DONE, export};
use crate::args::{HoldAddArguments, HoldVerb};
use crate::error::Error;
use crate::render;
use crate::session::Session;

pub async fn run(session: &Session, verb: &HoldVerb) -> Result<u8, Fault> {
    let (id, hold) = match verb {
        HoldVerb::Add(HoldAddArguments { backup, until, reason }) => {
            (backup.parse::<BackupId>()?, Some(Hold::new(*until, reason.clone())))
        }
        HoldVerb::Remove { backup } => (backup.parse()?, None),
    };
    let held = match export::shelf_of(session, &id).await? {
        Some(kept) => hold::on_dump(&session.run(), &kept.policy, &id, hold.as_ref()).await?,
        None => Some(hold::on_base(&session.context().await?, &id, hold.as_ref()).await?),
    };
    // Between the look at the shelf and now it may have gone.
    let report = held.ok_or_else(|| backstay_ops::Error::NoSuchBackup { backup: id })?;
    session.output.result(&report, |output| render::hold::report(output, &report)).map_err(Error::Print)?;
    Ok(DONE)
}
