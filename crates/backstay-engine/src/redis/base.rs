//! A base: the snapshot of a server as one stream, and beside it what a snapshot does not hold.

use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::error::Fault;
use backstay_model::parts::{ByteStream, PartSource};
use backstay_model::{Finding, Position};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::aux_fields::{AuxFields, HEAD_BYTES};
use super::beside::Beside;
pub use super::beside::{MODULES, SETTINGS, USERS};
use super::connection::Connection;
use super::facts::ServerFacts;
use super::settings::Address;
use super::stream::StreamReceiver;
use super::sync::{FullSync, StreamPlace};
use crate::snapshot::{RdbCheck, RdbChecksum, RdbFacts};
use crate::{Error, Result};

/// The path of the snapshot in a backup.
pub const SNAPSHOT: &str = "snapshot";

/// Pieces of a quarter of a MiB that may wait for whoever slices them.
const WAITING: usize = 16;

/// What is known of one finished base. It is stored as the `facts` of the backup's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    pub server: ServerFacts,
    /// The snapshot holds what the stream up to there had made.
    pub replication_id: String,
    pub offset: u64,
    /// Of the snapshot's format.
    pub rdb_version: u32,
    pub snapshot_bytes: u64,
    /// Whether the server summed it up: `rdbchecksum no` makes snapshots without.
    pub has_checksum: bool,
    /// Whose state it is: by the clock of the server, when it began to write it.
    #[serde(default)]
    pub made_at: Option<Timestamp>,
    /// In which database the stream goes on.
    #[serde(default)]
    pub selected_database: u32,
}

impl RedisFacts {
    pub(super) fn new(
        server: ServerFacts,
        place: StreamPlace,
        found: &RdbFacts,
        snapshot_bytes: u64,
    ) -> Self {
        RedisFacts {
            server,
            replication_id: place.replication_id,
            offset: place.offset,
            rdb_version: found.version,
            snapshot_bytes,
            has_checksum: found.checksum == RdbChecksum::Good,
            made_at: None,
            selected_database: 0,
        }
    }

    /// What the snapshot says of itself before its first key.
    fn with_head(self, said: &AuxFields) -> RedisFacts {
        let selected_database = said.selected_database().unwrap_or(0);
        RedisFacts { made_at: said.made_at(), selected_database, ..self }
    }

    pub fn position(&self) -> Position {
        Position::Stream { replication_id: self.replication_id.clone(), offset: self.offset }
    }

    /// When it was the state for sure: the server says it to the second, and has ended by then.
    pub fn made_at(&self, ended: Timestamp) -> Timestamp {
        let second = jiff::SignedDuration::from_secs(1);
        self.made_at.and_then(|at| at.checked_add(second).ok()).map_or(ended, |at| at.min(ended))
    }

    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|source| Error::Facts { source })
    }

    /// What a person should know of it.
    pub fn findings(&self) -> Vec<Finding> {
        let without_sum = (!self.has_checksum).then(|| {
            Finding::warning(
                "the snapshot",
                "the server wrote no checksum into it, so that nobody can tell whether it was sent as it was made",
                "set `rdbchecksum yes` in the file of the server's settings, and restart it",
            )
        });
        let one_of_many = self.server.is_cluster.then(|| {
            Finding::warning(
                "the cluster",
                "this is what one of its nodes holds, and no more; the nodes have no instant in common",
                "make an instance of one node of each shard",
            )
        });
        without_sum.into_iter().chain(one_of_many).collect()
    }

    /// From the record of a backup.
    pub fn from_json(facts: &serde_json::Value) -> Result<Self> {
        Self::deserialize(facts).map_err(|source| Error::Facts { source })
    }
}

/// Where a base leaves its facts. They are complete when its stream has ended.
#[derive(Debug, Clone, Default)]
pub struct RedisOutcome {
    facts: Arc<Mutex<Option<RedisFacts>>>,
    /// Of what could not be asked before.
    lacking: Vec<Finding>,
}

impl RedisOutcome {
    pub fn facts(&self) -> Option<RedisFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a person should know of it.
    pub fn findings(&self) -> Vec<Finding> {
        let of_snapshot = self.facts().map(|facts| facts.findings()).unwrap_or_default();
        self.lacking.iter().cloned().chain(of_snapshot).collect()
    }
}

/// A base that has begun.
pub struct RedisBase {
    pub snapshot: Box<dyn ByteStream>,
    /// What lies beside it.
    pub beside: Box<dyn PartSource>,
    pub outcome: RedisOutcome,
    /// About how many bytes will come: a snapshot is smaller than the memory that it describes.
    pub estimated_bytes: u64,
}

impl RedisBase {
    /// # Errors
    ///
    /// Where the server is away, or the user may not ask.
    pub async fn begin(address: &Address, cancel: CancellationToken) -> Result<RedisBase> {
        let mut connection = Connection::open(address).await?;
        let beside = Beside::ask(&mut connection).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let sync = FullSync::begin(connection).await?;
        Ok(RedisBase::of(sync, server, beside, cancel, None))
    }

    /// Of a synchronisation behind which the stream follows: the receiver of that comes when all
    /// of the snapshot has come, whatever becomes of the base then.
    ///
    /// # Errors
    ///
    /// Where the server is away, or the user may not ask.
    pub async fn with_stream(
        address: &Address,
        sync: FullSync,
        cancel: CancellationToken,
    ) -> Result<(RedisBase, oneshot::Receiver<StreamReceiver>)> {
        // The other one has no time for questions.
        let mut connection = Connection::open(address).await?;
        let beside = Beside::ask(&mut connection).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let (behind, receiver) = oneshot::channel();
        Ok((RedisBase::of(sync, server, beside, cancel, Some(behind)), receiver))
    }

    fn of(
        sync: FullSync,
        server: ServerFacts,
        beside: Beside,
        cancel: CancellationToken,
        behind: Option<oneshot::Sender<StreamReceiver>>,
    ) -> RedisBase {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let outcome = RedisOutcome { lacking: beside.lacking, ..RedisOutcome::default() };
        let (estimated_bytes, place) = (server.used_memory_bytes, sync.place.clone());
        let snapshot = Snapshot {
            waiting,
            check: Some(RdbCheck::default()),
            head: Vec::new(),
            received: 0,
            outcome: outcome.clone(),
            server: Some((server, place)),
            receiving: tokio::task::JoinSet::new(),
        };
        RedisBase {
            snapshot: Box::new(snapshot.receive(sync, pieces, cancel, behind)),
            beside: Box::new(beside.files),
            outcome,
            estimated_bytes,
        }
    }
}

/// The stream as it comes, looked at on its way.
struct Snapshot {
    waiting: mpsc::Receiver<Result<Bytes>>,
    check: Option<RdbCheck>,
    /// Its first bytes.
    head: Vec<u8>,
    received: u64,
    outcome: RedisOutcome,
    server: Option<(ServerFacts, StreamPlace)>,
    /// Ends with the stream: that is what tells the server to stop.
    receiving: tokio::task::JoinSet<()>,
}

impl Snapshot {
    fn receive(
        mut self,
        mut sync: FullSync,
        pieces: mpsc::Sender<Result<Bytes>>,
        cancel: CancellationToken,
        behind: Option<oneshot::Sender<StreamReceiver>>,
    ) -> Snapshot {
        self.receiving.spawn(async move {
            loop {
                let next = tokio::select! {
                    () = cancel.cancelled() => Err(Error::Cancelled),
                    next = sync.next() => next,
                };
                let (piece, is_over) = match next {
                    Ok(Some(piece)) => (Ok(piece), false),
                    // An empty piece says that all came: a queue that just closes says nothing.
                    Ok(None) => (Ok(Bytes::new()), true),
                    Err(error) => (Err(error), true),
                };
                let is_whole = is_over && piece.is_ok();
                if pieces.send(piece).await.is_err() {
                    return;
                }
                if is_over {
                    if let (true, Some(behind), Ok(stream)) = (is_whole, behind, sync.into_stream()) {
                        // Whoever wanted it may have gone.
                        drop(behind.send(stream));
                    }
                    return;
                }
            }
        });
        self
    }

    fn end(&mut self) -> Result<()> {
        let (Some(check), Some((server, place))) = (self.check.take(), self.server.take()) else {
            return Err(Error::Protocol { reason: "a snapshot ended twice".to_owned() });
        };
        let found = check.finish()?;
        let facts = RedisFacts::new(server, place, &found, self.received);
        let facts = facts.with_head(&AuxFields::of(&self.head));
        *self.outcome.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
        Ok(())
    }
}

impl ByteStream for Snapshot {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Fault> {
        match self.waiting.blocking_recv() {
            Some(Ok(piece)) if piece.is_empty() => {
                self.end()?;
                Ok(false)
            }
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                let room = HEAD_BYTES.saturating_sub(self.head.len());
                self.head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                if let Some(check) = &mut self.check {
                    check.push(&piece);
                    // What is no snapshot at all is not stored to its end first.
                    check.version()?;
                }
                buffer.extend_from_slice(&piece);
                Ok(true)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(Error::Cancelled.into()),
        }
    }
}
