//! The table of contents of a directory dump, taken out of its tar archive on the way:
//! `pg_restore` lists a directory by that file alone.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::chunks::Chunks;
use super::super::dump::{CONTENTS, Spool};
use super::super::tar_end::Ending;
use crate::{Error, Result};

/// Between whoever decrypts and the reader of the archive.
const CHUNKS_AHEAD: usize = 4;
/// Room for the table of contents of a hundred thousand tables.
const ROOM: u64 = 64 << 20;

/// An archive that is being read to its end.
pub(super) struct Contents {
    spool: Spool,
    sender: Option<mpsc::Sender<Bytes>>,
    thread: JoinSet<Result<bool>>,
    found: bool,
}

impl Contents {
    pub fn begin() -> Result<Contents> {
        let spool = Spool::make(&std::env::temp_dir(), ROOM)?;
        let directory = spool.directory().to_owned();
        std::fs::create_dir(&directory)
            .map_err(|source| Error::SpoolUnwritable { path: directory.clone(), source })?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || read(&directory, Chunks::of(chunks)));
        Ok(Contents { spool, sender: Some(sender), thread, found: false })
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(sender) = &self.sender else { return Ok(()) };
        match sender.send(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => self.end().await,
        }
    }

    /// The archive has ended: a directory with its table of contents, until this is dropped.
    pub async fn finish(&mut self) -> Result<PathBuf> {
        self.end().await?;
        match self.found {
            true => Ok(self.spool.directory().to_owned()),
            false => Err(Error::Archive { reason: format!("there is no {CONTENTS} in it") }),
        }
    }

    async fn end(&mut self) -> Result<()> {
        self.sender = None;
        match self.thread.join_next().await {
            Some(Ok(found)) => {
                self.found = found?;
                Ok(())
            }
            Some(Err(error)) => Err(Error::Protocol { reason: error.to_string() }),
            None => Ok(()),
        }
    }
}

/// Reads every member to its end; whether the table of contents was among them.
fn read(directory: &Path, chunks: Chunks) -> Result<bool> {
    let broken =
        |source: io::Error| Error::Archive { reason: format!("its tar archive is broken: {source}") };
    let mut archive = tar::Archive::new(Ending::of(chunks));
    let mut found = false;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let size = entry.size();
        // `./toc.dat` and `orders/toc.dat` are what `tar` makes of a directory of another's.
        let name = entry.path().map_err(broken)?.file_name().map(std::ffi::OsStr::to_owned);
        let read = if name.is_some_and(|name| name == CONTENTS) && !found {
            found = true;
            copy_to(&directory.join(CONTENTS), &mut entry)?
        } else {
            io::copy(&mut entry, &mut io::sink()).map_err(broken)?
        };
        if read != size {
            return Err(Error::Archive { reason: "its tar archive ends within a file".to_owned() });
        }
    }
    // What stands behind the end of an archive is zeros.
    let mut ending = archive.into_inner();
    io::copy(&mut ending, &mut io::sink()).map_err(broken)?;
    match ending.is_whole() {
        true => Ok(found),
        false => Err(Error::Archive { reason: "its tar archive ends before its end".to_owned() }),
    }
}

fn copy_to(path: &Path, member: &mut impl Read) -> Result<u64> {
    let failed = |source| Error::SpoolUnwritable { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    io::copy(member, &mut file).map_err(failed)
}
