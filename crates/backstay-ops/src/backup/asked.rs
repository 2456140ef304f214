//! What a server says before its backup.

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::facts::ServerFacts;
use backstay_engine::redis;
use backstay_engine::redis::settings::Address;
use backstay_model::{BackupRecord, EngineKind, Finding};

use super::source;
use crate::check::ask_server;
use crate::error::Result;
use crate::instance::{EngineSettings, Instance};
use crate::way::Way;

pub(super) enum Asked {
    Postgresql {
        way: Way,
        server: Box<ServerFacts>,
        /// About how much there is to copy.
        size_bytes: u64,
    },
    Redis {
        server: Box<redis::facts::ServerFacts>,
        /// Where it is taken from: a replica, maybe.
        address: Box<Address>,
    },
}

impl Asked {
    /// Refuses where a right is missing.
    pub async fn server(instance: &Instance, findings: &mut Vec<Finding>) -> Result<Asked> {
        if let EngineSettings::Redis(settings) = &instance.engine {
            let mut chosen = redis::source::choose(settings).await?;
            findings.append(&mut chosen.findings);
            let server = Box::new(redis::facts::ServerFacts::ask(&mut chosen.connection).await?);
            return Ok(Asked::Redis { server, address: Box::new(chosen.address) });
        }
        let (way, found) = Way::choose(&instance.id, instance.postgres()?);
        findings.extend(found);
        let (server, session) = ask_server(instance, way).await?;
        let size_bytes = source::size_bytes(&session).await;
        Ok(Asked::Postgresql { way, server: Box::new(server), size_bytes })
    }

    pub fn size_bytes(&self) -> u64 {
        match self {
            Asked::Postgresql { size_bytes, .. } => *size_bytes,
            Asked::Redis { server, .. } => server.used_memory_bytes,
        }
    }

    /// Whether a backup has what this one can be compared with.
    pub fn is_of_the_same(&self, record: &BackupRecord) -> bool {
        match self {
            Asked::Postgresql { server, .. } => BackupFacts::from_json(&record.facts).is_ok_and(|facts| {
                facts.server.system_identifier == server.system_identifier
                    && facts.server.block_size == server.block_size
                    && facts.server.major() == server.major()
            }),
            // Slices are compared, wherever they came from.
            Asked::Redis { .. } => record.engine == EngineKind::Redis,
        }
    }
}
