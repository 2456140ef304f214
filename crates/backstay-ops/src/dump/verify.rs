//! Verify dumps: is every file there, is it what was written, does it open, and is the
//! inside whole.
//!
//! Holds a reader and never a writer; only the reports of what was seen are added to the
//! shelf. Bytes that lie under several names are read once, and each name has its verdict;
//! copies that only look alike are read each, for one may be damaged without the other.
//! Refuses to mix up a damaged file with one that nobody could open, such as for want of
//! the right pass phrase.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use backstay_model::error::Classified;
use backstay_model::{BackupId, ErrorKind, Finding, InstanceId, VerifyLevel, VerifyReport};
use backstay_repo::store::StoreError;
use serde::Serialize;

use super::DumpPolicy;
use super::policy::Place;
use super::report::{self, DumpState, FileVerdict, VerificationReport};
use super::shelved::{self, Presence, Shelved, ShelvedFile};
use crate::error::{Error, Result};
use crate::run::Run;

mod content;

use content::{Contents, Look};

#[derive(Debug, Clone)]
pub struct VerifyOptions {
    pub level: VerifyLevel,
    /// Only this dump.
    pub dump: Option<BackupId>,
    /// Where `pg_restore` is, when it is not in a usual place.
    pub bin_directory: Option<PathBuf>,
}

/// What a verification of dumps tells.
#[derive(Debug, Clone, Serialize)]
pub struct DumpVerification {
    #[serde(flatten)]
    pub report: VerifyReport,
    /// Each name that was looked at, newest dumps first.
    pub dumps: Vec<FileVerdict>,
    /// The reports that were written, below the shelf.
    pub reports: Vec<String>,
    /// Those that were older than is asked for, and were removed.
    pub old_reports: Vec<String>,
}

/// Looks at the dumps of an instance, and leaves the reports.
pub async fn run(
    run: &Run,
    policy: &DumpPolicy,
    instance: &InstanceId,
    options: &VerifyOptions,
) -> Result<DumpVerification> {
    let subject = options.dump.as_ref().map_or(instance.as_str(), BackupId::as_str);
    let mut told = DumpVerification {
        report: VerifyReport::new(subject),
        dumps: Vec::new(),
        reports: Vec::new(),
        old_reports: Vec::new(),
    };
    let place = policy.place()?;
    run.progress.enter("look at the dumps");
    let looked = tokio::select! {
        biased;
        () = run.cancel.cancelled() => return Err(Error::Cancelled),
        looked = shelved::look_at(&place, policy, None) => looked,
    };
    let mut shelved = match looked {
        Ok(shelved) => shelved,
        Err(error) if is_no_look(error.kind()) => {
            told.report.not_seen(unseen(place.shelf.location(), &error));
            return Ok(told);
        }
        Err(error) => return Err(error),
    };
    let is_wanted = |file: &ShelvedFile| {
        file.record().instance == *instance && options.dump.as_ref().is_none_or(|id| file.record().id == *id)
    };
    let wanted: Vec<usize> = (0..shelved.files.len()).filter(|at| is_wanted(&shelved.files[*at])).collect();
    if let (true, Some(backup)) = (wanted.is_empty(), &options.dump) {
        return Err(Error::NoSuchBackup { backup: backup.clone() });
    }
    let verifying = Verifying { run, policy, place: &place, options };
    let mut looks = verifying.look_at(&shelved, &wanted, &mut told.report).await?;
    // What `expire` took while this was reading is no loss.
    for at in &wanted {
        let file = &shelved.files[*at];
        let is_gone = match looks.get(at) {
            Some(Look::Gone) => true,
            // The head went before the rest.
            Some(Look::Damaged { .. }) if file.broken_member.is_some() => {
                matches!(place.shelf.head(file.path()).await, Err(StoreError::NotFound { .. }))
            }
            _ => false,
        };
        if is_gone && shelved::was_let_go(&*place.shelf, &shelved.files[*at]).await? {
            looks.remove(at);
            shelved.files[*at].is_expiring = true;
        }
    }
    // What is known now decides which dump is offered in the place of a damaged one.
    for (at, look) in &looks {
        let file = &mut shelved.files[*at];
        match look {
            Look::Good { .. } if options.level == VerifyLevel::Digest => file.dump.damaged = false,
            Look::Good { .. } | Look::Unseen { .. } => {}
            Look::Damaged { .. } => file.dump.damaged = true,
            Look::Gone => file.presence = Presence::Gone,
        }
    }
    let at = run.clock.now();
    for (number, look) in looks {
        if let Some((earlier, finding)) = known_damage(&shelved, &shelved.files[number], &look, options.level)
        {
            told.report.found(finding);
            told.dumps.push(earlier);
            continue;
        }
        let verdict = verdict(&shelved, &shelved.files[number], look, options.level, at);
        for finding in &verdict.findings {
            match verdict.state {
                DumpState::Unseen => told.report.not_seen(finding.clone()),
                DumpState::Good | DumpState::Damaged | DumpState::Gone => told.report.found(finding.clone()),
            }
        }
        told.dumps.push(verdict);
    }
    if options.dump.is_none() {
        // A file that is gone is told of with its own verdict, or is another instance's.
        let names: BTreeSet<String> = shelved.files.iter().map(|file| shelved.full(&file.path)).collect();
        let of_nobody = shelved.findings.iter().filter(|finding| !names.contains(&finding.subject));
        of_nobody.for_each(|finding| told.report.found(finding.clone()));
        shelved.unseen.iter().for_each(|finding| told.report.not_seen(finding.clone()));
        if told.dumps.is_empty() {
            told.report.found(Finding::info(
                shelved.shelf.clone(),
                format!("there is no dump of {instance} to verify"),
                format!("`backstay dump {instance}` takes one"),
            ));
        }
    }
    verifying.remember(&shelved, at, &mut told).await;
    Ok(told)
}

struct Verifying<'a> {
    run: &'a Run,
    policy: &'a DumpPolicy,
    place: &'a Place,
    options: &'a VerifyOptions,
}

/// The device and the number of a file on it: two names of one file have the same.
type Inode = (u64, u64);

impl Verifying<'_> {
    /// Looks at these files, each content once.
    async fn look_at(
        &self,
        shelved: &Shelved,
        wanted: &[usize],
        report: &mut VerifyReport,
    ) -> Result<BTreeMap<usize, Look>> {
        let mut looks = BTreeMap::new();
        let mut contents: Vec<(Option<Inode>, Vec<usize>)> = Vec::new();
        for at in wanted {
            let file = &shelved.files[*at];
            report.objects_read += 1;
            match file.presence {
                Presence::Gone => {
                    looks.insert(*at, Look::Gone);
                    continue;
                }
                Presence::File { size_bytes } | Presence::Link { size_bytes }
                    if size_bytes != file.record().stored_bytes =>
                {
                    let finding = shelved::wrong_size(shelved, file, size_bytes);
                    looks.insert(*at, Look::Damaged { reason: finding.message });
                    continue;
                }
                Presence::File { .. } | Presence::Link { .. } => {}
            }
            if let Some(reason) = &file.broken_member {
                looks.insert(*at, Look::Damaged { reason: reason.clone() });
                continue;
            }
            // The other files of two sets may differ where their heads are one file.
            let inode = if file.record().members.is_empty() { self.inode(file) } else { None };
            match contents.iter_mut().find(|(known, _)| known.is_some() && *known == inode) {
                Some((_, names)) => names.push(*at),
                None => contents.push((inode, vec![*at])),
            }
        }
        if self.options.level == VerifyLevel::Existence {
            let names = contents.into_iter().flat_map(|(_, names)| names);
            looks.extend(names.map(|at| (at, Look::nothing_wrong())));
            return Ok(looks);
        }
        let total = contents.iter().map(|(_, names)| shelved.files[names[0]].record().raw_bytes).sum();
        self.run.progress.begin("verify dumps", total);
        let mut reader = Contents::new(
            self.run,
            &self.place.shelf,
            &self.place.directory,
            self.policy.passphrases(),
            self.options.level,
            self.options.bin_directory.as_deref(),
        );
        for (_, names) in contents {
            self.run.check_cancelled()?;
            let files: Vec<&ShelvedFile> = names.iter().map(|at| &shelved.files[*at]).collect();
            let (bytes_read, seen) = reader.look(&files).await?;
            report.bytes_read += bytes_read;
            looks.extend(names.into_iter().zip(seen));
            self.run.progress.file();
        }
        Ok(looks)
    }

    /// `None` where nothing is known of it: then it is read for itself.
    fn inode(&self, file: &ShelvedFile) -> Option<Inode> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(self.place.directory.join(file.path.as_str())).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    /// The reports are worth something to later operations, and nothing to the answer.
    async fn remember(&self, shelved: &Shelved, at: jiff::Timestamp, told: &mut DumpVerification) {
        if told.dumps.is_empty() && shelved.files.is_empty() {
            return;
        }
        let report = VerificationReport {
            backstay_version: env!("CARGO_PKG_VERSION").to_owned(),
            shelf: shelved.shelf.clone(),
            verified_at: at,
            level: self.options.level,
            sound: false,
            files: told.dumps.clone(),
            findings: shelved.findings.iter().chain(&shelved.unseen).cloned().collect(),
        };
        let stays = shelved.files.iter().filter(|file| file.presence != Presence::Gone || !file.is_expiring);
        let there: Vec<_> = stays.map(|file| (file.path.as_str(), file.record())).collect();
        let report = report.renewed(shelved.report(), &there);
        match report::write(&*self.place.shelf, &self.policy.layout, &report).await {
            Ok(paths) => {
                told.reports = paths;
                self.let_old_reports_go(shelved, at, told).await;
            }
            Err(reason) => told.report.found(Finding::info(
                shelved.shelf.clone(),
                format!("what was seen could not be left there as a report: {reason}"),
                "see whether backstay may write to the directory of `dump.to`",
            )),
        }
    }

    async fn let_old_reports_go(&self, shelved: &Shelved, at: jiff::Timestamp, told: &mut DumpVerification) {
        let shelf = &*self.place.shelf;
        let gone = async {
            let since = self.policy.reports_since(at);
            report::let_go(shelf, report::outlived(shelf, &self.policy.layout, since).await?).await
        };
        match gone.await {
            Ok(paths) => told.old_reports = paths,
            Err(error) => told.report.found(Finding::info(
                shelved.shelf.clone(),
                format!("old reports could not be removed: {}", content::with_causes(&error)),
                "see whether backstay may write to the directory of `dump.to`",
            )),
        }
    }
}

/// What a deeper look has found, where this one found nothing: it did not get that far.
fn known_damage(
    shelved: &Shelved,
    file: &ShelvedFile,
    look: &Look,
    level: VerifyLevel,
) -> Option<(FileVerdict, Finding)> {
    let earlier = shelved.report()?.of(file.path.as_str(), file.record())?;
    let holds =
        matches!(look, Look::Good { .. }) && earlier.state == DumpState::Damaged && earlier.level > level;
    if !holds {
        return None;
    }
    let reason = earlier.findings.first().map_or("damaged", |finding| finding.message.as_str());
    let message = format!(
        "at {}, level {}, it was found damaged, and this look did not go as deep: {reason}",
        earlier.verified_at, earlier.level
    );
    Some((earlier.clone(), Finding::error(shelved.full(&file.path), message, shelved.instead(file.record()))))
}

/// What is said of one name.
fn verdict(
    shelved: &Shelved,
    file: &ShelvedFile,
    look: Look,
    level: VerifyLevel,
    at: jiff::Timestamp,
) -> FileVerdict {
    let (record, subject) = (file.record(), shelved.full(&file.path));
    let instead = || shelved.instead(record);
    let (state, findings) = match look {
        Look::Good { notes } => {
            let findings = notes.into_iter().map(|note| note.of(subject.clone())).collect();
            (DumpState::Good, findings)
        }
        Look::Damaged { reason } => (DumpState::Damaged, vec![Finding::error(subject, reason, instead())]),
        Look::Gone => {
            let message = format!("the file of dump {} is gone, its sidecar is there", record.id);
            (DumpState::Gone, vec![Finding::error(subject, message, instead())])
        }
        Look::Unseen { reason, remedy } => {
            (DumpState::Unseen, vec![Finding::warning(subject, reason, remedy)])
        }
    };
    let newest_good = match state {
        DumpState::Good | DumpState::Unseen => None,
        DumpState::Damaged | DumpState::Gone => shelved.newest_good(record).map(|good| good.path.to_string()),
    };
    FileVerdict {
        path: file.path.to_string(),
        id: record.id.clone(),
        instance: record.instance.clone(),
        content: record.content.clone(),
        tier: file.dump.tier,
        finished_at: record.finished_at,
        stored_bytes: record.stored_bytes,
        sha256: record.sha256.clone(),
        state,
        level,
        verified_at: at,
        findings,
        newest_good,
    }
}

fn is_no_look(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Denied)
}

fn unseen(subject: &str, error: &Error) -> Finding {
    let remedy = error.hints().into_iter().next();
    let remedy = remedy.unwrap_or_else(|| "`backstay verify` looks again".to_owned());
    Finding::warning(subject, format!("could not be looked at: {}", content::with_causes(error)), remedy)
}
