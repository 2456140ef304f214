//! From a file on a shelf to the bytes that a server's own tool wrote, whoever packed and
//! encrypted them.
//!
//! What lies over them is found in the file and not in its name, and taken off layer by
//! layer on one thread that may block, in bounded memory, while a task reads ahead.
//!
//! Invariant: [`DumpReader::read`] says `None`, and [`DumpReader::finish`] a result, only
//! when every check that the file has was made to its end: the sums of gzip, zstd, bzip2
//! and xz, the end of a cipher, the integrity of OpenPGP, and the authentication beside
//! the file where there is one. A file that was cut exactly between two members of gzip
//! or two frames of zstd is whole to all of them: whoever knows its digest compares it
//! with [`DumpRead::sha256`].
//!
//! Refuses: more than [`LAYERS_MAX`] layers; windows and dictionaries of a size that only
//! an attack has.

use std::io::Read;
use std::sync::Arc;

use backstay_model::Secret;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::hmac::{SIDECAR_MAX_BYTES, Sidecar};
use super::{DumpError, DumpInside, DumpLayer, HMAC_SUFFIX, ended};
use crate::shelf::{Shelf, ShelfPath};
use crate::store::StoreError;
use crate::{Error, Result};

mod layers;
mod only_dump;
mod peeked;
mod source;

use layers::Peeled;
use source::Source;

/// What is asked of the shelf at once.
const RANGE_BYTES: u64 = 1 << 20;
/// Ranges that are read ahead, and chunks that wait for whoever reads.
const QUEUE_LENGTH: usize = 2;
/// What is given out at once.
const CHUNK_BYTES: usize = 256 << 10;
/// A person lays two over a dump, or three.
pub(super) const LAYERS_MAX: usize = 6;

/// What is known of a file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRead {
    /// What came out of it.
    pub raw_bytes: u64,
    /// The size of the file.
    pub stored_bytes: u64,
    /// Of the file as it lies there, in hexadecimal digits.
    pub sha256: String,
    /// The file is as it was written by somebody who knew the pass phrase: the
    /// authentication beside it says so.
    pub is_authentic: bool,
}

/// A dump that is being read.
pub struct DumpReader {
    file: String,
    layers: Vec<DumpLayer>,
    inside: DumpInside,
    chunks: mpsc::Receiver<Bytes>,
    peeling: Option<JoinHandle<Result<DumpRead>>>,
    ended: Option<DumpRead>,
    /// The task that reads ahead, ended with this reader.
    _ahead: JoinSet<()>,
}

impl DumpReader {
    /// Opens a file and finds out what it is. A pass phrase that is not needed is not
    /// looked at.
    pub async fn open(
        shelf: &Arc<dyn Shelf>,
        path: &ShelfPath,
        passphrase: Option<&Secret>,
    ) -> Result<DumpReader> {
        let stored_bytes = shelf.head(path).await?.size_bytes;
        let sidecar = match passphrase {
            Some(_) => sidecar(&**shelf, path).await?,
            None => None,
        };
        let (to_source, ranges) = mpsc::channel(QUEUE_LENGTH);
        let (to_reader, chunks) = mpsc::channel(QUEUE_LENGTH);
        let (to_opener, opened) = tokio::sync::oneshot::channel();
        let mut ahead = JoinSet::new();
        ahead.spawn(read_ahead(Arc::clone(shelf), path.clone(), stored_bytes, to_source));
        let (file, passphrase) = (path.to_string(), passphrase.cloned());
        let peeling = tokio::task::spawn_blocking({
            let file = file.clone();
            move || {
                let source = Source::new(stored_bytes, ranges);
                let mut peeled = layers::peel(&file, source, passphrase.as_ref(), sidecar.as_ref())?;
                // Whoever opened it may be gone; the next chunk notices.
                let _ = to_opener.send((peeled.layers.clone(), peeled.inside));
                let raw_bytes = give_out(&file, &mut peeled, &to_reader)?;
                peeled.end(&file, raw_bytes, sidecar.as_ref())
            }
        });
        let Ok((layers, inside)) = opened.await else {
            return match ended(peeling.await) {
                Err(error) => Err(error),
                Ok(_) => Err(Error::broken("a dump is not read before it was opened")),
            };
        };
        Ok(DumpReader { file, layers, inside, chunks, peeling: Some(peeling), ended: None, _ahead: ahead })
    }

    /// Opens a file with the first of these pass phrases that fits.
    pub async fn open_with_any(
        shelf: &Arc<dyn Shelf>,
        path: &ShelfPath,
        passphrases: &[&Secret],
    ) -> Result<DumpReader> {
        let (Some((first, others)), tried) = (passphrases.split_first(), passphrases.len()) else {
            return Self::open(shelf, path, None).await;
        };
        let mut told = match Self::open(shelf, path, Some(first)).await {
            Err(Error::Dump(error)) => error,
            opened => return opened,
        };
        for passphrase in others {
            told = match (Self::open(shelf, path, Some(passphrase)).await, told) {
                // Under a wrong one something may look known that is not: what another
                // than this found out is nearer to the truth.
                (Err(Error::Dump(error)), DumpError::WrongPassphrase { .. }) => error,
                (Err(Error::Dump(_)), known) => known,
                (opened, _) => return opened,
            };
        }
        if let DumpError::WrongPassphrase { tried: all, .. } = &mut told {
            *all = tried;
        }
        Err(told.into())
    }

    /// What lay over the bytes, the outermost first.
    pub fn layers(&self) -> &[DumpLayer] {
        &self.layers
    }

    pub fn inside(&self) -> DumpInside {
        self.inside
    }

    /// An error for a file that is nothing we know.
    pub fn known(&self) -> Result<DumpInside, DumpError> {
        match self.inside {
            DumpInside::Unknown => Err(DumpError::Unknown { file: self.file.clone() }),
            known => Ok(known),
        }
    }

    /// The next bytes; `None` when all were given out and every check was good.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        if let Some(peeling) = self.peeling.take() {
            self.ended = Some(ended(peeling.await)?);
        }
        match &self.ended {
            Some(_) => Ok(None),
            None => Err(Error::Cancelled),
        }
    }

    /// Reads and checks what is left.
    pub async fn finish(mut self) -> Result<DumpRead> {
        while self.read().await?.is_some() {}
        self.ended.ok_or(Error::Cancelled)
    }
}

async fn sidecar(shelf: &dyn Shelf, path: &ShelfPath) -> Result<Option<Sidecar>> {
    let beside = path.beside(HMAC_SUFFIX)?;
    let text = match shelf.get(&beside, SIDECAR_MAX_BYTES).await {
        Ok(text) => text,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = || DumpError::Damaged {
        file: beside.to_string(),
        offset_bytes: 0,
        reason: "it is not the line that authenticates a dump".to_owned(),
    };
    Ok(Some(Sidecar::parse(&text).ok_or_else(damaged)?))
}

/// Reads the file to its end, range by range, as long as somebody takes them.
async fn read_ahead(
    shelf: Arc<dyn Shelf>,
    path: ShelfPath,
    stored_bytes: u64,
    to_source: mpsc::Sender<Result<Bytes, StoreError>>,
) {
    let mut offset = 0;
    while offset < stored_bytes {
        let length = RANGE_BYTES.min(stored_bytes - offset);
        let range = shelf.read_range(&path, offset, length).await;
        let is_over = range.is_err();
        if to_source.send(range).await.is_err() || is_over {
            return;
        }
        offset += length;
    }
}

fn give_out(file: &str, peeled: &mut Peeled, to_reader: &mpsc::Sender<Bytes>) -> Result<u64> {
    let mut raw_bytes = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = peeled.reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        raw_bytes += chunk.len() as u64;
        let is_over = chunk.is_empty();
        // What came before damage is given out: a person may want what is left.
        if !is_over && to_reader.blocking_send(chunk.into()).is_err() {
            return Err(Error::Cancelled);
        }
        read.map_err(|_| peeled.trouble(file))?;
        if is_over {
            return Ok(raw_bytes);
        }
    }
}
