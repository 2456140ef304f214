//! Which dump: the one that is named, or the newest good one of the database.
//!
//! Invariant: a newer one that is passed over because it is damaged or gone is named. What
//! was dumped before a restore changed it is taken only when it is named.

use std::sync::Arc;

use backstay_model::Finding;
use backstay_model::dump::{DumpContent, DumpRecord};
use backstay_repo::shelf::{Shelf, ShelfPath};

use super::ReloadRequest;
use crate::dump::DumpPolicy;
use crate::dump::shelved::{self, Presence, Shelved, ShelvedFile};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

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
    let shelved = shelved::look(run, policy, None).await?;
    let shelf = policy.place()?.shelf;
    let chosen = |file: &ShelvedFile, findings| Chosen {
        shelf: Arc::clone(&shelf),
        path: file.path().clone(),
        record: file.record().clone(),
        findings,
    };
    if let Some(id) = &request.dump {
        let names: Vec<_> = shelved.files.iter().filter(|file| file.record().id == *id).collect();
        let Some(first) = names.first() else { return Err(Error::NoSuchBackup { backup: id.clone() }) };
        // Under another of its names it may be whole: a copy, where a file system has no links.
        return match names.iter().find(|file| file.is_good()) {
            Some(good) => Ok(chosen(good, Vec::new())),
            None => Err(not_good(first, &shelved)),
        };
    }
    let database = match &request.database {
        Some(database) => database.clone(),
        None => instance.postgres().address()?.database().to_owned(),
    };
    let content = DumpContent::Database { database: database.clone() };
    let is_meant = |file: &&ShelvedFile| {
        let record = file.record();
        record.instance == instance.id && record.content == content && !record.safety && !record.guessed
    };
    let newest_first: Vec<_> = shelved.files.iter().filter(is_meant).collect();
    match newest_first.iter().position(|file| file.is_good()) {
        Some(at) => {
            let base = newest_first[at].record();
            let of_others = newest_first[..at].iter().filter(|file| file.record().id != base.id);
            let passed = of_others.map(|file| passed_over(file, base)).collect();
            Ok(chosen(newest_first[at], passed))
        }
        None => match newest_first.first() {
            Some(newest) => Err(not_good(newest, &shelved)),
            None => {
                let shelf = shelved.shelf.clone();
                Err(Error::NoDump { instance: instance.id.clone(), database, shelf })
            }
        },
    }
}

fn fault(file: &ShelvedFile) -> &'static str {
    if file.presence == Presence::Gone { "gone" } else { "damaged" }
}

fn passed_over(file: &ShelvedFile, base: &DumpRecord) -> Finding {
    Finding::error(
        file.record().id.as_str(),
        format!(
            "this newer dump, {}, is {}; the restore takes {}, of {}",
            file.path(),
            fault(file),
            base.id,
            base.finished_at
        ),
        "`backstay verify` names what is damaged",
    )
}

fn not_good(file: &ShelvedFile, shelved: &Shelved) -> Error {
    let is_like = |other: &&ShelvedFile| {
        let (own, other) = (file.record(), other.record());
        (&own.instance, &own.content, own.safety) == (&other.instance, &other.content, other.safety)
    };
    let instead = shelved.files.iter().filter(is_like).find(|other| other.is_good());
    Error::DumpNotGood {
        file: file.path().to_string(),
        fault: fault(file),
        instead: instead.map(|other| other.record().id.clone()),
    }
}
