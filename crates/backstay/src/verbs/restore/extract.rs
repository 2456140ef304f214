//! `backstay restore --into` of a dump of Redis or InfluxDB: a directory for its own
//! server.

use std::path::Path;

use backstay_model::{BackupId, Fault, InstanceId};
use backstay_ops::dump::shelved;
use backstay_ops::extract::{self, ExtractRequest};

use super::super::DONE;
use super::show;
use crate::args::RestoreArguments;
use crate::config::settings::InstanceSettings;
use crate::error::Error;
use crate::render::extract as shown;
use crate::session::Session;

/// Whether a dump is to be restored: always where there is nothing else, and of a server that is
/// backed up where the repository does not hold what is named. Where that cannot be seen, nothing
/// is restored in its place.
pub async fn is_meant(session: &Session, arguments: &RestoreArguments) -> Result<bool, Fault> {
    match session.config.instance(&arguments.instance) {
        Ok((id, InstanceSettings::Redis(settings))) if settings.url.is_some() => {
            // Whoever names a dump needs no repository, which may be what was lost.
            Ok(is_shelved(session, arguments).await? || !has_base(session, id, arguments).await?)
        }
        Ok((_, InstanceSettings::Influxdb(_) | InstanceSettings::Redis(_))) => Ok(true),
        Ok((_, InstanceSettings::Postgresql(_))) | Err(_) => Ok(false),
    }
}

/// Whether what is named lies on the shelf. One that cannot be looked at shows nothing.
async fn is_shelved(session: &Session, arguments: &RestoreArguments) -> Result<bool, Fault> {
    let Some(id) = arguments.backup.as_deref().map(str::parse::<BackupId>).transpose()? else {
        return Ok(false);
    };
    for kept in session.shelves(std::slice::from_ref(&arguments.instance)).into_iter().flatten() {
        if matches!(shelved::show(&session.run(), &kept.policy, &id).await, Ok(Some(_))) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn has_base(session: &Session, id: &InstanceId, arguments: &RestoreArguments) -> Result<bool, Fault> {
    let backup = arguments.backup.as_deref().map(str::parse::<BackupId>).transpose()?;
    let context = session.context().await?;
    Ok(backstay_ops::restore::has_base(&context, id, backup.as_ref()).await?)
}

pub async fn run(session: &Session, arguments: &RestoreArguments, into: &Path) -> Result<u8, Fault> {
    let of_bases = [
        ("--to", arguments.to.is_some()),
        ("--tablespace", !arguments.tablespace.is_empty()),
        ("--start", arguments.start),
        ("--set-aside", arguments.set_aside),
    ];
    if let Some((option, _)) = of_bases.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Fault::new(Error::NotForDumps { option, instance: arguments.instance.clone() }));
    }
    let (mut policy, instance) = session.dump_policy(&arguments.instance, None)?;
    policy.older_passphrases = session.older_passphrases(&arguments.reload.passphrases)?;
    let request = ExtractRequest {
        dump: arguments.backup.as_deref().map(str::parse::<BackupId>).transpose()?,
        into: std::path::absolute(into).unwrap_or_else(|_| into.to_owned()),
    };
    let run = session.run();
    let output = session.output;
    let prepared = {
        let _bar = session.bar(instance.id.as_str());
        extract::prepare(&run, &instance, &policy, &request).await?
    };
    let plan = prepared.plan.clone();
    if let Some(code) = show(session, arguments, &plan, &plan.refusals, |output| shown::plan(output, &plan))?
    {
        return Ok(code);
    }
    let report = {
        let _bar = session.bar(instance.id.as_str());
        prepared.carry_out().await?
    };
    output.result(&report, |output| shown::done(output, &report)).map_err(Error::Print)?;
    Ok(DONE)
}
