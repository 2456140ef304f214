//! The rows of an archive in the custom format, walked to their end: `pg_restore` lists an
//! archive by its head alone, and one that was cut behind it looks whole to it.
//!
//! Refuses nothing that it does not know: an archive that reads otherwise than expected is
//! left to `pg_restore`.

use bytes::Bytes;

use super::super::reload::{Archive, ArchiveReader, RowOffsets};
use crate::{Error, Result};

const MAGIC: &[u8] = b"PGDMP";

pub(super) enum Rows {
    /// The table of contents is not complete yet.
    Head {
        reader: ArchiveReader,
        pieces: Vec<Bytes>,
    },
    Walking(Box<RowOffsets>),
    /// No archive in the custom format.
    Other,
}

impl Rows {
    pub fn begin() -> Rows {
        Rows::Head { reader: ArchiveReader::default(), pieces: Vec::new() }
    }

    pub fn push(&mut self, bytes: &Bytes) -> Result<()> {
        match self {
            Rows::Other => {}
            Rows::Walking(rows) => rows.push(bytes),
            Rows::Head { reader, pieces } => {
                pieces.push(bytes.clone());
                let first = pieces.first().map_or(&[][..], |piece| piece);
                if !first.starts_with(MAGIC) && first.len() >= MAGIC.len() {
                    *self = Rows::Other;
                    return Ok(());
                }
                match reader.push(bytes) {
                    Ok(None) => {}
                    Ok(Some(archive)) => *self = Rows::Walking(walked(&archive, pieces)),
                    Err(Error::ArchiveTooNew { .. }) => *self = Rows::Other,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// All of it came.
    pub fn end(self) -> Result<()> {
        let rows = match self {
            Rows::Other => return Ok(()),
            Rows::Walking(rows) => rows,
            Rows::Head { reader, pieces } => match reader.end() {
                Ok(archive) => walked(&archive, &pieces),
                Err(Error::ArchiveTooNew { .. }) => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        match rows.is_cut() {
            true => Err(Error::Archive { reason: "it ends within the rows of a table".to_owned() }),
            false => Ok(()),
        }
    }
}

fn walked(archive: &Archive, pieces: &[Bytes]) -> Box<RowOffsets> {
    let mut rows = RowOffsets::of(archive);
    pieces.iter().for_each(|piece| rows.push(piece));
    Box::new(rows)
}
