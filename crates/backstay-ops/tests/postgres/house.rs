//! A server, a repository and a clock to turn: what every story here needs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use backstay_engine::postgres::PostgresSettings;
use backstay_model::{Progress, Secret};
use backstay_ops::init::InitOptions;
use backstay_ops::instance::EngineSettings;
use backstay_ops::{Clock, Context, Instance, Policy};
use backstay_repo::key::read_key_file;
use backstay_repo::store::Store;
use backstay_repo::store::disk::DiskStore;
use backstay_repo::store::faulty::FaultyStore;
use jiff::{SignedDuration, Timestamp};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Workspace};
use tokio_util::sync::CancellationToken;

/// A clock that a test turns; it goes on by a second at each look, so that no
/// two backups have one time.
#[derive(Debug)]
pub struct TurnedClock(Mutex<(Timestamp, Instant)>);

impl TurnedClock {
    pub fn turn(&self, by: SignedDuration) {
        self.0.lock().unwrap().0 += by;
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        let mut state = self.0.lock().unwrap();
        let (now, seen) = &mut *state;
        // What is done takes its time as well: a backup that ends later than now is suspected.
        *now += SignedDuration::from_secs(1) + SignedDuration::try_from(seen.elapsed()).unwrap();
        *seen = Instant::now();
        *now
    }
}

pub struct House {
    pub server: Postgres,
    pub clock: Arc<TurnedClock>,
    pub context: Context,
    pub instance: Instance,
    pub workspace: Workspace,
}

impl House {
    /// `None` when the server is not here; that was said loudly.
    pub async fn build(version: PostgresVersion) -> Option<House> {
        let installation = testkit::require_postgres(version)?;
        let options = PostgresOptions::default().configure("wal_level = replica");
        let server = Postgres::start_new(&installation, &options).unwrap();
        Some(Self::around(server).await)
    }

    pub async fn around(server: Postgres) -> House {
        let workspace = Workspace::new().unwrap();
        let clock =
            Arc::new(TurnedClock(Mutex::new(("2026-11-21T02:00:00Z".parse().unwrap(), Instant::now()))));
        let store = workspace.path().join("repository");
        let init = InitOptions {
            store: format!("file://{}", store.display()),
            key_file: Some(workspace.path().join("repository.key")),
            kit: None,
        };
        let cancel = CancellationToken::new();
        backstay_ops::init::run(&init, &*clock, &cancel).await.unwrap();
        let context = open(&workspace, clock.clone(), cancel).await;
        let instance = Instance {
            id: "orders".parse().unwrap(),
            engine: EngineSettings::Postgresql(PostgresSettings {
                url: server.url(),
                password: Some(Secret::new(testkit::postgres::PASSWORD)),
                data_directory: Some(server.data_directory().to_owned()),
                bin_directory: Some(server.installation().bin_directory().to_owned()),
                ..PostgresSettings::default()
            }),
            policy: Policy::default(),
            environment: None,
        };
        House { server, clock, context, instance, workspace }
    }

    #[allow(clippy::panic, reason = "the houses of these tests are of PostgreSQL")]
    pub fn settings(&mut self) -> &mut PostgresSettings {
        let EngineSettings::Postgresql(settings) = &mut self.instance.engine else {
            panic!("another engine")
        };
        settings
    }

    pub fn repository(&self) -> PathBuf {
        self.workspace.path().join("repository")
    }

    /// The same house with another store over the repository's directory.
    pub async fn with_store(&self, make: impl FnOnce(Arc<dyn Store>) -> FaultyStore) -> Context {
        let disk: Arc<dyn Store> = Arc::new(DiskStore::new(self.repository()));
        let (secret, _) = read_key_file(&self.place("repository.key")).unwrap();
        let store = Arc::new(make(disk));
        let repo = backstay_ops::open::repository_in(store, Some(&secret), Some(&self.place("catalogue")))
            .await
            .unwrap();
        let cancel = CancellationToken::new();
        Context::new(repo, self.clock.clone(), cancel, Arc::new(Progress::new()))
    }

    /// A place that is not there yet.
    pub fn place(&self, name: &str) -> PathBuf {
        self.workspace.path().join(name)
    }

    /// Paths of the stored objects whose path holds the words, largest first.
    pub fn objects(&self, words: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.repository(), &mut |path, size| {
            if path.to_string_lossy().contains(words) {
                found.push((size, path.to_owned()));
            }
        });
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }
}

async fn open(workspace: &Workspace, clock: Arc<TurnedClock>, cancel: CancellationToken) -> Context {
    let (secret, _) = read_key_file(&workspace.path().join("repository.key")).unwrap();
    let store = format!("file://{}", workspace.path().join("repository").display());
    let catalogue = workspace.path().join("catalogue");
    let repo =
        backstay_ops::open::repository(&store, Some(&secret), Some(&catalogue), &cancel).await.unwrap();
    Context::new(repo, clock, cancel, Arc::new(Progress::new()))
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path, u64)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { walk(&entry.path(), see) } else { see(&entry.path(), metadata.len()) }
    }
}
