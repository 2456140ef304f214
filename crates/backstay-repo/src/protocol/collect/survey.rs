//! Looking at one instance, in the order that makes it safe.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backstay_model::{BackupId, Finding, InstanceId};
use jiff::{SignedDuration, Timestamp};

use super::super::intent::{ListedSession, sessions};
use super::super::judge::{Verdict, judge};
use super::super::run::{Runs, Seen, SeenSession};
use super::{Collection, CollectionPlan, Deletion, EndedSession, Mode, Reason};
use crate::layout::{InstanceLayout, ObjectName};
use crate::manifest::{Commit, Tombstone};
use crate::store::StoreError;
use crate::{Error, Result};

/// How often backups may vanish under the reading before it is given up: each
/// time retention has deleted one at that very moment.
const READ_ATTEMPTS: u32 = 20;

/// What lies at `backups/`.
#[derive(Default)]
struct Commits {
    backups: BTreeSet<BackupId>,
    tombstones: BTreeMap<BackupId, Timestamp>,
}

impl Commits {
    fn has(&self, session: &BackupId) -> bool {
        self.backups.contains(session) || self.tombstones.contains_key(session)
    }
}

/// The order of the steps is the protocol: data objects, intents, tombstones,
/// backups.
pub(super) async fn look_at(
    collection: &Collection<'_>,
    mode: Mode,
    instance: &InstanceId,
    runs: &Runs,
    plan: &mut CollectionPlan,
) -> Result<Seen> {
    let layout = InstanceLayout::new(instance.clone());
    let mut unreferenced = data_objects(collection, &layout, plan).await?;
    plan.data_objects += unreferenced.len() as u64;
    let open = sessions(collection.repo, &layout).await?;
    let (ended, mut seen) = end_the_dead(collection, mode, &layout, &open, runs, plan).await?;
    let commits = read_commits(collection, &layout, &mut unreferenced).await?;
    seen.accepted = check_nothing_vanished(collection, &layout, runs, &commits, plan).await?;

    let mut with_data: BTreeSet<BackupId> = BTreeSet::new();
    let is_over = |session: &BackupId| ended.contains(session) || commits.has(session);
    for (object, size_bytes) in unreferenced {
        let Some(data) = layout.data_object_of(&object) else { continue };
        if open.contains_key(&data.session) && !is_over(&data.session) {
            continue;
        }
        with_data.insert(data.session);
        plan.deletions.push(Deletion { object, size_bytes, reason: Reason::Unreferenced });
    }
    for (session, listed) in &open {
        if is_over(session) {
            let gone = |object: &ObjectName| Deletion {
                object: object.clone(),
                size_bytes: 0,
                reason: Reason::EndedSession,
            };
            // Heartbeats first: the intent says to the last whose they are.
            plan.deletions.extend(listed.objects.iter().rev().map(gone));
        } else {
            plan.running_sessions += 1;
        }
    }
    for (session, at) in &commits.tombstones {
        let old = is_old(collection, *at);
        if old && !open.contains_key(session) && !with_data.contains(session) {
            let object = layout.backup(session);
            plan.deletions.push(Deletion { object, size_bytes: 0, reason: Reason::OldTombstone });
        }
    }
    let markers = collection.repo.markers(instance).await?;
    plan.findings.extend(markers.findings);
    // A clock that is ahead must not make all machines forget why backups are gone:
    // the newest backup has to say, too, that a year has passed.
    let newest = commits.backups.iter().filter_map(crate::catalogue::begun_at).max();
    for (backup, at) in markers.condemned {
        let old = at.is_some_and(|at| {
            let by_backups =
                newest.is_some_and(|newest| newest.duration_since(at) >= age_of_the_old(collection));
            is_old(collection, at) && by_backups
        });
        if old && !commits.has(&backup) && !runs.backups_of(instance).contains(&backup) {
            let object = layout.condemned(&backup);
            plan.deletions.push(Deletion { object, size_bytes: 0, reason: Reason::OldMarker });
        }
    }
    plan.backups += commits.backups.len() as u64;
    seen.backups = commits.backups.into_iter().collect();
    Ok(seen)
}

fn is_old(collection: &Collection<'_>, at: Timestamp) -> bool {
    collection.options.now.duration_since(at) >= age_of_the_old(collection)
}

fn age_of_the_old(collection: &Collection<'_>) -> SignedDuration {
    SignedDuration::try_from(collection.options.tombstone_age).unwrap_or(SignedDuration::MAX)
}

/// Packs and maps, by name: the only ones that this run may delete.
async fn data_objects(
    collection: &Collection<'_>,
    layout: &InstanceLayout,
    plan: &mut CollectionPlan,
) -> Result<HashMap<ObjectName, u64>> {
    let mut found = HashMap::new();
    for prefix in [layout.packs(), layout.maps()] {
        let mut listing = collection.repo.store().list(&prefix).await?;
        while let Some(page) = listing.next_page().await? {
            collection.check_cancelled()?;
            for meta in page {
                if layout.data_object_of(&meta.name).is_some() {
                    found.insert(meta.name, meta.size_bytes);
                } else {
                    plan.findings.push(Finding::warning(
                        meta.name.as_str(),
                        "this object was not written by Backstay, and is left alone",
                        "give repository.store a place that nothing else writes to",
                    ));
                }
            }
        }
    }
    Ok(found)
}

/// Declares dead what looks dead. Whoever creates the object first is right: when
/// it is there already, the session has ended by itself.
async fn end_the_dead(
    collection: &Collection<'_>,
    mode: Mode,
    layout: &InstanceLayout,
    open: &BTreeMap<BackupId, ListedSession>,
    runs: &Runs,
    plan: &mut CollectionPlan,
) -> Result<(BTreeSet<BackupId>, Seen)> {
    let options = &collection.options;
    let instance = layout.instance();
    let (mut ended, mut seen) = (BTreeSet::new(), Seen::default());
    for (session, listed) in open {
        collection.check_cancelled()?;
        let (intent, heartbeat) = (listed.intent.as_ref(), listed.heartbeat);
        let earlier = runs.observation(instance, session);
        let since = earlier.filter(|earlier| earlier.heartbeat == heartbeat).map_or(options.now, |e| e.since);
        seen.sessions.insert(session.clone(), SeenSession { heartbeat, since });
        let verdict = judge(&options.process, intent, heartbeat, earlier, options.now, options.lease);
        if verdict == Verdict::Lives {
            continue;
        }
        let host = intent.map(|intent| intent.process.host.clone());
        let exists = collection.repo.store().exists(&layout.backup(session)).await?;
        if !exists && !collection.may_end(verdict) {
            plan.findings.push(Finding::warning(
                session.as_str(),
                "the session looks dead, but this store cannot say so safely; its objects stay",
                "run `backstay collect` on the host where the session ran",
            ));
            continue;
        }
        if !exists {
            if mode == Mode::Prepare {
                let why = match verdict {
                    Verdict::ProcessGone => "its process is gone",
                    Verdict::Silent | Verdict::Lives => "it gave no heartbeat during a whole lease",
                };
                let tombstone = Tombstone { at: options.now, why: why.to_owned() };
                match collection.repo.put_document(&layout.backup(session), &tombstone.to_json()?).await {
                    Ok(()) | Err(Error::Store(StoreError::AlreadyExists { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
            seen.ended.push(session.clone());
            plan.ended.push(EndedSession {
                instance: instance.clone(),
                session: session.clone(),
                host,
                process_gone: verdict == Verdict::ProcessGone,
            });
        }
        ended.insert(session.clone());
    }
    Ok((ended, seen))
}

/// Reads every backup and takes what it needs out of `unreferenced`.
///
/// A listing is not a moment: a backup may be committed behind its back, and the
/// parent that shares its packs be deleted before its front. So the list is made
/// once more after all of the first was read, and whenever one that was listed is
/// gone when it is read, everything is listed again. Then of parent and child at
/// least one has been read. A copy of a manifest that is listed counts as read: it
/// names what the backup needs, whether or not that is deleted at this moment.
async fn read_commits(
    collection: &Collection<'_>,
    layout: &InstanceLayout,
    unreferenced: &mut HashMap<ObjectName, u64>,
) -> Result<Commits> {
    let repo = collection.repo;
    let mut commits = Commits::default();
    let mut whole_passes = 0;
    for _ in 0..READ_ATTEMPTS {
        let listed = repo.list_commits(layout).await?;
        let mut vanished = false;
        for (id, object) in &listed {
            collection.check_cancelled()?;
            if commits.has(id) {
                continue;
            }
            let name = &object.name;
            match repo.listed_document(object).await.and_then(|json| Commit::parse(name, &json)) {
                Ok(Commit::Backup(manifest)) => {
                    if manifest.record.id != *id || manifest.record.instance != *layout.instance() {
                        return Err(Error::damaged(name, "it describes another backup than its name says"));
                    }
                    for needed in manifest.needed_objects() {
                        unreferenced.remove(&needed);
                    }
                    commits.backups.insert(id.clone());
                }
                Ok(Commit::Tombstone(tombstone)) => {
                    commits.tombstones.insert(id.clone(), tombstone.at);
                }
                Err(Error::Store(StoreError::NotFound { .. })) => vanished = true,
                Err(error) => return Err(error),
            }
        }
        whole_passes = if vanished { 0 } else { whole_passes + 1 };
        if whole_passes == 2 {
            // What was read and is gone by now is in no later run's way.
            let there: BTreeSet<&BackupId> = listed.iter().map(|(id, _)| id).collect();
            commits.backups.retain(|id| there.contains(id));
            let names = listed.iter().map(|(_, object)| object.name.clone());
            repo.only_these_are_there(&layout.backups(), names).await;
            return Ok(commits);
        }
    }
    Err(Error::KeepsChanging { instance: layout.instance().clone() })
}

/// A backup that is neither there nor condemned was deleted by something that is
/// not us: a bucket's life cycle rule, a person, a disk. Nothing is deleted on top.
/// Says which losses are accepted from now on.
async fn check_nothing_vanished(
    collection: &Collection<'_>,
    layout: &InstanceLayout,
    runs: &Runs,
    commits: &Commits,
    plan: &mut CollectionPlan,
) -> Result<BTreeSet<BackupId>> {
    let instance = layout.instance();
    let mut accepted = runs.seen(instance).map(|seen| seen.accepted.clone()).unwrap_or_default();
    let mut gone: BTreeMap<BackupId, String> = BTreeMap::new();
    if let Some((run, _)) = &runs.last {
        for backup in runs.backups_of(instance) {
            if !commits.backups.contains(backup)
                && !collection.repo.store().exists(&layout.condemned(backup)).await?
            {
                gone.insert(backup.clone(), format!("the collection {run}"));
            }
        }
    }
    for vanished in collection.repo.vanished_backups(instance, collection.options.now).await? {
        gone.entry(vanished.backup).or_insert(vanished.witness);
    }
    for (backup, witness) in gone {
        let error = Error::BackupVanished { instance: instance.clone(), backup: backup.clone(), witness };
        if !collection.options.accept_loss {
            return Err(error);
        }
        plan.findings.push(Finding::error(
            backup.as_str(),
            error.to_string(),
            "`backstay backup` makes a new one; see who else deletes at repository.store",
        ));
        accepted.insert(backup);
    }
    Ok(accepted)
}
