//! From the spool into the store.
//!
//! A cut of the log that is complete is stored whole, so that one object serves a recovery.
//! What is there of one that is not goes when it is as old as was promised; when the cut is
//! complete, it is stored once more as a whole.
//!
//! Invariant: where a timeline came from is in the store before any of its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{Coverage, LogId, LogSpan};
use backstay_repo::log::{PreviousSpan, StoredSpan};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::sealing::{Marking, Queue, Sending};
use super::{ArchiveEvent, ArchiveOptions, ArchiveWatcher, STORE_LIMIT, Spool};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::giving_way::GivingWay;
use crate::instance::Instance;

/// Spans on their way at once: each takes its object in memory.
const IN_FLIGHT: usize = 2;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How often it is looked whether something is old enough.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Sender<'a> {
    context: &'a Context,
    instance: &'a Instance,
    options: &'a ArchiveOptions,
    watcher: &'a dyn ArchiveWatcher,
    spool: Spool,
    marking: Arc<dyn Marking>,
    /// By where they begin: behind a gap another stretch of the same log goes on.
    stretches: BTreeMap<Stretch, Progressing>,
    /// Where timelines came from, as far as the store does not have it.
    histories: BTreeMap<LogId, Option<Bytes>>,
    in_flight: JoinSet<Sent>,
    /// A span lies in memory to be sealed.
    sealing: Queue,
    /// What the store has of a stretch never has a hole.
    storing: Queue,
    trimming: JoinSet<Result<()>>,
    /// What is received goes before what is sent.
    threads: GivingWay,
    store: Arc<StoreView>,
}

/// What the last calls of the store have shown.
#[derive(Default)]
struct StoreView {
    /// One of them is to be made again. Nothing overtakes it: there would be a hole until then.
    is_away: AtomicBool,
    is_back: Notify,
    /// One failed for good, and those behind it are not to be stored without it.
    has_failed: AtomicBool,
}

/// What was on its way.
enum Sent {
    /// Nothing was stored where one before it failed.
    Span {
        stretch: Stretch,
        span: LogSpan,
        stored: Result<Option<StoredSpan>>,
    },
    History {
        log: LogId,
        stored: Result<()>,
    },
}

/// Log without a hole, and where it begins.
type Stretch = (LogId, u64);

/// One stretch on its way.
#[derive(Default)]
struct Progressing {
    /// What lies in the spool from here on is not in the store, as far as this run knows.
    from: u64,
    /// Durable in the spool.
    durable: u64,
    /// Handed to a task.
    dispatched: u64,
    /// When the first byte behind `dispatched` became durable.
    waiting_since: Option<Instant>,
    /// No more will come: another timeline goes on.
    is_over: bool,
    done: Vec<LogSpan>,
    previous: Option<PreviousSpan>,
}

impl<'a> Sender<'a> {
    pub fn new(
        context: &'a Context,
        instance: &'a Instance,
        options: &'a ArchiveOptions,
        watcher: &'a dyn ArchiveWatcher,
        spool: Spool,
        marking: Arc<dyn Marking>,
    ) -> Result<Self> {
        let threads = GivingWay::start().map_err(|error| Error::broken(error.to_string()))?;
        Ok(Sender {
            context,
            instance,
            options,
            watcher,
            spool,
            marking,
            stretches: BTreeMap::new(),
            histories: BTreeMap::new(),
            in_flight: JoinSet::new(),
            sealing: Queue::default(),
            storing: Queue::default(),
            trimming: JoinSet::new(),
            threads,
            store: Arc::new(StoreView::default()),
        })
    }

    /// What an earlier run left in the spool. Where the store does not say what it has of it,
    /// all is sent again.
    pub async fn take_over(&mut self) -> Result<()> {
        for (log, content) in self.spool.with(|spool| Ok(spool.histories()?)).await? {
            self.histories.insert(log, Some(content.into()));
        }
        for one in self.spool.with(|spool| Ok(spool.spans())).await? {
            let asked = self.context.repo.timeline_log(&self.instance.id, &one.log);
            let stored = match tokio::time::timeout(STORE_LIMIT, asked).await {
                Ok(Ok(there)) => there.coverage(),
                Ok(Err(error)) if error.kind() != ErrorKind::Unavailable => return Err(error.into()),
                Ok(Err(_)) | Err(_) => Coverage::default(),
            };
            let from = stored.reach(one.span.start).unwrap_or(one.span.start).min(one.span.end);
            let waiting_since = (from < one.span.end).then(Instant::now);
            let progressing = Progressing {
                from,
                dispatched: from,
                durable: one.span.end,
                waiting_since,
                ..Progressing::default()
            };
            self.stretches.insert((one.log, one.span.start), progressing);
        }
        Ok(())
    }

    /// Where a timeline came from: for good in the spool, and in the store before its log.
    pub async fn history(&mut self, log: LogId, content: Bytes) -> Result<()> {
        let (of, kept) = (log.clone(), content.clone());
        self.spool.with(move |spool| Ok(spool.keep_history(&of, &kept)?)).await?;
        self.histories.insert(log, Some(content));
        Ok(())
    }

    /// So far the spool has it for good, from where this connection began.
    pub fn durable(&mut self, log: &LogId, start: u64, to: u64) {
        let own = self.stretches.range_mut((log.clone(), 0)..=(log.clone(), start)).next_back();
        let goes_on = own.filter(|((of, _), one)| of == log && start <= one.durable);
        let one = match goes_on {
            Some((_, one)) => one,
            None => {
                let new = Progressing { from: start, dispatched: start, ..Progressing::default() };
                self.stretches.entry((log.clone(), start)).or_insert(new)
            }
        };
        one.is_over = false;
        one.durable = one.durable.max(to);
        if one.waiting_since.is_none() && one.dispatched < one.durable {
            one.waiting_since = Some(Instant::now());
        }
    }

    /// Nothing more will come at the end of what there is of this timeline.
    pub fn over(&mut self, log: &LogId) {
        for ((of, _), one) in &mut self.stretches {
            one.is_over |= of == log;
        }
    }

    /// Hands on what is due, and takes note of what has arrived. Returns at once.
    pub async fn turn(&mut self) -> Result<()> {
        while let Some(joined) = self.in_flight.try_join_next() {
            self.arrived(joined).await?;
        }
        while let Some(joined) = self.trimming.try_join_next() {
            joined.map_err(|error| Error::broken(error.to_string()))??;
        }
        if self.in_flight.is_empty() {
            // All that was held back is to be sent again.
            self.store.has_failed.store(false, Ordering::Relaxed);
        }
        let is_to_wait = |store: &StoreView| {
            store.is_away.load(Ordering::Relaxed) || store.has_failed.load(Ordering::Relaxed)
        };
        while self.in_flight.len() < IN_FLIGHT && !is_to_wait(&self.store) {
            let waiting = self.histories.iter_mut().find_map(|(log, one)| Some((log.clone(), one.take()?)));
            if let Some((log, content)) = waiting {
                self.dispatch_history(log, content);
                continue;
            }
            let (rpo, cut_bytes) = (self.options.rpo, self.marking.cut_bytes());
            let leads = |log: &LogId| {
                let mut missing = self.histories.keys();
                !missing.any(|of| of.lineage == log.lineage && of.timeline <= log.timeline)
            };
            let mut on_a_way = self.stretches.iter().filter(|((log, _), _)| leads(log));
            let due = on_a_way.find_map(|(stretch, one)| Some((stretch.clone(), one.due(rpo, cut_bytes)?)));
            let Some((stretch, span)) = due else { break };
            self.dispatch(stretch, span);
        }
        Ok(())
    }

    fn dispatch_history(&mut self, log: LogId, content: Bytes) {
        let (repo, instance) = (self.context.repo.clone(), self.instance.id.clone());
        let (cancel, store) = (self.context.cancel.clone(), Arc::clone(&self.store));
        let sent = async move {
            let stored =
                until_taken(&cancel, &store, || repo.put_log_history(&instance, &log, &content)).await;
            Sent::History { log, stored }
        };
        self.in_flight.spawn_on(sent, &self.threads.handle());
    }

    fn dispatch(&mut self, stretch: Stretch, span: LogSpan) {
        let Some(one) = self.stretches.get_mut(&stretch) else { return };
        one.dispatched = span.end;
        one.waiting_since = (one.dispatched < one.durable).then(Instant::now);
        let sending = Sending {
            repo: Arc::clone(&self.context.repo),
            instance: self.instance.id.clone(),
            level: self.options.log_level,
            spool: self.spool.clone(),
            log: stretch.0.clone(),
            previous: one.previous.clone(),
            marking: Arc::clone(&self.marking),
        };
        let (mut sealing, mut storing) = (self.sealing.turn(), self.storing.turn());
        let repo = Arc::clone(&self.context.repo);
        let (cancel, store) = (self.context.cancel.clone(), Arc::clone(&self.store));
        let sent = async move {
            sealing.comes().await;
            let sealed = sending.seal(span).await;
            drop(sealing);
            storing.comes().await;
            let mut whole = span;
            let stored = async {
                if store.has_failed.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let (span, sealed) = sealed?;
                whole = span;
                until_taken(&cancel, &store, || repo.put_sealed_log(&sealed)).await.map(Some)
            };
            let stored = stored.await;
            if stored.is_err() {
                store.has_failed.store(true, Ordering::Relaxed);
            }
            drop(storing);
            // Where nothing was stored, it is to be sent once more as it was.
            let span = if matches!(stored, Ok(Some(_))) { whole } else { span };
            Sent::Span { stretch, span, stored }
        };
        self.in_flight.spawn_on(sent, &self.threads.handle());
    }

    async fn arrived(&mut self, joined: Result<Sent, tokio::task::JoinError>) -> Result<()> {
        let (stretch, span, stored) = match joined.map_err(|error| Error::broken(error.to_string()))? {
            Sent::Span { stretch, span, stored: Ok(Some(stored)) } => (stretch, span, stored),
            Sent::Span { stretch, span, stored } => {
                if let Some(one) = self.stretches.get_mut(&stretch) {
                    one.dispatched = one.dispatched.min(span.start);
                    one.waiting_since.get_or_insert_with(Instant::now);
                }
                return stored.map(drop);
            }
            Sent::History { log, stored } => {
                stored?;
                self.histories.remove(&log);
                return self.spool.with(move |spool| Ok(spool.forget_history(&log)?)).await;
            }
        };
        let Some(one) = self.stretches.get_mut(&stretch) else { return Ok(()) };
        let (log, start) = stretch;
        one.done.push(span);
        one.previous = Some(PreviousSpan { span, digest: stored.digest });
        let there: Coverage = one.done.iter().copied().collect();
        // The first span may begin before what this run began with.
        if let Some(reach) = there.spans().iter().find(|span| span.start <= one.from).map(|span| span.end) {
            one.from = one.from.max(reach);
            let from = one.from;
            one.done.retain(|span| span.end > from);
        }
        let from = one.from;
        self.watcher.see(ArchiveEvent::Sent { log: log.clone(), span });
        let spool = self.spool.clone();
        // Whoever receives does not wait for the removal of files.
        self.trimming.spawn(async move {
            spool.with(move |spool| Ok(spool.trim(&log, start, from).map(drop)?)).await
        });
        Ok(())
    }

    /// Goes on sending for a while in which nothing is received.
    pub async fn rest(&mut self, wait: Duration) -> Result<()> {
        let until = Instant::now() + wait;
        loop {
            self.turn().await?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.context.cancel.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                () = self.context.cancel.cancelled() => {}
                () = tokio::time::sleep(left.min(LOOK)) => {}
            }
        }
    }

    /// Ends what is on its way: the spool is free then.
    pub async fn end(&mut self) {
        self.in_flight.shutdown().await;
        self.trimming.shutdown().await;
    }

    /// Sends all that is there.
    pub async fn finish(&mut self) -> Result<()> {
        loop {
            for one in self.stretches.values_mut() {
                one.is_over = true;
            }
            self.turn().await?;
            match self.in_flight.join_next().await {
                Some(joined) => self.arrived(joined).await?,
                None => break,
            }
        }
        while let Some(joined) = self.trimming.join_next().await {
            joined.map_err(|error| Error::broken(error.to_string()))??;
        }
        Ok(())
    }
}

/// Tries again while the store is away, until somebody asks to stop. When it takes something, the
/// others that wait try at once.
async fn until_taken<T, F>(cancel: &CancellationToken, store: &StoreView, put: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = backstay_repo::Result<T>>,
{
    let mut wait = RETRY_FIRST;
    loop {
        match put().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && !cancel.is_cancelled() => {
                tracing::warn!(%error, "the store does not take the log; it stays in the spool");
                store.is_away.store(true, Ordering::Relaxed);
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = store.is_back.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(RETRY_LAST);
            }
            Err(error) => {
                // It is no longer waited for; what is behind it sees that it failed.
                store.is_away.store(false, Ordering::Relaxed);
                return Err(error.into());
            }
            Ok(done) => {
                store.is_away.store(false, Ordering::Relaxed);
                store.is_back.notify_waiters();
                return Ok(done);
            }
        }
    }
}

impl Progressing {
    fn due(&self, rpo: Duration, cut_bytes: u64) -> Option<LogSpan> {
        let cut_end = (self.dispatched / cut_bytes + 1) * cut_bytes;
        if cut_end <= self.durable {
            return LogSpan::new(self.dispatched, cut_end);
        }
        let is_old = self.waiting_since.is_some_and(|since| since.elapsed() >= rpo);
        LogSpan::new(self.dispatched, self.durable).filter(|_| is_old || self.is_over)
    }
}
