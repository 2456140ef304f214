//! What lies on a shelf: every dump that has a sidecar, under each of its names.
//!
//! A dump is what its sidecar says, and a file without one is somebody else's: counted,
//! and never touched. A sidecar that does not read is a finding and its file is nobody's,
//! for nothing else says what it is. Damage is known from the last verification that left
//! its report on the shelf, and from the size alone where that is wrong.
//!
//! Refuses to call a shelf known that could not be listed to its end.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::dump::{DumpOnShelf, DumpRecord};
use backstay_model::{BackupId, Finding, Hold, InstanceId};
use backstay_repo::dump::HMAC_SUFFIX;
use backstay_repo::shelf::{Shelf, ShelfLock, ShelfPath};
use backstay_repo::store::StoreError;

use super::DumpPolicy;
use super::policy::Place;
use super::report::{self, Last, VerificationReport};
use crate::error::{Error, Result};
use crate::run::Run;

mod claims;
mod sidecar;
mod summary;

pub(super) use claims::Claims;
use sidecar::Sidecar;
pub(crate) use sidecar::hold;
pub(super) use sidecar::{held, is_going, mark};
pub use summary::{DumpDetail, DumpSummary, TierFile};

/// The sidecar's name wherever no layout says otherwise, and that of adopted dumps.
const USUAL_SIDECAR: &str = ".meta.json";

/// Whether the bytes of a dump lie where its sidecar says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    File {
        size_bytes: u64,
    },
    /// Somebody moved it and left a link: what lies behind it is read, and never removed.
    Link {
        size_bytes: u64,
    },
    Gone,
}

impl Presence {
    pub fn size_bytes(self) -> Option<u64> {
        match self {
            Presence::File { size_bytes } | Presence::Link { size_bytes } => Some(size_bytes),
            Presence::Gone => None,
        }
    }
}

/// One name of a dump. The tables and warnings of its record stay in the sidecar: a shelf
/// of many dumps would fill the memory with them.
#[derive(Debug, Clone)]
pub struct ShelvedFile {
    pub dump: DumpOnShelf,
    pub presence: Presence,
    pub(super) path: ShelfPath,
    /// More than one where an adopted dump was described twice.
    pub(crate) sidecars: Vec<ShelfPath>,
    /// Why a file that belongs to it is not what it was, as far as its size tells.
    pub(super) broken_member: Option<String>,
    /// `expire` said that it removes this file.
    pub(super) is_expiring: bool,
}

impl ShelvedFile {
    pub fn record(&self) -> &DumpRecord {
        &self.dump.record
    }

    pub(crate) fn path(&self) -> &ShelfPath {
        &self.path
    }

    /// It is there and nothing is known against it.
    pub fn is_good(&self) -> bool {
        self.presence != Presence::Gone && !self.dump.damaged
    }

    /// One that can stand for the other: of the same database, of the same parts. What a
    /// restore was about to change is never meant.
    pub(super) fn is_of_series(&self, record: &DumpRecord) -> bool {
        let own = self.record();
        own.instance == record.instance && own.content == record.content && own.safety == record.safety
    }
}

/// Everything that is known of a shelf.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// As an address.
    pub shelf: String,
    /// Newest first.
    pub files: Vec<ShelvedFile>,
    /// Names whose bytes `expire` has removed, and then did not come to the rest.
    pub(super) leftovers: Vec<ShelvedFile>,
    /// Files of others.
    pub foreign_files: u64,
    /// Sidecars that make no sense, and files that are gone.
    pub findings: Vec<Finding>,
    /// Sidecars that could not be looked at.
    pub unseen: Vec<Finding>,
    pub(super) claims: Claims,
    pub(super) last: Last,
}

/// Looks at all of a shelf; `instance` leaves out the dumps of others.
pub async fn look(run: &Run, policy: &DumpPolicy, instance: Option<&InstanceId>) -> Result<Shelved> {
    let place = policy.place()?;
    run.progress.enter("look at the dumps");
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Error::Cancelled),
        shelved = look_at(&place, policy, instance) => shelved,
    }
}

/// Everything about one dump by its id; `None` when the shelf has none of it.
pub async fn show(run: &Run, policy: &DumpPolicy, id: &BackupId) -> Result<Option<DumpDetail>> {
    let shelved = look(run, policy, None).await?;
    let Some(file) = shelved.files.iter().find(|file| file.record().id == *id) else { return Ok(None) };
    let place = policy.place()?;
    let whole = whole_record(&*place.shelf, file).await?;
    let record = whole.unwrap_or_else(|| file.record().clone());
    let summary = shelved.summaries().into_iter().find(|summary| summary.id == *id);
    Ok(summary.map(|summary| DumpDetail::new(summary, record)))
}

/// With its tables and warnings, as its sidecar has them.
pub(crate) async fn whole_record(shelf: &dyn Shelf, file: &ShelvedFile) -> Result<Option<DumpRecord>> {
    for path in file.sidecars.iter().rev() {
        if let sidecar::Read::Ours(whole) = sidecar::read(shelf, path).await? {
            return Ok(Some(whole.record));
        }
    }
    Ok(None)
}

/// Whether this sidecar is already the one of this dump under this name.
pub(super) async fn is_described(shelf: &dyn Shelf, path: &ShelfPath, record: &DumpRecord) -> Result<bool> {
    Ok(match sidecar::read(shelf, path).await? {
        sidecar::Read::Ours(there) => {
            (&there.record.id, there.record.tier, &there.record.file)
                == (&record.id, record.tier, &record.file)
        }
        _ => false,
    })
}

pub(super) async fn look_at(
    place: &Place,
    policy: &DumpPolicy,
    instance: Option<&InstanceId>,
) -> Result<Shelved> {
    let shelf = &*place.shelf;
    let listed = shelf.list_all(None).await.map_err(|source| failed(shelf, source))?;
    let sizes: BTreeMap<ShelfPath, u64> =
        listed.into_iter().map(|file| (file.path, file.size_bytes)).collect();
    let last = report::read_last(shelf, &policy.layout).await?;
    let mut shelved = Shelved {
        shelf: shelf.location().to_owned(),
        files: Vec::new(),
        leftovers: Vec::new(),
        foreign_files: 0,
        findings: Vec::new(),
        unseen: Vec::new(),
        claims: Claims::default(),
        last,
    };
    let mut described: BTreeMap<ShelfPath, ShelvedFile> = BTreeMap::new();
    let mut known: BTreeSet<ShelfPath> = BTreeSet::new();
    for path in sizes.keys() {
        let Some((dump, is_usual)) = described_by(policy, path) else { continue };
        let full = full(&shelved.shelf, path.as_str());
        let sidecar = match sidecar::read(shelf, path).await? {
            sidecar::Read::Ours(sidecar) => *sidecar,
            sidecar::Read::Gone => continue,
            sidecar::Read::NotOurs if !is_usual => continue,
            sidecar::Read::NotOurs => {
                shelved.findings.push(sidecar::not_ours(full));
                continue;
            }
            sidecar::Read::Damaged { reason } => {
                known.insert(path.clone());
                shelved.claims.not_read(path);
                shelved.findings.push(sidecar::damaged(&shelved.shelf, path, &reason));
                continue;
            }
            sidecar::Read::Unread { reason } => {
                known.insert(path.clone());
                shelved.claims.not_read(path);
                shelved.unseen.push(sidecar::unread(full, &reason));
                continue;
            }
        };
        shelved.claims.add(&dump, path, &sidecar.record);
        if sidecar.record.file != dump.file_name() {
            shelved.findings.push(sidecar::of_another(full, &sidecar.record.file));
            continue;
        }
        known.insert(path.clone());
        known.insert(dump.clone());
        known.extend(dump.beside(HMAC_SUFFIX));
        known.extend(members(&dump, &sidecar.record));
        if let Some(twice) = described.get_mut(&dump) {
            if twice.record().id == sidecar.record.id {
                twice.sidecars.push(path.clone());
            }
            continue;
        }
        let presence = presence(shelf, &sizes, &dump).await?;
        let broken_member = broken_member(shelf, &sizes, &dump, &sidecar.record).await?;
        let mut file = shelved.file(sidecar, dump.clone(), path.clone(), presence);
        file.dump.damaged |= broken_member.is_some();
        file.broken_member = broken_member;
        described.insert(dump, file);
    }
    let foreign = sizes.keys().filter(|path| !known.contains(path) && !is_report(policy, path));
    shelved.foreign_files = foreign.count() as u64;
    let is_wanted = |file: &ShelvedFile| instance.is_none_or(|id| file.record().instance == *id);
    let (leftovers, files): (Vec<_>, Vec<_>) = described
        .into_values()
        .filter(is_wanted)
        .partition(|file| file.is_expiring && file.presence == Presence::Gone);
    shelved.leftovers = leftovers;
    shelved.files = files;
    shelved.files.sort_by(|a, b| {
        let order = |file: &ShelvedFile| (file.record().finished_at, file.record().id.clone());
        order(b).cmp(&order(a)).then_with(|| (a.dump.tier, &a.path).cmp(&(b.dump.tier, &b.path)))
    });
    shelved.tell_what_is_gone();
    Ok(shelved)
}

/// Whether a file that is gone went as it should: its sidecar says so, or went as well.
pub(super) async fn was_let_go(shelf: &dyn Shelf, file: &ShelvedFile) -> Result<bool> {
    for path in &file.sidecars {
        match sidecar::read(shelf, path).await? {
            sidecar::Read::Gone => {}
            sidecar::Read::Ours(sidecar) if sidecar.expired_at.is_some() => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The other files of a dump that is several.
pub(super) fn members(dump: &ShelfPath, record: &DumpRecord) -> Vec<ShelfPath> {
    record.members.iter().filter_map(|member| dump.sibling(&member.file).ok()).collect()
}

/// The dump to which a sidecar belongs, and whether the sidecar has the usual name.
fn described_by(policy: &DumpPolicy, path: &ShelfPath) -> Option<(ShelfPath, bool)> {
    let usual = || path.as_str().strip_suffix(USUAL_SIDECAR).filter(|dump| !dump.ends_with('/'));
    let is_usual = policy.layout.sidecar == USUAL_SIDECAR;
    match policy.layout.dump_of_sidecar(path.as_str()) {
        Some(dump) => Some((dump.parse().ok()?, is_usual)),
        None => Some((usual()?.parse().ok()?, true)),
    }
}

fn is_report(policy: &DumpPolicy, path: &ShelfPath) -> bool {
    let below = path.as_str().strip_prefix(policy.layout.reports.as_str());
    let name = below.and_then(|below| below.strip_prefix('/'));
    name.is_some_and(|name| name.starts_with(report::NAME) || name == report::LATEST)
}

async fn presence(shelf: &dyn Shelf, sizes: &BTreeMap<ShelfPath, u64>, dump: &ShelfPath) -> Result<Presence> {
    if let Some(size_bytes) = sizes.get(dump) {
        return Ok(Presence::File { size_bytes: *size_bytes });
    }
    // A listing leaves links out.
    match shelf.head(dump).await {
        Ok(file) => Ok(Presence::Link { size_bytes: file.size_bytes }),
        Err(StoreError::NotFound { .. }) => Ok(Presence::Gone),
        // A link to what is no file: the bytes are not to be had either.
        Err(StoreError::Io { .. }) => Ok(Presence::Gone),
        Err(error) => Err(failed(shelf, error)),
    }
}

/// A set is as good as each of its files.
async fn broken_member(
    shelf: &dyn Shelf,
    sizes: &BTreeMap<ShelfPath, u64>,
    dump: &ShelfPath,
    record: &DumpRecord,
) -> Result<Option<String>> {
    for member in &record.members {
        let Ok(path) = dump.sibling(&member.file) else {
            return Ok(Some(format!("{:?}, which belongs to it, is no name of a file", member.file)));
        };
        let written = member.stored_bytes;
        match presence(shelf, sizes, &path).await?.size_bytes() {
            Some(size_bytes) if size_bytes == written => {}
            Some(size_bytes) => {
                let reason = format!("it has {size_bytes} bytes, and was taken in with {written}");
                return Ok(Some(format!("{path}, which belongs to it, is damaged: {reason}")));
            }
            None => return Ok(Some(format!("{path}, which belongs to it, is gone"))),
        }
    }
    Ok(None)
}

impl Shelved {
    fn file(&self, sidecar: Sidecar, path: ShelfPath, beside: ShelfPath, presence: Presence) -> ShelvedFile {
        let Sidecar { mut record, held_until, hold_reason, expired_at } = sidecar;
        record.tables = Vec::new();
        record.warnings = Vec::new();
        record.needs = Default::default();
        let is_cut = presence.size_bytes().is_some_and(|size_bytes| size_bytes != record.stored_bytes);
        let is_known_bad = self.report().is_some_and(|report| report.says_damaged(path.as_str(), &record));
        ShelvedFile {
            dump: DumpOnShelf {
                tier: record.tier,
                record,
                path: path.to_string(),
                hold: held_until.map(|until| Hold { until, reason: hold_reason }),
                damaged: is_cut || is_known_bad,
            },
            presence,
            path,
            sidecars: vec![beside],
            broken_member: None,
            is_expiring: expired_at.is_some(),
        }
    }

    pub(super) fn report(&self) -> Option<&VerificationReport> {
        match &self.last {
            Last::Ours(report) => Some(report),
            Last::None | Last::Unreadable { .. } => None,
        }
    }

    /// Where a person finds a path of the shelf.
    pub(super) fn full(&self, path: &ShelfPath) -> String {
        full(&self.shelf, path.as_str())
    }

    /// The newest that can stand for this one.
    pub(super) fn newest_good(&self, record: &DumpRecord) -> Option<&ShelvedFile> {
        self.files.iter().find(|file| file.is_good() && file.is_of_series(record))
    }

    /// Which good dump there is of the same, or what makes one.
    pub(super) fn instead(&self, record: &DumpRecord) -> String {
        match self.newest_good(record) {
            Some(good) => {
                let (path, at) = (self.full(&good.path), good.record().finished_at);
                format!("the newest good dump of it is {}, of {at}: {path}", good.record().id)
            }
            None => {
                let instance = &record.instance;
                format!("no good dump of it is left: `backstay dump {instance}` takes one")
            }
        }
    }

    fn tell_what_is_gone(&mut self) {
        let gone = self.files.iter().filter(|file| file.presence == Presence::Gone);
        let told: Vec<Finding> = gone
            .map(|file| {
                let message = format!("the file of dump {} is gone, its sidecar is there", file.record().id);
                Finding::error(self.full(&file.path), message, self.instead(file.record()))
            })
            .collect();
        let parted = self.files.iter().filter(|file| file.presence != Presence::Gone);
        let parted = parted.filter_map(|file| Some((file, file.broken_member.clone()?)));
        let broken: Vec<Finding> = parted
            .map(|(file, reason)| Finding::error(self.full(&file.path), reason, self.instead(file.record())))
            .collect();
        self.findings.extend(told.into_iter().chain(broken));
    }
}

/// What is said of a file that was cut, or written over.
pub(super) fn wrong_size(shelved: &Shelved, file: &ShelvedFile, size_bytes: u64) -> Finding {
    let written = file.record().stored_bytes;
    let message = format!("it is damaged: it has {size_bytes} bytes, and was written with {written}");
    Finding::error(shelved.full(&file.path), message, shelved.instead(file.record()))
}

/// A path below a shelf as a person types it.
pub(crate) fn full(shelf: &str, path: &str) -> String {
    format!("{}/{path}", shelf.strip_prefix("file://").unwrap_or(shelf))
}

/// The lock of the shelf, or the end of waiting for it.
pub(crate) async fn alone(run: &Run, shelf: &dyn Shelf) -> Result<ShelfLock> {
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Error::Cancelled),
        locked = shelf.lock() => locked.map_err(|error| failed(shelf, error)),
    }
}

pub(crate) fn failed(shelf: &dyn Shelf, source: StoreError) -> Error {
    Error::Shelf { shelf: shelf.location().to_owned(), source }
}

#[cfg(test)]
mod tests;
