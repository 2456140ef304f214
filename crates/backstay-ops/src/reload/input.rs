//! A dump that was opened: what it holds, and its bytes.

use std::collections::VecDeque;

use backstay_engine::postgres::reload::{
    Archive, ArchiveReader, ClusterPart, ContentsSearch, DumpNeeds, Selection, refuse_commands,
};
use backstay_model::dump::DumpContent;
use backstay_repo::dump::{DumpError, DumpInside, DumpRead, DumpReader};
use bytes::Bytes;

use super::ReloadRequest;
use super::choose::Chosen;
use super::fill::spool::SpoolFile;
use super::globals;
use crate::dump::{DumpPolicy, inside as dump_inside};
use crate::error::{Error, Result};
use crate::run::Run;

/// Where `pg_dump --create` says into which database it goes, and where a person looks.
const STATEMENTS_HEAD_BYTES: usize = 64 << 10;
/// The table of contents of a directory of ours stands first; more is read a second time.
const CONTENTS_HEAD_BYTES: usize = 8 << 20;
pub(super) const TIMESCALEDB: &str = "timescaledb";

pub(super) struct Input {
    pub chosen: Chosen,
    pub inside: DumpInside,
    /// Of an archive: what it says of itself.
    pub archive: Option<Archive>,
    /// Takes the one database out of statements of several.
    part: Option<ClusterPart>,
    /// What was chosen of statements, as an archive that is in none of the bytes.
    pub taken_out: Option<SpoolFile>,
    source: Source,
    /// What was read to find out.
    head: VecDeque<Bytes>,
    /// What was read ahead of that, as it is put back.
    ahead: VecDeque<Bytes>,
}

enum Source {
    Stored(DumpReader),
    /// All of it was read, and every check was good.
    Over {
        raw_bytes: u64,
    },
}

impl Input {
    pub async fn open(
        run: &Run,
        policy: &DumpPolicy,
        request: &ReloadRequest,
        mut chosen: Chosen,
        database: &str,
    ) -> Result<Self> {
        let passphrases = policy.passphrases();
        let reader = DumpReader::open_with_any(&chosen.shelf, &chosen.path, &passphrases).await;
        let mut reader = reader.map_err(|error| no_longer(&chosen, error))?;
        let inside = reader.known().map_err(|error| no_longer(&chosen, error.into()))?;
        let mut head = VecDeque::new();
        let mut part = None;
        let archive = match inside {
            DumpInside::CustomArchive => Some(read_head(run, &mut reader, &mut head).await?),
            DumpInside::TarArchive | DumpInside::DirectoryTar => {
                run.progress.enter("look what the dump holds");
                let archive = find_contents(run, &mut reader, &mut head).await?;
                if head.is_empty() {
                    let again = DumpReader::open_with_any(&chosen.shelf, &chosen.path, &passphrases);
                    reader = again.await.map_err(|error| no_longer(&chosen, error))?;
                }
                Some(archive)
            }
            DumpInside::PlainSql | DumpInside::PlainCluster
                if !request.is_of_parts() && (!request.owners || !request.privileges) =>
            {
                return Err(Error::NoChoiceInStatements { file: chosen.path.to_string() });
            }
            DumpInside::PlainSql => {
                read_statements(run, &mut reader, &mut head).await?;
                None
            }
            DumpInside::PlainCluster => {
                part = Some(ClusterPart::of(only(&chosen, database)?));
                // From here on it is a dump of that database, and of no other.
                chosen.record.content = DumpContent::Database { database: database.to_owned() };
                None
            }
            other => {
                return Err(dump_inside::not_reloadable(&chosen.path, other));
            }
        };
        let (source, ahead) = (Source::Stored(reader), VecDeque::new());
        Ok(Self { chosen, inside, archive, part, taken_out: None, source, head, ahead })
    }

    /// What was chosen of a dump that was read to its end.
    pub fn of_taken_out(chosen: Chosen, archive: Archive, file: SpoolFile, raw_bytes: u64) -> Self {
        Self {
            chosen,
            inside: DumpInside::CustomArchive,
            archive: Some(archive),
            part: None,
            taken_out: Some(file),
            source: Source::Over { raw_bytes },
            head: VecDeque::new(),
            ahead: VecDeque::new(),
        }
    }

    pub fn is_statements(&self) -> bool {
        matches!(self.inside, DumpInside::PlainSql | DumpInside::PlainCluster)
    }

    /// Whether several sessions can read it, once it lies somewhere.
    pub fn is_seekable(&self) -> bool {
        self.inside == DumpInside::CustomArchive || self.is_packed()
    }

    /// A tar archive: of `pg_dump -Ft`, or of a directory of `pg_dump -Fd`. The first is
    /// what the second is without compression, so unpacked both are read as a directory;
    /// read from a pipe, its table of contents would have to come first.
    pub fn is_packed(&self) -> bool {
        matches!(self.inside, DumpInside::TarArchive | DumpInside::DirectoryTar)
    }

    /// What the target has to have.
    pub fn needs(&self, request: &ReloadRequest) -> Result<DumpNeeds> {
        let record = &self.chosen.record;
        let globals = self.chosen.globals.as_ref().map(|id| globals::command(&record.instance, id, request));
        let known = DumpNeeds { globals, ..DumpNeeds::of_record(record) };
        if self.is_statements() {
            // By now a dump of several databases is one of the one that is put back.
            let named = record.content.database().and_then(|database| record.needs.get(database));
            return Ok(known.and_statements(named));
        }
        let Some(archive) = &self.archive else { return Ok(known) };
        let (owners, privileges) = (request.owners, request.privileges);
        if !request.is_of_parts() {
            return Ok(known.and_archive(archive, &archive.entries, owners, privileges));
        }
        let entries = archive.select(&request.tables, &request.schemas, Selection::Whole)?;
        Ok(known.and_archive(archive, entries, owners, privileges))
    }

    /// Whether TimescaleDB is in it, as far as that is known without reading on.
    pub fn timescaledb(&self) -> Option<bool> {
        let is_recorded = || self.chosen.record.extensions.contains_key(TIMESCALEDB).then_some(true);
        self.archive.as_ref().map(Archive::has_timescaledb).or_else(is_recorded)
    }

    /// Where the dump's record knows it.
    pub fn timescaledb_version(&self) -> Option<&str> {
        let record = &self.chosen.record;
        let of_statements =
            || record.needs.get(record.content.database()?).and_then(|needs| needs.versions.get(TIMESCALEDB));
        record.extensions.get(TIMESCALEDB).or_else(of_statements).map(String::as_str)
    }

    /// Whether statements make this extension. `pg_dump` writes that behind the schemas, and
    /// before everything that could need it.
    pub async fn makes_extension(&mut self, name: &str) -> Result<bool> {
        let mut head = Vec::new();
        while head.len() < STATEMENTS_HEAD_BYTES {
            let Some(bytes) = self.read().await? else { break };
            head.extend_from_slice(&bytes);
            self.ahead.push_back(bytes);
        }
        // They are handed out again, before all that comes.
        let statement = format!("CREATE EXTENSION IF NOT EXISTS {name} ");
        Ok(head.windows(statement.len()).any(|window| window == statement.as_bytes()))
    }

    /// The next bytes; `None` at the end, when every check of the file was good.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.ahead.pop_front() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        loop {
            let read = match self.head.pop_front() {
                Some(bytes) => Some(bytes),
                None => match &mut self.source {
                    Source::Stored(reader) => reader.read().await?,
                    Source::Over { .. } => None,
                },
            };
            let (Some(part), Some(bytes)) = (&mut self.part, &read) else { return Ok(read) };
            let of_database = part.push(bytes)?;
            if !of_database.is_empty() {
                return Ok(Some(of_database.into()));
            }
        }
    }

    /// The file was what its record says. How many bytes came out of it.
    pub async fn finish(self) -> Result<u64> {
        let read = match self.source {
            Source::Stored(reader) => reader.finish().await?,
            Source::Over { raw_bytes } => return Ok(raw_bytes),
        };
        as_recorded(&self.chosen, &read)?;
        if let Some(part) = self.part {
            part.finish()?;
        }
        Ok(read.raw_bytes)
    }
}

/// The database, if it is one of those in the dump.
fn only<'a>(chosen: &Chosen, database: &'a str) -> Result<&'a str> {
    match &chosen.record.content {
        DumpContent::Cluster { databases } if !databases.iter().any(|own| own == database) => {
            Err(Error::NotInDump {
                file: chosen.path.to_string(),
                database: database.to_owned(),
                databases: databases.clone(),
            })
        }
        _ => Ok(database),
    }
}

/// The file is the one that its sidecar was written for.
pub(super) fn as_recorded(chosen: &Chosen, read: &DumpRead) -> Result<()> {
    let record = &chosen.record;
    if record.sha256.is_empty() || read.sha256 == record.sha256 {
        return Ok(());
    }
    let reason = "its SHA-256 is not the one in its sidecar".to_owned();
    let file = chosen.path.to_string();
    let damaged = DumpError::Damaged { file, offset_bytes: read.stored_bytes, reason };
    Err(backstay_repo::Error::from(damaged).into())
}

/// It was read to its end when its sidecar was written, so one that is nothing we know has
/// become that.
pub(super) fn no_longer(chosen: &Chosen, error: backstay_repo::Error) -> backstay_repo::Error {
    let is_strange = match &error {
        backstay_repo::Error::Dump(DumpError::Unknown { .. }) => true,
        backstay_repo::Error::Dump(DumpError::Unsupported { .. }) => {
            !chosen.record.adopted && chosen.record.backstay_version == env!("CARGO_PKG_VERSION")
        }
        _ => false,
    };
    if !is_strange {
        return error;
    }
    let reason = format!("it is not what its sidecar says any more: {error}");
    DumpError::Damaged { file: chosen.path.to_string(), offset_bytes: 0, reason }.into()
}

async fn read_head(run: &Run, reader: &mut DumpReader, head: &mut VecDeque<Bytes>) -> Result<Archive> {
    let mut contents = ArchiveReader::default();
    loop {
        run.check_cancelled()?;
        let Some(bytes) = reader.read().await? else { return Ok(contents.end()?) };
        let archive = contents.push(&bytes)?;
        head.push_back(bytes);
        if let Some(archive) = archive {
            return Ok(archive);
        }
    }
}

/// The bytes that were read for it are kept in `head`, unless they are too many: none are then.
async fn find_contents(run: &Run, reader: &mut DumpReader, head: &mut VecDeque<Bytes>) -> Result<Archive> {
    let mut search = ContentsSearch::begin();
    let mut bytes_ahead = 0;
    loop {
        run.check_cancelled()?;
        let Some(bytes) = reader.read().await? else { return Ok(search.end().await?) };
        bytes_ahead += bytes.len();
        match bytes_ahead <= CONTENTS_HEAD_BYTES {
            true => head.push_back(bytes.clone()),
            false => head.clear(),
        }
        if let Some(archive) = search.push(bytes).await? {
            return Ok(archive);
        }
    }
}

/// Refuses statements that begin with commands to `psql`, before anybody is asked.
async fn read_statements(run: &Run, reader: &mut DumpReader, head: &mut VecDeque<Bytes>) -> Result<()> {
    let mut begin = Vec::new();
    while begin.len() < STATEMENTS_HEAD_BYTES {
        run.check_cancelled()?;
        let Some(bytes) = reader.read().await? else { break };
        begin.extend_from_slice(&bytes);
        head.push_back(bytes);
    }
    Ok(refuse_commands(&begin)?)
}
