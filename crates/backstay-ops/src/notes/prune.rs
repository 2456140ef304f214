//! Old notes go with a collection.
//!
//! A note goes when it is older than [`KEPT`] and nothing that it says is in force any
//! more: later looks at least as deep have been taken at its backups, or those are
//! gone. So what is known of a backup is the same before and after, and the number of
//! notes is bounded by the backups that are there and the notes of one season.
//!
//! Refuses: to touch a note that does not open.

use std::collections::HashSet;

use backstay_model::drill::DrillReport;
use backstay_model::{BackupId, InstanceId};
use backstay_repo::layout::ObjectName;
use jiff::{SignedDuration, Timestamp};

use super::{Verification, named_proofs, named_verifications};
use crate::context::Context;
use crate::error::Result;
use crate::known::verdict::in_force;

/// What a person may want to look back at: a season, as long as reports are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Deletes the notes that are outdated, and says how many.
pub(crate) async fn prune(context: &Context) -> Result<u64> {
    let mut deleted = 0;
    for note in outdated(context).await? {
        context.check_cancelled()?;
        context.repo.store().delete(&note).await.map_err(backstay_repo::Error::from)?;
        deleted += 1;
    }
    Ok(deleted)
}

/// Notes of all instances that may go.
pub(crate) async fn outdated(context: &Context) -> Result<Vec<ObjectName>> {
    let before = context.clock.now().checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    let mut outdated = Vec::new();
    for instance in context.repo.instances().await? {
        context.check_cancelled()?;
        // Tombstones are among them, which keeps a note too many and never one too few.
        let there: HashSet<BackupId> = context.repo.commit_ids(&instance).await?.into_iter().collect();
        outdated.extend(verifications(context, &instance, &there, before).await?);
        let proofs = named_proofs(context, &instance).await?;
        let last = last_words(&proofs, &there);
        outdated.extend(
            proofs
                .into_iter()
                .enumerate()
                .filter(|(place, (_, proof))| proof.at < before && !last.contains(place))
                .map(|(_, (name, _))| name),
        );
    }
    Ok(outdated)
}

async fn verifications(
    context: &Context,
    instance: &InstanceId,
    there: &HashSet<BackupId>,
    before: Timestamp,
) -> Result<Vec<ObjectName>> {
    let (names, notes): (Vec<ObjectName>, Vec<Verification>) =
        named_verifications(context, instance).await?.into_iter().unzip();
    if notes.iter().all(|note| note.at >= before) {
        return Ok(Vec::new());
    }
    // Damage outlives the backup in which it was found, as long as the object does.
    let gone = notes.iter().flat_map(|note| &note.backups).filter(|seen| !there.contains(&seen.backup));
    let damaged: HashSet<&String> = gone.flat_map(|seen| &seen.damaged_objects).collect();
    let mut stored = HashSet::new();
    for object in damaged {
        // A name that is none cannot be looked for, and is kept.
        let exists = match object.parse::<ObjectName>() {
            Ok(name) => context.repo.store().exists(&name).await.map_err(backstay_repo::Error::from)?,
            Err(_) => true,
        };
        if exists {
            stored.insert(object.clone());
        }
    }
    let needed = in_force(&notes, there, &stored);
    let old = notes.iter().enumerate().filter(|(place, note)| note.at < before && !needed.contains(place));
    let old: HashSet<usize> = old.map(|(place, _)| place).collect();
    Ok(names.into_iter().enumerate().filter(|(place, _)| old.contains(place)).map(|(_, name)| name).collect())
}

/// Proofs that something is told of: the last of each backup, the last of all, and
/// the last sound one, whose rates the next restore is planned with.
fn last_words(in_order: &[(ObjectName, DrillReport)], there: &HashSet<BackupId>) -> HashSet<usize> {
    let mut needed = HashSet::new();
    let mut backups = HashSet::new();
    let mut sound = false;
    for (place, (_, proof)) in in_order.iter().enumerate().rev() {
        let first_of_backup = there.contains(&proof.backup) && backups.insert(&proof.backup);
        let first_sound = proof.sound && !sound;
        sound |= proof.sound;
        if place + 1 == in_order.len() || first_of_backup || first_sound {
            needed.insert(place);
        }
    }
    needed
}
