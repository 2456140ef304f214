//! What the repository knows of an instance's backups: their records, and what
//! retention, verifications and drills have said of each since.

use std::collections::{HashMap, HashSet};

use backstay_model::drill::DrillReport;
use backstay_model::plan::restore::MeasuredRates;
use backstay_model::{BackupId, BackupMarks, BackupRecord, Finding, InstanceId, VerifyLevel};
use backstay_repo::layout::InstanceLayout;
use backstay_repo::manifest::Manifest;
use backstay_repo::repo::Listed;
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Result;
use crate::notes::{self, Verification};

/// Everything known of one instance.
pub(crate) struct Known {
    /// In no particular order.
    pub backups: Vec<(BackupRecord, BackupMarks)>,
    /// Manifests that are there and do not open, with the reason.
    pub unreadable: Vec<(BackupId, String)>,
    /// Packs that must not be built on.
    pub damaged_packs: HashSet<(BackupId, u32)>,
    /// In the order of their time.
    pub proofs: Vec<DrillReport>,
}

impl Known {
    /// For showing. A record may come from the catalogue: whoever goes on to use a
    /// backup confirms it first.
    pub async fn of(context: &Context, instance: &InstanceId) -> Result<Known> {
        let listed = context.repo.backups(instance).await?;
        Self::about(context, instance, listed).await
    }

    /// For deciding what is restored and what may go: every manifest is read.
    pub async fn read(context: &Context, instance: &InstanceId) -> Result<Known> {
        let listed = context.repo.read_backups(instance).await?;
        Self::about(context, instance, listed).await
    }

    async fn about(context: &Context, instance: &InstanceId, mut listed: Listed) -> Result<Known> {
        let condemned = context.repo.condemned(instance).await?;
        let verifications = notes::verifications(context, instance).await?;
        let proofs = notes::proofs(context, instance).await?;

        let mut seen = conclude(&verifications);
        share_damage(context, instance, &mut listed, &mut seen).await?;
        let damaged_packs =
            seen.values().flat_map(|state| state.damaged_packs.iter().cloned()).collect::<HashSet<_>>();
        let unreadable = listed.unreadable.into_iter().map(|(id, error)| (id, error.to_string())).collect();
        let backups = listed
            .records
            .into_iter()
            .map(|record| {
                let state = seen.remove(&record.id).unwrap_or_default();
                let marks = BackupMarks {
                    condemned_at: condemned.get(&record.id).copied(),
                    verified_at: state.verified_at,
                    drilled_at: proofs.iter().rfind(|proof| proof.backup == record.id).map(|proof| proof.at),
                    findings: state.findings,
                };
                (record, marks)
            })
            .collect();
        Ok(Known { backups, unreadable, damaged_packs, proofs })
    }

    /// Whether the manifest is still there and opens. A backup whose manifest does
    /// not is taken out of `backups`.
    pub async fn confirm(
        &mut self,
        context: &Context,
        instance: &InstanceId,
        backup: &BackupId,
    ) -> Result<bool> {
        match manifest(context, instance, backup).await? {
            Found::There(_) => return Ok(true),
            Found::Gone => {}
            Found::Damaged(error) => self.unreadable.push((backup.clone(), error.to_string())),
        }
        self.backups.retain(|(record, _)| record.id != *backup);
        Ok(false)
    }

    /// What the last sound drill measured.
    pub fn rates(&self) -> MeasuredRates {
        let last = self.proofs.iter().rfind(|proof| proof.sound);
        MeasuredRates {
            place_bytes_per_second: last.and_then(DrillReport::place_rate),
            recover_seconds: last.map(|proof| proof.recover_seconds),
        }
    }

    pub fn newest_first(&self) -> Vec<&(BackupRecord, BackupMarks)> {
        let mut backups: Vec<_> = self.backups.iter().collect();
        backups.sort_by(|(a, _), (b, _)| (b.finished_at, &b.id).cmp(&(a.finished_at, &a.id)));
        backups
    }
}

/// What reading a manifest comes to, where its loss is no reason to end.
enum Found {
    There(Box<Manifest>),
    Gone,
    Damaged(backstay_repo::Error),
}

async fn manifest(context: &Context, instance: &InstanceId, backup: &BackupId) -> Result<Found> {
    match context.repo.manifest(instance, backup).await {
        Ok(manifest) => Ok(Found::There(Box::new(manifest))),
        Err(backstay_repo::Error::NoSuchBackup { .. }) => Ok(Found::Gone),
        Err(error @ backstay_repo::Error::Damaged { .. }) => Ok(Found::Damaged(error)),
        Err(error) => Err(error.into()),
    }
}

/// A pack that is damaged is so for every backup that needs it, also for those
/// that nobody looked at since.
async fn share_damage(
    context: &Context,
    instance: &InstanceId,
    listed: &mut Listed,
    seen: &mut HashMap<BackupId, State>,
) -> Result<()> {
    let damaged: Vec<(BackupId, Look, (BackupId, u32))> = seen
        .iter()
        .flat_map(|(found_in, state)| {
            let look = state.look.unwrap_or_default();
            state.damaged_packs.iter().map(move |pack| (found_in.clone(), look, pack.clone()))
        })
        .collect();
    if damaged.is_empty() {
        return Ok(());
    }
    for record in std::mem::take(&mut listed.records) {
        context.check_cancelled()?;
        let manifest = match manifest(context, instance, &record.id).await? {
            Found::There(manifest) => manifest,
            Found::Gone => continue,
            Found::Damaged(error) => {
                listed.unreadable.push((record.id, error));
                continue;
            }
        };
        let state = seen.entry(record.id.clone()).or_default();
        for (found_in, found, (session, number)) in &damaged {
            let knows = *found_in == record.id || state.look.is_some_and(|own| own.knows_better_than(found));
            let needs = || manifest.packs().any(|(owner, pack)| owner == session && pack.number == *number);
            if !knows && needs() {
                let pack = InstanceLayout::new(instance.clone()).pack(session, *number);
                state.findings.push(Finding::error(
                    pack.as_str(),
                    format!(
                        "it is damaged, as the verification of {found_in} found, and this backup needs it"
                    ),
                    format!("`backstay verify {}` names what is lost", record.id),
                ));
            }
        }
        listed.records.push(record);
    }
    Ok(())
}

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
struct State {
    verified_at: Option<Timestamp>,
    look: Option<Look>,
    findings: Vec<Finding>,
    damaged_packs: Vec<(BackupId, u32)>,
}

/// What holds now of each backup. A later look that went at least as deep
/// replaces an earlier one; a shallower one only adds, because a listing says
/// nothing about bytes that were read and found wrong.
fn conclude(in_order: &[Verification]) -> HashMap<BackupId, State> {
    let mut states: HashMap<BackupId, State> = HashMap::new();
    for verification in in_order {
        for seen in &verification.backups {
            let state = states.entry(seen.backup.clone()).or_default();
            if state.look.is_none_or(|look| look.level <= verification.level) {
                state.look = Some(Look { at: verification.at, level: verification.level });
                state.findings.clear();
                state.damaged_packs.clear();
            }
            state.verified_at = Some(verification.at);
            for finding in &seen.findings {
                if !state.findings.contains(finding) {
                    state.findings.push(finding.clone());
                }
            }
            state.damaged_packs.extend(seen.damaged_packs.iter().cloned());
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Seen;

    fn id() -> BackupId {
        "20261121T024300Z-7q3f".parse().unwrap()
    }

    fn look(hour: u8, level: VerifyLevel, damaged: bool) -> Verification {
        let finding = || Finding::error("orders/packs/1", "is wrong", "`backstay backup`");
        Verification {
            at: format!("2026-11-21T{hour:02}:00:00Z").parse().unwrap(),
            level,
            backups: vec![Seen {
                backup: id(),
                findings: damaged.then(finding).into_iter().collect(),
                damaged_packs: damaged.then(|| (id(), 1)).into_iter().collect(),
            }],
        }
    }

    fn is_damaged(looks: &[Verification]) -> bool {
        let state = conclude(looks).remove(&id()).unwrap();
        assert_eq!(state.findings.is_empty(), state.damaged_packs.is_empty());
        !state.findings.is_empty()
    }

    #[test]
    fn a_shallow_look_that_is_clean_does_not_clear_what_a_deep_one_found() {
        use VerifyLevel::{Digest, Existence};
        assert!(is_damaged(&[look(1, Digest, true), look(2, Existence, false)]));
        assert!(!is_damaged(&[look(1, Digest, true), look(2, Existence, false), look(3, Digest, false)]));
        assert!(!is_damaged(&[look(1, Existence, true), look(2, Digest, false)]));
        assert!(is_damaged(&[look(1, Digest, false), look(2, Existence, true)]));
    }

    #[test]
    fn the_time_of_the_last_look_counts_whatever_its_depth() {
        let looks = [look(1, VerifyLevel::Digest, false), look(2, VerifyLevel::Existence, false)];
        assert_eq!(conclude(&looks).remove(&id()).unwrap().verified_at, Some(looks[1].at));
    }
}
