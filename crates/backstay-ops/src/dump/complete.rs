//! The names that a run gives a dump beside its first: among the weeks and the months,
//! and the pointer; and those that a run which was killed did not come to.
//!
//! Invariant: nothing gets a name that retention would take from it again, and no name
//! that somebody else's file has. Only the newest dump of each database is looked at: a
//! name that somebody removed stays away from all others.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use backstay_model::Finding;
use backstay_model::dump::template::Fields;
use backstay_model::dump::{DumpOnShelf, DumpRecord, Layout, Tier, plan_expire_dumps};
use backstay_repo::dump::HMAC_SUFFIX;
use backstay_repo::shelf::ShelfPath;
use backstay_repo::store::StoreError;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::policy::Place;
use super::shelved::{self, Presence, ShelvedFile};
use super::{DumpPolicy, names};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

/// The line that authenticates a dump.
const HMAC_MAX_BYTES: u64 = 4096;

/// The name that a dump has already.
pub(super) struct FirstName<'a> {
    pub path: &'a ShelfPath,
    pub sidecars: &'a [ShelfPath],
}

/// The sidecar of one more name.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    record: &'a DumpRecord,
    #[serde(flatten)]
    hold: Map<String, Value>,
}

/// Gives the bytes of `first` one more name, with a sidecar of its own. What of it is
/// there already from another time is not made again.
pub(super) async fn give(
    run: &Run,
    place: &Place,
    layout: &Layout,
    first: FirstName<'_>,
    (path, record): (&ShelfPath, &DumpRecord),
    hmac: Option<&Bytes>,
) -> Result<()> {
    let FirstName { path: first, sidecars: described } = first;
    let shelf = &*place.shelf;
    let failed = |error: StoreError| Error::from(backstay_repo::Error::from(error));
    match shelf.link(first, path).await {
        Err(StoreError::AlreadyExists { .. }) if is_same(run, place, first, path).await? => {}
        given => given.map_err(failed)?,
    }
    if let Some(hmac) = hmac {
        let beside = path.beside(HMAC_SUFFIX).map_err(backstay_repo::Error::from)?;
        match shelf.put_if_absent(&beside, hmac.clone()).await {
            Err(StoreError::AlreadyExists { .. })
                if shelf.get(&beside, HMAC_MAX_BYTES).await.is_ok_and(|there| there == *hmac) => {}
            written => written.map_err(failed)?,
        }
    }
    // Whoever holds the dump meanwhile holds it under all its names.
    let alone = shelved::alone(run, shelf).await?;
    let record = Described { record, hold: shelved::held(shelf, &alone, described).await? };
    let mut json = serde_json::to_vec_pretty(&record).map_err(|error| Error::broken(error.to_string()))?;
    json.push(b'\n');
    let sidecar = path.beside(&layout.sidecar).map_err(backstay_repo::Error::from)?;
    match shelf.put_if_absent(&sidecar, json.into()).await {
        // Another run of another machine was as fast: it is the same dump, under the same name.
        Err(StoreError::AlreadyExists { .. })
            if shelved::is_described(shelf, &sidecar, record.record).await? =>
        {
            Ok(())
        }
        written => written.map_err(failed),
    }
}

fn is_one_file(place: &Place, one: &ShelfPath, other: &ShelfPath) -> bool {
    let seen = |path: &ShelfPath| std::fs::metadata(place.directory.join(path.as_str())).ok();
    let number = |path| seen(path).map(|seen| (seen.dev(), seen.ino()));
    number(one).is_some() && number(one) == number(other)
}

/// Whether the second is the first, or the copy of it that is made where there are no links.
/// Reads both to the first difference: the work of minutes, and only for a file of the same
/// length that has no sidecar.
async fn is_same(run: &Run, place: &Place, one: &ShelfPath, other: &ShelfPath) -> Result<bool> {
    const BLOCK: u64 = 1 << 20;
    if is_one_file(place, one, other) {
        return Ok(true);
    }
    let shelf = &*place.shelf;
    let failed = |error: StoreError| shelved::failed(shelf, error);
    let length = shelf.head(one).await.map_err(failed)?.size_bytes;
    if shelf.head(other).await.map_err(failed)?.size_bytes != length {
        return Ok(false);
    }
    let mut at = 0;
    while at < length {
        run.check_cancelled()?;
        let count = BLOCK.min(length - at);
        let left = shelf.read_range(one, at, count).await.map_err(failed)?;
        if left != shelf.read_range(other, at, count).await.map_err(failed)? {
            return Ok(false);
        }
        at += count;
    }
    Ok(true)
}

/// Gives the newest dumps of an instance the names that they should have, and says so.
pub(super) async fn complete(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    place: &Place,
) -> Result<Vec<Finding>> {
    let shelved = shelved::look_at(place, policy, Some(&instance.id)).await?;
    let mut told = Vec::new();
    let there: Vec<DumpOnShelf> = shelved
        .files
        .iter()
        .filter(|file| file.presence != Presence::Gone)
        .map(|file| file.dump.clone())
        .collect();
    for (file, names) in newest(&shelved.files, policy) {
        for (tier, path) in names.others {
            run.check_cancelled()?;
            let sidecar = path.beside(&policy.layout.sidecar).map_err(backstay_repo::Error::from)?;
            if is_there(place, &sidecar).await? || !stays(&there, file, tier, &path, policy, run.clock.now())
            {
                continue;
            }
            if is_there(place, &path).await? && !is_same(run, place, &file.path, &path).await? {
                // Another's; the dump that is about to be taken has its own names.
                continue;
            }
            let Some(whole) = shelved::whole_record(&*place.shelf, file).await? else { continue };
            let record = DumpRecord { tier, file: path.file_name().to_owned(), ..whole };
            let beside = file.path.beside(HMAC_SUFFIX).map_err(backstay_repo::Error::from)?;
            let hmac = place.shelf.get(&beside, HMAC_MAX_BYTES).await.ok();
            let first = FirstName { path: &file.path, sidecars: &file.sidecars };
            give(run, place, &policy.layout, first, (&path, &record), hmac.as_ref()).await?;
            told.push(given(path.as_str(), file));
        }
    }
    for (pointer, file) in pointers(&shelved.files, policy) {
        if is_one_file(place, &pointer, &file.path) {
            continue;
        }
        match place.shelf.point(&pointer, &file.path).await {
            Ok(()) => told.push(given(pointer.as_str(), file)),
            // A file of that name: the dump that is about to be taken tells of it.
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(shelved::failed(&*place.shelf, error)),
        }
    }
    Ok(told)
}

fn given(path: &str, file: &ShelvedFile) -> Finding {
    Finding::info(
        path,
        format!(
            "an earlier run was stopped before dump {} had this name; it has it now: {}",
            file.record().id,
            file.path
        ),
        "`backstay list --type dump` shows the names of each dump",
    )
}

async fn is_there(place: &Place, path: &ShelfPath) -> Result<bool> {
    match place.shelf.head(path).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(shelved::failed(&*place.shelf, error)),
    }
}

/// Whether `expire` would leave it there.
fn stays(
    there: &[DumpOnShelf],
    file: &ShelvedFile,
    tier: Tier,
    path: &ShelfPath,
    policy: &DumpPolicy,
    now: Timestamp,
) -> bool {
    let mut with: Vec<DumpOnShelf> = there.to_vec();
    with.push(DumpOnShelf { tier, path: path.to_string(), ..file.dump.clone() });
    plan_expire_dumps(&with, &policy.keep, now).keep.iter().any(|fate| fate.path == path.as_str())
}

/// What a dump should be called.
struct Names {
    others: Vec<(Tier, ShelfPath)>,
    pointer: Option<ShelfPath>,
}

/// By this layout; `None` for one that got its name otherwise.
fn names_of(file: &ShelvedFile, policy: &DumpPolicy) -> Option<Names> {
    let layout = &policy.layout;
    let record = file.record();
    let is_meant =
        file.is_good() && !file.is_expiring && !record.safety && !record.adopted && !record.guessed;
    if !is_meant || file.dump.tier != Tier::Daily || !matches!(file.presence, Presence::File { .. }) {
        return None;
    }
    // The time of a run stands in the ids of its dumps, and in their names.
    let (time, _) = record.id.as_str().split_once('-')?;
    let time: Timestamp = time.parse().ok()?;
    let ext = names::extension(layout, &record.content, &record.shape);
    let (database, instance) = (names::in_names(&record.content, &record.shape), &record.instance);
    let fields = |tier| Fields { database: database.as_deref(), instance, tier, ext: &ext, time };
    let own_names = layout.first_paths(&fields(Tier::Daily));
    let named = own_names.iter().position(|name| name == file.path.as_str())?;
    // What was taken by hand stands in no other tier.
    let tiers = if named == 0 { layout.tiers(time) } else { Vec::new() };
    let others = tiers.into_iter().filter(|tier| *tier != Tier::Daily);
    let others = others.filter_map(|tier| Some((tier, layout.path(&fields(tier))?.parse().ok()?)));
    let pointer = layout.pointer_path(&fields(Tier::Daily)).and_then(|path| path.parse().ok());
    let pointer = pointer.filter(|_| layout.points_to(&record.content, policy.database.as_deref()));
    Some(Names { others: others.collect(), pointer })
}

/// The newest of each content; the files are in that order.
fn newest<'a>(files: &'a [ShelvedFile], policy: &DumpPolicy) -> Vec<(&'a ShelvedFile, Names)> {
    let mut found: Vec<(&ShelvedFile, Names)> = Vec::new();
    for file in files {
        let is_known = found.iter().any(|(newer, _)| newer.is_of_series(file.record()));
        if let (false, Some(names)) = (is_known, names_of(file, policy)) {
            found.push((file, names));
        }
    }
    found
}

fn pointers<'a>(files: &'a [ShelvedFile], policy: &DumpPolicy) -> BTreeMap<ShelfPath, &'a ShelvedFile> {
    let mut found = BTreeMap::new();
    for file in files {
        if let Some(pointer) = names_of(file, policy).and_then(|names| names.pointer) {
            found.entry(pointer).or_insert(file);
        }
    }
    found
}
