//! `backstay restore`: the plan first, whatever follows.

use std::path::Path;

use backstay_model::plan::Refusal;
use backstay_model::{BackupId, Fault, RecoveryTarget, Secret};
use backstay_ops::reload::Server;
use backstay_ops::restore::{RestoreOptions, Standby};
use serde::Serialize;

mod extract;
mod globals;
mod reload;
mod several;

use super::{DONE, NOT_SOUND};
use crate::args::RestoreArguments;
use crate::error::Error;
use crate::render::Output;
use crate::render::errors::Told;
use crate::render::restore;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &RestoreArguments) -> Result<u8, Fault> {
    match &arguments.into {
        Some(into) if extract::is_meant(session, arguments).await? => {
            extract::run(session, arguments, into).await
        }
        Some(into) => base(session, arguments, into).await,
        None if arguments.reload.is_without_place() => globals::run(session, arguments).await,
        None if arguments.reload.database.len() > 1 => several::run(session, arguments).await,
        None => reload::run(session, arguments).await,
    }
}

/// A base backup into a directory.
async fn base(session: &Session, arguments: &RestoreArguments, into: &Path) -> Result<u8, Fault> {
    arguments.reload.passphrases.must_be_none().map_err(Fault::new)?;
    let backup = arguments.backup.as_deref().map(str::parse::<BackupId>).transpose()?;
    let target = arguments.to.as_deref().map(str::parse::<RecoveryTarget>).transpose()?.unwrap_or_default();
    let instance = session.instance_to_restore(&arguments.instance)?;
    let options = RestoreOptions {
        backup,
        target,
        stop: arguments.stop.into(),
        fetch: session.fetch_program(),
        into: std::path::absolute(into).unwrap_or_else(|_| into.to_owned()),
        tablespaces: arguments.tablespace.clone(),
        set_aside: arguments.set_aside,
        start: arguments.start,
        dry_run: arguments.dry_run,
        standby: arguments
            .standby
            .then(|| Standby { primary_conninfo: arguments.primary_conninfo.as_ref().map(Secret::new) }),
    };
    let context = session.context().await?;
    let plan = backstay_ops::restore::plan(&context, &instance, &options).await?;
    let output = session.output;
    let shown = |output: &Output| restore::plan(output, &plan);
    if let Some(code) = show(session, arguments, &plan, &plan.refusals, shown)? {
        return Ok(code);
    }
    let told = plan.findings.len();
    let report = {
        let _bar = session.bar(instance.id.as_str());
        backstay_ops::restore::run(&context, &instance, &options, plan).await?
    };
    output
        .result(&report, |output| restore::done(output, &report, told, &options.into))
        .map_err(Error::Print)?;
    let sound = report.proof.as_ref().is_none_or(|proof| proof.sound);
    Ok(if sound { DONE } else { NOT_SOUND })
}

/// The server that a dump goes to.
fn server(session: &Session, arguments: &RestoreArguments) -> Result<Server, Fault> {
    let said = &arguments.reload;
    match &said.to_server {
        Some(name) => session.other_server(name, said.password_file.as_deref()),
        None => Ok(Server::Own),
    }
}

/// Shows a plan before anything is done. The exit code, where that was all.
fn show<P: Serialize>(
    session: &Session,
    arguments: &RestoreArguments,
    plan: &P,
    refusals: &[Refusal],
    shown: impl Fn(&Output) -> String,
) -> Result<Option<u8>, Fault> {
    let output = session.output;
    if arguments.dry_run {
        output.result(plan, shown).map_err(Error::Print)?;
        // As a document the reasons are in the plan.
        return Ok(Some(if output.json { refused(refusals) } else { refuse(session, refusals) }));
    }
    output.note(shown(&output).trim_end());
    Ok((!refusals.is_empty()).then(|| refuse(session, refusals)))
}

/// Every reason, and the exit code of the first.
fn refuse(session: &Session, refusals: &[Refusal]) -> u8 {
    for refusal in refusals {
        session.output.error(&Told::refusal(refusal));
    }
    refused(refusals)
}

fn refused(refusals: &[Refusal]) -> u8 {
    refusals.first().map_or(DONE, |refusal| refusal.kind.exit_code())
}
