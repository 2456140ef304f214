//! The task that receives a backup and the queue between it and the lanes.
//!
//! Invariant: what waits in the queue is bounded twice, in pieces and in bytes;
//! when the lanes are slow the task stops reading, and so the server stops
//! sending. An end is always said: a queue that just closes is an error.
//!
//! Refuses a backup that is not what the server's manifest lists.

use std::sync::Arc;

use backstay_model::Lsn;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::assemble::Assembler;
use super::members::Piece;
use super::tally::ManifestReader;
use super::warnings;
use crate::postgres::outcome::Outcome;
use crate::postgres::throttle::Throttle;
use crate::postgres::walsender::{BackupEvent, BaseBackup, Walsender};
use crate::{Error, Result};

/// Bytes that may wait: enough that the network never stands still while the
/// lanes compress, little beside what the lanes hold themselves.
const WAITING_BYTES: u32 = 8 << 20;

/// Pieces that may wait; many small files come fast.
const WAITING_PIECES: usize = 256;

/// What comes through the queue.
pub(super) enum Delivery {
    /// The permit is given back when the piece is handed on: from then on its
    /// memory is the lane's.
    Piece {
        piece: Piece,
        _waiting: Option<OwnedSemaphorePermit>,
    },
    /// All is received and checked; the backup is consistent from here.
    End {
        stop: Lsn,
    },
    Failed(Error),
}

pub(super) struct Receiver {
    pub walsender: Walsender,
    pub backup: BaseBackup,
    pub assembler: Assembler,
    pub outcome: Outcome,
    pub throttle: Option<Arc<Throttle>>,
    pub cancelled: CancellationToken,
}

/// The two ends of a queue and its bound in bytes.
pub(super) fn queue() -> (Sender, mpsc::Receiver<Delivery>) {
    let (deliveries, receiver) = mpsc::channel(WAITING_PIECES);
    (Sender { deliveries, room: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }, receiver)
}

pub(super) struct Sender {
    deliveries: mpsc::Sender<Delivery>,
    room: Arc<Semaphore>,
}

impl Sender {
    async fn piece(&self, piece: Piece) -> Result<()> {
        let bytes = u32::try_from(piece.held_bytes()).unwrap_or(u32::MAX).min(WAITING_BYTES);
        let waiting = match bytes {
            0 => None,
            // The semaphore is never closed.
            bytes => Arc::clone(&self.room).acquire_many_owned(bytes).await.ok(),
        };
        self.send(Delivery::Piece { piece, _waiting: waiting }).await
    }

    /// Nobody at the other end means that the backup was given up.
    async fn send(&self, delivery: Delivery) -> Result<()> {
        self.deliveries.send(delivery).await.map_err(|_| Error::Cancelled)
    }
}

impl Receiver {
    /// Receives to the end, and says how it ended.
    pub(super) async fn run(mut self, sender: Sender) {
        let cancelled = self.cancelled.clone();
        let received = tokio::select! {
            // Dropping the connection is what tells the server to stop.
            () = cancelled.cancelled() => Err(Error::Cancelled),
            received = self.receive(&sender) => received,
        };
        let last = match received {
            Ok(stop) => Delivery::End { stop },
            Err(error) => Delivery::Failed(error),
        };
        drop(self);
        if sender.send(last).await.is_err() {
            tracing::debug!("the backup was given up before its end");
        }
    }

    /// The next event. A standby that was promoted says no in its own language;
    /// that it is on another timeline now is plain in any.
    async fn next_event(&mut self) -> Result<Option<BackupEvent>> {
        let error = match self.backup.next(&mut self.walsender).await {
            Err(error @ Error::Server { .. }) => error,
            next => return next,
        };
        match self.walsender.identify_system().await {
            Ok(now) if now.timeline != self.backup.timeline => {
                Err(Error::Promoted { started: self.backup.timeline, stopped: now.timeline })
            }
            _ => Err(error),
        }
    }

    async fn receive(&mut self, sender: &Sender) -> Result<Lsn> {
        let mut manifest = ManifestReader::default();
        let mut in_archive = false;
        while let Some(event) = self.next_event().await? {
            match event {
                BackupEvent::Archive { tablespace } => {
                    if in_archive {
                        self.assembler.end_archive()?;
                    }
                    self.assembler.begin_archive(tablespace);
                    in_archive = true;
                }
                BackupEvent::Content(content) => {
                    // The server keeps to the rate too, where it can; it counts in larger steps.
                    if let Some(throttle) = &self.throttle {
                        throttle.pass(content.len() as u64).await?;
                    }
                    self.assembler.feed(content)?;
                }
                BackupEvent::Manifest(text) => manifest.feed(&text)?,
            }
            while let Some(piece) = self.assembler.pieces.pop_front() {
                sender.piece(piece).await?;
            }
        }
        for said in self.walsender.take_warnings() {
            self.outcome.find(warnings::finding(&said));
        }
        self.assembler.end_archive()?;
        let stop = self.backup.stop()?;
        manifest.compare(&self.assembler.received)?;
        for finding in self.assembler.findings.drain(..) {
            self.outcome.find(finding);
        }
        Ok(stop)
    }
}
