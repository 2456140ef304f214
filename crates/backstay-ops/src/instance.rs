//! One protected server: its name, how to reach it, what is promised for it.

use std::time::Duration;

use backstay_engine::postgres::PostgresSettings;
use backstay_model::policy::RetentionPolicy;
use backstay_model::status::Objectives;
use backstay_model::{EngineKind, InstanceId};

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
}

impl Instance {
    pub fn kind(&self) -> EngineKind {
        match self.engine {
            EngineSettings::Postgresql(_) => EngineKind::Postgresql,
        }
    }

    pub(crate) fn postgres(&self) -> &PostgresSettings {
        match &self.engine {
            EngineSettings::Postgresql(settings) => settings,
        }
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
