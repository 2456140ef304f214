//! Verification: does what is stored still say what was committed.
//!
//! Three levels, each including the one before: *existence* (every object a backup
//! needs is listed with its size), *structure* (maps and frame tables open, and
//! every block they name lies inside a frame), *digest* (every frame opens and
//! every block has its hash). Reads only; what is damaged becomes a finding, what
//! could not be looked at is an error and never a finding.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::verify::{VerifyLevel, VerifyReport};
use backstay_model::{BackupId, Finding, Progress};
use tokio_util::sync::CancellationToken;

use crate::layout::{InstanceLayout, ObjectName};
use crate::manifest::Manifest;
use crate::reader::damage::facts_of_damage;
use crate::reader::{BackupReader, Damage, Depth, OnDamage, Proven, RestoreOptions};
use crate::repo::Repo;
use crate::{Error, Result};

/// What a verification of one backup found.
#[derive(Debug, Default)]
pub struct Verified {
    pub report: VerifyReport,
    /// Packs that must not be built on.
    pub damaged_packs: Vec<(BackupId, u32)>,
}

/// One run over several backups of one instance: what they share is read once.
#[derive(Debug, Default)]
pub struct VerifyRun {
    proven: Arc<Proven>,
    /// Packs that were read, and counted.
    packs: Mutex<HashSet<(BackupId, u32)>>,
}

impl VerifyRun {
    /// Bytes of the packs of a backup that no earlier one of the run has needed.
    fn new_pack_bytes(&self, manifest: &Manifest) -> u64 {
        let mut seen = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        let new = manifest.packs().filter(|(session, pack)| seen.insert(((*session).clone(), pack.number)));
        new.map(|(_, pack)| pack.size).sum()
    }
}

impl Repo {
    /// Looks at one backup alone.
    pub async fn verify(
        self: &Arc<Self>,
        manifest: Manifest,
        level: VerifyLevel,
        workers: usize,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Verified> {
        self.verify_in(&VerifyRun::default(), manifest, level, workers, progress, cancel).await
    }

    /// Looks at one backup of a run. Its manifest was read already, which is the first check.
    pub async fn verify_in(
        self: &Arc<Self>,
        run: &VerifyRun,
        manifest: Manifest,
        level: VerifyLevel,
        workers: usize,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Verified> {
        let layout = InstanceLayout::new(manifest.record.instance.clone());
        let subject = format!("{}/{}", layout.instance(), manifest.record.id);
        let mut verified = Verified { report: VerifyReport::new(subject), ..Verified::default() };
        let incremental = manifest.objects.len() > 1;
        existence(self, &layout, &manifest, &mut verified).await?;
        if level >= VerifyLevel::Structure {
            let depth = if level == VerifyLevel::Digest { Depth::Frames } else { Depth::Tables };
            let bytes = if depth == Depth::Frames { run.new_pack_bytes(&manifest) } else { 0 };
            let reader = BackupReader::new(Arc::clone(self), manifest).in_run(Arc::clone(&run.proven));
            let options = RestoreOptions { workers, on_damage: OnDamage::Collect, depth };
            match reader.restore(None, options, progress, cancel).await {
                Ok(summary) => {
                    verified.report.objects_read += summary.objects;
                    verified.report.bytes_read += bytes;
                    for damage in &summary.damage {
                        verified.add(damage, incremental);
                    }
                }
                // The root does not open: nothing below it can be named.
                Err(error) => {
                    let (object, reason) = facts_of_damage(error)?;
                    verified.damaged(&object, &reason, incremental);
                }
            }
        }
        Ok(verified)
    }
}

impl Verified {
    fn add(&mut self, damage: &Damage, incremental: bool) {
        let files: Vec<&str> = damage.files.iter().map(String::as_str).collect();
        let lost = match damage.blocks {
            0 => String::new(),
            blocks => format!("; {blocks} blocks of {} cannot be restored", files.join(", ")),
        };
        self.damaged(&damage.object, &format!("{}{lost}", damage.reason), incremental);
        if let Some(pack) = &damage.pack
            && !self.damaged_packs.contains(pack)
        {
            self.damaged_packs.push(pack.clone());
        }
    }

    fn damaged(&mut self, object: &str, reason: &str, incremental: bool) {
        // Level existence has said it already, in the same or in fewer words.
        self.report.findings.retain(|finding| finding.subject != object);
        let remedy = if incremental {
            "`backstay backup` stores again what the database still has; `backstay list` shows older backups"
        } else {
            "`backstay backup --full` makes a new backup; `backstay list` shows older ones"
        };
        self.report.found(Finding::error(object, reason, remedy));
    }
}

/// Compares one listing with what the manifest needs. Holds the names of one backup's objects.
async fn existence(
    repo: &Repo,
    layout: &InstanceLayout,
    manifest: &Manifest,
    verified: &mut Verified,
) -> Result<()> {
    let mut wanted: HashMap<ObjectName, (u64, Option<(BackupId, u32)>)> = HashMap::new();
    for (session, pack) in manifest.packs() {
        wanted.insert(layout.pack(session, pack.number), (pack.size, Some((session.clone(), pack.number))));
    }
    for (session, number, size) in manifest.maps() {
        wanted.insert(layout.map(session, number), (size, None));
    }
    let incremental = manifest.objects.len() > 1;
    for prefix in [layout.packs(), layout.maps()] {
        let mut listing = repo.store().list(&prefix).await?;
        while let Some(page) = listing.next_page().await? {
            for object in page {
                let Some((size, pack)) = wanted.remove(&object.name) else { continue };
                verified.report.objects_read += 1;
                if size != object.size_bytes {
                    let reason = format!("it has {} bytes where {size} were written", object.size_bytes);
                    verified.damaged(object.name.as_str(), &reason, incremental);
                    verified.damaged_packs.extend(pack);
                }
            }
        }
    }
    let mut missing: Vec<_> = wanted.into_iter().collect();
    missing.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, (_, pack)) in missing {
        verified.damaged(name.as_str(), "it is missing", incremental);
        verified.damaged_packs.extend(pack);
    }
    Ok(())
}

/// A manifest that does not open, as a finding of the backup it should describe.
pub fn unreadable_manifest(layout: &InstanceLayout, backup: &BackupId, error: &Error) -> Finding {
    Finding::error(
        layout.backup(backup).as_str(),
        format!("the manifest does not open: {error}"),
        "`backstay list` shows the backups that can be restored; `backstay backup` makes a new one",
    )
}

#[cfg(test)]
mod tests;
