//! Which dump: the one that is named, or the newest whole one of the database.

use std::sync::Arc;

use backstay_model::dump::{DumpContent, DumpRecord, Tier};
use backstay_model::{Finding, FindingLevel};
use backstay_repo::shelf::{Shelf, ShelfPath};

use super::ReloadRequest;
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

/// A sidecar with a thousand tables is well below this.
const SIDECAR_MAX_BYTES: u64 = 4 << 20;
const USUAL_SIDECAR: &str = ".meta.json";

pub(super) struct Chosen {
    pub shelf: Arc<dyn Shelf>,
    pub path: ShelfPath,
    pub record: DumpRecord,
    pub findings: Vec<Finding>,
}

pub(super) async fn choose(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    request: &ReloadRequest,
) -> Result<Chosen> {
    let shelf = policy.place()?.shelf;
    let listed = shelf.list_all(None).await.map_err(backstay_repo::Error::from)?;
    let database = match &request.database {
        Some(database) => database.clone(),
        None => instance.postgres().address()?.database().to_owned(),
    };
    let mut findings = Vec::new();
    let mut found: Vec<(ShelfPath, DumpRecord)> = Vec::new();
    for file in &listed {
        run.check_cancelled()?;
        let name = file.path.as_str();
        let suffixes = [policy.layout.sidecar.as_str(), USUAL_SIDECAR];
        let Some(dump) = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)) else { continue };
        let json = shelf.get(&file.path, SIDECAR_MAX_BYTES).await.map_err(backstay_repo::Error::from)?;
        // Somebody else's file may end like ours.
        let Ok(record) = serde_json::from_slice::<DumpRecord>(&json) else { continue };
        let path: ShelfPath = dump.parse().map_err(backstay_repo::Error::from)?;
        let is_meant = match &request.dump {
            Some(id) => record.id == *id,
            None => {
                record.instance == instance.id
                    && !record.safety
                    && record.content == DumpContent::Database { database: database.clone() }
            }
        };
        if !is_meant {
            continue;
        }
        if listed.binary_search_by(|other| other.path.cmp(&path)).is_err() {
            findings.push(Finding {
                level: FindingLevel::Warning,
                ..Finding::error(
                    path.as_str(),
                    "its sidecar is there and the dump is not",
                    "`backstay verify`",
                )
            });
            continue;
        }
        found.push((path, record));
    }
    let tiers = |tier: Tier| Tier::ALL.iter().position(|other| *other == tier);
    let newest = found.into_iter().max_by(|(_, a), (_, b)| {
        (a.finished_at, &a.id).cmp(&(b.finished_at, &b.id)).then(tiers(b.tier).cmp(&tiers(a.tier)))
    });
    match (newest, &request.dump) {
        (Some((path, record)), _) => Ok(Chosen { shelf, path, record, findings }),
        (None, Some(id)) => Err(Error::NoSuchBackup { backup: id.clone() }),
        (None, None) => {
            Err(Error::NoDump { instance: instance.id.clone(), database, shelf: shelf.location().to_owned() })
        }
    }
}
