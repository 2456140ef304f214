//! The bytes of one dump, read to the end once, for every name that they have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::postgres::client_programs::ClientPrograms;
use backstay_engine::postgres::inspect::InspectKind;
use backstay_model::dump::{DumpCipher, DumpFormat, DumpMember, DumpRecord};
use backstay_model::error::Classified;
use backstay_model::{EngineKind, ErrorKind, Finding, Secret, VerifyLevel};
use backstay_repo::dump::{DumpError, DumpInside, DumpRead, DumpReader, HMAC_SUFFIX};
use backstay_repo::shelf::Shelf;
use backstay_repo::store::StoreError;

use crate::dump::append_only;
use crate::dump::inside::{self, Kind, Looking};
use crate::dump::shelved::ShelvedFile;
use crate::error::{Error, Result};
use crate::run::Run;

/// The line that authenticates a dump; a larger file is something else.
const HMAC_MAX_BYTES: u64 = 4096;

/// What a look at one name came to.
#[derive(Debug, Clone)]
pub(super) enum Look {
    Good { notes: Vec<Note> },
    Damaged { reason: String },
    Gone,
    Unseen { reason: String, remedy: String },
}

/// What was noticed of a file that is good.
#[derive(Debug, Clone)]
pub(super) struct Note {
    message: String,
    remedy: &'static str,
    /// It was so when it was taken in, and was told then.
    is_known: bool,
}

impl Note {
    pub fn of(self, subject: impl Into<String>) -> Finding {
        match self.is_known {
            true => Finding::info(subject, self.message, self.remedy),
            false => Finding::warning(subject, self.message, self.remedy),
        }
    }
}

impl Look {
    pub fn nothing_wrong() -> Self {
        Look::Good { notes: Vec::new() }
    }
}

/// Why reading ended before the end, as it is for every name of the bytes.
type Stopped = Look;

pub(super) struct Contents<'a> {
    run: &'a Run,
    shelf: &'a Arc<dyn Shelf>,
    passphrases: Vec<&'a Secret>,
    level: VerifyLevel,
    bin_directory: Option<PathBuf>,
    /// Where the shelf lies.
    directory: &'a Path,
    /// By the version that wrote the dump: looked for once each.
    programs: BTreeMap<u32, Option<ClientPrograms>>,
}

/// What was found inside.
struct Seen {
    read: DumpRead,
    /// No `pg_restore` listed it, and why.
    unlisted: Option<String>,
    /// What a server would leave out, and the like.
    noted: Vec<String>,
}

impl<'a> Contents<'a> {
    pub fn new(
        run: &'a Run,
        shelf: &'a Arc<dyn Shelf>,
        directory: &'a Path,
        passphrases: Vec<&'a Secret>,
        level: VerifyLevel,
        bin_directory: Option<&Path>,
    ) -> Self {
        let bin_directory = bin_directory.map(Path::to_owned);
        Self { run, shelf, directory, passphrases, level, bin_directory, programs: BTreeMap::new() }
    }

    /// Looks at the bytes that have these names; how many were read, and a verdict on each name.
    pub async fn look(&mut self, names: &[&ShelvedFile]) -> Result<(u64, Vec<Look>)> {
        let Some(first) = names.first() else { return Ok((0, Vec::new())) };
        let cancel = self.run.cancel.clone();
        let read = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            read = self.read(first) => read?,
        };
        let seen = match read {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok((0, vec![Look::nothing_wrong(); names.len()])),
            Err(stopped) => return Ok((0, vec![stopped; names.len()])),
        };
        let line = self.authentication(first).await;
        let mut looks = Vec::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            let mut look = against(name.record(), &seen);
            if let (Look::Good { notes }, true) = (&mut look, name.record().shape.cipher != DumpCipher::None)
            {
                let own = if number == 0 { line.clone() } else { self.authentication(name).await };
                notes.extend(unauthenticated(
                    name.record(),
                    own.as_ref(),
                    line.as_ref(),
                    seen.read.is_authentic,
                ));
            }
            looks.push(look);
        }
        let of_members: u64 = first.record().members.iter().map(|member| member.stored_bytes).sum();
        Ok((seen.read.stored_bytes + of_members, looks))
    }

    /// `None` when it opens and was not to be read further.
    async fn read(&mut self, file: &ShelvedFile) -> Result<Result<Option<Seen>, Stopped>> {
        let record = file.record();
        let mut reader = match DumpReader::open_with_any(self.shelf, &file.path, &self.passphrases).await {
            Ok(reader) => reader,
            Err(error) => return stopped(error).map(Err),
        };
        let kind = match kind(record, reader.inside()) {
            Ok(kind) => kind,
            Err(reason) => return Ok(Err(Look::Damaged { reason })),
        };
        if self.level < VerifyLevel::Digest {
            return Ok(Ok(None));
        }
        let programs = self.programs_for(record);
        let mut unlisted = match (kind, programs) {
            (Kind::Postgres(InspectKind::Archive | InspectKind::Directory), None) => {
                Some("no `pg_restore` of that version or a newer one is here".to_owned())
            }
            _ => None,
        };
        let mut inspection = match Looking::begin(kind, programs) {
            Ok(inspection) => Some(inspection),
            Err(error) => {
                unlisted = Some(with_causes(&error));
                None
            }
        };
        let mut wrong_inside = None;
        loop {
            let chunk = match reader.read().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return stopped(error).map(Err),
            };
            self.run.progress.done(chunk.len() as u64);
            if let Some(inside) = &mut inspection
                && let Err(error) = inside.write(&chunk).await
            {
                inspection = None;
                note_inside(error, &mut wrong_inside, &mut unlisted)?;
            }
        }
        if let Some(inspection) = inspection
            && let Err(error) = inspection.finish().await
        {
            note_inside(error, &mut wrong_inside, &mut unlisted)?;
        }
        let read = match reader.finish().await {
            Ok(read) => read,
            Err(error) => return stopped(error).map(Err),
        };
        let noted = match record.shape.format {
            DumpFormat::AppendOnly => match self.append_only(file).await? {
                Ok(noted) => noted,
                Err(look) => return Ok(Err(look)),
            },
            _ => {
                for member in &record.members {
                    if let Err(look) = self.member(file, member).await? {
                        return Ok(Err(look));
                    }
                }
                Vec::new()
            }
        };
        // Bytes that are not those that were written explain whatever is wrong inside.
        match wrong_inside.filter(|_| read.sha256 == record.sha256) {
            Some(reason) => Ok(Err(Look::Damaged { reason })),
            None => Ok(Ok(Some(Seen { read, unlisted, noted }))),
        }
    }

    /// A file that belongs to the dump is what it was.
    async fn member(&self, file: &ShelvedFile, member: &DumpMember) -> Result<Result<(), Stopped>> {
        let path = file.path.sibling(&member.file).map_err(backstay_repo::Error::from)?;
        let reader = match DumpReader::open(self.shelf, &path, None).await {
            Ok(reader) => reader,
            Err(backstay_repo::Error::Store(StoreError::NotFound { .. })) => {
                return Ok(Err(Look::Damaged { reason: format!("{path}, which belongs to it, is gone") }));
            }
            Err(error) => return stopped(error).map(Err),
        };
        match reader.finish().await {
            Ok(read) if read.sha256 == member.sha256 => Ok(Ok(())),
            Ok(read) => Ok(Err(Look::Damaged {
                reason: format!("{path}, which belongs to it, is damaged: its SHA-256 is {}", read.sha256),
            })),
            Err(error) => stopped(error).map(Err),
        }
    }

    /// Append-only files, read as a server would load them; each was read once then.
    async fn append_only(&self, file: &ShelvedFile) -> Result<Result<Vec<String>, Stopped>> {
        let found = match append_only::read(self.run, self.directory, &file.path).await {
            Ok(found) => found,
            Err(error) => {
                let reason = with_causes(&error);
                return match error.kind() {
                    ErrorKind::Corrupt | ErrorKind::NotFound => {
                        Ok(Err(Look::Damaged { reason: format!("it is not whole inside: {reason}") }))
                    }
                    ErrorKind::Denied | ErrorKind::Unavailable => {
                        let remedy = "see whether backstay may read the directory of `dump.to`".to_owned();
                        Ok(Err(Look::Unseen { reason, remedy }))
                    }
                    _ => Err(error),
                };
            }
        };
        match append_only::differing(file.record(), &found) {
            Some(name) => Ok(Err(Look::Damaged {
                reason: format!("{name}, which belongs to it, is damaged: it is not what was taken in"),
            })),
            None => Ok(Ok(inside::of_append_only(&found))),
        }
    }

    fn programs_for(&mut self, record: &DumpRecord) -> Option<&ClientPrograms> {
        let version = record.tool_version.as_deref().or(record.server_version.as_deref()).unwrap_or_default();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().unwrap_or(0);
        let bin_directory = self.bin_directory.as_deref();
        let found = self.programs.entry(major);
        found.or_insert_with(|| ClientPrograms::find(major, bin_directory).ok()).as_ref()
    }

    /// The line beside a file, as it is; none when it is not there or does not read.
    async fn authentication(&self, file: &ShelvedFile) -> Option<bytes::Bytes> {
        let path = file.path.beside(HMAC_SUFFIX).ok()?;
        self.shelf.get(&path, HMAC_MAX_BYTES).await.ok()
    }
}

/// What the bytes are for a name whose sidecar says what they should be.
fn against(record: &DumpRecord, seen: &Seen) -> Look {
    let DumpRead { raw_bytes, sha256, .. } = &seen.read;
    if *sha256 != record.sha256 {
        let written = &record.sha256;
        return Look::Damaged {
            reason: format!("it is damaged: its SHA-256 is {sha256}, and was {written} when it was written"),
        };
    }
    if *raw_bytes != record.raw_bytes {
        let written = record.raw_bytes;
        return Look::Damaged {
            reason: format!("{raw_bytes} bytes came out of it, and {written} were put in"),
        };
    }
    let notes = seen.unlisted.iter().map(|reason| Note {
        message: format!("it is as it was written, and its contents were not listed: {reason}"),
        remedy: "install `postgresql-client-…` of the version that wrote it, or name its directory with `bin_directory`",
        is_known: false,
    });
    let noted = seen.noted.iter().map(|message| Note {
        message: message.clone(),
        remedy: "where the server still has its files, copy them anew, and run `backstay adopt` on the copy",
        is_known: true,
    });
    Look::Good { notes: notes.chain(noted).collect() }
}

/// An encrypted dump of ours has a line beside it that authenticates it.
fn unauthenticated(
    record: &DumpRecord,
    own: Option<&bytes::Bytes>,
    proved: Option<&bytes::Bytes>,
    is_authentic: bool,
) -> Option<Note> {
    const REMEDY: &str =
        "compare the dump's SHA-256 with a copy of its sidecar, or put back a copy of its `.hmac`";
    match (own, is_authentic) {
        (None, _) if record.adopted => None,
        (None, _) => Some(Note {
            message: "its authentication is gone: nothing but its sidecar says that it is what was written"
                .to_owned(),
            remedy: REMEDY,
            is_known: false,
        }),
        (Some(_), true) if own != proved => Some(Note {
            message: "its authentication is not that of the other names of the same file".to_owned(),
            remedy: REMEDY,
            is_known: false,
        }),
        (Some(_), _) => None,
    }
}

/// What has to come out of a file of this record.
fn kind(record: &DumpRecord, inside: DumpInside) -> Result<Kind, String> {
    if let Some(snapshot) = inside::snapshot_kind(inside, record.engine) {
        return Ok(Kind::Snapshot(snapshot));
    }
    // The head of several files has no inside of its own.
    if !record.members.is_empty() {
        return Ok(Kind::Nothing);
    }
    if record.engine != EngineKind::Postgresql {
        return Err(format!("what is inside of it is no dump of {}", record.engine.name()));
    }
    let kind = match inside {
        DumpInside::CustomArchive | DumpInside::TarArchive => Ok(InspectKind::Archive),
        DumpInside::DirectoryTar => Ok(InspectKind::Directory),
        DumpInside::PlainSql => Ok(InspectKind::Statements),
        DumpInside::PlainCluster => Ok(InspectKind::Cluster),
        _ => Err("what is inside of it is no dump of PostgreSQL".to_owned()),
    }?;
    let fits = match record.shape.format {
        DumpFormat::Custom => kind == InspectKind::Archive,
        DumpFormat::Directory => kind == InspectKind::Directory,
        DumpFormat::Plain => matches!(kind, InspectKind::Statements | InspectKind::Cluster),
        DumpFormat::Rdb | DumpFormat::Influxdb | DumpFormat::AppendOnly => false,
    };
    match fits || record.adopted {
        true => Ok(Kind::Postgres(kind)),
        false => Err(format!("what is inside of it is no dump in the {} format", record.shape.format)),
    }
}

/// An error of looking inside: a fault of the dump, or of who looked.
fn note_inside(
    error: backstay_engine::Error,
    wrong: &mut Option<String>,
    unlisted: &mut Option<String>,
) -> Result<()> {
    match error.kind() {
        ErrorKind::Corrupt => *wrong = Some(format!("it is not whole inside: {}", with_causes(&error))),
        ErrorKind::Cancelled => return Err(error.into()),
        _ => *unlisted = Some(with_causes(&error)),
    }
    Ok(())
}

/// Damage is the dump's, the rest is for want of a look; a bug of ours is neither.
fn stopped(error: backstay_repo::Error) -> Result<Look> {
    use backstay_repo::Error as Repo;
    let remedy = |error: &backstay_repo::Error| match error {
        Repo::Store(_) => "see whether backstay may read the directory of `dump.to`".to_owned(),
        other => {
            other.hints().into_iter().next().unwrap_or_else(|| "`backstay verify` looks again".to_owned())
        }
    };
    match &error {
        Repo::Dump(DumpError::Damaged { file, reason, .. }) if file.ends_with(HMAC_SUFFIX) => {
            Ok(Look::Damaged { reason: format!("its authentication in {file} is damaged: {reason}") })
        }
        Repo::Dump(DumpError::Damaged { offset_bytes, reason, .. }) => {
            Ok(Look::Damaged { reason: format!("it is damaged, noticed at byte {offset_bytes}: {reason}") })
        }
        Repo::Store(StoreError::NotFound { .. }) => Ok(Look::Gone),
        other => match other.kind() {
            ErrorKind::Corrupt => Ok(Look::Damaged { reason: with_causes(other) }),
            ErrorKind::Denied | ErrorKind::Unavailable | ErrorKind::Unsupported => {
                Ok(Look::Unseen { reason: with_causes(other), remedy: remedy(other) })
            }
            _ => Err(error.into()),
        },
    }
}

/// An error and what caused it in one line, for a finding.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let below = error.to_string();
        if !text.ends_with(&below) {
            text.push_str(&format!(": {below}"));
        }
        cause = error.source();
    }
    text
}
