//! `backstay restore` of several databases out of dumps, each into one of its own.
//!
//! All of them are planned before the first is restored; what one plan refuses, none is
//! begun with. What was planned is what is restored. Where one fails, those before it are
//! told like any other. Refuses whatever names one database, such as a swap or a
//! confirmation.

use backstay_model::Fault;
use backstay_model::plan::Refusal;
use backstay_model::plan::reload::ReloadPlan;
use backstay_ops::reload::{self, ReloadReport, ReloadRequest};

use super::super::{DONE, NOT_SOUND};
use super::reload::request;
use super::show;
use crate::args::RestoreArguments;
use crate::error::Error;
use crate::render::reload as shown;
use crate::session::Session;

/// What stands for the name of each.
pub(super) const DATABASE: &str = "{database}";

pub async fn run(session: &Session, arguments: &RestoreArguments) -> Result<u8, Fault> {
    must_be_for_several(arguments).map_err(Fault::new)?;
    let (mut policy, instance) = session.dump_policy(&arguments.instance, None)?;
    policy.older_passphrases = session.older_passphrases(&arguments.reload.passphrases)?;
    let run = session.run();
    let mut requests = Vec::new();
    for database in distinct(&arguments.reload.database) {
        requests.push((database, request(session, arguments, policy.jobs, Some(database))?));
    }
    let mut plans: Vec<ReloadPlan> = Vec::new();
    for (database, request) in &requests {
        let _bar = session.bar(database);
        plans.push(reload::prepare(&run, &instance, &policy, request).await?.plan);
    }
    let refusals: Vec<Refusal> = plans.iter().flat_map(|plan| plan.refusals.clone()).collect();
    let text = |output: &_| plans.iter().map(|plan| shown::plan(output, plan)).collect::<String>();
    if let Some(code) = show(session, arguments, &plans, &refusals, text)? {
        return Ok(code);
    }
    let mut done: Vec<Done<'_>> = Vec::new();
    for ((database, request), plan) in requests.iter().zip(&plans) {
        // Of what was shown, whatever was dumped meanwhile.
        let request = ReloadRequest { dump: Some(plan.dump.clone()), ..request.clone() };
        let restored = async {
            let _bar = session.bar(database);
            // What it held open while the others were looked at and restored may be over.
            let mut prepared = reload::prepare(&run, &instance, &policy, &request).await?;
            prepared.plan.told_before(&plan.findings);
            let told = prepared.plan.findings.len();
            Ok::<_, Fault>(Done { database, report: prepared.carry_out().await?, told })
        };
        match restored.await {
            Ok(one) => done.push(one),
            Err(fault) if done.is_empty() => return Err(fault),
            Err(source) => {
                // They are there, and somebody may build on what is told of them.
                tell(session, &done)?;
                let before = done.iter().map(|one| one.database.to_owned()).collect();
                let database = (*database).to_owned();
                return Err(Fault::new(Error::SeveralStopped { database, done: before, source }));
            }
        }
    }
    tell(session, &done)?;
    Ok(if done.iter().all(|one| one.report.sound) { DONE } else { NOT_SOUND })
}

/// One of them, restored.
struct Done<'a> {
    database: &'a str,
    report: ReloadReport,
    /// How many findings were shown with its plan.
    told: usize,
}

fn tell(session: &Session, done: &[Done<'_>]) -> Result<(), Fault> {
    let documents: Vec<&ReloadReport> = done.iter().map(|one| &one.report).collect();
    let text = |output: &_| done.iter().map(|one| shown::done(output, &one.report, one.told)).collect();
    Ok(session.output.result(&documents, text).map_err(Error::Print)?)
}

fn distinct(names: &[String]) -> Vec<&String> {
    let mut distinct: Vec<&String> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

fn must_be_for_several(arguments: &RestoreArguments) -> Result<(), Error> {
    let said = &arguments.reload;
    let names_one = said.into_database.as_ref().is_some_and(|name| !name.contains(DATABASE));
    let for_one = [
        ("--swap", said.swap.is_some()),
        ("--into-database", names_one),
        ("--table", !said.table.is_empty()),
        ("--schema", !said.schema.is_empty()),
        ("--confirm", said.force || said.confirm.is_some()),
    ];
    match for_one.into_iter().find(|(_, is_said)| *is_said) {
        Some((option, _)) => Err(Error::ForOneDatabase { option }),
        None => Ok(()),
    }
}
