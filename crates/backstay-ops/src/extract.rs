//! Extract: what a dump of Redis or InfluxDB holds, put into a directory for the
//! engine's own server or program to read.
//!
//! Order: choose → look at the directory → write under other names → check to the end →
//! name. Invariant: nothing has its name in the directory before every check of the file,
//! and of what is inside of it, was good.
//!
//! Does not touch a server: what a person runs next is told.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::postgres::starting::shell_word;
use backstay_engine::snapshot::{self, Placed, Snapshot, SnapshotFacts};
use backstay_model::dump::{DumpContent, DumpFormat, DumpRecord};
use backstay_model::plan::Refusal;
use backstay_model::{BackupId, EngineKind, ErrorKind, Finding, InstanceId};
use backstay_repo::dump::{DumpError, DumpRead, DumpReader};
use backstay_repo::shelf::{Shelf, ShelfPath};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::off_thread;
use crate::dump::{DumpPolicy, inside};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::reload::choose::{self, Chosen};
use crate::run::Run;

mod append_only;

#[derive(Debug, Clone)]
pub struct ExtractRequest {
    /// The newest good one when none is named.
    pub dump: Option<BackupId>,
    /// Empty or new.
    pub into: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtractPlan {
    pub instance: InstanceId,
    pub engine: EngineKind,
    pub dump: BackupId,
    /// Below the shelf.
    pub file: String,
    #[serde(flatten)]
    pub content: DumpContent,
    pub into: String,
    pub raw_bytes: u64,
    pub steps: Vec<String>,
    pub refusals: Vec<Refusal>,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtractReport {
    #[serde(flatten)]
    pub plan: ExtractPlan,
    /// What was written.
    pub files: Vec<String>,
    pub restored_bytes: u64,
    pub duration_seconds: f64,
    /// What a person runs now, line by line.
    pub next: Vec<String>,
}

/// A plan, and the dump that it is about.
pub struct Prepared<'a> {
    pub plan: ExtractPlan,
    run: &'a Run,
    policy: &'a DumpPolicy,
    request: &'a ExtractRequest,
    chosen: Chosen,
}

/// Finds the dump and looks at the directory. Changes nothing.
pub async fn prepare<'a>(
    run: &'a Run,
    instance: &Instance,
    policy: &'a DumpPolicy,
    request: &'a ExtractRequest,
) -> Result<Prepared<'a>> {
    run.progress.enter("look for the dump");
    let is_meant =
        |record: &DumpRecord| record.instance == instance.id && !record.shape.format.is_of_pg_dump();
    let none = |shelf| Error::NothingToExtract { instance: instance.id.clone(), shelf };
    let chosen = choose::pick(run, policy, request.dump.as_ref(), None, is_meant, none).await?;
    let record = &chosen.record;
    if record.shape.format.is_of_pg_dump() {
        return Err(Error::NotReloadable {
            file: chosen.path.to_string(),
            what: format!("it is a dump of {}", record.engine.name()),
        });
    }
    let into = request.into.display().to_string();
    let mut refusals = Vec::new();
    if std::fs::read_dir(&request.into).is_ok_and(|mut entries| entries.next().is_some()) {
        refusals.push(Refusal::new(
            ErrorKind::Conflict,
            format!("{into} is not empty"),
            vec!["name an empty or new directory with `--into`".to_owned()],
        ));
    }
    let what = match record.shape.format {
        DumpFormat::Rdb => {
            format!("check {} to its end, and write {into}/dump.rdb, also as append-only files", chosen.path)
        }
        DumpFormat::AppendOnly => append_only::step(record, chosen.path.as_str(), &into),
        _ => format!("check {} to its end, and unpack it to {into}", chosen.path),
    };
    let mut findings = chosen.findings.clone();
    findings.extend(of_snapshot(record, &into));
    let plan = ExtractPlan {
        instance: instance.id.clone(),
        engine: record.engine,
        dump: record.id.clone(),
        file: chosen.path.to_string(),
        content: record.content.clone(),
        into,
        raw_bytes: record.raw_bytes + of_members(record),
        steps: vec![what, "tell what to run then; no server is touched".to_owned()],
        refusals,
        findings,
    };
    Ok(Prepared { plan, run, policy, request, chosen })
}

/// Of the files besides the one that names them.
fn of_members(record: &DumpRecord) -> u64 {
    record.members.iter().map(|member| member.stored_bytes).sum()
}

/// What has cost others their data at this step.
fn of_snapshot(record: &DumpRecord, into: &str) -> Vec<Finding> {
    if !matches!(record.shape.format, DumpFormat::Rdb | DumpFormat::AppendOnly) {
        return Vec::new();
    }
    let version = record.server_version.as_ref().map(|version| {
        Finding::info(
            "the server",
            format!("the snapshot is of version {version}"),
            "start this version or a newer one on it: an older one does not load it",
        )
    });
    if record.shape.format == DumpFormat::AppendOnly {
        return version.into_iter().chain(append_only::findings(record, into)).collect();
    }
    let trap = Finding::warning(
        "dump.rdb",
        "a server with `appendonly yes` does not read it: it starts with its append-only file, or empty, \
         and then writes over it",
        format!(
            "start it once with `--appendonly no`, then `redis-cli CONFIG SET appendonly yes`; or start it on {into}, \
             where it finds what it looks for either way"
        ),
    );
    version.into_iter().chain([trap]).collect()
}

impl Prepared<'_> {
    /// Does what the plan says.
    pub async fn carry_out(self) -> Result<ExtractReport> {
        if let Some(refusal) = self.plan.refusals.first() {
            return Err(Error::Refused { refusal: refusal.clone() });
        }
        let watch = Stopwatch::start();
        self.run.check_cancelled()?;
        let (facts, placed, restored_bytes) = match self.chosen.record.members.is_empty() {
            true => self.unpack().await?,
            false => self.copy().await?,
        };
        self.run.check_cancelled()?;
        let files = match placed {
            Some(placed) => off_thread(move || Ok(placed.commit()?)).await?,
            None => Vec::new(),
        };
        Ok(ExtractReport {
            files: files.iter().map(|path| path.display().to_string()).collect(),
            next: next(&self.chosen.record, &facts, &self.request.into),
            restored_bytes,
            duration_seconds: watch.seconds(),
            plan: self.plan,
        })
    }

    async fn unpack(&self) -> Result<(SnapshotFacts, Option<Placed>, u64)> {
        let Chosen { shelf, path, record, .. } = &self.chosen;
        let mut reader = DumpReader::open_with_any(shelf, path, &self.policy.passphrases()).await?;
        let inside = reader.known().map_err(backstay_repo::Error::from)?;
        let kind = inside::snapshot_kind(inside, record.engine);
        let kind = kind.ok_or_else(|| inside::not_reloadable(path, inside))?;
        let mut snapshot = Snapshot::place(kind, &self.request.into)?;
        self.run.progress.begin("restore", record.raw_bytes);
        while let Some(bytes) = reader.read().await? {
            self.run.check_cancelled()?;
            self.run.progress.done(bytes.len() as u64);
            snapshot.write(bytes).await?;
        }
        let read = reader.finish().await?;
        let (facts, placed) = snapshot.finish().await?;
        if read.sha256 != record.sha256 {
            return Err(other_sum(path.as_str(), read.stored_bytes));
        }
        Ok((facts, placed, read.raw_bytes))
    }

    /// Of a dump that is several files, in the directory where they lie.
    async fn copy(&self) -> Result<(SnapshotFacts, Option<Placed>, u64)> {
        let Chosen { shelf, path, record, directory, .. } = &self.chosen;
        self.run.progress.begin("restore", of_members(record));
        // That its other files are what they were, each copy shows.
        let head = self.run.unless_cancelled(whole(shelf, path)).await?;
        if head.sha256 != record.sha256 {
            return Err(other_sum(path.as_str(), head.stored_bytes));
        }
        let bytes = of_members(record) + record.stored_bytes;
        if record.shape.format == DumpFormat::AppendOnly {
            let (facts, placed) = self.copy_append_only().await?;
            self.run.progress.done(of_members(record));
            return Ok((SnapshotFacts::AppendOnly(Box::new(facts)), Some(placed), bytes));
        }
        let mut names = Vec::new();
        for member in &record.members {
            let path = path.sibling(&member.file).map_err(backstay_repo::Error::from)?;
            let read = self.run.unless_cancelled(whole(shelf, &path)).await?;
            if read.sha256 != member.sha256 {
                return Err(other_sum(path.as_str(), read.stored_bytes));
            }
            names.push(PathBuf::from(&member.file));
            self.run.progress.done(member.stored_bytes);
        }
        names.push(path.file_name().into());
        let directory = directory.join(path.as_str()).parent().unwrap_or(Path::new("/")).to_owned();
        let (into, cancel) = (self.request.into.clone(), self.run.cancel.clone());
        let copied = move || Ok(snapshot::influx_files(&directory, &names, Some(&into), &cancel)?);
        let (facts, placed) = off_thread(copied).await?;
        Ok((SnapshotFacts::Influx(facts), placed, bytes))
    }
}

/// Reads a file that has no layers to its end.
pub(crate) async fn whole(shelf: &Arc<dyn Shelf>, path: &ShelfPath) -> Result<DumpRead> {
    Ok(DumpReader::open(shelf, path, None).await?.finish().await?)
}

fn other_sum(file: &str, offset_bytes: u64) -> Error {
    let reason = "its SHA-256 is not the one in its sidecar".to_owned();
    backstay_repo::Error::from(DumpError::Damaged { file: file.to_owned(), offset_bytes, reason }).into()
}

/// What brings it into a server.
fn next(record: &DumpRecord, facts: &SnapshotFacts, into: &Path) -> Vec<String> {
    let word = |path: &Path| shell_word(OsStr::new(path)).into_owned();
    match facts {
        SnapshotFacts::Rdb(facts) => {
            let own = if facts.is_valkey { "valkey" } else { "redis" };
            let directory = format!("/var/lib/{own}");
            vec![
                format!("{own}-cli CONFIG GET dir"),
                format!("{own}-cli CONFIG GET dbfilename"),
                // What the server has now is kept: a way back, should this be the wrong dump.
                format!("{own}-cli SAVE"),
                format!("{own}-cli SHUTDOWN NOSAVE"),
                format!("mv --backup=numbered {directory}/dump.rdb {directory}/dump.rdb.before-restore"),
                format!(
                    "install --owner={own} --group={own} --mode=0660 {} {directory}/dump.rdb",
                    word(&into.join("dump.rdb"))
                ),
                format!("{own}-server /etc/{own}/{own}.conf --appendonly no"),
            ]
        }
        SnapshotFacts::AppendOnly(facts) => append_only::next(record, facts, into),
        SnapshotFacts::Influx(facts) => {
            let mut directories: Vec<PathBuf> =
                facts.heads.iter().map(|head| into.join(head.parent().unwrap_or(Path::new("")))).collect();
            directories.dedup();
            let lines = directories.iter().flat_map(|directory| {
                // `join("")` ends with a slash.
                let directory: PathBuf = directory.components().collect();
                let directory = word(&directory);
                match (facts.is_of_version_2, facts.is_legacy) {
                    (true, _) => vec![format!("influx restore {directory}")],
                    (false, false) => vec![format!("influxd restore -portable {directory}")],
                    (false, true) => facts
                        .databases
                        .iter()
                        .map(|database| {
                            let database = shell_word(OsStr::new(database)).into_owned();
                            format!("influxd restore -online -db {database} {directory}")
                        })
                        .collect(),
                }
            });
            lines.collect()
        }
    }
}
