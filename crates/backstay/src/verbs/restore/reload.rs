//! `backstay restore` of a dump, into a database.

use backstay_model::plan::reload::Consent;
use backstay_model::{BackupId, Fault};
use backstay_ops::reload::{self, ReloadRequest, Wanted};

use super::super::{DONE, NOT_SOUND};
use super::several::DATABASE;
use super::{server, show};
use crate::args::RestoreArguments;
use crate::error::Error;
use crate::render::reload as shown;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &RestoreArguments) -> Result<u8, Fault> {
    let (mut policy, instance) = session.dump_policy(&arguments.instance, None)?;
    policy.older_passphrases = session.older_passphrases(&arguments.reload.passphrases)?;
    let database = arguments.reload.database.first();
    let request = request(session, arguments, policy.jobs, database)?;
    let run = session.run();
    let output = session.output;
    let prepared = {
        let _bar = session.bar(instance.id.as_str());
        reload::prepare(&run, &instance, &policy, &request).await?
    };
    let plan = prepared.plan.clone();
    if let Some(code) = show(session, arguments, &plan, &plan.refusals, |output| shown::plan(output, &plan))?
    {
        return Ok(code);
    }
    let told = plan.findings.len();
    let report = {
        let _bar = session.bar(instance.id.as_str());
        prepared.carry_out().await?
    };
    output.result(&report, |output| shown::done(output, &report, told)).map_err(Error::Print)?;
    Ok(if report.sound { DONE } else { NOT_SOUND })
}

/// `database` is one of those that were named.
pub(super) fn request(
    session: &Session,
    arguments: &RestoreArguments,
    jobs: u32,
    database: Option<&String>,
) -> Result<ReloadRequest, Fault> {
    let said = &arguments.reload;
    let wanted = match (&said.into_database, &said.swap) {
        (Some(name), _) => match database {
            Some(database) => Wanted::Database(name.replace(DATABASE, database)),
            None if name.contains(DATABASE) => return Err(Fault::new(Error::WhichDatabase)),
            None => Wanted::Database(name.clone()),
        },
        (None, Some(name)) => Wanted::Swap(name.clone()),
        (None, None) if said.test => Wanted::Test,
        (None, None) => return Err(Fault::new(Error::NoDestination)),
    };
    let server = server(session, arguments)?;
    Ok(ReloadRequest {
        dump: arguments.backup.as_deref().map(str::parse::<BackupId>).transpose()?,
        database: database.cloned(),
        wanted,
        server,
        tables: said.table.clone(),
        schemas: said.schema.clone(),
        triggers_off: said.triggers_off,
        owners: !said.no_owner,
        privileges: !said.no_privileges,
        // A database that others use changes in one transaction, unless somebody says otherwise.
        jobs: said.jobs.unwrap_or(if said.swap.is_some() || said.test { jobs } else { 1 }),
        consent: Consent {
            force: said.force,
            confirm: said.confirm.clone(),
            is_of_several: said.database.len() > 1,
        },
        safety_dump: !said.no_safety_backup,
        hooks: session.hooks(&arguments.instance, said.to_server.as_deref())?,
    })
}
