//! Adopt: dumps that other programs left, taken in where they lie.
//!
//! What a file is, its content says and not its name; when it was taken, its name says
//! where the layout reads it, else the file's own time. Each is read to its end, so that
//! nothing damaged passes for a dump, and gets a sidecar beside it: from then on it is
//! listed, verified, restored and expired like one that Backstay took. The file itself is
//! never touched.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use backstay_engine::postgres::dump::RelationName;
use backstay_engine::postgres::inspect::InspectKind;
use backstay_engine::postgres::reload::{Archive, ArchiveReader, ScriptNames, VersionScan};
use backstay_model::dump::template::Matched;
use backstay_model::dump::{
    DumpCipher, DumpCompression, DumpContent, DumpFormat, DumpRecord, DumpShape, Tier,
};
use backstay_model::error::Classified;
use backstay_model::{BackupId, ErrorKind};
use backstay_repo::dump::{DumpError, DumpInside, DumpLayer, DumpReader, HMAC_SUFFIX};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfFile, ShelfPath};
use backstay_repo::store::StoreError;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::dump::DumpPolicy;
use crate::dump::inside::{self, Found, Kind, Looking};
use crate::dump::needed::{self, Needed};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

mod append_only;
mod sets;

/// The sidecar where the layout's own name is taken by somebody else's.
const OTHER_SIDECAR: &str = ".meta.json";
const TIMESCALEDB: &str = "timescaledb";
const UNPACK: &str = "unpack it with `tar -xf`, and give the directory to `backstay adopt`";
/// Ours are far below; somebody else's of the name is not read.
const SIDECAR_MAX_BYTES: u64 = 4 << 20;

/// What a person may say of one adoption.
#[derive(Debug, Clone)]
pub struct AdoptRequest {
    pub directory: PathBuf,
    /// Say what would be taken in, and write nothing.
    pub dry_run: bool,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdoptedFile {
    /// Below the directory.
    pub path: String,
    #[serde(flatten)]
    pub fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "fate")]
pub enum Fate {
    /// It has a sidecar now, or would have.
    Adopted {
        record: Box<DumpRecord>,
        what: String,
    },
    /// It had one.
    Known,
    /// It has the name of the layout's pointer, and is a copy of this dump.
    Pointer {
        dump: BackupId,
    },
    /// A dump of something that this version does not take in.
    Later {
        what: String,
    },
    /// Its pass phrase is missing or another.
    Closed {
        reason: String,
    },
    Damaged {
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize)]
pub struct AdoptReport {
    pub directory: String,
    pub files: Vec<AdoptedFile>,
    /// Files that are no dumps of any kind.
    pub others: u64,
}

impl AdoptReport {
    pub fn is_sound(&self) -> bool {
        !self.files.iter().any(|file| matches!(file.fate, Fate::Damaged { .. } | Fate::Closed { .. }))
    }
}

pub async fn run(
    run: &Run,
    instance: &Instance,
    policy: &DumpPolicy,
    request: &AdoptRequest,
) -> Result<AdoptReport> {
    let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(&request.directory));
    run.progress.enter("look what is there");
    let of_shelf = |error: Error| error.of_shelf(shelf.location());
    let files = shelf.list_all(None).await.map_err(backstay_repo::Error::from);
    let mut files = files.map_err(|error| of_shelf(error.into()))?;
    let sidecars = [policy.layout.sidecar.as_str(), OTHER_SIDECAR];
    let is_beside =
        |path: &str| path.ends_with(HMAC_SUFFIX) || sidecars.iter().any(|suffix| path.ends_with(suffix));
    let reports = format!("{}/", policy.layout.reports);
    files.retain(|file| !is_beside(file.path.as_str()) && !file.path.as_str().starts_with(&reports));
    // Whether one of that name is a copy is known when the others were read.
    files.sort_by_key(|file| policy.layout.is_pointer(file.path.as_str()));
    let mut report = AdoptReport { directory: shelf.location().to_owned(), files: Vec::new(), others: 0 };
    let mut ids = HashMap::new();
    let total = files.iter().map(|file| file.size_bytes).sum();
    run.progress.begin("read the dumps", total);
    let adopting = Adopting { run, instance, policy, request, shelf: &shelf };
    let sets = sets::find(&request.directory, instance.kind(), &files).await?;
    for file in files {
        run.check_cancelled()?;
        if sets.is_member(&file.path) {
            run.progress.done(file.size_bytes);
            continue;
        }
        if sets.is_aside(&file.path) {
            run.progress.done(file.size_bytes);
            report.others += 1;
            continue;
        }
        if let Some(members) = sets.members(&file.path) {
            let file = ShelfFile { modified: sets.newest(&file.path).or(file.modified), ..file };
            let adopted = adopting.adopt_set(&file, members, &sidecars, &mut ids).await;
            let fate = adopted.or_else(sets::fate)?;
            report.files.push(AdoptedFile { path: file.path.to_string(), fate });
            continue;
        }
        match adopting.adopt(&file, &sidecars, &mut ids).await.map_err(of_shelf)? {
            Some(fate) => report.files.push(AdoptedFile { path: file.path.to_string(), fate }),
            None => report.others += 1,
        }
        run.progress.done(file.size_bytes);
    }
    Ok(report)
}

struct Adopting<'a> {
    run: &'a Run,
    instance: &'a Instance,
    policy: &'a DumpPolicy,
    request: &'a AdoptRequest,
    shelf: &'a Arc<dyn Shelf>,
}

/// What was learned of a file by reading it.
struct Read {
    layers: Vec<DumpLayer>,
    inside: DumpInside,
    archive: Option<Archive>,
    found: Found,
    /// Of TimescaleDB in an archive, where it says it.
    timescaledb: Option<String>,
    /// Of statements.
    names: Option<ScriptNames>,
    raw_bytes: u64,
    sha256: String,
}

impl Adopting<'_> {
    /// `ids` are those of the dumps so far, by what their bytes are: one dump lies under
    /// several names where scripts copied or linked it among the weeks and the months.
    async fn adopt(
        &self,
        file: &ShelfFile,
        sidecars: &[&str],
        ids: &mut HashMap<String, BackupId>,
    ) -> Result<Option<Fate>> {
        if let Some(known) = self.known(&file.path, sidecars).await? {
            ids.insert(known.sha256, known.id);
            return Ok(Some(Fate::Known));
        }
        let read = match self.read(&file.path).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(Error::Repo(backstay_repo::Error::Dump(DumpError::Unknown { .. }))) => return Ok(None),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => {
                let reason = crate::status::with_causes(&error);
                return match error.kind() {
                    ErrorKind::Corrupt => Ok(Some(Fate::Damaged { reason })),
                    ErrorKind::Denied => Ok(Some(Fate::Closed { reason })),
                    ErrorKind::Unsupported => {
                        let hint = error.hints().into_iter().next();
                        let what = hint.map_or(reason.clone(), |hint| format!("{reason}; {hint}"));
                        Ok(Some(Fate::Later { what }))
                    }
                    // Somebody's rotation was faster.
                    ErrorKind::NotFound => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let what = described(&read);
        if let Some(engine) = inside::engine(read.inside).filter(|engine| *engine != self.instance.kind()) {
            let what = format!("{what}; adopt it for an instance of engine {engine}");
            return Ok(Some(Fate::Later { what }));
        }
        let format = match read.inside {
            DumpInside::CustomArchive => DumpFormat::Custom,
            DumpInside::PlainSql => DumpFormat::Plain,
            DumpInside::TarArchive | DumpInside::DirectoryTar => DumpFormat::Directory,
            _ => match read.found.format() {
                Some(format) => format,
                None => {
                    let what = format!("{what}, without one dump where it begins; {UNPACK}");
                    return Ok(Some(Fate::Later { what }));
                }
            },
        };
        let mut record = self.record(file, &read, format)?;
        if self.policy.layout.is_pointer(file.path.as_str())
            && let Some(dump) = ids.get(&record.sha256)
        {
            return Ok(Some(Fate::Pointer { dump: dump.clone() }));
        }
        if let Some(id) = ids.get(&record.sha256) {
            record.id = id.clone();
        }
        if !self.request.dry_run
            && let Some(taken) = self.describe(&file.path, &record, sidecars).await?
        {
            let reason = format!("its sidecar cannot be written: {taken} is somebody else's; move that away");
            return Ok(Some(Fate::Closed { reason }));
        }
        ids.insert(record.sha256.clone(), record.id.clone());
        Ok(Some(Fate::Adopted { record: Box::new(record), what }))
    }

    /// What its own sidecar says. One that came along with a file of another name says
    /// nothing of this.
    async fn known(&self, path: &ShelfPath, sidecars: &[&str]) -> Result<Option<DumpRecord>> {
        for suffix in sidecars {
            let Ok(beside) = path.beside(suffix) else { continue };
            match self.shelf.get(&beside, SIDECAR_MAX_BYTES).await {
                Ok(json) => match serde_json::from_slice::<DumpRecord>(&json) {
                    Ok(record) if record.file == path.file_name() => return Ok(Some(record)),
                    // Somebody else's, whose name is the same.
                    _ => {}
                },
                Err(StoreError::NotFound { .. } | StoreError::TooLarge { .. }) => {}
                Err(error) => return Err(backstay_repo::Error::from(error).into()),
            }
        }
        Ok(None)
    }

    /// To its end: only then it is known to be whole.
    async fn read(&self, path: &ShelfPath) -> Result<Option<Read>> {
        let mut reader = DumpReader::open_with_any(self.shelf, path, &self.policy.passphrases()).await?;
        let inside = reader.known().map_err(backstay_repo::Error::from)?;
        let layers = reader.layers().to_vec();
        let mut archive = None;
        let own = self.instance.kind();
        let is_other = inside::engine(inside).is_some_and(|engine| engine != own);
        let snapshot = inside::snapshot_kind(inside, own);
        if is_other || inside == DumpInside::Tar && snapshot.is_none() {
            // Whether it is whole is for whoever adopts it.
            let (raw_bytes, sha256, found, names) = (0, String::new(), Found::Nothing, None);
            return Ok(Some(Read {
                layers,
                inside,
                archive,
                found,
                timescaledb: None,
                names,
                raw_bytes,
                sha256,
            }));
        }
        let mut version = (inside == DumpInside::CustomArchive).then(VersionScan::default);
        let mut contents = (inside == DumpInside::CustomArchive).then(ArchiveReader::default);
        // The pipe of a script whose `pg_dump` died ends well, and its statements do not; an
        // archive may have no layer over it that would notice a cut.
        let kind = match inside {
            DumpInside::PlainSql => Some(Kind::Postgres(InspectKind::Statements)),
            DumpInside::PlainCluster => Some(Kind::Postgres(InspectKind::Cluster)),
            DumpInside::CustomArchive => Some(Kind::Postgres(InspectKind::Archive)),
            DumpInside::TarArchive | DumpInside::DirectoryTar => Some(Kind::Postgres(InspectKind::Directory)),
            _ => snapshot.map(Kind::Snapshot),
        };
        let mut inspection = kind.map(|kind| Looking::begin(kind, None)).transpose()?;
        let is_statements = matches!(inside, DumpInside::PlainSql | DumpInside::PlainCluster);
        let mut needed = is_statements.then(Needed::begin);
        while let Some(bytes) = reader.read().await? {
            self.run.check_cancelled()?;
            if let Some(needed) = &mut needed {
                needed.push(&bytes).await;
            }
            if let Some(version) = &mut version {
                version.push(&bytes);
            }
            if let Some(inspection) = &mut inspection {
                inspection.write(&bytes).await?;
            }
            if let Some(reading) = &mut contents {
                archive = reading.push(&bytes)?;
                if archive.is_some() {
                    contents = None;
                }
            }
        }
        if let Some(reading) = contents {
            archive = Some(reading.end()?);
        }
        let found = match inspection {
            Some(inspection) => inspection.finish().await?,
            None => Found::Nothing,
        };
        let names = needed.map(Needed::finish);
        let read = reader.finish().await?;
        let (raw_bytes, sha256) = (read.raw_bytes, read.sha256);
        let timescaledb = version.and_then(VersionScan::finish);
        Ok(Some(Read { layers, inside, archive, found, timescaledb, names, raw_bytes, sha256 }))
    }

    fn record(&self, file: &ShelfFile, read: &Read, format: DumpFormat) -> Result<DumpRecord> {
        let located = self.policy.layout.locate(file.path.as_str());
        let named = located.as_ref().and_then(|located| located.database.clone());
        let content = match (read.found.content(), &read.archive, named) {
            (Some(content), _, _) => content,
            (None, Some(archive), _) => content(archive.database.clone(), Some(archive)),
            (None, None, Some(named)) => content(named, None),
            // A layout whose names say no database is for one.
            (None, None, None) => content(self.instance.postgres()?.address()?.database().to_owned(), None),
        };
        // A person who takes one by hand may take it of any database.
        let says_whose = |located: &Matched| !located.is_by_hand || located.database.is_some();
        let is_said = located.as_ref().is_some_and(says_whose);
        let guessed = read.found.content().is_none() && read.archive.is_none() && !is_said;
        let named = located.as_ref().map(|located| match located.is_of_day {
            true => within_day(located.time, file, read),
            false => located.time,
        });
        let time = named.or_else(|| read.found.taken_at()).or(file.modified);
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH);
        let tier = located.and_then(|located| located.tier).unwrap_or(Tier::Daily);
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| Error::broken("the system gives no random numbers"))?;
        let of_archive =
            |field: fn(&Archive) -> &String| read.archive.as_ref().map(|archive| field(archive).clone());
        let needs = needed::of(read.names.clone(), &content);
        Ok(DumpRecord {
            id: BackupId::new(time, u32::from_le_bytes(random)),
            instance: self.instance.id.clone(),
            environment: self.instance.environment.clone(),
            engine: self.instance.kind(),
            content,
            set: None,
            file: file.path.file_name().to_owned(),
            tier,
            started_at: time,
            finished_at: time,
            duration_seconds: 0.0,
            shape: shape(&read.layers, format),
            raw_bytes: read.raw_bytes,
            stored_bytes: file.size_bytes,
            compression_ratio: read.raw_bytes as f64 / file.size_bytes.max(1) as f64,
            sha256: read.sha256.clone(),
            database_bytes: None,
            position: None,
            system_identifier: None,
            server_version: of_archive(|archive| &archive.server_version)
                .or_else(|| read.found.server_version()),
            tool_version: of_archive(|archive| &archive.tool_version).or_else(|| read.found.tool_version()),
            backstay_version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: read.timescaledb.iter().map(|v| (TIMESCALEDB.to_owned(), v.clone())).collect(),
            tables: Vec::new(),
            timescaledb: None,
            needs,
            warnings: read.found.warnings(),
            members: Vec::new(),
            adopted: true,
            safety: false,
            guessed,
        })
    }

    /// The name that was taken, when all are.
    async fn describe(
        &self,
        path: &ShelfPath,
        record: &DumpRecord,
        sidecars: &[&str],
    ) -> Result<Option<ShelfPath>> {
        let mut json = serde_json::to_vec_pretty(record).map_err(|error| Error::broken(error.to_string()))?;
        json.push(b'\n');
        let mut taken = None;
        for suffix in sidecars {
            let beside = path.beside(suffix).map_err(backstay_repo::Error::from)?;
            match self.shelf.put_if_absent(&beside, json.clone().into()).await {
                Ok(()) => return Ok(None),
                Err(StoreError::AlreadyExists { .. }) => taken = Some(beside),
                Err(error) => return Err(backstay_repo::Error::from(error).into()),
            }
        }
        Ok(taken)
    }
}

/// When in the day of its name a dump was taken: as it says itself, which is by the clock on
/// some wall and so may be ahead of the file; or as the file says, unless it is a copy of
/// another day.
fn within_day(midnight: Timestamp, file: &ShelfFile, read: &Read) -> Timestamp {
    let in_utc = |at: DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let begun_at = read.archive.as_ref().and_then(|archive| archive.begun_at).and_then(in_utc);
    let own = begun_at.or_else(|| read.found.taken_at());
    let own = own.filter(|own| file.modified.is_none_or(|modified| *own <= modified));
    let day = |at: &Timestamp| at.to_zoned(TimeZone::UTC).date();
    let mut known = own.into_iter().chain(file.modified);
    known.find(|at| day(at) == day(&midnight)).unwrap_or(midnight)
}

/// An archive with tables and no rows, or with rows and no tables, holds parts: it must
/// never stand for the whole. One of chosen tables looks like that of a database that has
/// no others, and cannot be told from it.
fn content(database: String, archive: Option<&Archive>) -> DumpContent {
    let Some(archive) = archive else { return DumpContent::Database { database } };
    let has = |kind: &str| archive.entries.iter().any(|entry| entry.kind == kind);
    if has("TABLE DATA") == has("TABLE") {
        return DumpContent::Database { database };
    }
    let tables = archive.entries.iter().filter(|entry| entry.kind == "TABLE" || entry.kind == "TABLE DATA");
    let tables: BTreeSet<String> = tables
        .map(|entry| RelationName { schema: entry.schema.clone(), name: entry.name.clone() }.to_string())
        .collect();
    DumpContent::Parts { database, tables: tables.into_iter().collect(), schemas: Vec::new() }
}

/// As near as the words for dumps of our own come: of another program's layers, the
/// content speaks for itself when it is opened.
fn shape(layers: &[DumpLayer], format: DumpFormat) -> DumpShape {
    let cipher = layers.iter().find_map(|layer| match layer {
        DumpLayer::Openssl => Some(DumpCipher::Openssl),
        DumpLayer::Openpgp => Some(DumpCipher::Openpgp),
        _ => None,
    });
    let compression = layers.iter().find_map(|layer| match layer {
        DumpLayer::Gzip => Some(DumpCompression::Gzip),
        DumpLayer::Zstd => Some(DumpCompression::Zstd),
        _ => None,
    });
    DumpShape {
        format,
        compression: compression.unwrap_or(DumpCompression::None),
        cipher: cipher.unwrap_or(DumpCipher::None),
    }
}

fn described(read: &Read) -> String {
    let inside = inside::described(read.inside);
    let over: Vec<String> = read.layers.iter().rev().map(ToString::to_string).collect();
    if over.is_empty() { inside.to_owned() } else { format!("{inside}, under {}", over.join(" and ")) }
}
