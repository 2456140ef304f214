//! Backups that somebody remembers and the store has not, where nothing says why:
//! an old copy of the store was mounted, or something else than retention deletes.
//!
//! Three remember: the catalogue of this machine, the newest manifest (it names the
//! newest backups that its writer saw and nobody had condemned), and the last
//! collection, which looks for itself. What went by rule is explained by its
//! marker: retention condemns before it deletes, and the marker stays for a year. So
//! a memory whose newest backup is nearly as old says nothing any more. What a
//! person accepted as lost is explained by the record of that collection.
//!
//! Losing the catalogue loses one memory and raises nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backstay_model::error::{Classified as _, ErrorKind};
use backstay_model::{BackupId, Finding, InstanceId};
use jiff::{SignedDuration, Timestamp, civil, tz};

use crate::Result;
use crate::layout::InstanceLayout;
use crate::manifest::{Commit, Manifest};
use crate::protocol::accepted_losses;
use crate::repo::Repo;
use crate::store::ObjectMeta;

/// Markers are kept for a year after they were made; less what clocks differ and
/// what lies between a backup and the marker of another.
const MEMORY_AGE_MAX: Duration = Duration::from_secs(300 * 24 * 3600);
/// How many of the newest backups a manifest names.
const KNOWN_BACKUPS_MAX: usize = 16;
/// How many of the newest commits are looked at for a manifest: the others are
/// tombstones or damaged.
const NEWEST_LOOKED_AT: usize = 16;
/// A finding is read by a person.
const NAMED_MAX: usize = 3;

/// A backup that is gone without a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vanished {
    pub backup: BackupId,
    /// Who remembers it.
    pub witness: String,
}

impl Repo {
    /// What is gone of an instance although nothing let it go, as a finding: at most
    /// one, since it is one event that a person looks into.
    pub async fn vanished(&self, instance: &InstanceId, now: Timestamp) -> Result<Vec<Finding>> {
        let gone = self.vanished_backups(instance, now).await?;
        let message = match gone.as_slice() {
            [] => return Ok(Vec::new()),
            [one] => {
                let Vanished { backup, witness } = one;
                format!(
                    "{backup} is gone from the store, and nothing says that it expired: {witness} knew it"
                )
            }
            [.., newest] => {
                let named = gone.iter().rev().take(NAMED_MAX);
                let names: Vec<&str> = named.map(|vanished| vanished.backup.as_str()).collect();
                let older = if gone.len() > NAMED_MAX { " and older ones" } else { "" };
                format!(
                    "{} backups are gone from the store, and nothing says that they expired: {}{older}; {} knew the newest",
                    gone.len(),
                    names.join(", "),
                    newest.witness
                )
            }
        };
        let remedy = "see whether repository.store shows an old copy, or who else deletes there; \
                      `backstay collect --accept-loss` says that the loss is known";
        Ok(vec![Finding::error(instance.as_str(), message, remedy)])
    }

    /// Oldest first.
    pub(crate) async fn vanished_backups(
        &self,
        instance: &InstanceId,
        now: Timestamp,
    ) -> Result<Vec<Vanished>> {
        let layout = InstanceLayout::new(instance.clone());
        let listed = self.list_commits(&layout).await?;
        let there: BTreeSet<&BackupId> = listed.iter().map(|(id, _)| id).collect();
        let mut remembered = match self.catalogue() {
            Some(catalogue) => catalogue.load(&layout).await,
            None => super::Remembered::default(),
        };
        let mut suspects: BTreeMap<BackupId, String> = BTreeMap::new();
        if remembered.newest().and_then(begun_at).is_some_and(|at| is_fresh(at, now)) {
            let gone = remembered.backups().filter(|id| !there.contains(*id));
            suspects.extend(gone.map(|id| (id.clone(), "the catalogue of this machine".to_owned())));
        }
        if let Some(newest) = self.newest_manifests(&listed, 1).await?.pop()
            && is_fresh(newest.record.started_at, now)
        {
            for id in newest.known_backups.into_iter().filter(|id| !there.contains(id)) {
                suspects.entry(id).or_insert_with(|| format!("backup {}", newest.record.id));
            }
        }
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let accepted = accepted_losses(self, instance).await?;
        let mut vanished = Vec::new();
        for (backup, witness) in suspects {
            let explained = accepted.contains(&backup)
                || self.store().exists(&layout.condemned(&backup)).await?
                || self.store().exists(&layout.backup(&backup)).await?;
            if explained {
                remembered.forget(&backup);
            } else {
                vanished.push(Vanished { backup, witness });
            }
        }
        if let Some(catalogue) = self.catalogue() {
            catalogue.save_when_changed(&layout, remembered).await;
        }
        Ok(vanished)
    }

    /// The newest manifests, newest first. One that is damaged is for others to report.
    async fn newest_manifests(
        &self,
        listed: &[(BackupId, ObjectMeta)],
        count: usize,
    ) -> Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for (_, object) in listed.iter().rev().take(NEWEST_LOOKED_AT + count) {
            if found.len() == count {
                break;
            }
            match self.listed_document(object).await.and_then(|json| Commit::parse(&object.name, &json)) {
                Ok(Commit::Backup(manifest)) => found.push(*manifest),
                Ok(Commit::Tombstone(_)) => {}
                // Expired since the listing.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What the manifest of a backup that begins now is to remember: the newest
    /// backups that retention has not let go.
    pub(crate) async fn known_backups(&self, layout: &InstanceLayout) -> Result<Vec<BackupId>> {
        let manifests = self.newest_manifests(&self.list_commits(layout).await?, KNOWN_BACKUPS_MAX).await?;
        let listed = self.store().list_all(&layout.all_condemned()).await?;
        let condemned: BTreeSet<BackupId> =
            listed.iter().filter_map(|marker| layout.session_of_condemned(&marker.name)).collect();
        let mut known: Vec<BackupId> = manifests.into_iter().map(|manifest| manifest.record.id).collect();
        known.retain(|id| !condemned.contains(id));
        known.sort_unstable();
        Ok(known)
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    let age = SignedDuration::try_from(MEMORY_AGE_MAX).unwrap_or(SignedDuration::MAX);
    now.duration_since(at) < age
}

/// When the session of that id began, by its own clock.
fn begun_at(id: &BackupId) -> Option<Timestamp> {
    let time = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", id.as_str().get(..16)?).ok()?;
    time.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;
