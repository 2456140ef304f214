//! A base: the snapshot of a server as one stream, and beside it what a snapshot does not hold.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::parts::{ByteStream, PartSource};
use backstay_model::{Finding, Position};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::aux_fields::AuxFields;
use super::beside::Beside;
pub use super::beside::{MODULES, SETTINGS, SHARDS, USERS};
use super::connection::Connection;
use super::facts::ServerFacts;
use super::saved;
use super::settings::Address;
use super::stream::StreamReceiver;
use super::sync::{FullSync, StreamPlace};
use crate::snapshot::{RdbChecksum, RdbFacts};
use crate::{Error, Result};

mod snapshot;

use snapshot::{Origin, Snapshot};

/// The path of the snapshot in a backup.
pub const SNAPSHOT: &str = "snapshot";

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
    /// The server has saved it to its own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedFacts>,
}

/// Of a snapshot that a server has saved to its own disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFacts {
    pub path: PathBuf,
    /// It says where in the stream it stands. One that does not stands for itself: the id and the
    /// offset are those that the server had, and no stream goes on from there.
    pub has_place: bool,
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
            saved: None,
        }
    }

    /// What the snapshot says of itself before its first key.
    fn with_head(self, said: &AuxFields) -> RedisFacts {
        let selected_database = said.selected_database().unwrap_or(0);
        RedisFacts { made_at: said.made_at(), selected_database, ..self }
    }

    /// Nothing where the snapshot stands for itself.
    pub fn position(&self) -> Option<Position> {
        let (replication_id, offset) = (self.replication_id.clone(), self.offset);
        let has_place = self.saved.as_ref().is_none_or(|saved| saved.has_place);
        has_place.then_some(Position::Stream { replication_id, offset })
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
        let written = self.saved.as_ref().map(|saved| {
            Finding::info(
                saved.path.display().to_string(),
                "the server has saved its snapshot there for this backup, in the place of the one before",
                "without `data_directory` of the instance, a base comes over the network and nothing is written there",
            )
        });
        let alone = self.saved.as_ref().filter(|saved| !saved.has_place).map(|_| {
            Finding::info(
                "the stream",
                "the server keeps none for anybody, so that its snapshot does not say where in it it stands: it is \
                 restored as it is, and nothing that comes later is replayed behind it",
                "`backstay archive` receives the stream, and takes a base that it goes on behind",
            )
        });
        without_sum.into_iter().chain(one_of_many).chain(written).chain(alone).collect()
    }

    /// From the record of a backup.
    pub fn from_json(facts: &serde_json::Value) -> Result<Self> {
        Self::deserialize(facts).map_err(|source| Error::Facts { source })
    }
}

/// Where a base leaves its facts. They are complete when its stream has ended.
#[derive(Debug, Clone, Default)]
pub struct RedisOutcome(Arc<Mutex<(Option<RedisFacts>, Vec<Finding>)>>);

impl RedisOutcome {
    pub fn facts(&self) -> Option<RedisFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn set(&self, facts: RedisFacts) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(facts);
    }

    /// Something else that a person should know of it.
    pub fn find(&self, finding: Finding) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(finding);
    }

    /// What a person should know of it.
    pub fn findings(&self) -> Vec<Finding> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        let own = self.facts().map(|facts| facts.findings()).unwrap_or_default();
        found.into_iter().chain(own).collect()
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
        let server = ServerFacts::ask(&mut connection).await?;
        let beside = Beside::ask(&mut connection, &server).await?;
        let sync = FullSync::begin(connection).await?;
        Ok(RedisBase::of(sync, server, beside, cancel, None))
    }

    /// The file that the server saves to its own directory, which can be read from here.
    ///
    /// # Errors
    ///
    /// As [`RedisBase::begin`]; [`saved::is_of_the_way`] tells those that are none of the other way.
    pub async fn saved(address: &Address, directory: &Path, cancel: CancellationToken) -> Result<RedisBase> {
        let mut connection = Connection::open(address).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let beside = Beside::ask(&mut connection, &server).await?;
        let file = saved::take(&mut connection, &server, directory).await?;
        let usual = StreamPlace { replication_id: server.replication_id.clone(), offset: server.offset };
        let saved = SavedFacts { path: file.path.clone(), has_place: file.place.is_some() };
        let place = file.place.clone().unwrap_or(usual);
        let estimated_bytes = file.length;
        let (snapshot, pieces) = Snapshot::new(Origin { server, place, saved: Some(saved) });
        let outcome = snapshot.outcome.clone();
        Ok(RedisBase {
            snapshot: Box::new(snapshot.read(file, pieces, cancel)),
            beside: Box::new(beside.files),
            outcome,
            estimated_bytes,
        })
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
        let server = ServerFacts::ask(&mut connection).await?;
        let beside = Beside::ask(&mut connection, &server).await?;
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
        let estimated_bytes = server.used_memory_bytes;
        let (snapshot, pieces) = Snapshot::new(Origin { server, place: sync.place.clone(), saved: None });
        let outcome = snapshot.outcome.clone();
        beside.lacking.into_iter().for_each(|finding| outcome.find(finding));
        RedisBase {
            snapshot: Box::new(snapshot.receive(sync, pieces, cancel, behind)),
            beside: Box::new(beside.files),
            outcome,
            estimated_bytes,
        }
    }
}
