//! A dump that was opened: what it holds, and its bytes.

use std::collections::VecDeque;

use backstay_engine::postgres::reload::{Archive, ArchiveReader, DumpNeeds, Selection, refuse_commands};
use backstay_repo::dump::{DumpInside, DumpRead, DumpReader};
use bytes::Bytes;

use super::ReloadRequest;
use super::choose::Chosen;
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};
use crate::run::Run;

/// Where `pg_dump --create` says into which database it goes, and where a person looks.
const STATEMENTS_HEAD_BYTES: usize = 64 << 10;

pub(super) struct Input {
    pub chosen: Chosen,
    pub inside: DumpInside,
    /// Of an archive that says it at its beginning.
    pub archive: Option<Archive>,
    reader: DumpReader,
    /// What was read to find out.
    head: VecDeque<Bytes>,
}

impl Input {
    pub async fn open(
        run: &Run,
        policy: &DumpPolicy,
        request: &ReloadRequest,
        chosen: Chosen,
    ) -> Result<Self> {
        let mut reader = DumpReader::open(&chosen.shelf, &chosen.path, policy.passphrase.as_ref()).await?;
        let inside = reader.known().map_err(backstay_repo::Error::from)?;
        let mut head = VecDeque::new();
        let archive = match inside {
            DumpInside::CustomArchive => Some(read_head(run, &mut reader, &mut head).await?),
            DumpInside::TarArchive | DumpInside::DirectoryTar => None,
            DumpInside::PlainSql if request.is_of_parts() || !request.owners || !request.privileges => {
                return Err(Error::NoChoiceInStatements { file: chosen.path.to_string() });
            }
            DumpInside::PlainSql => {
                read_statements(run, &mut reader, &mut head).await?;
                None
            }
            other => {
                return Err(Error::NotReloadable {
                    file: chosen.path.to_string(),
                    what: format!("{other:?}"),
                });
            }
        };
        Ok(Self { chosen, inside, archive, reader, head })
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
        let known = DumpNeeds::of_record(&self.chosen.record);
        let Some(archive) = &self.archive else { return Ok(known) };
        let (owners, privileges) = (request.owners, request.privileges);
        if !request.is_of_parts() {
            return Ok(known.and_archive(archive, &archive.entries, owners, privileges));
        }
        let entries = archive.select(&request.tables, &request.schemas, Selection::Whole)?;
        Ok(known.and_archive(archive, entries, owners, privileges))
    }

    /// The next bytes; `None` at the end, when every check of the file was good.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.head.pop_front() {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.reader.read().await?),
        }
    }

    /// The file was what its record says.
    pub async fn finish(self) -> Result<DumpRead> {
        let read = self.reader.finish().await?;
        let record = &self.chosen.record;
        if !record.sha256.is_empty() && read.sha256 != record.sha256 {
            let reason = "its SHA-256 is not the one in its sidecar".to_owned();
            let file = self.chosen.path.to_string();
            let damaged =
                backstay_repo::dump::DumpError::Damaged { file, offset_bytes: read.stored_bytes, reason };
            return Err(backstay_repo::Error::from(damaged).into());
        }
        Ok(read)
    }
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
