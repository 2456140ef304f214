//! A placed data directory as tar archives, as `pg_basebackup -Ft` writes them: one of the
//! data directory with `tablespace_map` in the place of links, and one of each tablespace.
//!
//! Bytes are read as they are taken, a few chunks ahead. The control file comes last: what
//! was cut off does not start.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::chunk_writer::{ChunkWriter, Failed, Written, chunk_writer};
use super::rules;
use crate::Result;

/// Whose the files are in the archive, where that is not what the disk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarOwner {
    pub user_id: u32,
    pub group_id: u32,
}

/// One archive, being read.
pub struct BaseTar {
    chunks: Written,
    /// Ends when the receiver is gone.
    _thread: JoinSet<()>,
}

impl BaseTar {
    /// Of a data directory, or of a tablespace.
    pub fn of(directory: &Path, owner: Option<TarOwner>) -> BaseTar {
        let (writer, chunks) = chunk_writer();
        let directory = directory.to_owned();
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || writer.fill(|writer| pack(&directory, owner, writer)));
        BaseTar { chunks, _thread: thread }
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.chunks.recv().await.transpose()
    }
}

fn pack(root: &Path, owner: Option<TarOwner>, output: &mut ChunkWriter) -> Result<(), Failed> {
    let mut archive = tar::Builder::new(output);
    let mut packing = Packing { root, owner, control: None };
    packing.directory(&mut archive, root)?;
    if let Some(control) = packing.control.take() {
        packing.file(&mut archive, &control)?;
    }
    let at_root = |source| (root.to_owned(), source);
    archive.into_inner().and_then(|output| output.flush()).map_err(at_root)
}

struct Packing<'a> {
    root: &'a Path,
    owner: Option<TarOwner>,
    /// Put off to the end.
    control: Option<PathBuf>,
}

impl Packing<'_> {
    fn directory(
        &mut self,
        archive: &mut tar::Builder<&mut ChunkWriter>,
        directory: &Path,
    ) -> Result<(), Failed> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| (path, source)
        };
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            entries.push(entry.map_err(at(directory))?.path());
        }
        entries.sort();
        for path in entries {
            let metadata = path.symlink_metadata().map_err(at(&path))?;
            let name = path.strip_prefix(self.root).unwrap_or(&path).to_owned();
            let text = name.to_string_lossy();
            if metadata.is_dir() {
                let mut header = self.header(&metadata);
                archive.append_data(&mut header, &name, io::empty()).map_err(at(&path))?;
                self.directory(archive, &path)?;
            } else if metadata.is_symlink() {
                // The map makes it again, where the tablespace is put.
                if rules::tablespace_of(&text).is_some() {
                    continue;
                }
                let target = fs::read_link(&path).map_err(at(&path))?;
                let mut header = self.header(&metadata);
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &name, target).map_err(at(&path))?;
            } else if text == rules::CONTROL_FILE {
                self.control = Some(path);
            } else {
                self.file(archive, &path)?;
            }
        }
        Ok(())
    }

    fn file(&self, archive: &mut tar::Builder<&mut ChunkWriter>, path: &Path) -> Result<(), Failed> {
        let at = |source| (path.to_owned(), source);
        let mut file = File::open(path).map_err(at)?;
        let metadata = file.metadata().map_err(at)?;
        let name = path.strip_prefix(self.root).unwrap_or(path);
        archive.append_data(&mut self.header(&metadata), name, &mut file).map_err(at)
    }

    fn header(&self, metadata: &Metadata) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_metadata(metadata);
        if let Some(TarOwner { user_id, group_id }) = self.owner {
            header.set_uid(u64::from(user_id));
            header.set_gid(u64::from(group_id));
        }
        header
    }
}
