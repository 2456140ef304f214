//! Place: the files of a backup into empty directories, `pg_control` last.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::facts::{Owner, Tablespace};
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, PlaceTarget, SealOptions, SpaceNeeded};
use backstay_engine::postgres::recovery::RecoverySettings;
use backstay_engine::postgres::starting::shell_word;
use backstay_model::parts::PartTarget;
use backstay_model::plan::TablespacePlace;
use backstay_model::{BackupRecord, Finding, VerifyLevel};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};

use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::error::{Error, Result};
use crate::restore::damage;
use crate::restore::mark::{self, Mark};
use crate::restore::remains::Remains;

/// Where the files go.
#[derive(Debug, Clone)]
pub(crate) struct Where {
    pub directory: PathBuf,
    /// `OLD=NEW` of tablespaces.
    pub moved: Vec<(String, PathBuf)>,
    /// What the server is told of its recovery, where it needs log of the archive.
    pub recovery: Option<RecoverySettings>,
}

/// A directory that can be started.
pub(crate) struct Placed {
    pub directory: PathBuf,
    pub record: BackupRecord,
    pub facts: BackupFacts,
    pub bytes: u64,
    pub seconds: f64,
    /// What a person should know before the server takes up work.
    pub findings: Vec<Finding>,
}

/// Where each tablespace outside of the data directory lay, and where it goes.
pub(crate) fn tablespaces(facts: &BackupFacts, place: &Where) -> Vec<TablespacePlace> {
    let moved = |space: &Tablespace| {
        let (_, new) = place.moved.iter().rev().find(|(old, _)| names(old, space))?;
        Some(std::path::absolute(new).unwrap_or_else(|_| new.clone()).display().to_string())
    };
    let stays = |space: &Tablespace| TablespacePlace {
        name: space.name.clone(),
        old: space.location.clone(),
        new: space.location.clone(),
    };
    // One whose location is relative lies inside the data directory.
    let outside = facts.server.tablespaces.iter().filter(|space| space.location.starts_with('/'));
    let known = outside.map(|space| {
        let stays = stays(space);
        TablespacePlace { new: moved(space).unwrap_or_else(|| stays.old.clone()), ..stays }
    });
    known.chain(facts.late_tablespaces.iter().map(stays)).collect()
}

/// Whether a person means this tablespace: by its location, its name or its number.
pub(super) fn names(old: &str, space: &Tablespace) -> bool {
    let trimmed = if old.len() > 1 { old.trim_end_matches('/') } else { old };
    trimmed == space.location || old == space.name || old == space.oid.to_string()
}

/// Whether the directories are fit, without writing anything.
pub(crate) async fn check(
    context: &Context,
    manifest: Manifest,
    facts: &BackupFacts,
    place: &Where,
) -> Result<()> {
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    fit(&reader, facts, place).await.map(drop)
}

async fn fit(reader: &BackupReader, facts: &BackupFacts, place: &Where) -> Result<PlacePlan> {
    let mut files = reader.files().await?;
    let options = PlaceOptions {
        directory: place.directory.clone(),
        tablespaces: facts.server.tablespaces.clone(),
        late_tablespaces: facts.late_tablespaces.clone(),
        moved: place.moved.clone(),
        owner: owner(facts),
    };
    let (facts, place) = (facts.clone(), place.clone());
    off_thread(move || {
        let needed = SpaceNeeded::of(&mut files)?;
        PlacePlan::check(&options, &needed).map_err(|error| in_the_way(error, &facts, &place))
    })
    .await
}

/// What lies in the way, by what it is: each is cleared in its own manner.
fn in_the_way(error: backstay_engine::Error, facts: &BackupFacts, place: &Where) -> Error {
    let backstay_engine::Error::TargetNotEmpty { path } = &error else { return error.into() };
    let late = facts.late_tablespaces.iter().find(|space| Path::new(&space.location) == path);
    if let Some(space) = late {
        return Error::LateTablespaceNotEmpty { name: space.name.clone(), path: path.clone() };
    }
    let into = path.clone();
    let elsewhere = elsewhere(path, facts, place);
    match mark::look(path) {
        mark::Found::Running => return Error::RestoreRunning { into, elsewhere },
        mark::Found::Interrupted => {
            return Error::RestoreInterrupted { remains: remains(path, facts, place), into, elsewhere };
        }
        mark::Found::Nothing => {}
    }
    match space_at(path, facts, place) {
        Some(space) => {
            Error::TablespaceNotEmpty { name: space.name, location: space.old, path: path.clone() }
        }
        None => error.into(),
    }
}

/// The tablespace that this restore would put there.
fn space_at(path: &Path, facts: &BackupFacts, place: &Where) -> Option<TablespacePlace> {
    tablespaces(facts, place).into_iter().find(|space| Path::new(&space.new) == path)
}

/// The argument that leads a restore elsewhere than to this place.
fn elsewhere(path: &Path, facts: &BackupFacts, place: &Where) -> String {
    match space_at(path, facts, place) {
        Some(space) => format!("--tablespace {}=NEW", shell_word(OsStr::new(&space.old))),
        None => "--into".to_owned(),
    }
}

/// Everything that interrupted restores left where this one is to go.
fn remains(path: &Path, facts: &BackupFacts, place: &Where) -> Remains {
    let mut found = mark::remains(path);
    for space in tablespaces(facts, place) {
        let place = PathBuf::from(space.new);
        if !found.contains(&place) && mark::is_left(&place) {
            found.push(place);
        }
    }
    Remains::of(found)
}

/// The owner of the source's directory, where we may give files away at all.
fn owner(facts: &BackupFacts) -> Option<Owner> {
    if rustix::process::geteuid().is_root() { facts.owner.clone() } else { None }
}

/// Places a backup. Stored data that turns out to be damaged is noted.
pub(crate) async fn run(context: &Context, manifest: Manifest, place: &Where) -> Result<Placed> {
    let placed = put(context, manifest.clone(), place).await;
    if let Err(error) = &placed
        && let Some(seen) = damage::seen_in(error, &manifest)
    {
        damage::note(context, &manifest.record.instance, VerifyLevel::Digest, seen).await;
    }
    placed
}

async fn put(context: &Context, manifest: Manifest, place: &Where) -> Result<Placed> {
    let watch = Stopwatch::start();
    let record = manifest.record.clone();
    let facts = BackupFacts::from_json(&record.facts)?;
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    let plan = fit(&reader, &facts, place).await?;
    context.check_cancelled()?;
    let directory = plan.directory.clone();
    let spaces: Vec<PathBuf> = plan.tablespaces.values().cloned().collect();
    let (known, wanted) = (facts.clone(), place.clone());
    let begin = move || {
        let target = plan.begin()?;
        let mark = Mark::set(&directory, spaces).map_err(|error| not_begun(error, &known, &wanted))?;
        Ok((target, mark))
    };
    let (target, mark) = off_thread(begin).await?;
    let target = Arc::new(target);

    context.progress.begin("place", record.statistics.logical_bytes);
    let options = RestoreOptions { workers: workers(), on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<PlaceTarget>::clone(&target);
    reader.restore(Some(parts), options, Arc::clone(&context.progress), &context.cancel).await?;

    context.progress.enter("make it durable");
    context.check_cancelled()?;
    let mut files = reader.files().await?;
    let target = Arc::into_inner(target)
        .ok_or_else(|| Error::broken("the target of a restore is still in use after its end"))?;
    let sealing = facts.clone();
    let options = SealOptions { recovery: place.recovery.clone(), ..SealOptions::default() };
    let seal = move || {
        let settled = target.settle(&mut files, &sealing, &options)?;
        let held = mark.hand_over().map_err(|error| not_written(error.place, error.source))?;
        let sealed = settled.let_it_start()?;
        drop(held);
        Ok(sealed)
    };
    let sealed = off_thread(seal).await?;
    let seconds = watch.seconds();
    let (directory, bytes, findings) = (sealed.directory, sealed.bytes, sealed.findings);
    Ok(Placed { directory, record, facts, bytes, seconds, findings })
}

fn not_begun(error: mark::NotMarked, facts: &BackupFacts, place: &Where) -> Error {
    let mark::NotMarked { place: path, source } = error;
    match source.kind() {
        // Between the look at the empty directory and now.
        std::io::ErrorKind::AlreadyExists => {
            Error::RestoreRunning { elsewhere: elsewhere(&path, facts, place), into: path }
        }
        _ => not_written(path, source),
    }
}

fn not_written(path: PathBuf, source: std::io::Error) -> Error {
    backstay_engine::Error::Write { path, source }.into()
}
