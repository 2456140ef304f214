//! Dump: a portable file of a database, on a shelf.
//!
//! Invariant: everything that can be refused is refused before the first file, each
//! file gets its name only when the server's tool has ended well, and its sidecar is
//! written last: half a dump is never taken for one. The order of one dump is data,
//! authentication, sidecar; then its other tiers, then the pointer.
//!
//! Needs no repository: whoever lost the key of his can still take dumps and read them.

pub(crate) mod append_only;
mod complete;
pub mod expire;
pub(crate) mod inside;
mod names;
pub(crate) mod needed;
mod policy;
pub mod report;
pub mod shelved;
mod source;
mod take;
pub mod verify;

use backstay_engine::postgres::dump::{self as engine, RelationName};
use backstay_engine::redis::source::{ChosenSource, choose};
use backstay_model::dump::{
    DumpCipher, DumpCompression, DumpContent, DumpFormat, DumpRecord, DumpShape, Tier,
};
use backstay_model::{BackupId, EngineKind, Finding};
use backstay_repo::dump::DumpRecipe;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance};
use crate::run::Run;

pub(crate) use names::described;
pub use policy::{DumpPolicy, KEEP_REPORTS};
pub(crate) use source::Server;

/// What a person may say of one dump.
#[derive(Debug, Clone, Default)]
pub struct DumpRequest {
    /// These databases; without any, all of them and what belongs to none.
    pub databases: Vec<String>,
    /// These tables of one database.
    pub tables: Vec<RelationName>,
    /// These schemas of one database.
    pub schemas: Vec<String>,
    /// Of what a restore is about to change: see [`DumpRecord::safety`].
    pub safety: bool,
}

impl DumpRequest {
    fn is_of_parts(&self) -> bool {
        !self.tables.is_empty() || !self.schemas.is_empty()
    }
}

/// One dump, and where it lies.
#[derive(Debug, Clone, Serialize)]
pub struct DumpedFile {
    /// The directory, as an address.
    pub shelf: String,
    /// Below the shelf, for each tier.
    pub paths: Vec<TierPath>,
    #[serde(flatten)]
    pub record: DumpRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierPath {
    pub tier: Tier,
    pub path: String,
}

/// What `dump` tells.
#[derive(Debug, Clone, Serialize)]
pub struct DumpReport {
    pub dumps: Vec<DumpedFile>,
    pub duration_seconds: f64,
    pub findings: Vec<Finding>,
}

/// Takes dumps of an instance: one file for each database, and one for the roles and
/// tablespaces of a whole server; of Redis, one file of all that it holds.
pub async fn run(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    request: &DumpRequest,
) -> Result<DumpReport> {
    if let EngineSettings::Redis(settings) = &instance.engine {
        check(policy, instance.kind())?;
        run.progress.enter("ask the server");
        // A dump makes a server fork as a base does.
        let ChosenSource { address, findings, .. } =
            run.unless_cancelled(async { Ok(choose(settings).await?) }).await?;
        let mut report = of_server(run, instance, Server::Redis(&address), policy, request).await?;
        report.findings.splice(0..0, findings);
        return Ok(report);
    }
    check(policy, instance.kind())?;
    let address = instance.postgres()?.address()?;
    run.progress.enter("ask the server");
    let settled = run.unless_cancelled(async { Ok(address.settled().await?) }).await?;
    of_server(run, instance, Server::Postgresql(&settled), policy, request).await
}

/// Of one server: all files of a set, and what is there before a restore changes it, must
/// not come from two.
pub(crate) async fn of_server(
    run: &Run,
    instance: &Instance,
    server: Server<'_>,
    policy: &DumpPolicy,
    request: &DumpRequest,
) -> Result<DumpReport> {
    let watch = Stopwatch::start();
    check(policy, server.engine())?;
    let place = policy.place()?;
    run.progress.enter("ask the server");
    let wanted = wanted(run, server, policy.shape, request).await?;
    let mut findings = match complete(run, instance, policy, &place, request).await {
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        completed => completed.unwrap_or_else(|error| vec![not_completed(&place, &error)]),
    };
    let apart = request.safety.then(|| DumpPolicy { layout: names::apart(&policy.layout), ..policy.clone() });
    let policy = apart.as_ref().unwrap_or(policy);
    let (layout, database) = (&policy.layout, policy.database.as_deref());
    let naming = names::Naming { run, layout, database, instance: &instance.id, shelf: &*place.shelf };
    let (named, at) =
        if request.safety { naming.ahead(wanted).await? } else { naming.by_the_clock(wanted).await? };
    let set = if named.len() > 1 { Some(new_id(at)?) } else { None };
    let mut report = DumpReport { dumps: Vec::new(), duration_seconds: 0.0, findings: Vec::new() };
    let place = &place;
    let taking = |id, set| take::Taking { run, instance, server, policy, place, request, at, id, set };
    if let Some(first) = &set {
        let taking = taking(first.clone(), set.clone());
        for dump in &named {
            taking.check(dump).await?;
        }
    }
    for (number, dump) in named.into_iter().enumerate() {
        run.check_cancelled()?;
        let id = match (&set, number) {
            (Some(first), 0) => first.clone(),
            _ => new_id(at)?,
        };
        let taking = taking(id, set.clone());
        let (dumped, of_dump) = taking.take(dump).await?;
        report.dumps.push(dumped);
        findings.extend(of_dump);
    }
    report.findings = findings;
    report.duration_seconds = watch.seconds();
    Ok(report)
}

/// What an earlier run was stopped in. What a restore is about to change has one name only,
/// and waits for nothing.
async fn complete(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    place: &policy::Place,
    request: &DumpRequest,
) -> Result<Vec<Finding>> {
    if request.safety {
        return Ok(Vec::new());
    }
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Error::Cancelled),
        completed = complete::complete(run, instance, policy, place) => completed,
    }
}

fn not_completed(place: &policy::Place, error: &Error) -> Finding {
    Finding::warning(
        place.shelf.location(),
        format!(
            "names that earlier dumps may lack were not given to them: {}",
            crate::status::with_causes(error)
        ),
        "see whether backstay may read and write everything in the directory of `dump.to`",
    )
}

/// What the settings cannot mean together.
fn check(policy: &DumpPolicy, engine: EngineKind) -> Result<()> {
    let DumpShape { format, compression, cipher } = policy.shape;
    if engine == EngineKind::Redis {
        if format != DumpFormat::Rdb {
            return Err(Error::DumpShape {
                reason: "a dump of Redis is its snapshot, and this format is one of `pg_dump`",
                hint: "leave `--format` out, and `format` of the instance's `dump`",
            });
        }
    } else if !format.is_of_pg_dump() {
        return Err(Error::DumpShape {
            reason: "this format is not one that `pg_dump` writes",
            hint: "set `dump.format` to \"custom\", \"plain\" or \"directory\"",
        });
    }
    if format == DumpFormat::Plain && compression == DumpCompression::Inside {
        return Err(Error::DumpShape {
            reason: "`compression = \"inside\"` is for archives, and a plain dump is none",
            hint: "set `dump.compression` to \"gzip\" or \"zstd\", or `dump.format` to \"custom\"",
        });
    }
    if compression == DumpCompression::Inside && policy.level.is_some_and(|level| !(1..=9).contains(&level)) {
        return Err(Error::DumpShape {
            reason: "`pg_dump` compresses at the levels 1 to 9",
            hint: "set `dump.compression_level` to one of them, or leave it out",
        });
    }
    DumpRecipe { shape: policy.shape, level: policy.level, workers: 1 }.check()?;
    if cipher != DumpCipher::None && policy.passphrase.is_none() {
        return Err(backstay_repo::Error::from(backstay_repo::dump::DumpError::NoPassphrase).into());
    }
    Ok(policy.layout.check()?)
}

/// The contents of a run, the roles first: whoever restores needs them first.
async fn wanted(
    run: &Run,
    server: Server<'_>,
    shape: DumpShape,
    request: &DumpRequest,
) -> Result<Vec<(DumpContent, DumpShape)>> {
    let Server::Postgresql(address) = server else { return Ok(vec![of_snapshot(shape, request)?]) };
    if request.is_of_parts() {
        let database = match request.databases.as_slice() {
            [] => address.database().to_owned(),
            [one] => one.clone(),
            several => return Err(Error::PartsOfSeveral { count: several.len() }),
        };
        let tables = request.tables.iter().map(ToString::to_string).collect();
        let content = DumpContent::Parts { database, tables, schemas: request.schemas.clone() };
        return Ok(vec![(content, shape)]);
    }
    let of_database = |database: String| (DumpContent::Database { database }, shape);
    if !request.databases.is_empty() {
        let mut databases = request.databases.clone();
        databases.sort();
        databases.dedup();
        return Ok(databases.into_iter().map(of_database).collect());
    }
    let databases = tokio::select! {
        biased;
        () = run.cancel.cancelled() => return Err(Error::Cancelled),
        databases = engine::databases(address) => databases?,
    };
    let globals = DumpShape { format: DumpFormat::Plain, ..shape };
    let globals = (DumpContent::Globals, outside(globals));
    Ok(std::iter::once(globals).chain(databases.into_iter().map(of_database)).collect())
}

/// All that a server without databases holds.
fn of_snapshot(shape: DumpShape, request: &DumpRequest) -> Result<(DumpContent, DumpShape)> {
    if request.is_of_parts() || !request.databases.is_empty() {
        return Err(Error::DumpShape {
            reason: "a dump of Redis holds all that the server has, and no part of it alone",
            hint: "leave `--database`, `--table` and `--schema` out",
        });
    }
    Ok((DumpContent::Server, outside(shape)))
}

/// What is no archive cannot be compressed inside of one.
fn outside(shape: DumpShape) -> DumpShape {
    let compression = match shape.compression {
        DumpCompression::Inside => DumpCompression::Gzip,
        other => other,
    };
    DumpShape { compression, ..shape }
}

fn new_id(at: jiff::Timestamp) -> Result<BackupId> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|_| Error::broken("the system gives no random numbers"))?;
    Ok(BackupId::new(at, u32::from_le_bytes(random)))
}
