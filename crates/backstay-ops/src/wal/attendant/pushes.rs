//! The attendant of an archiver: stores what is ready behind the segment that was given away.
//!
//! Invariants: it says yes for what its own run has stored of this very file, and what lies in the
//! store that has the address now. Behind a segment that could not be stored nothing begins; one that is
//! on its way beside it may arrive.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_model::InstanceId;
use backstay_repo::layout::ObjectName;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::ahead::{AT_ONCE, ready_behind};
use super::super::desk::{self, FAILED, THERE};
use super::super::{LogFileName, push_as};
use super::Calls;
use super::as_it_was::AsItWas;
use super::opened::Opened;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// Whose segments are pushed, and how.
#[derive(Debug, Clone)]
pub struct Pusher {
    pub instance: InstanceId,
    /// The cluster that they are of, where that is known.
    pub system: Option<u64>,
    pub level: i32,
    /// Segments that go ahead.
    pub most: u32,
}

/// Answers an archiver whose first call, for this segment, went well.
pub async fn attend_pushes(context: &Context, pusher: Pusher, first: &Path, calls: Calls) {
    let Ok(repository) = Opened::now(context).await else { return };
    let mut coming = Coming {
        context,
        pusher,
        repository,
        at_once: Arc::new(Semaphore::new(AT_ONCE)),
        has_failed: Arc::new(AtomicBool::new(false)),
        segments: BTreeMap::new(),
    };
    coming.go_ahead(first).await;
    while let Some(stream) = calls.next(&context.cancel).await {
        let answered = async {
            let (name, mut writing) = desk::question(stream).await?;
            if name.is_empty() {
                return Ok(false);
            }
            let stored = coming.store(first, &name).await;
            let letter = if matches!(stored, Ok(true)) { THERE } else { FAILED };
            writing.write_all(&[letter]).await.map_err(|error| Error::broken(error.to_string()))?;
            stored
        };
        if let Err(error) = answered.await {
            // Whoever comes next may have another view of the store.
            tracing::debug!(%error, "a file of the log was not stored");
            calls.leave();
        }
    }
}

/// As which objects; none where all of it was there before.
type Stored = Result<Vec<ObjectName>>;

/// Segments on their way to the store, or there.
struct Coming<'a> {
    context: &'a Context,
    pusher: Pusher,
    repository: Opened,
    at_once: Arc<Semaphore>,
    /// Nothing goes ahead of one that could not be stored.
    has_failed: Arc<AtomicBool>,
    /// Each with the one task that stores it, and says as which objects.
    segments: BTreeMap<String, (AsItWas, JoinSet<Stored>)>,
}

impl Coming<'_> {
    /// When this is true, the segment is in the store as it is here.
    async fn store(&mut self, beside: &Path, name: &str) -> Result<bool> {
        if !matches!(name.parse(), Ok(LogFileName::Segment { .. })) {
            return Ok(false);
        }
        let path = beside.with_file_name(name);
        self.begin(&path).await;
        let Some((as_it_was, mut pushing)) = self.segments.remove(name) else { return Ok(false) };
        // The server does not come back to what is before it.
        self.segments = self.segments.split_off(name);
        let Some(pushed) = pushing.join_next().await else { return Ok(false) };
        let objects = pushed.map_err(|error| Error::broken(error.to_string()))??;
        self.go_ahead(&path).await;
        Ok(!objects.is_empty()
            && AsItWas::of(&path).await == Some(as_it_was)
            && self.repository.has(self.context, &objects).await?)
    }

    async fn go_ahead(&mut self, path: &Path) {
        let (from, most) = (path.to_owned(), self.pusher.most as usize);
        let ready = off_thread(move || Ok(ready_behind(&from, most))).await.unwrap_or_default();
        for next in ready {
            self.begin(&next).await;
        }
    }

    async fn begin(&mut self, path: &Path) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        if self.segments.contains_key(name) {
            return;
        }
        let Some(as_it_is) = AsItWas::of(path).await else { return };
        let (context, pusher, path) = (self.context.clone(), self.pusher.clone(), path.to_owned());
        let repository = self.repository.clone();
        let (at_once, has_failed) = (Arc::clone(&self.at_once), Arc::clone(&self.has_failed));
        let mut pushing = JoinSet::new();
        pushing.spawn(async move {
            let permit = at_once.acquire_owned().await;
            let _permit = permit.map_err(|error| Error::broken(error.to_string()))?;
            if has_failed.load(Ordering::Relaxed) {
                return Err(Error::broken("one before it could not be stored"));
            }
            let pushed = async {
                repository.has(&context, &[]).await?;
                push_as(&context, &pusher.instance, pusher.system, &path, pusher.level).await
            };
            pushed.await.inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
        });
        self.segments.insert(name.to_owned(), (as_it_is, pushing));
    }
}
