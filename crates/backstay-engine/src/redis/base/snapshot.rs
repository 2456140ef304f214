//! The snapshot of a base as one stream, looked at on its way.
//!
//! Invariant: the facts of a base are there when its stream has ended and was found whole, and not
//! before.

use std::io::Read;

use backstay_model::error::Fault;
use backstay_model::parts::ByteStream;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{RedisFacts, RedisOutcome, SavedFacts};
use crate::redis::aux_fields::{AuxFields, HEAD_BYTES};
use crate::redis::facts::ServerFacts;
use crate::redis::saved::SavedFile;
use crate::redis::stream::StreamReceiver;
use crate::redis::sync::{FullSync, StreamPlace};
use crate::snapshot::RdbCheck;
use crate::{Error, Result};

/// Pieces of a quarter of a MiB that may wait for whoever slices them.
const WAITING: usize = 16;
const PIECE: usize = 256 << 10;

/// The stream as it comes, looked at on its way.
pub(super) struct Snapshot {
    waiting: mpsc::Receiver<Result<Bytes>>,
    check: Option<RdbCheck>,
    /// Its first bytes.
    head: Vec<u8>,
    received: u64,
    pub outcome: RedisOutcome,
    origin: Option<Origin>,
    /// Ends with the stream: that is what tells the server to stop.
    receiving: tokio::task::JoinSet<()>,
}

/// Whose it is, and how it comes.
pub(super) struct Origin {
    pub server: ServerFacts,
    pub place: StreamPlace,
    pub saved: Option<SavedFacts>,
}

impl Snapshot {
    pub fn new(origin: Origin) -> (Snapshot, mpsc::Sender<Result<Bytes>>) {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let snapshot = Snapshot {
            waiting,
            check: Some(RdbCheck::default()),
            head: Vec::new(),
            received: 0,
            outcome: RedisOutcome::default(),
            origin: Some(origin),
            receiving: tokio::task::JoinSet::new(),
        };
        (snapshot, pieces)
    }

    /// Of a file. It ends where nobody wants its pieces any more.
    pub fn read(
        mut self,
        from: SavedFile,
        pieces: mpsc::Sender<Result<Bytes>>,
        cancel: CancellationToken,
    ) -> Snapshot {
        let SavedFile { mut file, path, .. } = from;
        self.receiving.spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let read = match cancel.is_cancelled() {
                    true => Err(Error::Cancelled),
                    false => {
                        file.read(&mut piece).map_err(|source| Error::Read { path: path.clone(), source })
                    }
                };
                // An empty piece is the end.
                let piece = read.map(|count| {
                    piece.truncate(count);
                    Bytes::from(piece)
                });
                let is_over = piece.as_ref().map_or(true, Bytes::is_empty);
                if pieces.blocking_send(piece).is_err() || is_over {
                    return;
                }
            }
        });
        self
    }

    pub fn receive(
        mut self,
        mut sync: FullSync,
        pieces: mpsc::Sender<Result<Bytes>>,
        cancel: CancellationToken,
        behind: Option<oneshot::Sender<StreamReceiver>>,
    ) -> Snapshot {
        self.receiving.spawn(async move {
            loop {
                let next = tokio::select! {
                    () = cancel.cancelled() => Err(Error::Cancelled),
                    next = sync.next() => next,
                };
                let (piece, is_over) = match next {
                    Ok(Some(piece)) => (Ok(piece), false),
                    // An empty piece says that all came: a queue that just closes says nothing.
                    Ok(None) => (Ok(Bytes::new()), true),
                    Err(error) => (Err(error), true),
                };
                let is_whole = is_over && piece.is_ok();
                if pieces.send(piece).await.is_err() {
                    return;
                }
                if is_over {
                    if let (true, Some(behind), Ok(stream)) = (is_whole, behind, sync.into_stream()) {
                        // Whoever wanted it may have gone.
                        drop(behind.send(stream));
                    }
                    return;
                }
            }
        });
        self
    }

    fn end(&mut self) -> Result<()> {
        let (Some(check), Some(Origin { server, place, saved })) = (self.check.take(), self.origin.take())
        else {
            return Err(Error::Protocol { reason: "a snapshot ended twice".to_owned() });
        };
        let found = check.finish()?;
        let facts = RedisFacts::new(server, place, &found, self.received);
        let facts = RedisFacts { saved, ..facts.with_head(&AuxFields::of(&self.head)) };
        self.outcome.set(facts);
        Ok(())
    }
}

impl ByteStream for Snapshot {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Fault> {
        match self.waiting.blocking_recv() {
            Some(Ok(piece)) if piece.is_empty() => {
                self.end()?;
                Ok(false)
            }
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                let room = HEAD_BYTES.saturating_sub(self.head.len());
                self.head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                if let Some(check) = &mut self.check {
                    check.push(&piece);
                    // What is no snapshot at all is not stored to its end first.
                    check.version()?;
                }
                buffer.extend_from_slice(&piece);
                Ok(true)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(Error::Cancelled.into()),
        }
    }
}
