//! `backstay list`: backups, newest first.

use backstay_model::{ErrorKind, Fault, InstanceId};

use super::DONE;
use crate::args::{ListArguments, ListType};
use crate::error::Error;
use crate::render::backups;
use crate::render::errors::Told;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &ListArguments) -> Result<u8, Fault> {
    if arguments.only == Some(ListType::Dump) {
        return Err(Error::NoDumps.into());
    }
    let instance = arguments.instance.as_deref().map(str::parse::<InstanceId>).transpose()?;
    let context = session.context().await?;
    let listed = backstay_ops::list::run(&context, instance.as_ref()).await?;
    // An instance that has backups need not stand in the configuration any more;
    // one that has neither is a slip of the hand.
    if let (true, Some(name)) = (listed.backups.is_empty() && listed.findings.is_empty(), &arguments.instance)
    {
        session.config.instance(name)?;
    }
    let backups = &listed.backups;
    session.output.result(backups, |output| backups::list(output, backups)).map_err(Error::Print)?;
    for finding in &listed.findings {
        session.output.error(&Told::finding(finding, ErrorKind::Corrupt));
    }
    Ok(if listed.findings.is_empty() { DONE } else { ErrorKind::Corrupt.exit_code() })
}
