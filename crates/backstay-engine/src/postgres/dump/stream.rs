//! The bytes of a dump, as the child writes them.
//!
//! Nothing is read ahead of whoever takes it but what a pipe holds: a slow disk behind us
//! slows `pg_dump` down, not the memory up.

use backstay_model::dump::DumpWarning;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::answering::while_it_answers;
use super::super::chunk_writer::chunk_writer;
use super::super::client_programs::Child;
use super::super::connect::Session;
use super::super::settings::Address;
use super::spool::Spool;
use super::{pack, warnings};
use crate::{Error, Result};

/// What is handed on at once, at most.
const CHUNK: usize = 256 << 10;

/// What a pipe holds, and so what comes with one look at it.
const PIPE: usize = 64 << 10;

/// A dump that is being written.
pub struct DumpRun {
    child: Child,
    stage: Stage,
    buffer: BytesMut,
    warnings: Vec<DumpWarning>,
    /// The snapshot that the child reads from.
    session: Option<Session>,
    address: Address,
    cancel: CancellationToken,
}

enum Stage {
    Output(ChildStdout),
    /// The child writes files.
    Files(Spool),
    Packing(Packing),
    Over,
    /// Whoever reads on must not take it for the end.
    Failed,
}

struct Packing {
    chunks: mpsc::Receiver<Result<Bytes>>,
    /// Ends when the receiver is gone; dropped before the files are.
    _thread: JoinSet<()>,
    _spool: Spool,
}

impl DumpRun {
    pub(super) fn of(
        mut child: Child,
        spool: Option<Spool>,
        warnings: Vec<DumpWarning>,
        session: Option<Session>,
        address: Address,
        cancel: CancellationToken,
    ) -> DumpRun {
        let stage = match spool {
            Some(spool) => Stage::Files(spool),
            None => child.take_output().map_or(Stage::Over, Stage::Output),
        };
        DumpRun { child, stage, buffer: BytesMut::new(), warnings, session, address, cancel }
    }

    /// The next bytes, 256 KiB at most; `None` when all came and the child ended well.
    /// Never that after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let (cancel, address) = (self.cancel.clone(), self.address.clone());
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            next = while_it_answers(&address, self.next_chunk()) => next.and_then(|next| next),
        };
        if next.is_err() {
            self.child.stop().await;
            self.stage = Stage::Failed;
            self.session = None;
        }
        next
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match &mut self.stage {
                Stage::Output(output) => {
                    if self.buffer.capacity() < PIPE {
                        self.buffer.reserve(CHUNK);
                    }
                    let read = output.read_buf(&mut self.buffer).await;
                    match read
                        .map_err(|source| Error::Program { program: self.child.program.to_owned(), source })?
                    {
                        0 => {
                            self.child.end_soon().await?;
                            self.over();
                        }
                        count => return Ok(Some(self.buffer.split_to(count).freeze())),
                    }
                }
                Stage::Files(_) => {
                    self.child.end().await?;
                    // The files are written: nothing is read from the server any more.
                    self.session = None;
                    self.pack();
                }
                Stage::Packing(packing) => match packing.chunks.recv().await {
                    Some(chunk) => return chunk.map(Some),
                    None => self.over(),
                },
                Stage::Over => return Ok(None),
                Stage::Failed => {
                    return Err(Error::Protocol { reason: "a dump that failed was read on".to_owned() });
                }
            }
        }
    }

    fn pack(&mut self) {
        let Stage::Files(spool) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let (writer, chunks) = chunk_writer();
        let directory = spool.directory().to_owned();
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || writer.fill(|writer| pack::pack(&directory, writer)));
        self.stage = Stage::Packing(Packing { chunks, _thread: thread, _spool: spool });
    }

    fn over(&mut self) {
        self.stage = Stage::Over;
        self.session = None;
    }

    /// What was said beside the dump: all of it after the end.
    pub fn warnings(&self) -> Vec<DumpWarning> {
        let mut all = self.warnings.clone();
        all.extend(warnings::understood(self.child.messages(), self.child.messages_left_out()));
        all
    }
}
