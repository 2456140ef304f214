//! Expire dumps: what retention lets go leaves the shelf, one name after the other.
//!
//! A removal says first in the sidecar that it began, then takes the file, its
//! authentication and the sidecar. A crash after any step leaves either a dump that is
//! whole, and is decided anew, or a sidecar that tells of its own removal: no loss to
//! anybody, and cleared by the next run. The other way round, a file without its sidecar
//! would be a stranger that nobody removes.
//!
//! From the first word in the sidecar to its end the lock of the shelf is held, so whoever
//! holds the dump comes before or finds it gone.
//!
//! Refuses to remove anything when the shelf could not be listed to its end, or when it
//! is not known which dumps are damaged; to touch what has no sidecar; to follow a link; to
//! take a part of a set.

use std::collections::BTreeSet;

use backstay_model::dump::template::Fields;
use backstay_model::dump::{DumpExpirePlan, DumpRecord, Tier, plan_expire_dumps};
use backstay_model::{Finding, InstanceId};
use backstay_repo::dump::HMAC_SUFFIX;
use backstay_repo::shelf::{Shelf, ShelfPath};
use backstay_repo::store::StoreError;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::policy::Place;
use super::report::{self, Last};
use super::shelved::{self, Claims, Presence, Shelved, ShelvedFile, is_going, mark};
use super::{DumpPolicy, inside, names};
use crate::error::{Error, Result};
use crate::run::Run;

mod sets;

/// An upload that nobody wrote to for so long has died: `pg_dump` waits for a lock for
/// minutes, and not for a day.
const UNFINISHED_AGE: SignedDuration = SignedDuration::from_hours(24);

/// What may go from a shelf, and why the rest stays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpExpire {
    pub shelf: String,
    #[serde(flatten)]
    pub plan: DumpExpirePlan,
    /// Names whose removal began before and is ended.
    pub unfinished: Vec<String>,
    /// Reports of verifications that are older than is asked for, and go.
    pub old_reports: Vec<String>,
    /// Files of others, which stay as they are.
    pub foreign_files: u64,
    pub findings: Vec<Finding>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpExpireReport {
    #[serde(flatten)]
    pub planned: DumpExpire,
    /// Relative to the shelf, oldest first.
    pub deleted: Vec<String>,
    /// Pointers that showed what is gone and now show the newest.
    pub pointed: Vec<String>,
    /// What dumps that never ended have left.
    pub swept_uploads: u64,
}

/// What may go at `as_of`; looks, and does nothing.
pub async fn plan(
    run: &Run,
    policy: &DumpPolicy,
    instance: &InstanceId,
    as_of: Timestamp,
) -> Result<DumpExpire> {
    let shelved = shelved::look(run, policy, Some(instance)).await?;
    planned(&shelved, policy, as_of).await
}

async fn planned(shelved: &Shelved, policy: &DumpPolicy, as_of: Timestamp) -> Result<DumpExpire> {
    if let Last::Unreadable { path, reason } = &shelved.last {
        let path = shelved::full(&shelved.shelf, path);
        return Err(Error::VerificationUnreadable { path, reason: reason.clone() });
    }
    let there = shelved.files.iter().filter(|file| file.presence != Presence::Gone);
    let there: Vec<_> = there.map(|file| file.dump.clone()).collect();
    let findings = shelved.findings.iter().chain(&shelved.unseen).cloned().collect();
    let place = policy.place()?;
    let since = policy.reports_since(as_of);
    let old_reports = report::outlived(&*place.shelf, &policy.layout, since).await?;
    Ok(DumpExpire {
        shelf: shelved.shelf.clone(),
        plan: plan_expire_dumps(&there, &policy.keep, as_of),
        unfinished: shelved.leftovers.iter().map(|file| file.path.to_string()).collect(),
        old_reports: old_reports.iter().map(ToString::to_string).collect(),
        foreign_files: shelved.foreign_files,
        findings,
    })
}

pub async fn run(run: &Run, policy: &DumpPolicy, instance: &InstanceId) -> Result<DumpExpireReport> {
    let place = policy.place()?;
    let shelved = shelved::look(run, policy, Some(instance)).await?;
    let planned = planned(&shelved, policy, run.clock.now()).await?;
    let removing = Removing { run, place: &place, policy, claims: &shelved.claims };
    let mut report = DumpExpireReport { planned, deleted: Vec::new(), pointed: Vec::new(), swept_uploads: 0 };
    let mut removed = BTreeSet::new();
    run.progress.enter("remove expired dumps");
    for leftover in &shelved.leftovers {
        run.check_cancelled()?;
        let _alone = shelved::alone(run, &*place.shelf).await?;
        if let Some(stays) = removing.stays(leftover).await? {
            report.planned.findings.push(stays);
            continue;
        }
        removing.clear(leftover, &removed).await?;
        removed.insert(leftover.path.clone());
    }
    // Oldest first: whatever stops us, the newer half is left.
    for fate in report.planned.plan.expire.iter().rev() {
        run.check_cancelled()?;
        let Some(file) = shelved.files.iter().find(|file| file.dump.path == fate.path) else { continue };
        if matches!(file.presence, Presence::Link { .. }) {
            report.planned.findings.push(link_stays(&shelved, file));
            continue;
        }
        if let Some(whole) = shelved.claims.is_part_of(&file.path, &removed) {
            report.planned.findings.push(part_stays(&shelved, file, whole));
            continue;
        }
        match removing.remove(file, &removed).await? {
            Came::Gone => {
                removed.insert(file.path.clone());
                report.deleted.push(fate.path.clone());
            }
            Came::Changed => {}
            Came::Stays(why) => report.planned.findings.push(why),
        }
    }
    for fate in &report.planned.plan.keep {
        let file = shelved.files.iter().find(|file| file.dump.path == fate.path);
        if let Some(file) = file.filter(|file| file.is_expiring) {
            run.check_cancelled()?;
            removing.stay(file).await?;
        }
    }
    let gone = |file: &&ShelvedFile| report.deleted.contains(&file.dump.path);
    let went = shelved.files.iter().filter(gone).chain(&shelved.leftovers);
    let left: Vec<_> = shelved.files.iter().filter(|file| file.is_good() && !gone(file)).collect();
    report.pointed = removing.mend_pointers(went, &left).await?;
    for report in &report.planned.old_reports {
        let path = report.parse::<ShelfPath>().map_err(backstay_repo::Error::from)?;
        removing.delete(&path).await?;
    }
    let written_before = run.clock.now().checked_sub(UNFINISHED_AGE).unwrap_or(Timestamp::MIN);
    let swept = place.shelf.sweep_unfinished(written_before).await;
    report.swept_uploads = swept.map_err(|error| shelved::failed(&*place.shelf, error))?;
    Ok(report)
}

fn link_stays(shelved: &Shelved, file: &ShelvedFile) -> Finding {
    let path = shelved.full(&file.path);
    let message =
        "retention lets it go, and it stays: it is a link, and what it leads to is not ours to remove";
    Finding::info(
        path.clone(),
        message,
        format!("remove what it leads to, then `backstay expire` takes the rest of {path}"),
    )
}

/// A file that was taken in for itself before the set that it belongs to was.
fn part_stays(shelved: &Shelved, file: &ShelvedFile, whole: &ShelfPath) -> Finding {
    let message = format!("retention lets it go, and it stays: {whole} is not whole without it");
    let remedy = format!("`backstay expire` takes it when {whole} goes, or went before");
    Finding::info(shelved.full(&file.path), message, remedy)
}

/// What a removal came to.
enum Came {
    Gone,
    /// It is not what it was a moment ago.
    Changed,
    Stays(Finding),
}

struct Removing<'a> {
    run: &'a Run,
    place: &'a Place,
    policy: &'a DumpPolicy,
    claims: &'a Claims,
}

impl Removing<'_> {
    fn shelf(&self) -> &dyn Shelf {
        &*self.place.shelf
    }

    async fn remove(&self, file: &ShelvedFile, removed: &BTreeSet<ShelfPath>) -> Result<Came> {
        let alone = shelved::alone(self.run, self.shelf()).await?;
        let (id, now) = (&file.record().id, self.run.clock.now());
        if let Some(why) = self.stays(file).await? {
            for sidecar in file.sidecars.iter().filter(|_| file.is_expiring) {
                mark(self.shelf(), &alone, sidecar, id, None).await?;
            }
            return Ok(Came::Stays(why));
        }
        for sidecar in &file.sidecars {
            if !mark(self.shelf(), &alone, sidecar, id, Some(now)).await? {
                return Ok(Came::Changed);
            }
        }
        for sidecar in &file.sidecars {
            if !is_going(self.shelf(), sidecar, id, now).await? {
                return Ok(Came::Changed);
            }
        }
        self.delete(&file.path).await?;
        self.clear(file, removed).await?;
        Ok(Came::Gone)
    }

    /// What is left of a dump whose bytes are gone, but for what others need; and whatever
    /// its sidecar says, no file that cannot be a part of such a dump.
    async fn clear(&self, file: &ShelvedFile, removed: &BTreeSet<ShelfPath>) -> Result<()> {
        let beside = file.path.beside(HMAC_SUFFIX).map_err(backstay_repo::Error::from)?;
        self.delete(&beside).await?;
        for member in shelved::members(&file.path, file.record()) {
            let format = file.record().shape.format;
            let is_ours = inside::may_be_member(format, file.path.file_name(), member.file_name());
            if is_ours && !self.claims.is_of_another(&member, &file.path, removed) {
                self.delete(&member).await?;
            }
        }
        for sidecar in &file.sidecars {
            self.delete(sidecar).await?;
        }
        Ok(())
    }

    /// Its removal began and is not wanted any more.
    async fn stay(&self, file: &ShelvedFile) -> Result<()> {
        let alone = shelved::alone(self.run, self.shelf()).await?;
        for sidecar in &file.sidecars {
            mark(self.shelf(), &alone, sidecar, &file.record().id, None).await?;
        }
        Ok(())
    }

    async fn delete(&self, path: &ShelfPath) -> Result<()> {
        self.shelf().delete(path).await.map_err(|error| shelved::failed(self.shelf(), error))
    }

    /// Points to the newest good dump where a pointer showed one that is gone.
    async fn mend_pointers<'a>(
        &self,
        removed: impl Iterator<Item = &'a ShelvedFile>,
        left: &[&ShelvedFile],
    ) -> Result<Vec<String>> {
        let mut pointers: Vec<ShelfPath> = removed.filter_map(|file| self.pointer(file.record())).collect();
        pointers.sort();
        pointers.dedup();
        let mut mended = Vec::new();
        for pointer in pointers {
            match self.shelf().head(&pointer).await {
                Err(StoreError::NotFound { .. }) => {}
                Ok(_) => continue,
                Err(error) => return Err(shelved::failed(self.shelf(), error)),
            }
            let shown = left.iter().filter(|file| self.pointer(file.record()).as_ref() == Some(&pointer));
            // The days first, among those of one time: that is where a pointer shows.
            let newest =
                shown.max_by_key(|file| (file.record().finished_at, std::cmp::Reverse(file.dump.tier)));
            let Some(newest) = newest else { continue };
            let pointed = self.shelf().point(&pointer, &newest.path).await;
            pointed.map_err(|error| shelved::failed(self.shelf(), error))?;
            mended.push(pointer.to_string());
        }
        Ok(mended)
    }

    /// The pointer that `dump` sets for a dump of this record.
    fn pointer(&self, record: &DumpRecord) -> Option<ShelfPath> {
        let layout = &self.policy.layout;
        if record.safety || !layout.points_to(&record.content, self.policy.database.as_deref()) {
            return None;
        }
        let ext = names::extension(layout, &record.content, &record.shape);
        let database = names::in_names(&record.content, &record.shape);
        let fields = Fields {
            database: database.as_deref(),
            instance: &record.instance,
            tier: Tier::Daily,
            ext: &ext,
            time: record.started_at,
        };
        layout.pointer_path(&fields)?.parse().ok()
    }
}
