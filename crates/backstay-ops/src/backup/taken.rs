//! What a source leaves behind, and the record that is made of it.

use std::collections::BTreeMap;

use backstay_engine::postgres::Outcome;
use backstay_engine::postgres::schema::{SchemaFacts, Schemas};
use backstay_engine::postgres::settings::Address;
use backstay_engine::redis::base::RedisOutcome;
use backstay_model::{EngineKind, Finding};
use backstay_repo::sliced::GivenUp;
use backstay_repo::writer::{BackupWriter, RecordDraft};
use jiff::Timestamp;

use super::unless_stopped;
use crate::context::Context;
use crate::error::{Error, Result};

pub(super) enum Taken {
    Postgresql {
        outcome: Outcome,
        address: Box<Address>,
        /// As they were before the copy, and then those of them that it did not see change.
        before: Schemas,
        schemas: BTreeMap<String, SchemaFacts>,
    },
    Redis {
        outcome: RedisOutcome,
        given_up: GivenUp,
    },
}

impl Taken {
    /// Looks at the server once more, behind the copy.
    pub async fn settle(&mut self, context: &Context, writer: &mut BackupWriter) {
        if let Taken::Postgresql { address, before, schemas, .. } = self {
            let unchanged = unless_stopped(context, std::mem::take(before).unchanged(address));
            *schemas = writer.keep_alive(unchanged).await;
        }
    }

    /// The error of a copy: the parent's, where that could not be read, and then another attempt
    /// without it is worth its while.
    pub fn blame(&self, error: Error) -> Error {
        match self {
            Taken::Redis { given_up, .. } => match given_up.reason() {
                Some(reason) => {
                    let object = "the parent of the backup".to_owned();
                    backstay_repo::Error::Damaged { object, reason }.into()
                }
                None => error,
            },
            Taken::Postgresql { .. } => error,
        }
    }

    pub fn draft(self, finished_at: Timestamp, mut findings: Vec<Finding>) -> Result<RecordDraft> {
        let unsaid = || Error::broken("the engine ended without its facts");
        match self {
            Taken::Postgresql { outcome, mut schemas, .. } => {
                let mut facts = outcome.facts().ok_or_else(unsaid)?;
                for database in &mut facts.server.databases {
                    database.schema = schemas.remove(&database.name);
                }
                findings.extend(outcome.findings());
                Ok(RecordDraft {
                    engine: EngineKind::Postgresql,
                    finished_at,
                    start_position: Some(facts.start_position()),
                    stop_position: Some(facts.stop_position()),
                    engine_version: facts.server.version.clone(),
                    facts: facts.to_json()?,
                    findings,
                })
            }
            Taken::Redis { outcome, .. } => {
                let facts = outcome.facts().ok_or_else(unsaid)?;
                findings.extend(outcome.findings());
                Ok(RecordDraft {
                    engine: EngineKind::Redis,
                    finished_at,
                    // What it holds is what there was at one position.
                    start_position: facts.position(),
                    stop_position: facts.position(),
                    engine_version: format!("{} {}", facts.server.product.name(), facts.server.version),
                    facts: facts.to_json()?,
                    findings,
                })
            }
        }
    }
}
