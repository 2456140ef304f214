//! Segments that a server will ask for next, read before it does.
//!
//! A server replays a segment before it asks for the one behind it. Meanwhile that one is read,
//! decrypted and decompressed here, where processors would be idle; and written, where its place
//! is known: into a file without a name, which goes by itself when nobody asks for it.
//!
//! Invariant: what is given out is what would have been read at the time of the question. Only
//! whole segments, which never change, are read ahead; where the archive ends, or something is
//! wrong, it is looked at when it is asked for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::LogSpan;
use backstay_repo::log::SPAN_BYTES_MAX;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::unnamed::Unnamed;
use super::{Answer, LogFileName, LogSource, answer, way};
use crate::context::{Context, off_thread};
use crate::error::Result;

/// Segments read ahead, and the bytes of them that are kept at most.
const AHEAD: u64 = 2;
const AHEAD_BYTES: u64 = 32 << 20;

/// What is there for a question.
pub(super) enum Foreseen {
    Answer(Answer),
    /// The whole segment, in a file that needs only its name.
    File(Unnamed),
}

/// A segment that was read ahead.
enum Read {
    Bytes(Vec<u8>),
    File(Unnamed),
}

/// What segments of the usual size were read into, for those to come: others are put together.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < AHEAD as usize {
            kept.push(buffer);
        }
    }
}

pub(super) struct Foresight {
    context: Context,
    source: LogSource,
    /// The server takes its files here.
    place: Option<PathBuf>,
    /// One after the other: each takes the memory of up to two segments while it is read. One that
    /// lies there as one object is written while the next is read, which takes one more.
    reading: Arc<Semaphore>,
    buffers: Buffers,
    /// Each with the one task that reads it, which ends when nobody wants it any more.
    coming: Vec<(LogFileName, JoinSet<Option<Read>>)>,
}

impl Foresight {
    pub fn new(context: &Context, source: LogSource, place: Option<PathBuf>) -> Foresight {
        Foresight {
            context: context.clone(),
            source,
            place,
            reading: Arc::new(Semaphore::new(1)),
            buffers: Buffers::default(),
            coming: Vec::new(),
        }
    }

    pub async fn answer(&mut self, name: &LogFileName) -> Result<Foreseen> {
        let read = match self.coming.iter().position(|(of, _)| of == name) {
            Some(at) => self.coming.swap_remove(at).1.join_next().await.and_then(|read| read.ok().flatten()),
            None => None,
        };
        let read = match read {
            Some(read) if self.still_counts(name).await? => Some(read),
            _ => None,
        };
        let foreseen = match read {
            Some(Read::File(file)) => Foreseen::File(file),
            Some(Read::Bytes(bytes)) => Foreseen::Answer(Answer::There { bytes, end: None }),
            None => Foreseen::Answer(answer(&self.context, &self.source, name, Vec::new()).await?),
        };
        if matches!(foreseen, Foreseen::File(_) | Foreseen::Answer(Answer::There { end: None, .. })) {
            self.expect_behind(name);
        }
        Ok(foreseen)
    }

    /// Reads what comes behind a segment.
    pub fn expect_behind(&mut self, name: &LogFileName) {
        let most = AHEAD.min(AHEAD_BYTES / self.source.segment_bytes.max(1)) as usize;
        let behind = std::iter::successors(Some(*name), |last| last.next(self.source.segment_bytes));
        let expected: Vec<LogFileName> = behind.skip(1).take(most).collect();
        self.coming.retain(|(of, _)| expected.contains(of));
        for name in expected {
            if self.coming.iter().any(|(of, _)| *of == name) {
                continue;
            }
            let (context, source, reading) =
                (self.context.clone(), self.source.clone(), Arc::clone(&self.reading));
            let is_one_object = source.segment_bytes == SPAN_BYTES_MAX;
            let (place, buffers) = (self.place.clone(), self.buffers.clone());
            let mut read = JoinSet::new();
            read.spawn(async move {
                let mut alone = Some(reading.acquire_owned().await.ok()?);
                let buffer = if is_one_object { buffers.take() } else { Vec::new() };
                let read = answer(&context, &source, &name, buffer).await;
                if is_one_object {
                    drop(alone.take());
                }
                match read {
                    Ok(Answer::There { bytes, end: None }) => {
                        let buffers = is_one_object.then_some(buffers);
                        off_thread(move || Ok(written(bytes, place, buffers))).await.ok()
                    }
                    Ok(_) => None,
                    Err(error) => {
                        tracing::debug!(%error, ?name, "it could not be read ahead");
                        None
                    }
                }
            });
            self.coming.push((name, read));
        }
    }

    /// For a standby a timeline may have been left meanwhile, and its last segment then counts
    /// in part only.
    async fn still_counts(&self, name: &LogFileName) -> Result<bool> {
        let LogFileName::Segment { timeline, segment } = name else { return Ok(false) };
        if !self.source.standby {
            return Ok(true);
        }
        let Some(number) = LogFileName::number(*segment, self.source.segment_bytes) else { return Ok(false) };
        let start = number * self.source.segment_bytes;
        let span = LogSpan { start, end: start + self.source.segment_bytes };
        let left = way::left_at(&self.context, &self.source, *timeline).await?;
        Ok(left.is_none_or(|left| left.0 >= span.end))
    }
}

/// Where no file can be written without a name, the bytes are as good.
fn written(bytes: Vec<u8>, place: Option<PathBuf>, buffers: Option<Buffers>) -> Read {
    match place.and_then(|place| Unnamed::write(&place, &bytes).ok()) {
        Some(file) => {
            if let Some(buffers) = buffers {
                buffers.give_back(bytes);
            }
            Read::File(file)
        }
        None => Read::Bytes(bytes),
    }
}
