//! One protected server: its name, how to reach it, what is promised for it.

use std::time::Duration;

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::redis::RedisSettings;
use backstay_model::policy::RetentionPolicy;
use backstay_model::status::Objectives;
use backstay_model::{BackupRecord, EngineKind, InstanceId};

use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct Instance {
    pub id: InstanceId,
    pub engine: EngineSettings,
    pub policy: Policy,
    /// What this server is for, such as `production`; dumps carry it.
    pub environment: Option<String>,
}

/// What reaches the server, in the words of its engine.
#[derive(Debug, Clone)]
pub enum EngineSettings {
    Postgresql(PostgresSettings),
    Redis(RedisSettings),
    /// Not reached by this version; its dumps on a shelf are.
    Influxdb,
}

impl Instance {
    pub fn kind(&self) -> EngineKind {
        match self.engine {
            EngineSettings::Postgresql(_) => EngineKind::Postgresql,
            EngineSettings::Influxdb => EngineKind::Influxdb,
            EngineSettings::Redis(_) => EngineKind::Redis,
        }
    }

    /// How its server is reached; an error where this version cannot.
    pub fn server(&self) -> Result<&PostgresSettings> {
        self.postgres()
    }

    /// Whoever needs the server asks for this first.
    pub(crate) fn postgres(&self) -> Result<&PostgresSettings> {
        match &self.engine {
            EngineSettings::Postgresql(settings) => Ok(settings),
            EngineSettings::Influxdb | EngineSettings::Redis(_) => {
                Err(Error::EngineNotReached { engine: self.kind(), instance: self.id.clone() })
            }
        }
    }
}

/// For what works with backups of PostgreSQL alone: whoever restores may not know the engine of
/// an instance before he sees its backups.
pub(crate) fn only_postgres(record: &BackupRecord) -> Result<()> {
    match record.engine {
        EngineKind::Postgresql => Ok(()),
        engine => Err(Error::EngineNotReached { engine, instance: record.instance.clone() }),
    }
}

/// What is promised for an instance and how long its backups stay.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub keep: RetentionPolicy,
    pub objectives: Objectives,
    /// Between the condemnation of a backup and its deletion: the time to change one's mind.
    pub grace: Duration,
}

/// A week: long enough that somebody comes back from leave and sees the list.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Default for Policy {
    fn default() -> Self {
        Self { keep: RetentionPolicy::default(), objectives: Objectives::default(), grace: DEFAULT_GRACE }
    }
}
