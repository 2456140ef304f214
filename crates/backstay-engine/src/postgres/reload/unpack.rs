//! Brings the archive of a directory dump back into a directory, so that several
//! sessions can read it at once.
//!
//! Refuses a name that is not one of a file right there: an archive may come from others.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::chunks::Chunks;
use super::super::dump::{CONTENTS, Spool};
use super::super::tar_end::Ending;
use crate::{Error, Result};

/// Between whoever decrypts and the files.
const CHUNKS_AHEAD: usize = 4;

/// A directory that is being filled, gone when it is dropped.
pub struct DirectoryUnpack {
    spool: Spool,
    sender: Option<mpsc::Sender<Bytes>>,
    thread: JoinSet<Result<()>>,
}

impl DirectoryUnpack {
    /// In a directory of its own below `parent`, which must have so much room.
    pub fn begin(parent: &Path, bytes: u64) -> Result<DirectoryUnpack> {
        let spool = Spool::make(parent, bytes)?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let directory = spool.directory().to_owned();
        std::fs::create_dir(&directory)
            .map_err(|source| Error::SpoolUnwritable { path: directory.clone(), source })?;
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || unpack(&directory, Chunks::of(chunks)));
        Ok(DirectoryUnpack { spool, sender: Some(sender), thread })
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let gone = match &self.sender {
            Some(sender) => sender.send(bytes).await.is_err(),
            None => true,
        };
        if gone { self.end().await } else { Ok(()) }
    }

    /// The archive has ended: where it lies, until this is dropped.
    pub async fn finish(&mut self) -> Result<PathBuf> {
        self.end().await?;
        let directory = self.spool.directory().to_owned();
        match directory.join(CONTENTS).is_file() {
            true => Ok(directory),
            false => Err(Error::Archive { reason: format!("there is no {CONTENTS} in it") }),
        }
    }

    async fn end(&mut self) -> Result<()> {
        self.sender = None;
        match self.thread.join_next().await {
            Some(Ok(unpacked)) => unpacked,
            Some(Err(error)) => Err(Error::Protocol { reason: error.to_string() }),
            None => Ok(()),
        }
    }
}

fn unpack(directory: &Path, chunks: Chunks) -> Result<()> {
    let broken = |source: io::Error| Error::Archive { reason: format!("it cannot be unpacked: {source}") };
    let mut archive = tar::Archive::new(Ending::of(chunks));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        if entry.header().entry_type().is_dir() && !name.components().any(|part| part == Component::ParentDir)
        {
            continue;
        }
        // `./toc.dat` and `orders/toc.dat` are what `tar` makes of a directory of another's.
        let plain = entry.header().entry_type().is_file()
            && name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let file_name = name.file_name().filter(|_| plain);
        let Some(file_name) = file_name else {
            let reason = format!("{} in it is no file of a dump", name.display());
            return Err(Error::Archive { reason });
        };
        let path = directory.join(file_name);
        let failed = |source| Error::SpoolUnwritable { path: path.clone(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let size = entry.size();
        let copied = io::copy(&mut entry, &mut file).map_err(failed)?;
        if copied != size {
            return Err(Error::Archive { reason: "it ends within a file".to_owned() });
        }
    }
    // What stands behind the end of an archive is zeros.
    let mut ending = archive.into_inner();
    io::copy(&mut ending, &mut io::sink()).map_err(broken)?;
    match ending.is_whole() {
        true => Ok(()),
        false => Err(Error::Archive { reason: "it ends before its end".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::ErrorKind;
    use backstay_model::error::Classified;

    use super::*;

    fn archive(files: &[(&str, usize)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, size) in files {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(*size as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, vec![b'x'; *size].as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8], parent: &Path) -> Result<Vec<(String, u64)>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut unpack = DirectoryUnpack::begin(parent, 1)?;
            for chunk in bytes.chunks(1000) {
                unpack.write(Bytes::copy_from_slice(chunk)).await?;
            }
            let directory = unpack.finish().await?;
            let mut found: Vec<(String, u64)> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
                .collect();
            found.sort();
            Ok(found)
        })
    }

    #[test]
    fn a_directory_comes_back_whoever_packed_it() {
        let parent = tempfile::tempdir().unwrap();
        for prefix in ["", "./", "orders/"] {
            let names = [format!("{prefix}toc.dat"), format!("{prefix}1.dat")];
            let bytes = archive(&[(&names[0], 10), (&names[1], 5000)]);
            let expected = [("1.dat".to_owned(), 5000), ("toc.dat".to_owned(), 10)];
            assert_eq!(unpacked(&bytes, parent.path()).unwrap(), expected);
        }
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_would_leave_the_directory_and_what_is_cut_off_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let whole = archive(&[("toc.dat", 10), ("1.dat", 5000)]);
        for bytes in [
            archive(&[("../toc.dat", 10)]),
            archive(&[("/toc.dat", 10)]),
            archive(&[("1.dat", 10)]),
            archive(&[("toc.dat", 1), ("toc.dat", 1)]),
            whole[..3000].to_vec(),
        ] {
            let error = unpacked(&bytes, parent.path()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Conflict), "{error}");
        }
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
