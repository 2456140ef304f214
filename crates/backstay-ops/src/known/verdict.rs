//! What verifications amount to: the verdict on each backup.
//!
//! Responsible for what holds now after many looks of different depth, and for
//! passing damage on to every backup that needs the damaged object. A look that
//! went less deep never clears what a deeper one found.

use std::collections::{BTreeMap, HashMap, HashSet};

use backstay_model::{BackupId, Finding, InstanceId, VerifyLevel};
use backstay_repo::layout::InstanceLayout;
use backstay_repo::repo::Listed;
use jiff::Timestamp;

use super::{Found, manifest};
use crate::context::Context;
use crate::error::Result;
use crate::notes::{Seen, Verification};

/// When a backup was last looked at as deeply as ever before, and how deeply.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Look {
    at: Timestamp,
    level: VerifyLevel,
}

impl Look {
    fn knows_better_than(&self, other: &Look) -> bool {
        self.at > other.at && self.level >= other.level
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub verified_at: Option<Timestamp>,
    look: Option<Look>,
    pub findings: Vec<Finding>,
    damaged_packs: Vec<(BackupId, u32)>,
    /// Names of packs and maps, and the look that found each first. A later look of less
    /// depth, or in passing, finds what `look` was too early for.
    damaged_objects: BTreeMap<String, Look>,
}

impl Verdict {
    /// Whether what another look found was looked at again, for this very backup.
    fn is_above(&self, other: &Look) -> bool {
        self.look.is_some_and(|own| own.knows_better_than(other))
    }
}

/// What holds now of each backup. A later look that went at least as deep
/// replaces an earlier one; a shallower one only adds, because a listing says
/// nothing about bytes that were read and found wrong. So does what a restore met in
/// passing, however deep: it has not looked at the rest.
pub(super) fn conclude(instance: &InstanceId, in_order: &[Verification]) -> HashMap<BackupId, Verdict> {
    let layout = InstanceLayout::new(instance.clone());
    let mut verdicts: HashMap<BackupId, Verdict> = HashMap::new();
    for verification in in_order {
        for seen in &verification.backups {
            let verdict = verdicts.entry(seen.backup.clone()).or_default();
            if verdict.look.is_none_or(|look| look.level <= verification.level) {
                verdict.look = Some(Look { at: verification.at, level: verification.level });
                if !verification.in_passing {
                    verdict.findings.clear();
                    verdict.damaged_packs.clear();
                    verdict.damaged_objects.clear();
                }
            }
            if !verification.in_passing {
                verdict.verified_at = Some(verification.at);
            }
            for finding in &seen.findings {
                if !verdict.findings.contains(finding) {
                    verdict.findings.push(finding.clone());
                }
            }
            // The first notes named packs alone.
            let packs = seen.damaged_packs.iter();
            let packs = packs.map(|(session, number)| layout.pack(session, *number).as_str().to_owned());
            let look = Look { at: verification.at, level: verification.level };
            for object in packs.chain(seen.damaged_objects.iter().cloned()) {
                verdict.damaged_objects.entry(object).or_insert(look);
            }
            for pack in &seen.damaged_packs {
                if !verdict.damaged_packs.contains(pack) {
                    verdict.damaged_packs.push(pack.clone());
                }
            }
        }
    }
    verdicts
}

/// The verifications, by their places in the list, without which something else would
/// hold: of a backup that is there, or of a damaged object that is still stored. The
/// others are history.
pub(crate) fn in_force(
    in_order: &[Verification],
    there: &HashSet<BackupId>,
    stored: &HashSet<String>,
) -> HashSet<usize> {
    let mut looks: HashMap<&BackupId, Vec<(usize, &Verification, &Seen)>> = HashMap::new();
    for (place, verification) in in_order.iter().enumerate() {
        for seen in &verification.backups {
            looks.entry(&seen.backup).or_default().push((place, verification, seen));
        }
    }
    let mut needed = HashSet::new();
    for (backup, looks) in looks {
        // What `conclude` begins with: the last look that went at least as deep as all before.
        let mut deepest = VerifyLevel::Existence;
        let mut begins = 0;
        for (at, (_, look, _)) in looks.iter().enumerate() {
            if look.level >= deepest {
                deepest = look.level;
                if !look.in_passing {
                    begins = at;
                }
            }
        }
        let looks = &looks[begins..];
        let verified = looks.iter().rposition(|(_, look, _)| !look.in_passing);
        let shares = |(_, _, seen): &(usize, &Verification, &Seen)| {
            seen.damaged_objects.iter().any(|object| stored.contains(object))
        };
        if !there.contains(backup) && !looks.iter().any(shares) {
            continue;
        }
        let mut said: Vec<&Seen> = Vec::new();
        for (at, (place, look, seen)) in looks.iter().enumerate() {
            let known = said.iter().any(|before| {
                seen.findings.iter().all(|finding| before.findings.contains(finding))
                    && seen.damaged_packs.iter().all(|pack| before.damaged_packs.contains(pack))
                    && seen.damaged_objects.iter().all(|object| before.damaged_objects.contains(object))
            });
            if at == 0 || !known || look.in_passing || Some(at) == verified {
                needed.insert(*place);
                said.push(seen);
            }
        }
    }
    needed
}

/// Packs that were found damaged in backups that are still there. Notes outlive
/// their backups, and what nobody can look at again would never be cleared.
pub(super) fn damaged_packs(
    listed: &Listed,
    verdicts: &HashMap<BackupId, Verdict>,
) -> HashSet<(BackupId, u32)> {
    let records = listed.records.iter().map(|record| &record.id);
    let there = records.chain(listed.unreadable.iter().map(|(id, _)| id));
    there
        .filter_map(|id| verdicts.get(id))
        .flat_map(|verdict| verdict.damaged_packs.iter().cloned())
        .collect()
}

/// An object that is damaged is so for every backup that needs it, also for those
/// that nobody looked at since, and also when the backup in which it was found is
/// gone. A manifest is read only when there is damage that its backup could share,
/// and one at a time.
pub(super) async fn share_damage(
    context: &Context,
    instance: &InstanceId,
    listed: &mut Listed,
    verdicts: &mut HashMap<BackupId, Verdict>,
) -> Result<()> {
    let damaged = Damaged::of(verdicts);
    if damaged.by_object.is_empty() {
        return Ok(());
    }
    for record in std::mem::take(&mut listed.records) {
        context.check_cancelled()?;
        let verdict = verdicts.entry(record.id.clone()).or_default();
        if !damaged.concerns(&record.id, verdict) {
            listed.records.push(record);
            continue;
        }
        let manifest = match manifest(context, instance, &record.id).await? {
            Found::There(manifest) => manifest,
            Found::Gone => continue,
            Found::Damaged(error) => {
                listed.unreadable.push((record.id, error));
                continue;
            }
        };
        for object in manifest.needed_objects() {
            let Some(found_in) = damaged.elsewhere(object.as_str(), &record.id, verdict) else { continue };
            verdict.findings.push(shared(object.as_str(), found_in, &record.id));
        }
        listed.records.push(record);
    }
    Ok(())
}

/// What an object that was found damaged in one backup means for another that needs it.
pub(super) fn shared(object: &str, found_in: &BackupId, backup: &BackupId) -> Finding {
    Finding::error(
        object,
        format!("it is damaged, as was found in {found_in}, and this backup needs it"),
        format!("`backstay verify {backup}` names what is lost"),
    )
}

/// Which objects are damaged, and who says so.
struct Damaged {
    looks: Vec<(BackupId, Look)>,
    /// The values are places in `looks`.
    by_object: HashMap<String, Vec<usize>>,
}

impl Damaged {
    fn of(verdicts: &HashMap<BackupId, Verdict>) -> Self {
        let mut damaged = Damaged { looks: Vec::new(), by_object: HashMap::new() };
        let mut in_order: Vec<_> =
            verdicts.iter().filter(|(_, verdict)| !verdict.damaged_objects.is_empty()).collect();
        in_order.sort_by_key(|(id, _)| *id);
        for (found_in, verdict) in in_order {
            for (object, look) in &verdict.damaged_objects {
                damaged.by_object.entry(object.clone()).or_default().push(damaged.looks.len());
                damaged.looks.push((found_in.clone(), *look));
            }
        }
        damaged
    }

    /// Whether any of it was found elsewhere and not looked at again for this backup.
    fn concerns(&self, backup: &BackupId, verdict: &Verdict) -> bool {
        self.looks.iter().any(|(found_in, look)| found_in != backup && !verdict.is_above(look))
    }

    /// The backup in which this object was found damaged, unless this one's own
    /// looks have said as much, or know better.
    fn elsewhere(&self, object: &str, backup: &BackupId, verdict: &Verdict) -> Option<&BackupId> {
        if verdict.damaged_objects.contains_key(object) {
            return None;
        }
        let looks = self.by_object.get(object)?.iter().filter_map(|place| self.looks.get(*place));
        let mut elsewhere = looks.filter(|(found_in, look)| found_in != backup && !verdict.is_above(look));
        elsewhere.next().map(|(found_in, _)| found_in)
    }
}

#[cfg(test)]
mod tests;
