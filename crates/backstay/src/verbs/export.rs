//! `backstay export`: one backup as plain files, for whoever has no Backstay.

use backstay_model::{BackupId, ErrorKind, Fault};
use backstay_ops::dump::shelved;
use backstay_ops::export::{self, ExportOptions, ExportReport};

use super::DONE;
use crate::args::ExportArguments;
use crate::error::Error;
use crate::render;
use crate::render::errors::Told;
use crate::session::{Kept, Session};

pub async fn run(session: &Session, arguments: &ExportArguments) -> Result<u8, Fault> {
    let id: BackupId = arguments.backup.parse()?;
    let options = ExportOptions {
        to: arguments.to.clone(),
        compression: arguments.compress,
        cipher: arguments.encrypt,
    };
    let report = match shelf_of(session, &id).await? {
        Some(kept) => of_dump(session, kept, arguments, &id, &options).await?,
        None => of_base(session, arguments, &id, &options).await?,
    };
    session.output.result(&report, |output| render::export::report(output, &report)).map_err(Error::Print)?;
    Ok(DONE)
}

async fn of_dump(
    session: &Session,
    kept: Kept,
    arguments: &ExportArguments,
    id: &BackupId,
    options: &ExportOptions,
) -> Result<ExportReport, Fault> {
    let mut kept = session.opened(kept)?;
    kept.policy.older_passphrases = session.older_passphrases(&arguments.passphrases)?;
    let _bar = session.bar(kept.instance.as_str());
    let exported = export::dump(&session.run(), &kept.policy, id, options).await?;
    // Between the look at the shelf and now it may have gone.
    Ok(exported.ok_or_else(|| backstay_ops::Error::NoSuchBackup { backup: id.clone() })?)
}

async fn of_base(
    session: &Session,
    arguments: &ExportArguments,
    id: &BackupId,
    options: &ExportOptions,
) -> Result<ExportReport, Fault> {
    let context = session.context().await?;
    let instance = backstay_ops::list::show(&context, id).await?.summary.instance;
    arguments.passphrases.must_be_none().map_err(Fault::new)?;
    let policy = session.dump_policy_of_any(instance.as_str())?;
    let _bar = session.bar(instance.as_str());
    Ok(export::base(&context, &policy, id, options).await?)
}

/// The shelf that has the dump: with the policy of the instance whose dump it is, where
/// several share a directory.
pub(super) async fn shelf_of(session: &Session, id: &BackupId) -> Result<Option<Kept>, Fault> {
    let mut of_another = None;
    for kept in session.shelves(&[]) {
        let looked = async {
            let kept = kept?;
            let shown = shelved::show(&session.run(), &kept.policy, id).await?;
            Ok::<_, Fault>(shown.map(|detail| (detail.summary.instance == kept.instance, kept)))
        };
        match looked.await {
            Ok(Some((true, kept))) => return Ok(Some(kept)),
            Ok(Some((false, kept))) => of_another = of_another.or(Some(kept)),
            Ok(None) => {}
            Err(fault) if fault.kind() == ErrorKind::Cancelled => return Err(fault),
            // It may be a backup, or lie on another shelf.
            Err(fault) => session.output.error(&Told::fault(&fault)),
        }
    }
    Ok(of_another)
}
