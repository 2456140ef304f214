//! A small repository: every backup owns one pack and one map of four bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backstay_model::record::Statistics;
use backstay_model::{BackupId, BackupRecord, BackupType, EngineKind, InstanceId, RepositoryId};
use backstay_repo::Error;
use backstay_repo::description::StoreFacts;
use backstay_repo::document::seal_document;
use backstay_repo::key::Keyring;
use backstay_repo::layout::InstanceLayout;
use backstay_repo::manifest::{MANIFEST_FORMAT, Manifest, PackUse, SessionObjects};
use backstay_repo::protocol::{
    CollectOptions, CollectReport, Collection, CollectionPlan, ProcessIdentity, Session, SessionKind,
    SessionStart,
};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::seal::Cipher;
use backstay_repo::store::{MemoryStore, Store};
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Seconds after the beginning of the day on which all this happens.
pub fn at(seconds: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
    begin + jiff::SignedDuration::from_secs(seconds)
}

pub fn id(number: u32) -> BackupId {
    BackupId::new(at(i64::from(number)), 0)
}

pub fn here() -> ProcessIdentity {
    ProcessIdentity::current()
}

/// A process of this machine whose number is another one's by now.
pub fn gone() -> ProcessIdentity {
    ProcessIdentity { started_ticks: Some(1), ..here() }
}

pub fn elsewhere() -> ProcessIdentity {
    ProcessIdentity { host: "elsewhere".into(), boot_id: Some("another".into()), ..here() }
}

#[derive(Debug)]
pub struct World {
    pub memory: MemoryStore,
    pub repo: Arc<Repo>,
    pub instance: InstanceId,
    pub layout: InstanceLayout,
}

impl World {
    pub fn new() -> Self {
        let memory = MemoryStore::new();
        let instance: InstanceId = "orders".parse().unwrap();
        let layout = InstanceLayout::new(instance.clone());
        Self { repo: repo(Arc::new(memory.clone())), memory, instance, layout }
    }

    /// The same repository seen through another store.
    pub fn at_store(&self, store: Arc<dyn Store>) -> World {
        World {
            memory: self.memory.clone(),
            repo: repo(store),
            instance: self.instance.clone(),
            layout: self.layout.clone(),
        }
    }

    /// Another instance of the same repository.
    pub fn of_instance(&self, name: &str) -> World {
        let instance: InstanceId = name.parse().unwrap();
        let layout = InstanceLayout::new(instance.clone());
        World { memory: self.memory.clone(), repo: Arc::clone(&self.repo), instance, layout }
    }

    pub async fn begin(
        &self,
        session: BackupId,
        parents: &[BackupId],
        process: ProcessIdentity,
        now: Timestamp,
    ) -> Result<(Session, Option<Manifest>), Error> {
        let parents = parents.to_vec();
        let start = SessionStart { id: session, parents, kind: SessionKind::Backup, process, now };
        Session::begin(&self.repo, &self.instance, start).await
    }

    pub async fn try_data(&self, number: u32) -> Result<(), Error> {
        for name in [self.layout.pack(&id(number), 0), self.layout.map(&id(number), 0)] {
            self.repo.store().put_if_absent(&name, Bytes::from_static(b"data")).await?;
        }
        Ok(())
    }

    pub async fn data(&self, number: u32) {
        self.try_data(number).await.unwrap();
    }

    fn manifest(&self, session: &BackupId, shared: &[u32]) -> Manifest {
        let owners = shared.iter().map(|number| id(*number)).chain([session.clone()]);
        let objects = owners.map(|session| SessionObjects {
            session,
            packs: vec![PackUse { number: 0, size: 4, raw_bytes: 4, live_bytes: 4 }],
            maps: vec![(0, 4)],
        });
        Manifest {
            format: MANIFEST_FORMAT,
            record: BackupRecord {
                id: session.clone(),
                instance: self.instance.clone(),
                engine: EngineKind::Postgresql,
                backup_type: BackupType::Full,
                parent: None,
                started_at: at(0),
                finished_at: at(1),
                sequence: 0,
                start_position: None,
                stop_position: None,
                engine_version: "17.2".into(),
                encrypted: false,
                statistics: Statistics::default(),
                facts: serde_json::Value::Null,
                findings: Vec::new(),
            },
            root: vec![(0, 0)],
            objects: objects.collect(),
            known_backups: Vec::new(),
        }
    }

    pub async fn manifest_object(&self, session: &BackupId, shared: &[u32]) -> Bytes {
        let json = self.manifest(session, shared).to_json().unwrap();
        seal_document(self.repo.seal_keys(), &self.layout.backup(session), &json).unwrap()
    }

    pub async fn commit(&self, session: &BackupId, shared: &[u32]) -> Result<(), Error> {
        let object = self.manifest_object(session, shared).await;
        Ok(self.repo.store().put_if_absent(&self.layout.backup(session), object).await?)
    }

    /// A backup that was made long ago, without a trace of its session.
    pub async fn backup(&self, number: u32, shared: &[u32]) {
        self.data(number).await;
        self.commit(&id(number), shared).await.unwrap();
    }

    pub fn options(&self, now: Timestamp) -> CollectOptions {
        let facts = StoreFacts { create_if_absent: true, read_after_write: true };
        CollectOptions::new(facts, here(), now)
    }

    pub async fn collect(&self, now: Timestamp) -> Result<CollectReport, Error> {
        self.collect_with(self.options(now)).await
    }

    pub async fn collect_with(&self, options: CollectOptions) -> Result<CollectReport, Error> {
        Collection::new(&self.repo, options, CancellationToken::new()).prepare().await?.execute().await
    }

    pub async fn preview(&self, now: Timestamp) -> Result<CollectionPlan, Error> {
        Collection::new(&self.repo, self.options(now), CancellationToken::new()).preview().await
    }

    pub fn names_of(&self, directory: &str) -> Vec<String> {
        let prefix = format!("orders/{directory}/");
        self.memory.names().into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    pub fn data_objects(&self) -> BTreeSet<String> {
        self.names_of("packs").into_iter().chain(self.names_of("maps")).collect()
    }

    /// What the backups that are there need, read past any fault.
    pub async fn needed(&self) -> BTreeSet<String> {
        let repo = repo(Arc::new(self.memory.clone()));
        let mut needed = BTreeSet::new();
        for backup in repo.commit_ids(&self.instance).await.unwrap() {
            match repo.manifest(&self.instance, &backup).await {
                Ok(manifest) => needed.extend(manifest.needed_objects().iter().map(|name| name.to_string())),
                Err(Error::NoSuchBackup { .. }) => {}
                Err(error) => panic!("{backup}: {error}"),
            }
        }
        needed
    }

    pub async fn check_all_sound(&self) {
        let (needed, there) = (self.needed().await, self.data_objects());
        let missing: Vec<&String> = needed.difference(&there).collect();
        assert!(missing.is_empty(), "a backup lost {missing:?}");
    }
}

fn repo(store: Arc<dyn Store>) -> Arc<Repo> {
    let repository = RepositoryId::from_bytes([5; 16]);
    let keys = Keyring::unencrypted(repository).seal_keys(repository, Cipher::None);
    Arc::new(Repo::from_parts(store, keys, Parameters::default()))
}
