//! `backstay restore` of a dump of roles and tablespaces, which go into no database.

use backstay_model::plan::reload::Consent;
use backstay_model::{BackupId, Fault};
use backstay_ops::reload::globals::{self, GlobalsRequest};

use super::super::DONE;
use super::{server, show};
use crate::args::RestoreArguments;
use crate::error::Error;
use crate::render::globals as shown;
use crate::session::Session;

/// Nobody said where to: right for such a dump only, and it has to be named.
pub async fn run(session: &Session, arguments: &RestoreArguments) -> Result<u8, Fault> {
    let nowhere = || Fault::new(Error::NoDestination);
    let dump = arguments.backup.as_deref().ok_or_else(nowhere)?.parse::<BackupId>()?;
    let (mut policy, instance) = session.dump_policy(&arguments.instance, None)?;
    policy.older_passphrases = session.older_passphrases(&arguments.reload.passphrases)?;
    if policy.to.is_none() {
        return Err(nowhere());
    }
    let said = &arguments.reload;
    let server = server(session, arguments)?;
    let consent = Consent { force: said.force, confirm: said.confirm.clone(), ..Consent::default() };
    let request = GlobalsRequest { dump, server, consent };
    let run = session.run();
    let prepared = {
        let _bar = session.bar(instance.id.as_str());
        match globals::prepare(&run, &instance, &policy, &request).await {
            // It may be a base backup, which needs a place to go to as well.
            Err(backstay_ops::Error::NoSuchBackup { .. }) => return Err(nowhere()),
            prepared => prepared?.ok_or_else(nowhere)?,
        }
    };
    let output = session.output;
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
    Ok(DONE)
}
