//! Packs the files of a directory dump into one tar archive as it is read, and removes
//! each as soon as it is in it.
//!
//! The table of contents comes first, so that whoever lists the archive need not read it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::{Error, Result};

/// Named by `pg_dump`.
pub(in crate::postgres) const CONTENTS: &str = "toc.dat";
const CHUNK: usize = 256 << 10;
/// Between the reader of files and whoever compresses them.
pub(super) const CHUNKS_AHEAD: usize = 4;

/// Blocks; ends early when nobody receives any more.
pub(super) fn pack(directory: &Path, sender: mpsc::Sender<Result<Bytes>>) {
    let mut output = Output { sender, chunk: BytesMut::with_capacity(CHUNK) };
    if let Err((path, source)) = pack_into(directory, &mut output)
        && source.kind() != io::ErrorKind::BrokenPipe
    {
        // Whoever does not receive this has gone away himself.
        let _ = output.sender.blocking_send(Err(Error::Read { path, source }));
    }
}

fn pack_into(directory: &Path, output: &mut Output) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        names.push(entry.map_err(at(directory))?.file_name());
    }
    names.sort_by_key(|name| (name != CONTENTS, name.clone()));
    let mut archive = tar::Builder::new(output);
    for name in names {
        let path = directory.join(&name);
        let mut file = File::open(&path).map_err(at(&path))?;
        let metadata = file.metadata().map_err(at(&path))?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_mode(0o600);
        archive.append_data(&mut header, &name, &mut file).map_err(at(&path))?;
        fs::remove_file(&path).map_err(at(&path))?;
    }
    archive.into_inner().and_then(|output| output.flush()).map_err(at(directory))
}

struct Output {
    sender: mpsc::Sender<Result<Bytes>>,
    chunk: BytesMut,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK)).freeze();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contents_come_first_and_the_files_are_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size) in [("3.dat", 700_000), (CONTENTS, 10), ("1.dat", 0), ("blob_5.dat", 512)] {
            fs::write(directory.path().join(name), vec![b'x'; size]).unwrap();
        }
        let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
        let path = directory.path().to_owned();
        let packing = std::thread::spawn(move || pack(&path, sender));
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            let chunk = chunk.unwrap();
            assert!(chunk.len() <= CHUNK);
            bytes.extend_from_slice(&chunk);
        }
        packing.join().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.map(|e| (e.path().unwrap().display().to_string(), e.size())).unwrap())
            .collect();
        let expected = [(CONTENTS, 10), ("1.dat", 0), ("3.dat", 700_000), ("blob_5.dat", 512)]
            .map(|(n, s)| (n.to_owned(), s));
        assert_eq!(entries, expected);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
