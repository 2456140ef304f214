//! Writing a backup: from a [`PartSource`] to a committed manifest.
//!
//! The order is the promise: intent, packs and maps, and last, create-only, the
//! manifest at `backups/<session>`. A writer that stops anywhere before has left
//! nothing that anyone can see, and objects that the collector finds. A writer
//! deletes nothing but its own intent, after its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use backstay_model::parts::PartSource;
use backstay_model::record::Statistics;
use backstay_model::{
    BackupId, BackupRecord, BackupType, EngineKind, Finding, InstanceId, Position, Progress,
};
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

mod assemble;
mod copy;
mod finish;
mod lane;
mod parent;
mod plan;

pub use finish::{Finished, live_by_pack};

use crate::layout::InstanceLayout;
use crate::manifest::{Commit, MANIFEST_FORMAT, Manifest};
use crate::map::{Arrivals, FileTable, MapFrames, MapWriter, Sessions};
use crate::protocol::{ProcessIdentity, Session, SessionKind, SessionStart};
use crate::repo::Repo;
use crate::store::StoreError;
use crate::usage::restore_amplification;
use crate::{Error, Result};

/// Above this a backup stores blocks of worn packs again.
pub const REBASE_AMPLIFICATION: f64 = 1.5;

/// A fifth of the lease after which others may take a session for dead.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(180);

/// How a backup is written.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Threads that read, compress and seal.
    pub lanes: usize,
    /// zstd's.
    pub compression_level: i32,
    /// Open every frame again before it is sent.
    pub verify: bool,
    /// Packs that a verification found damaged: their blocks are stored again.
    pub damaged_packs: HashSet<(BackupId, u32)>,
    /// Its place among the backups of the instance, one more than the newest has.
    pub sequence: u64,
}

/// What the operation adds to the record when the engine is done.
#[derive(Debug, Clone)]
pub struct RecordDraft {
    pub engine: EngineKind,
    pub finished_at: Timestamp,
    pub start_position: Option<Position>,
    pub stop_position: Option<Position>,
    pub engine_version: String,
    pub facts: serde_json::Value,
    pub findings: Vec<Finding>,
}

/// A backup in the making. Dropped before [`commit`](BackupWriter::commit), it never was.
pub struct BackupWriter {
    repo: Arc<Repo>,
    layout: InstanceLayout,
    id: BackupId,
    /// The intent that protects what is written; a test of the pipeline has none.
    session: Option<Session>,
    known_backups: Vec<BackupId>,
    parent: Option<Manifest>,
    started_at: Timestamp,
    /// The same moment by a clock that only goes forward.
    begun: Instant,
    options: WriterOptions,
    finished: Option<Finished>,
}

impl BackupWriter {
    /// The intent of `id` is stored, and the parent was looked at again after that.
    pub(crate) fn new(
        repo: Arc<Repo>,
        layout: InstanceLayout,
        id: BackupId,
        known_backups: Vec<BackupId>,
        started_at: Timestamp,
        options: WriterOptions,
        parent: Option<Manifest>,
    ) -> Self {
        Self {
            repo,
            layout,
            id,
            session: None,
            known_backups,
            parent,
            started_at,
            begun: Instant::now(),
            options,
            finished: None,
        }
    }

    /// Stores the intent, waits for nobody, and looks at the parent again after that.
    pub(crate) async fn begin(
        repo: Arc<Repo>,
        instance: &InstanceId,
        parent: Option<BackupId>,
        now: Timestamp,
        options: WriterOptions,
    ) -> Result<Self> {
        let layout = InstanceLayout::new(instance.clone());
        let known_backups = repo.known_backups(&layout).await?;
        let id = BackupId::new(now, u32::from_le_bytes(crate::key::random()?));
        let start = SessionStart {
            id: id.clone(),
            parents: parent.into_iter().collect(),
            kind: SessionKind::Backup,
            process: ProcessIdentity::current(),
            now,
        };
        let (session, parent) = Session::begin(&repo, instance, start).await?;
        let writer = Self::new(repo, layout, id, known_backups, now, options, parent);
        Ok(Self { session: Some(session), ..writer })
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }

    /// The declared parent, after the second look: it may be none although one was asked for.
    pub fn parent(&self) -> Option<&BackupRecord> {
        self.parent.as_ref().map(|manifest| &manifest.record)
    }

    /// Whether the parent is so worn that its blocks should be read again rather than
    /// taken on the server's word.
    pub fn wants_rebase(&self) -> bool {
        self.parent.as_ref().is_some_and(|manifest| {
            let damaged = &self.options.damaged_packs;
            manifest.record.statistics.restore_amplification > REBASE_AMPLIFICATION
                || manifest.packs().any(|(session, pack)| damaged.contains(&(session.clone(), pack.number)))
        })
    }

    /// Takes everything the source has. The blocking work runs on threads of its own.
    pub async fn copy(
        &mut self,
        source: Box<dyn PartSource>,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let job = CopyJob {
            repo: Arc::clone(&self.repo),
            layout: self.layout.clone(),
            session: self.id.clone(),
            parent: self.parent.clone(),
            options: self.options.clone(),
            handle: Handle::current(),
        };
        let running = tokio::task::spawn_blocking(move || job.run(source, progress, &stop));
        let joined = self.keep_alive(running).await;
        drop(guard);
        let finished = joined.map_err(|error| Error::broken(format!("the copy did not end: {error}")))?;
        self.finished = Some(finished?);
        Ok(())
    }

    /// Awaits something that may take longer than the lease, such as the server's
    /// checkpoint, and says meanwhile that the session lives.
    pub async fn keep_alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(HEARTBEAT_INTERVAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.heartbeat().await,
            }
        }
    }

    /// A heartbeat that fails is no reason to stop: the worst that can follow is that
    /// a collector elsewhere declares this session dead, and then the commit says so.
    async fn heartbeat(&mut self) {
        let now = self.since_begin();
        let Some(session) = &mut self.session else { return };
        if let Err(error) = session.heartbeat(now).await {
            tracing::warn!(session = %self.id, %error, "a heartbeat was not stored");
        }
    }

    /// Now, by the clock of the beginning and one that only goes forward.
    fn since_begin(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.begun.elapsed()).unwrap_or_default();
        self.started_at.saturating_add(elapsed).unwrap_or(self.started_at)
    }

    /// Ends the session without a backup. What was stored is left to the collector.
    pub async fn abandon(mut self) {
        if let Some(session) = &mut self.session
            && let Err(error) = session.close().await
        {
            tracing::debug!(session = %self.id, %error, "the intent stays until a collection");
        }
    }

    /// The commit point. After this the backup exists, before it it does not.
    pub async fn commit(mut self, draft: RecordDraft) -> Result<BackupRecord> {
        let finished = self
            .finished
            .take()
            .ok_or_else(|| Error::broken("a backup is committed before it was copied"))?;
        let totals = finished.totals;
        let packs = finished.objects.iter().flat_map(|objects| &objects.packs);
        let amplification = restore_amplification(
            packs.map(|pack| (pack.raw_bytes, pack.live_bytes)),
            self.repo.parameters().frame_size,
            totals.largest_block.max(8192),
        );
        let record = BackupRecord {
            id: self.id.clone(),
            instance: self.layout.instance().clone(),
            engine: draft.engine,
            backup_type: if self.parent.is_some() { BackupType::Incremental } else { BackupType::Full },
            parent: self.parent.as_ref().map(|parent| parent.record.id.clone()),
            started_at: self.started_at,
            finished_at: draft.finished_at.max(self.since_begin()),
            sequence: self.options.sequence,
            start_position: draft.start_position,
            stop_position: draft.stop_position,
            engine_version: draft.engine_version,
            encrypted: self.repo.is_encrypted(),
            statistics: Statistics {
                files: totals.files,
                logical_bytes: totals.logical_bytes,
                read_bytes: totals.read_bytes,
                new_bytes: totals.new_bytes,
                stored_bytes: finished.stored_bytes,
                restore_amplification: (amplification * 1000.0).round() / 1000.0,
            },
            facts: draft.facts,
            findings: draft.findings,
        };
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            record: record.clone(),
            root: finished.root,
            objects: finished.objects,
            known_backups: std::mem::take(&mut self.known_backups),
        };
        let name = self.layout.backup(&record.id);
        let object = crate::document::seal_document(self.repo.seal_keys(), &name, &manifest.to_json()?)?;
        match self.repo.store().put_if_absent(&name, object).await {
            Ok(()) => {}
            Err(StoreError::AlreadyExists { .. }) => match self.repo.read_commit(&name).await? {
                // The answer to an earlier attempt was lost; what lies there is ours.
                Commit::Backup(stored) if *stored == manifest => {}
                Commit::Backup(_) => {
                    return Err(Error::SessionTaken { instance: record.instance, session: record.id });
                }
                Commit::Tombstone(_) => {
                    self.abandon().await;
                    return Err(Error::DeclaredDead { instance: record.instance, session: record.id });
                }
            },
            // Whether it arrived is not known, so the intent stays and goes on protecting it.
            Err(error) => return Err(error.into()),
        }
        self.abandon().await;
        Ok(record)
    }
}

struct CopyJob {
    repo: Arc<Repo>,
    layout: InstanceLayout,
    session: BackupId,
    parent: Option<Manifest>,
    options: WriterOptions,
    handle: Handle,
}

impl CopyJob {
    fn frames(&self, sessions: &Sessions) -> Result<MapFrames> {
        MapFrames::new(
            Arc::clone(self.repo.store()),
            Arc::clone(self.repo.seal_keys()),
            self.layout.clone(),
            self.handle.clone(),
            sessions.clone(),
        )
    }

    fn parent_view(&self, sessions: &Sessions) -> Result<Option<parent::ParentView>> {
        let Some(manifest) = &self.parent else { return Ok(None) };
        let mut maps = self.frames(sessions)?;
        for (session, number, size) in manifest.maps() {
            maps.know(session, number, size)?;
        }
        let table = FileTable::open(&mut maps, &manifest.root_place())?;
        let worn = manifest.record.statistics.restore_amplification > REBASE_AMPLIFICATION;
        let mut avoid = HashSet::new();
        for (session, pack) in manifest.packs() {
            let damaged = self.options.damaged_packs.contains(&(session.clone(), pack.number));
            if damaged || (worn && pack.live_bytes * 2 < pack.raw_bytes) {
                let index = sessions.index_of(session).map_err(|error| Error::broken(error.to_string()))?;
                avoid.insert((index, pack.number));
            }
        }
        Ok(Some(parent::ParentView { maps, table, manifest: manifest.clone(), avoid }))
    }

    fn run(
        self,
        source: Box<dyn PartSource>,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Finished> {
        let sessions = Sessions::new();
        let index = sessions.index_of(&self.session).map_err(|error| Error::broken(error.to_string()))?;
        let parent = self.parent_view(&sessions)?;
        let keys = self.repo.seal_keys();
        let maps = MapWriter::new(
            Arc::clone(self.repo.store()),
            Arc::clone(keys),
            self.layout.clone(),
            self.handle.clone(),
            self.session.clone(),
            sessions.clone(),
        )?;
        let arrivals = Arrivals::new(sessions.clone(), Arc::clone(keys), self.repo.temporary_places());
        let parameters = self.repo.parameters();
        let shared = lane::LaneShared {
            store: Arc::clone(self.repo.store()),
            keys: Arc::clone(keys),
            layout: self.layout.clone(),
            handle: self.handle.clone(),
            session: self.session.clone(),
            index,
            next_pack: AtomicU32::new(0),
            avoid: parent.as_ref().map(|view| view.avoid.clone()).unwrap_or_default(),
            frame_size: parameters.frame_size as usize,
            pack_size: parameters.pack_size,
            compression_level: self.options.compression_level,
            verify: self.options.verify,
            progress: Arc::clone(&progress),
        };
        let copied = copy::Copy {
            planner: plan::Planner::new(source, parent),
            assembler: assemble::Assembler::new(maps, arrivals, *keys.block_hash_key(), progress),
            shared: Arc::new(shared),
            lanes: self.options.lanes.max(1),
            cancel,
        }
        .run()?;
        let maps = self.frames(&sessions)?;
        finish::Finish { session: &self.session, hash_key: keys.block_hash_key(), maps }.run(copied)
    }
}

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod crash_tests;
