//! Which dump: the one that is named, or the newest good one of the database.
//!
//! Invariant: a newer one that is passed over because it is damaged or gone is named. What
//! was dumped before a restore changed it is taken only when it is named. Refuses a dump
//! that has nothing of the database that was asked for, wherever it is to go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_model::dump::{DumpContent, DumpFormat, DumpRecord};
use backstay_model::{BackupId, Finding};
use backstay_repo::shelf::{Shelf, ShelfPath};

use super::{ReloadRequest, Wanted};
use crate::dump::DumpPolicy;
use crate::dump::shelved::{self, Presence, Shelved, ShelvedFile};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

#[derive(Clone)]
pub(crate) struct Chosen {
    pub shelf: Arc<dyn Shelf>,
    /// The same as a directory.
    pub directory: PathBuf,
    pub path: ShelfPath,
    pub record: DumpRecord,
    pub findings: Vec<Finding>,
    /// The dump of the roles of its server.
    pub globals: Option<BackupId>,
}

pub(super) async fn choose(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    request: &ReloadRequest,
) -> Result<Chosen> {
    let database = match request.dump {
        Some(_) => String::new(),
        None => database(instance, request)?,
    };
    let is_meant =
        |record: &DumpRecord| record.instance == instance.id && record.content.has_whole(&database);
    let none = |shelf| Error::NoDump { instance: instance.id.clone(), database: database.clone(), shelf };
    pick(run, policy, request.dump.as_ref(), request.database.as_deref(), is_meant, none).await
}

/// The one that is named, or the newest good one of those that are meant. Of a set of dumps
/// any names all of them: `of` says whose is meant, where somebody said it.
pub(crate) async fn pick(
    run: &Run,
    policy: &DumpPolicy,
    dump: Option<&BackupId>,
    of: Option<&str>,
    is_meant: impl Fn(&DumpRecord) -> bool,
    none: impl FnOnce(String) -> Error,
) -> Result<Chosen> {
    let shelved = shelved::look(run, policy, None).await?;
    let place = policy.place()?;
    let chosen = async |file: &ShelvedFile, findings| {
        // What it needs of a server, and what was noted of it, is not kept of all that lie there.
        let whole = shelved::whole_record(&*place.shelf, file).await?;
        Ok(Chosen {
            shelf: Arc::clone(&place.shelf),
            directory: place.directory.clone(),
            path: file.path().clone(),
            record: whole.map_or_else(
                || file.record().clone(),
                |whole| DumpRecord { needs: whole.needs, warnings: whole.warnings, ..file.record().clone() },
            ),
            findings,
            globals: globals_of(&shelved, file.record()),
        })
    };
    if let Some(id) = dump {
        let names: Vec<_> = shelved.files.iter().filter(|file| file.record().id == *id).collect();
        let Some(first) = names.first() else { return Err(Error::NoSuchBackup { backup: id.clone() }) };
        let beside = of.map(|of| together_with(&shelved, first.record(), of)).unwrap_or_default();
        if let Some(of) = of.filter(|of| beside.is_empty() && !may_be_of(first, policy, of)) {
            must_be_of(&shelved, first, of)?;
        }
        let (names, first) = match beside.first() {
            Some(of_set) => (&beside, of_set),
            None => (&names, first),
        };
        // Under another of its names it may be whole: a copy, where a file system has no links.
        return match names.iter().find(|file| file.is_good()) {
            Some(good) => chosen(good, Vec::new()).await,
            None => Err(not_good(first, &shelved)),
        };
    }
    let is_meant = |file: &&ShelvedFile| {
        let record = file.record();
        is_meant(record) && !record.safety && !record.guessed
    };
    let newest_first: Vec<_> = shelved.files.iter().filter(is_meant).collect();
    match newest_first.iter().position(|file| file.is_good()) {
        Some(at) => {
            let base = newest_first[at].record();
            let of_others = newest_first[..at].iter().filter(|file| file.record().id != base.id);
            let passed = of_others.map(|file| passed_over(file, base)).collect();
            chosen(newest_first[at], passed).await
        }
        None => match newest_first.first() {
            Some(newest) => Err(not_good(newest, &shelved)),
            None => Err(none(shelved.shelf.clone())),
        },
    }
}

/// The dump of this database that was taken together with one of another.
fn together_with<'a>(shelved: &'a Shelved, record: &DumpRecord, of: &str) -> Vec<&'a ShelvedFile> {
    if record.set.is_none() || record.content.has_whole(of) {
        return Vec::new();
    }
    let is_meant = |other: &DumpRecord| {
        other.set == record.set
            && other.instance == record.instance
            && other.content.has_whole(of)
            && !other.safety
    };
    shelved.files.iter().filter(|file| is_meant(file.record())).collect()
}

/// Of which database another program's statements are, nobody knows but who asks for them,
/// where their name does not say it.
fn may_be_of(file: &ShelvedFile, policy: &DumpPolicy, of: &str) -> bool {
    let record = file.record();
    if record.content.has_whole(of) || record.content.database() == Some(of) || record.guessed {
        return true;
    }
    let is_script = matches!(record.content, DumpContent::Database { .. });
    let is_script = is_script && record.adopted && record.shape.format == DumpFormat::Plain;
    let named = || policy.layout.locate(file.path().as_str()).and_then(|located| located.database);
    is_script && named().is_none()
}

/// Refuses a dump that is of other databases. One that is of none is told apart when it is
/// opened.
fn must_be_of(shelved: &Shelved, named: &ShelvedFile, of: &str) -> Result<()> {
    let own = named.record();
    let is_beside = |other: &DumpRecord| {
        other.id == own.id || own.set.is_some() && other.set == own.set && other.instance == own.instance
    };
    let records = shelved.files.iter().map(ShelvedFile::record).filter(|record| is_beside(record));
    let databases: BTreeSet<&str> = records.flat_map(|record| record.content.databases()).collect();
    if databases.is_empty() {
        return Ok(());
    }
    Err(Error::NotInDump {
        file: named.path().to_string(),
        database: of.to_owned(),
        databases: databases.into_iter().map(str::to_owned).collect(),
    })
}

/// Taken together with it, or else the newest.
fn globals_of(shelved: &Shelved, record: &DumpRecord) -> Option<BackupId> {
    let is_of_server = |other: &DumpRecord| {
        other.content == DumpContent::Globals && other.instance == record.instance && !other.safety
    };
    let good = shelved.files.iter().filter(|file| is_of_server(file.record()) && file.is_good());
    let newest_first: Vec<&DumpRecord> = good.map(ShelvedFile::record).collect();
    let together = newest_first.iter().find(|other| other.set.is_some() && other.set == record.set);
    together.or(newest_first.first()).map(|other| other.id.clone())
}

/// Whose dump is meant: of the database that was named, or that is to be swapped, or else
/// of the one of the instance's address.
pub(super) fn database(instance: &Instance, request: &ReloadRequest) -> Result<String> {
    match (&request.database, &request.wanted) {
        (Some(database), _) | (None, Wanted::Swap(database)) => Ok(database.clone()),
        (None, _) => Ok(instance.postgres()?.address()?.database().to_owned()),
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
