//! That a backup is about to be deleted, for whoever wants to hold it.
//!
//! Retention stores a note before it looks for holds, and takes it back when the manifest
//! is gone or stays. A hold is stored before its maker looks for notes. So at least one of
//! the two sees the other, and a hold that was said to be in force is. Each retention has
//! a note of its own, or one would take back what another relies on.
//!
//! Invariant: a minute after its note the deletion is not begun any more, and a note counts for
//! an hour. So one whose maker was killed stands in nobody's way for long.

use std::time::Duration;

use backstay_model::{BackupId, InstanceId};
use backstay_repo::layout::{InstanceLayout, ObjectName};
use backstay_repo::store::StoreError;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::Stopwatch;
use crate::context::Context;
use crate::error::{Error, Result};

const FORMAT: u32 = 1;
/// Two runs at once draw different numbers; more is nobody's intent.
const TRIES: u32 = 16;
/// How long after its note a deletion may begin.
const IN_TIME_SECONDS: f64 = 60.0;
/// Far longer than one deletion takes, and clocks differ.
const COUNTS: SignedDuration = SignedDuration::from_hours(1);
/// A deletion is one request and a few listings.
const LOOKS: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `deletions/<session>-<n>`
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    at: Timestamp,
}

/// A note of our own.
#[derive(Debug)]
pub(crate) struct Announced {
    name: ObjectName,
    since: Stopwatch,
}

pub(crate) async fn announce(context: &Context, instance: &InstanceId, id: &BackupId) -> Result<Announced> {
    let layout = InstanceLayout::new(instance.clone());
    let since = Stopwatch::start();
    let note = Note { format: FORMAT, at: context.clock.now() };
    let json = serde_json::to_vec(&note).map_err(|error| Error::broken(error.to_string()))?;
    let taken = names(context, instance).await?;
    let taken = taken.iter().filter_map(|name| layout.deletion_of(name)).filter(|note| note.session == *id);
    let next = taken.map(|note| note.number.saturating_add(1)).max().unwrap_or(0);
    for number in next..next.saturating_add(TRIES) {
        let name = layout.deletion(id, number);
        match context.repo.put_document(&name, &json).await {
            Ok(()) => return Ok(Announced { name, since }),
            Err(backstay_repo::Error::Store(StoreError::AlreadyExists { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::broken(format!("{TRIES} runs were about to delete one backup at once")))
}

impl Announced {
    /// Whether the deletion may begin: the machine may have slept meanwhile.
    pub fn is_in_time(&self) -> bool {
        self.since.seconds() < IN_TIME_SECONDS
    }

    pub async fn take_back(self, context: &Context) -> Result<()> {
        delete(context, &self.name).await
    }
}

/// Waits until nobody is about to delete the backup; since when somebody is who does not end.
pub(crate) async fn waited_for(
    context: &Context,
    instance: &InstanceId,
    id: &BackupId,
) -> Result<Option<Timestamp>> {
    let layout = InstanceLayout::new(instance.clone());
    let mut since = None;
    for _ in 0..LOOKS {
        context.check_cancelled()?;
        since = None;
        for name in names(context, instance).await? {
            if layout.deletion_of(&name).is_some_and(|note| note.session == *id) {
                since = since.max(read(context, &name).await?.filter(|at| counts(*at, context.clock.now())));
            }
        }
        if since.is_none() {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(since)
}

/// Takes away the notes of runs that were killed.
pub(crate) async fn sweep(context: &Context, instance: &InstanceId) -> Result<()> {
    for name in names(context, instance).await? {
        if !read(context, &name).await?.is_some_and(|at| counts(at, context.clock.now())) {
            delete(context, &name).await?;
        }
    }
    Ok(())
}

fn counts(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < COUNTS
}

/// `None` for one that is gone, or does not open: a run that lives has just written it.
async fn read(context: &Context, name: &ObjectName) -> Result<Option<Timestamp>> {
    use backstay_model::ErrorKind::{Corrupt, Unsupported};
    use backstay_model::error::Classified as _;
    match context.repo.get_document(name).await {
        Ok(json) => Ok(serde_json::from_slice::<Note>(&json).ok().map(|note| note.at)),
        Err(backstay_repo::Error::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(error) if matches!(error.kind(), Corrupt | Unsupported) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn names(context: &Context, instance: &InstanceId) -> Result<Vec<ObjectName>> {
    let layout = InstanceLayout::new(instance.clone());
    let listed = context.repo.store().list_all(&layout.deletions()).await;
    let listed = listed.map_err(backstay_repo::Error::from)?;
    Ok(listed.into_iter().map(|meta| meta.name).filter(|name| layout.deletion_of(name).is_some()).collect())
}

async fn delete(context: &Context, name: &ObjectName) -> Result<()> {
    Ok(context.repo.store().delete(name).await.map_err(backstay_repo::Error::from)?)
}
