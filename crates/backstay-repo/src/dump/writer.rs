//! From the output of a server's tool to a file on a shelf.
//!
//! Bytes are cut into blocks, compressed by several threads, encrypted and digested by
//! one more, and written by a task; between them are queues of a few blocks, so that
//! whoever writes waits for the slowest of them and memory stays the same however long
//! the dump is.
//!
//! Invariant: the file has no name until [`FinishedDump::commit`], which can only be
//! called when everything was written. Whatever is dropped before leaves nothing.

use backstay_model::Secret;
use backstay_model::dump::{DumpCipher, DumpShape};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::compress::Packer;
use super::seal::{Sealed, seal};
use super::{BLOCK_BYTES, DumpError, ended};
use crate::shelf::{Shelf, ShelfPath, ShelfUpload};
use crate::store::StoreError;
use crate::{Error, Result};

/// Blocks that wait between two stages.
const QUEUE_BLOCKS: usize = 2;

/// How a dump's bytes are made into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpRecipe {
    pub shape: DumpShape,
    /// Of the compression; `None` for the one that its own program uses.
    pub level: Option<i32>,
    /// Threads that compress.
    pub workers: usize,
}

impl DumpRecipe {
    /// Refuses a level that there is not, before a file is begun.
    pub fn check(&self) -> Result<()> {
        Packer::new(self.shape.compression, self.level, self.workers).map(drop)
    }
}

/// What is known of a dump's file when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpWritten {
    /// What was written to the writer.
    pub raw_bytes: u64,
    /// The size of the file.
    pub stored_bytes: u64,
    /// Of the file as it lies there, in hexadecimal digits.
    pub sha256: String,
    /// What belongs into `<file>.hmac`: for encrypted dumps.
    pub hmac: Option<Bytes>,
}

/// A dump on its way to the shelf.
pub struct DumpWriter {
    block: BytesMut,
    raw_bytes: u64,
    handed_over: bool,
    packer: Option<Packer>,
    /// `None` when a stage has ended, and the error was told.
    flow: Option<Flow>,
}

struct Flow {
    to_seal: mpsc::Sender<Bytes>,
    sealing: JoinHandle<Result<Sealed>>,
    /// One task, ended with this writer.
    uploading: JoinSet<Result<Box<dyn ShelfUpload>>>,
}

/// A dump that is written and has no name yet.
pub struct FinishedDump {
    written: DumpWritten,
    upload: Box<dyn ShelfUpload>,
}

impl DumpWriter {
    /// Begins a file. The directory that it is to lie in is made.
    pub async fn begin(
        shelf: &dyn Shelf,
        path: &ShelfPath,
        recipe: &DumpRecipe,
        passphrase: Option<&Secret>,
    ) -> Result<Self> {
        let DumpRecipe { shape, level, workers } = *recipe;
        if shape.cipher != DumpCipher::None && passphrase.is_none() {
            return Err(DumpError::NoPassphrase.into());
        }
        let packer = Packer::new(shape.compression, level, workers)?;
        let mut upload = shelf.create(path).await?;
        let (to_seal, plain) = mpsc::channel(QUEUE_BLOCKS);
        let (to_shelf, mut stored) = mpsc::channel::<Bytes>(QUEUE_BLOCKS);
        let passphrase = passphrase.cloned();
        let sealing =
            tokio::task::spawn_blocking(move || seal(shape.cipher, passphrase.as_ref(), plain, to_shelf));
        let mut uploading = JoinSet::new();
        uploading.spawn(async move {
            while let Some(bytes) = stored.recv().await {
                upload.write(bytes).await?;
            }
            Ok(upload)
        });
        Ok(Self {
            block: BytesMut::new(),
            raw_bytes: 0,
            handed_over: false,
            packer,
            flow: Some(Flow { to_seal, sealing, uploading }),
        })
    }

    /// Appends. Waits while the stages behind are full. After an error nothing is left to
    /// do but to drop the writer.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.raw_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            // A block that came as one is not copied.
            if self.block.is_empty() && bytes.len() >= BLOCK_BYTES {
                let block = bytes.split_to(BLOCK_BYTES);
                self.pack(block).await?;
                continue;
            }
            if self.block.is_empty() {
                self.block.reserve(BLOCK_BYTES);
            }
            let piece = bytes.split_to(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(&piece);
            if self.block.len() == BLOCK_BYTES {
                let block = self.block.split().freeze();
                self.pack(block).await?;
            }
        }
        Ok(())
    }

    async fn pack(&mut self, block: Bytes) -> Result<()> {
        let ready = match &mut self.packer {
            Some(packer) => packer.push(block).await?,
            None => Some(block),
        };
        match ready {
            Some(block) => self.hand_over(block).await,
            None => Ok(()),
        }
    }

    async fn hand_over(&mut self, block: Bytes) -> Result<()> {
        self.handed_over = true;
        let Some(flow) = &self.flow else { return Err(Error::Cancelled) };
        match flow.to_seal.send(block).await {
            Ok(()) => Ok(()),
            Err(_) => match self.end().await {
                Err(error) => Err(error),
                Ok(_) => Err(Error::broken("a stage of a dump does not end before its input")),
            },
        }
    }

    /// Lets the stages come to their end. Of two that failed the one that is nearer to
    /// the shelf is told: the other only had nobody to write to.
    async fn end(&mut self) -> Result<(Sealed, Box<dyn ShelfUpload>)> {
        let Some(Flow { to_seal, sealing, mut uploading }) = self.flow.take() else {
            return Err(Error::Cancelled);
        };
        drop(to_seal);
        let uploaded = uploading.join_next().await.ok_or(Error::Cancelled)?;
        let sealed = sealing.await;
        let upload = ended(uploaded)?;
        Ok((ended(sealed)?, upload))
    }

    /// Writes what is left, and says what the file is. It has no name yet.
    pub async fn finish(mut self) -> Result<FinishedDump> {
        let rest = self.block.split().freeze();
        // An empty dump is one empty block: no block at all is a file that no program opens.
        let is_first = !self.handed_over && self.raw_bytes == 0;
        if !rest.is_empty() || is_first {
            self.pack(rest).await?;
        }
        loop {
            let next = match &mut self.packer {
                Some(packer) => packer.next().await?,
                None => None,
            };
            match next {
                Some(block) => self.hand_over(block).await?,
                None => break,
            }
        }
        let raw_bytes = self.raw_bytes;
        let (sealed, upload) = self.end().await?;
        let Sealed { stored_bytes, sha256_hex, hmac_line } = sealed;
        let written = DumpWritten { raw_bytes, stored_bytes, sha256: sha256_hex, hmac: hmac_line };
        Ok(FinishedDump { written, upload })
    }

    /// Gives the dump up, and returns when nothing of it is left. Dropping the writer
    /// does the same in the background.
    pub async fn abandon(mut self) -> Result<()> {
        let (_, mut upload) = self.end().await?;
        Ok(upload.abort().await?)
    }
}

impl FinishedDump {
    pub fn written(&self) -> &DumpWritten {
        &self.written
    }

    /// Makes the file durable and gives it its name; [`StoreError::AlreadyExists`] when
    /// that is taken. May be called again after an `Unavailable` error.
    pub async fn commit(&mut self) -> Result<&DumpWritten> {
        let stored_bytes = self.upload.commit().await?;
        match stored_bytes == self.written.stored_bytes {
            true => Ok(&self.written),
            false => Err(Error::broken("the shelf has as many bytes of a dump as were written to it")),
        }
    }

    /// Another name than it was begun for, where that is taken by now.
    pub async fn rename(&mut self, path: &ShelfPath) -> Result<()> {
        Ok(self.upload.rename(path).await?)
    }

    /// Gives the dump up.
    pub async fn abandon(mut self) -> Result<(), StoreError> {
        self.upload.abort().await
    }
}
