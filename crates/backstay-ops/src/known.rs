//! What the repository knows of an instance's backups: their records, and what
//! retention, verifications and drills have said of each since.

use std::collections::HashSet;

use backstay_model::drill::DrillReport;
use backstay_model::plan::restore::{KnownLog, MeasuredRates};
use backstay_model::{BackupId, BackupMarks, BackupRecord, Condemned, Finding, InstanceId};
use backstay_repo::manifest::Manifest;
use backstay_repo::repo::Listed;

use crate::context::Context;
use crate::error::Result;
use crate::hold;
use crate::notes::{self, Seen};

pub(crate) mod verdict;

/// Everything known of one instance.
pub(crate) struct Known {
    /// In no particular order.
    pub backups: Vec<(BackupRecord, BackupMarks)>,
    /// Manifests that are there and do not open, with the reason.
    pub unreadable: Vec<(BackupId, String)>,
    /// Packs that must not be built on, by what was seen of the backups that are there.
    pub damaged_packs: HashSet<(BackupId, u32)>,
    /// Nothing, until somebody plans with it.
    pub log: KnownLog,
    /// In the order of their time.
    pub proofs: Vec<DrillReport>,
    /// Markers of retention that do not open, what is none, and backups that vanished.
    pub findings: Vec<Finding>,
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
        let markers = context.repo.markers(instance).await?;
        let verifications = notes::verifications(context, instance).await?;
        let proofs = notes::proofs(context, instance).await?;
        let mut held = hold::of(context, instance).await?;

        let mut verdicts = verdict::conclude(instance, &verifications);
        verdict::share_damage(context, instance, &mut listed, &mut verdicts).await?;
        let damaged_packs = verdict::damaged_packs(&listed, &verdicts);
        let unreadable = listed.unreadable.into_iter().map(|(id, error)| (id, error.to_string())).collect();
        let backups = listed
            .records
            .into_iter()
            .map(|record| {
                let verdict = verdicts.remove(&record.id).unwrap_or_default();
                let drill = proofs.iter().rfind(|proof| proof.backup == record.id);
                let marks = BackupMarks {
                    condemned: markers.condemned.get(&record.id).map(|at| Condemned { at: *at }),
                    hold: held.backups.remove(&record.id),
                    verified_at: verdict.verified_at,
                    drilled_at: drill.map(|proof| proof.at),
                    drill_sound: drill.map(DrillReport::brought_back),
                    findings: verdict.findings,
                };
                (record, marks)
            })
            .collect();
        let mut findings = markers.findings;
        findings.extend(held.findings);
        findings.extend(context.repo.vanished(instance, context.clock.now()).await?);
        Ok(Known { backups, unreadable, damaged_packs, log: KnownLog::default(), proofs, findings })
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

    /// Adds what was just seen of one backup: to it, and to every other that needs an
    /// object which is damaged.
    pub async fn add(&mut self, context: &Context, instance: &InstanceId, seen: &Seen) -> Result<()> {
        for (record, marks) in &mut self.backups {
            if record.id == seen.backup {
                marks.findings.extend(seen.findings.iter().cloned());
                continue;
            }
            if marks.is_damaged() || seen.damaged_objects.is_empty() {
                continue;
            }
            context.check_cancelled()?;
            // One that is gone or does not open is seen by whoever goes on to use it.
            let Found::There(manifest) = manifest(context, instance, &record.id).await? else { continue };
            let needed = manifest.needed_objects();
            for name in needed.iter().map(|name| name.as_str()) {
                if seen.damaged_objects.iter().any(|damaged| damaged == name) {
                    marks.findings.push(verdict::shared(name, &seen.backup, &record.id));
                }
            }
        }
        Ok(())
    }

    /// What the last sound drill measured.
    pub fn rates(&self) -> MeasuredRates {
        let last = self.proofs.iter().rfind(|proof| proof.sound);
        MeasuredRates {
            place_bytes_per_second: last.and_then(DrillReport::place_rate),
            recover_seconds: last.and_then(|proof| proof.recover_seconds),
        }
    }

    /// The place of a new backup in the order: behind all that are known.
    pub fn next_sequence(&self) -> u64 {
        self.backups.iter().map(|(record, _)| record.sequence).max().unwrap_or_default() + 1
    }

    pub fn newest_first(&self) -> Vec<&(BackupRecord, BackupMarks)> {
        let mut backups: Vec<_> = self.backups.iter().collect();
        backups.sort_by(|(a, _), (b, _)| b.order().cmp(&a.order()));
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
