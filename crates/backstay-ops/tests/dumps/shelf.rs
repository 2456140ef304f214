//! A server, a shelf in the layout of a house, and a clock to turn.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backstay_engine::postgres::PostgresSettings;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, Layout};
use backstay_model::{Progress, Secret, VerifyLevel};
use backstay_ops::dump::expire::{self, DumpExpireReport};
use backstay_ops::dump::shelved::{self, Shelved};
use backstay_ops::dump::verify::{self, DumpVerification, VerifyOptions};
use backstay_ops::dump::{self, DumpPolicy, DumpReport, DumpRequest};
use backstay_ops::instance::EngineSettings;
use backstay_ops::{Clock, Instance, Policy, Run};
use jiff::{SignedDuration, Timestamp};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Workspace};
use tokio_util::sync::CancellationToken;

pub const PHRASE: &str = "correct horse, battery's staple";

/// Goes on by a second at each look.
#[derive(Debug)]
pub struct TurnedClock(Mutex<Timestamp>);

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        let mut now = self.0.lock().unwrap();
        *now += SignedDuration::from_secs(1);
        *now
    }
}

pub struct House {
    pub server: Postgres,
    pub instance: Instance,
    pub policy: DumpPolicy,
    pub clock: Arc<TurnedClock>,
    pub workspace: Workspace,
}

impl House {
    /// Dumps in this layout, as it has them. `None` when the server is not here; that was
    /// said loudly.
    pub fn build(layout: &str) -> Option<House> {
        let installation = testkit::require_postgres(PostgresVersion::V15)?;
        let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n").unwrap();
        let workspace = Workspace::new().unwrap();
        let layout = Layout::preset(layout).unwrap();
        let policy = DumpPolicy {
            to: Some(format!("file://{}", workspace.path().join("dumps").display())),
            shape: layout.shape,
            keep: layout.keep,
            layout,
            database: Some("postgres".to_owned()),
            level: Some(1),
            passphrase: Some(Secret::new(PHRASE)),
            older_passphrases: Vec::new(),
            jobs: 1,
            spool: None,
            keep_reports: backstay_ops::dump::KEEP_REPORTS,
        };
        let instance = Instance {
            id: "main".parse().unwrap(),
            engine: EngineSettings::Postgresql(PostgresSettings {
                url: server.url(),
                password: Some(Secret::new(testkit::postgres::PASSWORD)),
                bin_directory: Some(server.installation().bin_directory().to_owned()),
                ..PostgresSettings::default()
            }),
            policy: Policy::default(),
            environment: None,
        };
        let clock = Arc::new(TurnedClock(Mutex::new(Timestamp::UNIX_EPOCH)));
        let house = House { server, instance, policy, clock, workspace };
        // A Sunday that is a first of the month: a dump of it lies in every tier.
        house.turn_to("2024-09-01T02:00:00Z");
        Some(house)
    }

    pub fn shaped(mut self, format: DumpFormat, compression: DumpCompression, cipher: DumpCipher) -> Self {
        self.policy.shape = backstay_model::dump::DumpShape { format, compression, cipher };
        self
    }

    pub fn turn_to(&self, time: &str) {
        *self.clock.0.lock().unwrap() = time.parse().unwrap();
    }

    pub fn run(&self) -> Run {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Run::new(clock, CancellationToken::new(), Arc::new(Progress::new()))
    }

    /// Dumps one database at this time.
    pub async fn dump(&self, database: &str, time: &str) -> DumpReport {
        self.turn_to(time);
        let request = DumpRequest { databases: vec![database.to_owned()], ..DumpRequest::default() };
        dump::run(&self.run(), &self.instance, &self.policy, &request).await.unwrap()
    }

    pub async fn known(&self) -> Shelved {
        shelved::look(&self.run(), &self.policy, Some(&self.instance.id)).await.unwrap()
    }

    pub fn options(&self, level: VerifyLevel) -> VerifyOptions {
        let bin_directory = Some(self.server.installation().bin_directory().to_owned());
        VerifyOptions { level, dump: None, bin_directory }
    }

    pub async fn verify(&self, level: VerifyLevel) -> DumpVerification {
        verify::run(&self.run(), &self.policy, &self.instance.id, &self.options(level)).await.unwrap()
    }

    pub async fn expire(&self, time: &str) -> DumpExpireReport {
        self.turn_to(time);
        expire::run(&self.run(), &self.policy, &self.instance.id).await.unwrap()
    }

    pub fn directory(&self) -> PathBuf {
        self.workspace.path().join("dumps")
    }

    pub fn place(&self, path: &str) -> PathBuf {
        self.directory().join(path)
    }

    /// Every visible file and link, relative to the shelf, in order.
    pub fn shown(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.directory(), &mut |path| {
            found.push(path.strip_prefix(self.directory()).unwrap().to_string_lossy().into_owned());
        });
        found.sort();
        found
    }

    /// Puts other content in the place of a file's, under that name alone or under all.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>), under_all_names: bool) {
        let path = self.place(path);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        if !under_all_names {
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap().is_dir() {
            _ if entry.file_name().to_string_lossy().starts_with('.') => {}
            true => walk(&path, see),
            false => see(&path),
        }
    }
}
