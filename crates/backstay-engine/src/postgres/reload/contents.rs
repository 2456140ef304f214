//! The table of contents of a directory dump, found in its tar archive while the bytes come.
//!
//! Ours has it first; `tar` packs in whatever order the directory has. What comes before it
//! is passed by and not kept.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::chunks::Chunks;
use super::super::dump::CONTENTS;
use super::archive::{Archive, ArchiveReader};
use crate::{Error, Result};

/// What was found is to be known soon: nothing is read far ahead for it.
const CHUNKS_AHEAD: usize = 1;

/// A search, ended with what holds it.
pub struct ContentsSearch {
    sender: Option<mpsc::Sender<Bytes>>,
    thread: JoinSet<Result<Archive>>,
}

impl ContentsSearch {
    pub fn begin() -> ContentsSearch {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || find(Chunks::of(chunks)));
        ContentsSearch { sender: Some(sender), thread }
    }

    /// The table of contents, soon after all of it has come; no more pieces then.
    pub async fn push(&mut self, bytes: Bytes) -> Result<Option<Archive>> {
        let is_over = match &self.sender {
            Some(sender) => sender.send(bytes).await.is_err(),
            None => true,
        };
        if is_over { self.over().await.map(Some) } else { Ok(None) }
    }

    /// There are no more pieces.
    pub async fn end(mut self) -> Result<Archive> {
        self.over().await
    }

    async fn over(&mut self) -> Result<Archive> {
        self.sender = None;
        match self.thread.join_next().await {
            Some(Ok(found)) => found,
            Some(Err(error)) => Err(Error::Protocol { reason: error.to_string() }),
            None => Err(Error::Protocol { reason: "a search that is over was gone on with".to_owned() }),
        }
    }
}

fn find(chunks: Chunks) -> Result<Archive> {
    let broken = |source: io::Error| Error::Archive { reason: format!("it cannot be unpacked: {source}") };
    let mut archive = tar::Archive::new(chunks);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let is_file = entry.header().entry_type().is_file();
        let name = entry.path().map_err(broken)?.into_owned();
        if is_file && name.file_name().is_some_and(|name| name == CONTENTS) {
            return ArchiveReader::default().take(&mut entry).map_err(broken)?;
        }
    }
    Err(Error::Archive { reason: format!("there is no {CONTENTS} in it") })
}

#[cfg(test)]
mod tests {
    use backstay_model::ErrorKind;
    use backstay_model::error::Classified;

    use super::*;

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn found(bytes: &[u8]) -> Result<(Archive, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut search = ContentsSearch::begin();
            for (number, chunk) in bytes.chunks(1000).enumerate() {
                if let Some(archive) = search.push(Bytes::copy_from_slice(chunk)).await? {
                    return Ok((archive, number * 1000));
                }
            }
            Ok((search.end().await?, bytes.len()))
        })
    }

    /// A head of version 1.14 without entries: of database `shop`.
    fn head() -> Vec<u8> {
        let int = |number: u8| [0, number, 0, 0, 0];
        let text = |text: &str| [&int(text.len() as u8)[..], text.as_bytes()].concat();
        let mut head = b"PGDMP\x01\x0e\x00\x04\x08\x05".to_vec();
        // The compression, and when it was made.
        head.extend([int(0); 8].concat());
        head.extend([text("shop"), text("15.1"), text("15.2"), int(0).to_vec()].concat());
        head
    }

    #[test]
    fn it_is_found_wherever_it_lies_and_nothing_behind_it_is_waited_for() {
        let rows = vec![b'x'; 300_000];
        for (files, is_first) in [
            ([("toc.dat", &head()[..]), ("1.dat", &rows)], true),
            ([("./1.dat", &rows), ("./toc.dat", &head()[..])], false),
            ([("shop/toc.dat.old", &rows), ("shop/toc.dat", &head()[..])], false),
        ] {
            let (archive, read) = found(&packed(&files)).unwrap();
            assert_eq!((archive.database.as_str(), archive.server_version.as_str()), ("shop", "15.1"));
            assert!(is_first == (read < 10_000), "{read}");
        }
    }

    #[test]
    fn an_archive_without_it_or_that_ends_within_it_is_damaged() {
        let whole = packed(&[("toc.dat", &head())]);
        for bytes in [packed(&[("1.dat", b"x")]), whole[..530].to_vec(), packed(&[("toc.dat", b"PGDMP")])] {
            assert_eq!(found(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
