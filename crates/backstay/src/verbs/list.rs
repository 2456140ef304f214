//! `backstay list`: backups and dumps, newest first.

use backstay_model::{BackupSummary, ErrorKind, Fault, Finding, FindingLevel, InstanceId};
use backstay_ops::dump::shelved::{self, DumpSummary};
use serde::Serialize;

use super::Verdict;
use crate::args::{ListArguments, ListType};
use crate::error::Error;
use crate::render::errors::Told;
use crate::render::{backups, dumps};
use crate::session::Session;

/// One row of the document.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Base(Box<BackupSummary>),
    Dump(Box<DumpSummary>),
}

pub async fn run(session: &Session, arguments: &ListArguments) -> Result<u8, Fault> {
    let instance = arguments.instance.as_deref().map(str::parse::<InstanceId>).transpose()?;
    let (mut listed, mut findings) = (Vec::new(), Vec::new());
    if arguments.only != Some(ListType::Dump) {
        let context = session.context().await?;
        let listing = backstay_ops::list::run(&context, instance.as_ref()).await?;
        listed = listing.backups;
        findings = listing.findings;
    }
    let mut verdict = Verdict::default();
    let mut taken = Vec::new();
    if arguments.only != Some(ListType::Base) {
        taken = dumps_of(session, arguments, &mut verdict, &mut findings).await?;
    }
    // An instance that has backups need not stand in the configuration any more;
    // one that has neither is a slip of the hand.
    let is_empty = listed.is_empty() && taken.is_empty() && findings.is_empty();
    if let (true, Some(name)) = (is_empty, &arguments.instance) {
        session.config.instance(name)?;
    }
    let text = (listed.clone(), taken.clone());
    let document = merged(listed, taken);
    session
        .output
        .result(&document, |output| match arguments.only {
            Some(ListType::Dump) => dumps::kept::list(output, &text.1),
            _ if text.1.is_empty() => backups::list(output, &text.0),
            _ if text.0.is_empty() => dumps::kept::list(output, &text.1),
            _ => format!("{}\n{}", backups::list(output, &text.0), dumps::kept::list(output, &text.1)),
        })
        .map_err(Error::Print)?;
    for finding in &findings {
        session.output.error(&Told::finding(finding, ErrorKind::Corrupt));
    }
    if !findings.is_empty() {
        verdict.worsen(ErrorKind::Corrupt.exit_code());
    }
    Ok(verdict.code())
}

/// The dumps of the instances that have a place for them. Without `--type dump` nobody has
/// asked for them alone: a place that cannot be looked at is told and stops nothing.
async fn dumps_of(
    session: &Session,
    arguments: &ListArguments,
    verdict: &mut Verdict,
    findings: &mut Vec<Finding>,
) -> Result<Vec<DumpSummary>, Fault> {
    let wanted_alone = arguments.only == Some(ListType::Dump);
    let shelves = match wanted_alone {
        true => session.shelves_of_one_or_all(arguments.instance.as_deref())?,
        false => session.shelves(&arguments.instance.iter().cloned().collect::<Vec<_>>()),
    };
    if wanted_alone && shelves.is_empty() {
        return Err(backstay_ops::Error::NoShelf.into());
    }
    let (mut dumps, mut warnings) = (Vec::new(), Vec::new());
    for kept in shelves {
        let looked = async {
            let kept = kept?;
            Ok::<_, Fault>(shelved::look(&session.run(), &kept.policy, Some(&kept.instance)).await?)
        };
        match looked.await {
            Ok(shelved) => {
                dumps.extend(shelved.summaries());
                warnings.extend(shelved.unseen);
                for finding in shelved.findings {
                    // A shelf of several instances tells of what is nobody's for each.
                    let all =
                        if finding.level == FindingLevel::Error { &mut *findings } else { &mut warnings };
                    if !all.contains(&finding) {
                        all.push(finding);
                    }
                }
            }
            Err(fault) if fault.kind() == ErrorKind::Cancelled => return Err(fault),
            Err(fault) if wanted_alone => verdict.failed(session, &fault),
            Err(fault) => session.output.error(&Told::fault(&fault)),
        }
    }
    warnings.retain(|finding| finding.level != FindingLevel::Info);
    session.output.warnings(&warnings);
    dumps.sort_by(|a, b| (b.finished_at, &b.id).cmp(&(a.finished_at, &a.id)));
    Ok(dumps)
}

/// Both, newest first; each among its like stays in its order, which clocks do not decide alone.
fn merged(listed: Vec<BackupSummary>, taken: Vec<DumpSummary>) -> Vec<Row> {
    let mut rows = Vec::with_capacity(listed.len() + taken.len());
    let mut taken = taken.into_iter().peekable();
    for backup in listed {
        while let Some(dump) = taken.next_if(|dump| dump.finished_at > backup.finished_at) {
            rows.push(Row::Dump(Box::new(dump)));
        }
        rows.push(Row::Base(Box::new(backup)));
    }
    rows.extend(taken.map(|dump| Row::Dump(Box::new(dump))));
    rows
}
