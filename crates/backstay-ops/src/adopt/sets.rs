//! Backups of InfluxDB that lie in a directory as they were written: several files, of
//! which one names the others and bears the sidecar.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use backstay_engine::snapshot::{self, SnapshotFacts};
use backstay_model::dump::{DumpFormat, DumpMember};
use backstay_model::error::Classified;
use backstay_model::{BackupId, EngineKind, ErrorKind};
use backstay_repo::dump::{DumpInside, DumpReader};
use backstay_repo::shelf::{ShelfFile, ShelfPath};

use super::{Adopting, Fate, Read};
use crate::context::off_thread;
use crate::dump::inside::Found;
use crate::error::Result;

/// The heads of the sets, and what belongs to each, or why that is not known.
#[derive(Debug, Default)]
pub(super) struct Sets {
    heads: BTreeMap<ShelfPath, Result<Vec<String>, String>>,
    members: BTreeSet<ShelfPath>,
}

impl Sets {
    pub fn is_member(&self, path: &ShelfPath) -> bool {
        self.members.contains(path)
    }

    pub fn members(&self, head: &ShelfPath) -> Option<&Result<Vec<String>, String>> {
        self.heads.get(head)
    }
}

pub(super) async fn find(directory: &Path, engine: EngineKind, files: &[ShelfFile]) -> Result<Sets> {
    let mut sets = Sets::default();
    if engine != EngineKind::Influxdb {
        return Ok(sets);
    }
    for head in files.iter().filter(|file| snapshot::may_be_head(file.path.file_name())) {
        let own = parent(directory, &head.path);
        let beside = files.iter().filter(|file| parent(directory, &file.path) == own);
        let beside: Vec<String> = beside.map(|file| file.path.file_name().to_owned()).collect();
        let name = head.path.file_name().to_owned();
        let looked = off_thread(move || Ok(snapshot::members(&own, &name, &beside)?)).await;
        let members = match looked {
            Ok(members) => members,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                sets.heads.insert(head.path.clone(), Err(crate::status::with_causes(&error)));
                continue;
            }
            Err(error) => return Err(error),
        };
        sets.members.extend(members.iter().filter_map(|name| head.path.sibling(name).ok()));
        sets.heads.insert(head.path.clone(), Ok(members));
    }
    Ok(sets)
}

fn parent(directory: &Path, path: &ShelfPath) -> PathBuf {
    directory.join(path.as_str()).parent().unwrap_or(directory).to_owned()
}

impl Adopting<'_> {
    /// Takes in a set by its head.
    pub(super) async fn adopt_set(
        &self,
        head: &ShelfFile,
        members: &Result<Vec<String>, String>,
        sidecars: &[&str],
        ids: &mut HashMap<String, BackupId>,
    ) -> Result<Fate> {
        if let Some(known) = self.known(&head.path, sidecars).await? {
            ids.insert(known.sha256, known.id);
            return Ok(Fate::Known);
        }
        let names = match members {
            Ok(names) => names.clone(),
            Err(reason) => return Ok(Fate::Damaged { reason: reason.clone() }),
        };
        match self.read_set(head, &names).await {
            Ok((read, members)) => {
                let mut record = self.record(head, &read, DumpFormat::Influxdb)?;
                record.members = members;
                if let Some(id) = ids.get(&record.sha256) {
                    record.id = id.clone();
                }
                if !self.request.dry_run
                    && let Some(taken) = self.describe(&head.path, &record, sidecars).await?
                {
                    let reason =
                        format!("its sidecar cannot be written: {taken} is somebody else's; move that away");
                    return Ok(Fate::Closed { reason });
                }
                ids.insert(record.sha256.clone(), record.id.clone());
                let what = format!("a backup of InfluxDB, in {} files", record.members.len() + 1);
                Ok(Fate::Adopted { record: Box::new(record), what })
            }
            Err(error) => match error.kind() {
                ErrorKind::Corrupt | ErrorKind::NotFound => {
                    Ok(Fate::Damaged { reason: crate::status::with_causes(&error) })
                }
                ErrorKind::Denied => Ok(Fate::Closed { reason: crate::status::with_causes(&error) }),
                _ => Err(error),
            },
        }
    }

    async fn read_set(&self, head: &ShelfFile, names: &[String]) -> Result<(Read, Vec<DumpMember>)> {
        let directory = parent(&self.request.directory, &head.path);
        let mut all: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        all.push(head.path.file_name().into());
        let checked = off_thread(move || Ok(snapshot::influx_files(&directory, &all, None)?.0)).await?;
        let mut members = Vec::new();
        for name in names {
            self.run.check_cancelled()?;
            let path = head.path.sibling(name).map_err(backstay_repo::Error::from)?;
            let read = DumpReader::open(self.shelf, &path, None).await?.finish().await?;
            members.push(DumpMember {
                file: name.clone(),
                stored_bytes: read.stored_bytes,
                sha256: read.sha256,
            });
        }
        let own = DumpReader::open(self.shelf, &head.path, None).await?.finish().await?;
        let read = Read {
            layers: Vec::new(),
            inside: DumpInside::InfluxPortable,
            archive: None,
            found: Found::Snapshot(SnapshotFacts::Influx(checked)),
            raw_bytes: own.raw_bytes,
            sha256: own.sha256,
        };
        Ok((read, members))
    }
}
