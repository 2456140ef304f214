//! A span out of the spool, made ready for the store: read, its marks found, sealed.
//!
//! Invariant: of all the spans on their way one lies in memory; of the others there are the objects
//! only, also while the store keeps them waiting. They are stored in their order.

use std::sync::Arc;

use backstay_engine::postgres::wal::LogReader;
use backstay_model::{InstanceId, LogId, LogMark, LogSpan, Lsn};
use backstay_repo::log::{LogForm, LogPiece, PreviousSpan, SealedLog};
use backstay_repo::repo::Repo;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::Spool;
use crate::context::off_thread;
use crate::error::Result;

/// One after the other, in the order in which they asked for a turn.
#[derive(Default)]
pub(super) struct Queue {
    last: Option<oneshot::Receiver<()>>,
}

/// The next one's turn comes when this is dropped: not before it has come itself.
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Queue {
    pub fn turn(&mut self) -> Turn {
        let (done, next) = oneshot::channel();
        Turn { before: self.last.replace(next), _done: done }
    }
}

impl Turn {
    pub async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // Whoever was before has dropped it, which is all that it says.
            let _ = before.await;
        }
    }
}

/// What a task needs for a span on its way.
pub(super) struct Sending {
    pub repo: Arc<Repo>,
    pub instance: InstanceId,
    pub level: i32,
    pub spool: Spool,
    pub log: LogId,
    pub previous: Option<PreviousSpan>,
    pub marking: Arc<dyn Marking>,
}

/// What an engine knows of the bytes of its log.
pub(super) trait Marking: Send + Sync {
    fn form(&self) -> LogForm;

    /// Spans end at multiples of it at the latest.
    fn cut_bytes(&self) -> u64;

    /// The marks of a span, in ascending order. The bytes are those from `start` to its end.
    fn marks(&self, log: &LogId, bytes: &[u8], start: u64, span: LogSpan) -> Vec<LogMark>;

    /// What is stored with a span, of the same bytes.
    fn facts(&self, log: &LogId, bytes: &[u8], start: u64, span: LogSpan) -> serde_json::Value;
}

/// The log of PostgreSQL says it all by itself.
pub(super) struct Records;

impl Marking for Records {
    fn form(&self) -> LogForm {
        LogForm::PostgresqlRecords
    }

    fn cut_bytes(&self) -> u64 {
        super::CUT_BYTES
    }

    fn marks(&self, _: &LogId, bytes: &[u8], start: u64, span: LogSpan) -> Vec<LogMark> {
        marks_of(bytes, start, span)
    }

    fn facts(&self, _: &LogId, _: &[u8], _: u64, _: LogSpan) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Sending {
    /// Reads a span and seals it; neither the content nor the spool is held any longer. The span:
    /// one that completes a cut is the whole of it, as far as it lies here.
    pub async fn seal(self, span: LogSpan) -> Result<(LogSpan, SealedLog)> {
        let of = self.log.clone();
        let found = self.spool.with(move |spool| {
            // Marks are found from the beginning of what lies there of the cut.
            let cut = spool.cut_around(span.start);
            let lying = spool.spans().into_iter().find(|one| one.log == of && one.span.contains(&span));
            let start = lying.map_or(span.start, |one| one.span.start.max(cut.start));
            let whole = LogSpan { start, end: span.end };
            Ok((cut, whole, spool.find(&of, whole)?))
        });
        let (cut, whole, lying) = found.await?;
        let start = whole.start;
        let span = if span.end == cut.end { whole } else { span };
        let (of, marking) = (self.log.clone(), Arc::clone(&self.marking));
        let (content, marks, facts) = off_thread(move || {
            let bytes = lying.read()?;
            let marks = marking.marks(&of, &bytes, start, span);
            let facts = marking.facts(&of, &bytes, start, span);
            Ok((Bytes::from(bytes).slice((span.start - start) as usize..), marks, facts))
        })
        .await?;
        let piece = LogPiece {
            log: self.log,
            start: span.start,
            content,
            form: self.marking.form(),
            marks,
            previous: self.previous,
            facts,
        };
        Ok((span, self.repo.seal_log(&self.instance, piece, self.level).await?))
    }
}

/// The marks in a span of bytes that begin at `start`.
fn marks_of(bytes: &[u8], start: u64, span: LogSpan) -> Vec<LogMark> {
    let mut reader = LogReader::of_any_segments(Lsn(start));
    let mut marks = Vec::new();
    if let Err(damage) = reader.push(bytes, &mut marks) {
        // It was looked at when it came in; here the bytes are kept whatever they are.
        tracing::debug!(%damage, "no marks from here on");
    }
    marks.retain(|mark| span.start < mark.at && mark.at <= span.end);
    marks
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_they_were_asked_for_whoever_is_ready_first() {
        let mut queue = Queue::default();
        let turns: Vec<Turn> = (0..5).map(|_| queue.turn()).collect();
        let (told, mut heard) = tokio::sync::mpsc::channel(5);
        let mut tasks = JoinSet::new();
        // The last is spawned first.
        for (number, mut turn) in turns.into_iter().enumerate().rev() {
            let told = told.clone();
            tasks.spawn(async move {
                turn.comes().await;
                tokio::task::yield_now().await;
                told.send(number).await.unwrap();
            });
        }
        tasks.join_all().await;
        drop(told);
        let mut order = Vec::new();
        while let Some(number) = heard.recv().await {
            order.push(number);
        }
        assert_eq!(order, [0, 1, 2, 3, 4]);
        // A queue that nobody waits in any more gives the next turn at once.
        queue.turn().comes().await;
    }
}
