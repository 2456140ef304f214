//! Packs the files of a directory dump into one tar archive as it is read, and removes
//! each as soon as it is in it.
//!
//! The table of contents comes first, so that whoever lists the archive need not read it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::postgres::chunk_writer::{ChunkWriter, Failed};

/// Named by `pg_dump`.
pub(in crate::postgres) const CONTENTS: &str = "toc.dat";

/// Blocks.
pub(super) fn pack(directory: &Path, output: &mut ChunkWriter) -> Result<(), Failed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::chunk_writer::chunk_writer;

    #[test]
    fn the_contents_come_first_and_the_files_are_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size) in [("3.dat", 700_000), (CONTENTS, 10), ("1.dat", 0), ("blob_5.dat", 512)] {
            fs::write(directory.path().join(name), vec![b'x'; size]).unwrap();
        }
        let (writer, mut receiver) = chunk_writer();
        let path = directory.path().to_owned();
        let packing = std::thread::spawn(move || writer.fill(|writer| pack(&path, writer)));
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            bytes.extend_from_slice(&chunk.unwrap());
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
