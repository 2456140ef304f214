//! Backups that somebody remembers and the store has not, where nothing says why:
//! an old copy of the store was mounted, or something else than retention deletes.
//!
//! Three remember: the catalogue of this machine, the newest manifest (it names the
//! newest backups that its writer saw and nobody had condemned), and the last
//! collection, which looks for itself. What went by rule is explained by its
//! marker: retention condemns before it deletes, and the marker stays for a year. So
//! a memory that ends with a backup of nearly that age says nothing any more: what
//! counts is the newest that was known when the missing one was last there, not what
//! has been learned since. Whose marker was once seen is missed by nobody. What a
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
        if self.catalogue().is_some() {
            remembered.see_markers(&self.marked(&layout).await?);
        }
        let mut suspects: BTreeMap<BackupId, String> = BTreeMap::new();
        for absent in remembered.absent(&there) {
            if begun_at(&absent.known_with).is_some_and(|at| is_fresh(at, now)) {
                suspects.insert(absent.id, "the catalogue of this machine".to_owned());
            }
        }
        if let Some(newest) = self.of_newest_manifests(&listed, 1, |manifest| manifest).await?.pop()
            && is_fresh(newest.record.started_at, now)
        {
            for id in newest.known_backups.into_iter().filter(|id| !there.contains(id)) {
                suspects.entry(id).or_insert_with(|| format!("backup {}", newest.record.id));
            }
        }
        let accepted = match suspects.is_empty() {
            true => BTreeSet::new(),
            false => accepted_losses(self, instance).await?,
        };
        let mut vanished = Vec::new();
        for (backup, witness) in suspects {
            // A moment has passed since the listings.
            let explained = accepted.contains(&backup)
                || self.store().exists(&layout.condemned(&backup)).await?
                || self.store().exists(&layout.backup(&backup)).await?;
            if explained {
                remembered.forget(&backup);
            } else {
                remembered.miss(&backup);
                vanished.push(Vanished { backup, witness });
            }
        }
        if let Some(catalogue) = self.catalogue() {
            catalogue.save_when_changed(&layout, remembered).await;
        }
        Ok(vanished)
    }

    /// What has a marker, whatever the marker says.
    async fn marked(&self, layout: &InstanceLayout) -> Result<BTreeSet<BackupId>> {
        let listed = self.store().list_all(&layout.all_condemned()).await?;
        Ok(listed.iter().filter_map(|marker| layout.session_of_condemned(&marker.name)).collect())
    }

    /// What `take` keeps of the newest manifests, newest first. One at a time is in
    /// memory: it may be of many megabytes. One that is damaged is for others to report.
    async fn of_newest_manifests<T>(
        &self,
        listed: &[(BackupId, ObjectMeta)],
        count: usize,
        take: fn(Manifest) -> T,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for (_, object) in listed.iter().rev().take(NEWEST_LOOKED_AT + count) {
            if found.len() == count {
                break;
            }
            match self.listed_document(object).await.and_then(|json| Commit::parse(&object.name, &json)) {
                Ok(Commit::Backup(manifest)) => found.push(take(*manifest)),
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
        let listed = self.list_commits(layout).await?;
        let condemned = self.marked(layout).await?;
        let id = |manifest: Manifest| manifest.record.id;
        let mut known = self.of_newest_manifests(&listed, KNOWN_BACKUPS_MAX, id).await?;
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
pub(crate) fn begun_at(id: &BackupId) -> Option<Timestamp> {
    let time = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", id.as_str().get(..16)?).ok()?;
    time.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;
