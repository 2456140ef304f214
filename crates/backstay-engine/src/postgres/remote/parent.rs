//! The parent of an increment: what the server is told of it, and what is kept.
//!
//! The server wants the parent's manifest. From it, it learns which files there
//! were (what is new is sent whole), which span of the log the parent needed (the
//! summaries must reach back to its start), and whose backup it was. It looks at
//! no size and no file checksum.
//!
//! Invariant: the manifest is never in memory as a whole. What stays is the size
//! of each relation file, since a list of changed blocks can only be read beside it.

use std::collections::HashMap;
use std::io::{self, Write};

use backstay_model::parts::{ParentFiles, PartKind};
use backstay_model::{Lsn, TimelineId};

use crate::postgres::manifest::ManifestWriter;
use crate::postgres::outcome::BackupFacts;
use crate::postgres::rules;
use crate::{Error, Result};

/// How much text is handed over at once.
const PIECE: usize = 64 << 10;

/// An earlier backup of the same server, which the new one may build on.
pub struct IncrementParent {
    /// Its files, in any order.
    pub files: Box<dyn ParentFiles>,
    pub system_identifier: u64,
    pub timeline: TimelineId,
    pub start: Lsn,
    pub stop: Lsn,
    pub data_checksums: bool,
    /// The life of the cluster it was taken of.
    pub incarnation: Option<String>,
}

impl IncrementParent {
    pub fn new(facts: &BackupFacts, files: Box<dyn ParentFiles>) -> Self {
        Self {
            files,
            system_identifier: facts.server.system_identifier,
            timeline: facts.timeline,
            start: facts.start_lsn,
            stop: facts.stop_lsn,
            data_checksums: facts.server.data_checksums,
            incarnation: facts.server.incarnation.clone(),
        }
    }
}

/// Sizes of the parent's relation files.
#[derive(Debug, Default)]
pub(super) struct ParentSizes(HashMap<Box<str>, u64>);

impl ParentSizes {
    pub(super) fn size_of(&self, path: &str) -> Option<u64> {
        self.0.get(path).copied()
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, u64); N]> for ParentSizes {
    fn from(sizes: [(&str, u64); N]) -> Self {
        Self(sizes.into_iter().map(|(path, size)| (path.into(), size)).collect())
    }
}

impl IncrementParent {
    /// Writes the manifest piece by piece for a server of version `major`. Blocks,
    /// as reading the parent does.
    pub(super) fn write_manifest(
        mut self,
        major: u32,
        emit: impl FnMut(Vec<u8>) -> io::Result<()>,
    ) -> Result<ParentSizes> {
        // Only the receiver of the pieces can fail, and only by being gone.
        let gone = |_| Error::Cancelled;
        let mut sizes = ParentSizes::default();
        let pieces = Pieces { text: Vec::new(), emit };
        let mut writer = ManifestWriter::begin(pieces, major, self.system_identifier).map_err(gone)?;
        while let Some(file) = self.files.next().map_err(|source| Error::Parent { source })? {
            let PartKind::File(shape) = file.spec.kind else { continue };
            let path = file.spec.path;
            // Everything else is sent whole in any case.
            if rules::relation_file(&path).is_some() {
                writer.file(&path, shape.size, file.spec.modified, None).map_err(gone)?;
                sizes.0.insert(path.into(), shape.size);
            }
        }
        let mut pieces = writer.finish(&[(self.timeline, self.start, self.stop)]).map_err(gone)?;
        pieces.flush().map_err(gone)?;
        Ok(sizes)
    }
}

/// Collects text until it is worth being sent.
struct Pieces<E> {
    text: Vec<u8>,
    emit: E,
}

impl<E: FnMut(Vec<u8>) -> io::Result<()>> Write for Pieces<E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if self.text.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.emit)(std::mem::take(&mut self.text))
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::Fault;
    use backstay_model::parts::{FileShape, FileSpec, ParentFile};
    use sha2::{Digest, Sha256};

    use super::*;

    struct Numbered(std::ops::Range<u32>);

    impl ParentFiles for Numbered {
        fn next(&mut self) -> Result<Option<ParentFile>, Fault> {
            Ok(self.0.next().map(|number| {
                let path = if number == 0 { "PG_VERSION".to_owned() } else { format!("base/5/{number}") };
                let kind = PartKind::File(FileShape { size: u64::from(number) * 8192, block_size: 8192 });
                let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
                ParentFile { spec, crc32c: None }
            }))
        }
    }

    #[test]
    fn a_manifest_comes_in_pieces_and_its_sum_is_right() {
        let parent = IncrementParent {
            files: Box::new(Numbered(0..3000)),
            system_identifier: 7_000_000_000_000_000_001,
            timeline: TimelineId(1),
            start: Lsn(0x0200_0028),
            stop: Lsn(0x0200_0138),
            data_checksums: true,
            incarnation: None,
        };
        let mut pieces = Vec::new();
        let sizes = parent
            .write_manifest(17, |piece| {
                pieces.push(piece);
                Ok(())
            })
            .unwrap();
        assert!(pieces.len() > 1);
        assert_eq!(sizes.size_of("base/5/7"), Some(7 * 8192));
        assert_eq!(sizes.size_of("PG_VERSION"), None);
        let whole = String::from_utf8(pieces.concat()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(json["Files"].as_array().unwrap().len(), 2999);
        assert_eq!(json["WAL-Ranges"][0]["End-LSN"], "0/2000138");
        let (before, last) = whole.split_at(whole.find("\"Manifest-Checksum\"").unwrap());
        let sum: String = Sha256::digest(before).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(last.contains(&sum));
    }
}
