//! Dumps that are several files, of which one names the others and bears the sidecar: backups of
//! InfluxDB that lie in a directory as they were written, and append-only files of Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use backstay_engine::snapshot::{self, SnapshotFacts};
use backstay_model::dump::{DumpFormat, DumpMember, DumpRecord};
use backstay_model::error::Classified;
use backstay_model::{BackupId, EngineKind, ErrorKind};
use backstay_repo::dump::DumpInside;
use backstay_repo::shelf::{ShelfFile, ShelfPath};
use jiff::Timestamp;

use super::{Adopting, Fate, Read, append_only};
use crate::context::off_thread;
use crate::dump::inside::Found;
use crate::error::{Error, Result};
use crate::extract::whole;

/// What the head of a backup is called since it names the others.
const MANIFEST: &str = ".manifest";

/// The heads of the sets, and what belongs to each, or why that is not known.
#[derive(Debug, Default)]
pub(super) struct Sets {
    pub heads: BTreeMap<ShelfPath, Result<Vec<String>, Fate>>,
    pub members: BTreeSet<ShelfPath>,
    /// What lies beside a set and looks like a part of it, and is neither that nor a dump.
    pub aside: BTreeSet<ShelfPath>,
    /// Of a set by its head: when the newest of its files was written.
    pub newest: BTreeMap<ShelfPath, Timestamp>,
}

impl Sets {
    pub fn is_member(&self, path: &ShelfPath) -> bool {
        self.members.contains(path)
    }

    pub fn is_aside(&self, path: &ShelfPath) -> bool {
        self.aside.contains(path)
    }

    pub fn newest(&self, head: &ShelfPath) -> Option<Timestamp> {
        self.newest.get(head).copied()
    }

    pub fn members(&self, head: &ShelfPath) -> Option<&Result<Vec<String>, Fate>> {
        self.heads.get(head)
    }
}

pub(super) async fn find(directory: &Path, engine: EngineKind, files: &[ShelfFile]) -> Result<Sets> {
    match engine {
        EngineKind::Influxdb => of_influxdb(directory, files).await,
        EngineKind::Redis => append_only::find(directory, files).await,
        EngineKind::Postgresql => Ok(Sets::default()),
    }
}

async fn of_influxdb(directory: &Path, files: &[ShelfFile]) -> Result<Sets> {
    let mut sets = Sets::default();
    for head in files.iter().filter(|file| snapshot::may_be_head(file.path.file_name())) {
        let own = parent(directory, &head.path);
        let beside = files.iter().filter(|file| parent(directory, &file.path) == own);
        let beside: Vec<String> = beside.map(|file| file.path.file_name().to_owned()).collect();
        let name = head.path.file_name().to_owned();
        // Of a set that is not taken in, nothing is a dump for itself either.
        let parts: Vec<String> =
            beside.iter().filter(|name| snapshot::may_be_member(name)).cloned().collect();
        let members = match several(&name, &beside) {
            Some(what) => Err(Fate::Later { what }),
            None => match off_thread(move || Ok(snapshot::members(&own, &name, &beside)?)).await {
                Ok(members) => Ok(members),
                Err(error) => Err(fate(error)?),
            },
        };
        let names = members.as_ref().unwrap_or(&parts);
        sets.members.extend(names.iter().filter_map(|name| head.path.sibling(name).ok()));
        sets.heads.insert(head.path.clone(), members);
    }
    Ok(sets)
}

/// Why this head of the older form is not taken in: others lie beside it.
fn several(name: &str, beside: &[String]) -> Option<String> {
    let is_legacy = |name: &str| snapshot::may_be_head(name) && !name.ends_with(MANIFEST);
    let heads: Vec<&str> = beside.iter().map(String::as_str).filter(|name| is_legacy(name)).collect();
    (is_legacy(name) && heads.len() > 1).then(|| {
        let heads = heads.join(" and ");
        format!(
            "a backup of InfluxDB in a directory with another: nothing says whether a shard is of {heads}; \
             move the files of each into a directory of its own"
        )
    })
}

/// What the bytes of all its files are: two backups may have the same head.
fn digest(record: &DumpRecord) -> String {
    let members = record.members.iter().map(|member| format!("{} {}", member.sha256, member.file));
    let mut members: Vec<String> = members.collect();
    members.sort();
    members.insert(0, record.sha256.clone());
    members.join("\n")
}

/// What a head came to that could not be looked at: it does not end the look at the others.
pub(super) fn fate(error: Error) -> Result<Fate> {
    let reason = crate::status::with_causes(&error);
    match error.kind() {
        ErrorKind::Cancelled => Err(error),
        ErrorKind::Corrupt | ErrorKind::NotFound => Ok(Fate::Damaged { reason }),
        ErrorKind::Unsupported => Ok(Fate::Later { what: reason }),
        _ => Ok(Fate::Closed { reason }),
    }
}

fn parent(directory: &Path, path: &ShelfPath) -> PathBuf {
    directory.join(path.as_str()).parent().unwrap_or(directory).to_owned()
}

impl Adopting<'_> {
    /// Takes in a set by its head.
    pub(super) async fn adopt_set(
        &self,
        head: &ShelfFile,
        members: &Result<Vec<String>, Fate>,
        sidecars: &[&str],
        ids: &mut HashMap<String, BackupId>,
    ) -> Result<Fate> {
        if let Some(known) = self.known(&head.path, sidecars).await? {
            ids.insert(digest(&known), known.id);
            return Ok(Fate::Known);
        }
        let names = match members {
            Ok(names) => names,
            Err(fate) => return Ok(fate.clone()),
        };
        let is_append_only = self.instance.kind() == EngineKind::Redis;
        let (read, members) = match is_append_only {
            true => self.read_append_only(&head.path).await?,
            false => self.read_set(head, names).await?,
        };
        if is_append_only && let Some(fate) = self.in_use(&head.path, &members).await? {
            return Ok(fate);
        }
        let format = if is_append_only { DumpFormat::AppendOnly } else { DumpFormat::Influxdb };
        let mut record = self.record(head, &read, format)?;
        record.members = members;
        let digest = digest(&record);
        if let Some(id) = ids.get(&digest) {
            record.id = id.clone();
        }
        if !self.request.dry_run
            && let Some(taken) = self.describe(&head.path, &record, sidecars).await?
        {
            let reason = format!("its sidecar cannot be written: {taken} is somebody else's; move that away");
            return Ok(Fate::Closed { reason });
        }
        ids.insert(digest, record.id.clone());
        let what = if is_append_only { "append-only files of Redis" } else { "a backup of InfluxDB" };
        let mut what = format!("{what}, in {} files", record.members.len() + 1);
        if let Some(warning) = record.warnings.first().filter(|_| is_append_only) {
            what.push_str(&format!("; {}", warning.message));
        }
        Ok(Fate::Adopted { record: Box::new(record), what })
    }

    async fn read_set(&self, head: &ShelfFile, names: &[String]) -> Result<(Read, Vec<DumpMember>)> {
        let directory = parent(&self.request.directory, &head.path);
        let mut all: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        all.push(head.path.file_name().into());
        let cancel = self.run.cancel.clone();
        let checked =
            off_thread(move || Ok(snapshot::influx_files(&directory, &all, None, &cancel)?.0)).await?;
        let mut members = Vec::new();
        for name in names {
            let path = head.path.sibling(name).map_err(backstay_repo::Error::from)?;
            let read = self.run.unless_cancelled(whole(self.shelf, &path)).await?;
            members.push(DumpMember {
                file: name.clone(),
                stored_bytes: read.stored_bytes,
                sha256: read.sha256,
            });
        }
        let own = self.run.unless_cancelled(whole(self.shelf, &head.path)).await?;
        let read = Read {
            layers: Vec::new(),
            inside: DumpInside::InfluxPortable,
            archive: None,
            found: Found::Snapshot(SnapshotFacts::Influx(checked)),
            timescaledb: None,
            names: None,
            raw_bytes: own.raw_bytes,
            sha256: own.sha256,
        };
        Ok((read, members))
    }
}
