//! A base: the snapshot of a server as one stream, and beside it what a snapshot does not hold.
//!
//! Users, settings and the list of modules are no part of a snapshot. They are asked for before it
//! begins: a restored server without its users lets nobody in, or everybody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::error::Fault;
use backstay_model::parts::{
    ByteStream, EXTENT_SIZE, ExtentData, ExtentReader, FileShape, FileSpec, PartKind, PartSource, Step,
};
use backstay_model::{Finding, Position};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::aux_fields::AuxFields;
use super::connection::Connection;
use super::facts::ServerFacts;
use super::reply::Reply;
use super::saved;
use super::settings::Address;
use super::stream::StreamReceiver;
use super::sync::{FullSync, StreamPlace};
use crate::snapshot::{RdbChecksum, RdbFacts};
use crate::{Error, Result};

mod snapshot;

use snapshot::{Origin, Snapshot};

/// The path of the snapshot in a backup, and of the files beside it.
pub const SNAPSHOT: &str = "snapshot";
pub const USERS: &str = "beside/users.acl";
pub const SETTINGS: &str = "beside/settings.json";
pub const MODULES: &str = "beside/modules.json";

/// Settings that are passwords: a repository without encryption would give them away. Whoever
/// restores has those of the new server.
const SECRETS: [&str; 5] =
    ["requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass", "primaryauth"];

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
        let beside = beside(&mut connection).await?;
        let server = ServerFacts::ask(&mut connection).await?;
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
        let beside = beside(&mut connection).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let file = saved::take(&mut connection, &server, directory).await?;
        let usual = StreamPlace { replication_id: server.replication_id.clone(), offset: server.offset };
        let saved = SavedFacts { path: file.path.clone(), has_place: file.place.is_some() };
        let place = file.place.clone().unwrap_or(usual);
        let estimated_bytes = file.length;
        let (snapshot, pieces) = Snapshot::new(Origin { server, place, saved: Some(saved) });
        let outcome = snapshot.outcome.clone();
        Ok(RedisBase {
            snapshot: Box::new(snapshot.read(file, pieces, cancel)),
            beside: Box::new(Beside { steps: beside.into_iter() }),
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
        let beside = beside(&mut connection).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let (behind, receiver) = oneshot::channel();
        Ok((RedisBase::of(sync, server, beside, cancel, Some(behind)), receiver))
    }

    fn of(
        sync: FullSync,
        server: ServerFacts,
        beside: Vec<Step>,
        cancel: CancellationToken,
        behind: Option<oneshot::Sender<StreamReceiver>>,
    ) -> RedisBase {
        let estimated_bytes = server.used_memory_bytes;
        let (snapshot, pieces) = Snapshot::new(Origin { server, place: sync.place.clone(), saved: None });
        let outcome = snapshot.outcome.clone();
        RedisBase {
            snapshot: Box::new(snapshot.receive(sync, pieces, cancel, behind)),
            beside: Box::new(Beside { steps: beside.into_iter() }),
            outcome,
            estimated_bytes,
        }
    }
}

/// The steps of the small files.
async fn beside(connection: &mut Connection) -> Result<Vec<Step>> {
    const ACTION: &str = "ask for users and settings";
    let users = connection.call(ACTION, &["ACL", "LIST"]).await?.array().unwrap_or_default();
    let users: String = users.iter().filter_map(Reply::text).map(|line| line + "\n").collect();
    let settings = connection.call(ACTION, &["CONFIG", "GET", "*"]).await?.array().unwrap_or_default();
    let pairs = settings.chunks(2).filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?)));
    let settings: std::collections::BTreeMap<String, String> =
        pairs.filter(|(name, _)| !SECRETS.contains(&name.as_str())).collect();
    let modules = connection.call(ACTION, &["MODULE", "LIST"]).await?.array().unwrap_or_default();
    let modules: Vec<Vec<Option<String>>> = modules
        .into_iter()
        .map(|module| module.array().unwrap_or_default().iter().map(Reply::text).collect())
        .collect();
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|source| Error::Facts { source });
    let files = [
        (USERS, users.into_bytes()),
        (SETTINGS, json(serde_json::to_vec_pretty(&settings))?),
        (MODULES, json(serde_json::to_vec_pretty(&modules))?),
    ];
    Ok(files.into_iter().flat_map(|(path, bytes)| file(path, &bytes.into())).collect())
}

fn file(path: &str, bytes: &Bytes) -> Vec<Step> {
    let shape = FileShape { size: bytes.len() as u64, block_size: 4096 };
    let (path, kind) = (path.to_owned(), PartKind::File(shape));
    let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
    let mut steps = vec![Step::Begin(spec)];
    for (number, part) in bytes.chunks(EXTENT_SIZE as usize).enumerate() {
        let offset = number * EXTENT_SIZE as usize;
        let data = ExtentData::Read(Box::new(Held(bytes.slice(offset..offset + part.len()))));
        steps.push(Step::Extent { offset: offset as u64, length: part.len() as u32, data });
    }
    steps
}

struct Held(Bytes);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.extend_from_slice(&self.0);
        Ok(())
    }
}

struct Beside {
    steps: std::vec::IntoIter<Step>,
}

impl PartSource for Beside {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        Ok(self.steps.next())
    }
}
