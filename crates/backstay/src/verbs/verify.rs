//! `backstay verify`: exit 0 sound, 20 findings, 21 could not look.

use backstay_model::verify::{VerifyLevel, VerifyReport};
use backstay_model::{BackupId, ErrorKind, Fault, Finding, InstanceId, Secret};
use backstay_ops::dump::report::FileVerdict;
use backstay_ops::dump::verify::{self as dumps, DumpVerification, VerifyOptions};
use backstay_ops::verify::Subject;
use serde::Serialize;

use super::{DONE, Verdict, could_not_look};
use crate::args::{VerifyArguments, VerifyDepth};
use crate::error::Error;
use crate::render::errors::Told;
use crate::render::verify;
use crate::session::{Kept, Session};

/// What was looked at in the repository and on the shelves.
#[derive(Debug, Serialize)]
struct Verified {
    #[serde(flatten)]
    report: VerifyReport,
    /// Each name of each dump that was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dumps: Vec<FileVerdict>,
}

pub async fn run(session: &Session, arguments: &VerifyArguments) -> Result<u8, Fault> {
    let level = match arguments.level {
        VerifyDepth::Existence => VerifyLevel::Existence,
        VerifyDepth::Structure => VerifyLevel::Structure,
        VerifyDepth::Digest => VerifyLevel::Digest,
    };
    let subject = subject(arguments.subject.as_deref())?;
    let mut verdict = Verdict::default();
    let older = session.older_passphrases(&arguments.passphrases)?;
    let of_dumps = on_shelves(session, &subject, level, &older, &mut verdict).await?;
    let is_seen = verdict.code() == DONE;
    if of_dumps.is_empty() && is_seen && !older.is_empty() {
        return Err(Fault::new(Error::NoDumpsMeant { option: "--passphrase-file" }));
    }
    let is_one_dump = matches!(subject, Subject::Backup(_)) && !of_dumps.is_empty();
    let mut report = VerifyReport::new(named(&subject));
    if !is_one_dump {
        match in_repository(session, &subject, level).await {
            Ok(of_backups) => report = of_backups,
            Err(fault) if of_dumps.is_empty() && could_not_look(fault.kind()) => {
                session.output.error(&Told::fault(&fault));
                return Ok(VerifyReport::EXIT_UNSEEN);
            }
            Err(fault) if of_dumps.is_empty() || session.cancel.is_cancelled() => return Err(fault),
            // A repository that is away hides no dump that was looked at.
            Err(fault) => report.not_seen(unseen(session, &fault)),
        }
    }
    let mut verified = Verified { report, dumps: Vec::new() };
    for DumpVerification { report, dumps, .. } in of_dumps {
        // Sidecars that are nobody's are told of once, whoever shares the shelf.
        let new = |known: &[_], finding: &_| !known.contains(finding);
        let VerifyReport { objects_read, bytes_read, findings, unseen, .. } = report;
        verified.report.objects_read += objects_read;
        verified.report.bytes_read += bytes_read;
        for finding in findings {
            if new(&verified.report.findings, &finding) {
                verified.report.found(finding);
            }
        }
        for finding in unseen {
            if new(&verified.report.unseen, &finding) {
                verified.report.not_seen(finding);
            }
        }
        verified.dumps.extend(dumps);
    }
    session
        .output
        .result(&verified, |output| {
            verify::report(output, &verified.report) + &verify::dumps(output, &verified.dumps)
        })
        .map_err(Error::Print)?;
    verdict.worsen(verified.report.exit_code());
    Ok(verdict.code())
}

async fn in_repository(
    session: &Session,
    subject: &Subject,
    level: VerifyLevel,
) -> Result<VerifyReport, Fault> {
    let context = session.context().await?;
    let _bar = session.bar("verify");
    Ok(backstay_ops::verify::run(&context, subject, level).await?)
}

fn unseen(session: &Session, fault: &Fault) -> Finding {
    let told = Told::fault(fault);
    let message = std::iter::once(told.message).chain(told.causes).collect::<Vec<_>>().join(": ");
    let remedy = told.hints.into_iter().next().unwrap_or_else(|| "`backstay verify` looks again".to_owned());
    Finding::warning(session.config.settings.repository.store.as_str(), message, remedy)
}

async fn on_shelves(
    session: &Session,
    subject: &Subject,
    level: VerifyLevel,
    older_passphrases: &[Secret],
    verdict: &mut Verdict,
) -> Result<Vec<DumpVerification>, Fault> {
    let names: Vec<String> = match subject {
        Subject::Instance(instance) => vec![instance.to_string()],
        Subject::All | Subject::Backup(_) => Vec::new(),
    };
    let dump = match subject {
        Subject::Backup(id) => Some(id.clone()),
        Subject::All | Subject::Instance(_) => None,
    };
    let mut seen = Vec::new();
    for kept in session.shelves(&names) {
        match of_one(session, kept, dump.clone(), level, older_passphrases).await {
            Ok(verification) => seen.push(verification),
            // Not of this instance, and perhaps a backup.
            Err(fault) if dump.is_some() && fault.kind() == ErrorKind::NotFound => {}
            Err(fault) if could_not_look(fault.kind()) => {
                session.output.error(&Told::fault(&fault));
                verdict.worsen(VerifyReport::EXIT_UNSEEN);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(seen)
}

async fn of_one(
    session: &Session,
    kept: Result<Kept, Fault>,
    dump: Option<BackupId>,
    level: VerifyLevel,
    older_passphrases: &[Secret],
) -> Result<DumpVerification, Fault> {
    let mut kept = session.opened(kept?)?;
    kept.policy.older_passphrases = older_passphrases.to_vec();
    let options = VerifyOptions { level, dump, bin_directory: kept.bin_directory };
    let _bar = session.bar(kept.instance.as_str());
    Ok(dumps::run(&session.run(), &kept.policy, &kept.instance, &options).await?)
}

fn named(subject: &Subject) -> String {
    match subject {
        Subject::All => "all".to_owned(),
        Subject::Instance(instance) => instance.to_string(),
        Subject::Backup(backup) => backup.to_string(),
    }
}

fn subject(text: Option<&str>) -> Result<Subject, Fault> {
    Ok(match text {
        None => Subject::All,
        Some(text) => match text.parse::<BackupId>() {
            Ok(backup) => Subject::Backup(backup),
            Err(_) => Subject::Instance(text.parse::<InstanceId>()?),
        },
    })
}
