//! Where the bytes of a dump come from, whichever engine's server it is.
//!
//! Invariant: all dumps of one run are of one server, and the end of the bytes is told only when
//! the source has ended well.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay_engine::postgres::dump::{self as engine, DumpFacts, DumpOptions, DumpRun, DumpSource, Inside};
use backstay_engine::postgres::settings::Address;
use backstay_engine::redis;
use backstay_engine::redis::dump::RedisDump;
use backstay_engine::snapshot::SnapshotFacts;
use backstay_model::dump::{
    DumpCompression, DumpContent, DumpFormat, DumpWarning, DumpedTable, TimescaleCounts,
};
use backstay_model::{EngineKind, Finding};
use bytes::Bytes;

use super::inside::Found;
use super::names::{self, Named};
use super::take::Taking;
use crate::error::Result;
use crate::run::Run;

/// How long a lock that somebody holds on a table is waited for; whoever comes behind us
/// waits as long.
const LOCK_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The one server that all dumps of a run are of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Server<'a> {
    /// Settled: of several hosts, this one.
    Postgresql(&'a Address),
    Redis(&'a redis::settings::Address),
}

impl Server<'_> {
    pub fn engine(self) -> EngineKind {
        match self {
            Server::Postgresql(_) => EngineKind::Postgresql,
            Server::Redis(_) => EngineKind::Redis,
        }
    }
}

/// A dump on its way.
pub(super) enum Source {
    Postgresql(Box<DumpRun>),
    Redis(Box<RedisDump>),
}

/// What a record says of what was dumped.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub database_bytes: Option<u64>,
    pub position: Option<String>,
    pub system_identifier: Option<String>,
    pub server_version: Option<String>,
    pub tool_version: Option<String>,
    pub extensions: BTreeMap<String, String>,
    pub tables: Vec<DumpedTable>,
    pub tables_in_all: u64,
    pub timescaledb: Option<TimescaleCounts>,
}

/// What was noticed, when all came.
pub(super) struct Noticed {
    pub known: Known,
    /// For the sidecar.
    pub warnings: Vec<DumpWarning>,
    pub findings: Vec<Finding>,
}

impl From<DumpFacts> for Known {
    fn from(facts: DumpFacts) -> Self {
        Known {
            database_bytes: facts.database_bytes,
            position: facts.position,
            system_identifier: facts.system_identifier.map(|number| number.to_string()),
            server_version: Some(facts.server_version),
            tool_version: Some(facts.tool_version),
            extensions: facts.extensions,
            tables: facts.tables,
            tables_in_all: facts.tables_in_all,
            timescaledb: facts.timescaledb,
        }
    }
}

impl Taking<'_> {
    /// Whether this one of a set can be taken, before the first one is.
    pub async fn check(&self, named: &Named) -> Result<()> {
        let (Server::Postgresql(address), Some(database)) = (self.server, named.content.database()) else {
            return Ok(());
        };
        let address = address.with_database(database);
        Ok(DumpSource::check(&address, &self.options(named)?, &self.run.cancel).await?)
    }

    /// With what is known before the first byte.
    pub(super) async fn open(&self, named: &Named) -> Result<(Known, Source)> {
        match self.server {
            Server::Postgresql(address) => self.open_postgres(address, named).await,
            Server::Redis(address) => {
                let dump = self.run.unless_cancelled(async { Ok(RedisDump::begin(address).await?) }).await?;
                Ok((Known::default(), Source::Redis(Box::new(dump))))
            }
        }
    }

    async fn open_postgres(&self, address: &Address, named: &Named) -> Result<(Known, Source)> {
        let options = self.options(named)?;
        let cancel = &self.run.cancel;
        let (facts, run) = match named.content.database() {
            None => engine::globals(address, &options, cancel).await?,
            Some(database) => {
                let address = address.with_database(database);
                let source = DumpSource::open(&address, &options, cancel).await?;
                let facts = source.facts().clone();
                (facts, source.run().await?)
            }
        };
        Ok((facts.into(), Source::Postgresql(Box::new(run))))
    }

    fn options(&self, named: &Named) -> Result<DumpOptions> {
        let postgres = self.instance.postgres()?;
        let inside = (named.shape.compression == DumpCompression::Inside)
            .then(|| Inside { level: self.policy.level.and_then(|level| u32::try_from(level).ok()) });
        let spool = match named.shape.format {
            DumpFormat::Directory => Some(self.policy.spool()?),
            _ => None,
        };
        Ok(DumpOptions {
            format: named.shape.format,
            inside,
            tables: self.request.tables.clone(),
            schemas: self.request.schemas.clone(),
            all_definitions: false,
            jobs: self.policy.jobs,
            spool,
            bin_directory: postgres.bin_directory.clone(),
            lock_limit: LOCK_LIMIT,
        })
    }
}

impl Source {
    /// About how many bytes will come; zero where nobody knows.
    pub fn estimated_bytes(&self, known: &Known) -> u64 {
        match self {
            Source::Postgresql(_) => known.database_bytes.unwrap_or(0),
            Source::Redis(dump) => dump.estimated_bytes(),
        }
    }

    pub async fn next(&mut self, run: &Run) -> Result<Option<Bytes>> {
        match self {
            Source::Postgresql(dump) => Ok(dump.next().await?),
            Source::Redis(dump) => run.unless_cancelled(async { Ok(dump.next().await?) }).await,
        }
    }

    /// All bytes came.
    pub fn noticed(&self, known: Known, content: &DumpContent) -> Result<Noticed> {
        match self {
            Source::Postgresql(run) => {
                let warnings = run.warnings();
                let findings = said(content, &warnings);
                Ok(Noticed { known, warnings, findings })
            }
            Source::Redis(dump) => {
                let (facts, found) = dump.facts()?;
                let known = Known {
                    position: Some(format!("{}@{}", facts.replication_id, facts.offset)),
                    server_version: Some(facts.server.version.clone()),
                    ..known
                };
                let mut findings = facts.findings();
                findings.push(beside());
                let warnings = Found::Snapshot(SnapshotFacts::Rdb(found.clone())).warnings();
                Ok(Noticed { known, warnings, findings })
            }
        }
    }
}

/// What `pg_dump` said, where it is not known to be harmless.
fn said(content: &DumpContent, warnings: &[DumpWarning]) -> Vec<Finding> {
    let strange = warnings.iter().filter(|warning| warning.harmless.is_none());
    strange
        .map(|warning| {
            Finding::warning(
                names::described(content),
                warning.message.clone(),
                "the sidecar of the dump keeps what `pg_dump` said; `backstay verify` reads the dump",
            )
        })
        .collect()
}

/// Whoever restores a dump alone has a server that lets in whom its own settings let in.
fn beside() -> Finding {
    Finding::info(
        "users and settings",
        "a dump holds the data and the functions of the server, and neither its users nor its settings",
        "`backstay backup` takes a base, which has them beside the data",
    )
}
