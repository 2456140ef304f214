//! The stream of Redis or Valkey: received as a replica receives it, and stored.
//!
//! It goes on where it ended as long as the server has what follows. Where it has not, the server
//! sends everything: that is a base, and a stream of its own behind it. What was between is gone,
//! and found from positions as every hole is.
//!
//! Invariant: a server is told of no change that is not durable in the spool.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::settings::Address;
use backstay_engine::redis::source::{self, ChosenSource};
use backstay_engine::redis::stream::StreamReceiver;
use backstay_engine::redis::sync::{Attached, StreamPlace, attach};
use backstay_model::LogSpan;
use backstay_repo::log::LogIndex;

use super::base::Bases;
use super::sender::Sender;
use super::{
    AT_ONCE, ArchiveEvent, ArchiveOptions, ArchiveWatcher, Ended, LAST_SENDING, RETRY_FIRST, STORE_LIMIT,
    STREAM_CUT_BYTES, Spool, gap, is_worth_another_try, room, was_stopped, within,
};
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::Instance;
use instants::Instants;
use keeper::{Keeper, SharedInstants};
use resume::{Resume, Streams};

mod beginning;
mod headroom;
pub(crate) mod instants;
mod keeper;
mod lacking;
mod marking;
pub(crate) mod quiet;
mod resume;
mod stream;

/// As of every archive: see [`super::run`].
pub(super) async fn receive(
    context: &Context,
    instance: &Instance,
    settings: &RedisSettings,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    bases: Bases,
) -> Result<()> {
    let Some(spool) = room::open_spool(context, options, watcher, STREAM_CUT_BYTES).await? else {
        return Ok(());
    };
    let Some(instants) = open_instants(context, options, watcher).await? else { return Ok(()) };
    let instants = SharedInstants(Arc::new(Mutex::new(instants)));
    believe(&spool, &instants).await?;
    let mut sender =
        Sender::new(context, instance, options, watcher, spool.clone(), Arc::new(instants.clone()))?;
    context.unless_cancelled(sender.take_over()).await?;
    let mut archive = StreamArchive {
        context,
        instance,
        settings,
        options,
        watcher,
        spool,
        instants,
        sender,
        bases,
        streams: Streams::default(),
        has_forked: false,
        fork_wait: RETRY_FIRST,
        has_lost_snapshot: false,
    };
    let outcome = archive.receive_on().await;
    let left = tokio::time::timeout(LAST_SENDING, archive.sender.finish()).await;
    archive.sender.end().await;
    match (outcome, left) {
        (Err(error), _) => Err(error),
        // It lies in the spool, and goes with the next run.
        (Ok(()), Ok(Err(error))) if was_stopped(context, &error) => Ok(()),
        (Ok(()), Ok(sent)) => sent,
        (Ok(()), Err(_)) => Ok(()),
    }
}

/// As soon as there is room for it; nothing when somebody asked to stop.
async fn open_instants(
    context: &Context,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
) -> Result<Option<Instants>> {
    let mut was_full = false;
    loop {
        let directory = options.spool.clone();
        match off_thread(move || Instants::open(&directory)).await {
            Err(Error::Repo(error)) if error.is_full_spool() => {
                if !was_full {
                    watcher.see(ArchiveEvent::SpoolFull { reason: crate::status::with_causes(&error) });
                }
                was_full = true;
            }
            opened => {
                if was_full {
                    watcher.see(ArchiveEvent::SpoolHasRoom);
                }
                return opened.map(Some);
            }
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(RETRY_FIRST) => {}
        }
    }
}

/// What lies in the spool behind the last line that is known of it is nobody's: a crash left it. Where
/// no line reads, they were lost, and what was acknowledged is not given up for it.
async fn believe(spool: &Spool, instants: &SharedInstants) -> Result<()> {
    let instants = instants.clone();
    let believing = spool.with(move |spool| {
        let spans = spool.spans();
        let (last, directory) = {
            let instants = instants.lock();
            (instants.last().cloned(), instants.directory().to_owned())
        };
        for one in spans {
            let Some(last) = &last else { return Err(Error::StreamUnknown { spool: directory }) };
            // Of another stream nothing came since: its lines were whole when this one began.
            if last.log == one.log && last.end() < one.span.end {
                let stretch = LogSpan { start: one.span.start, end: one.span.end };
                spool.truncate(&one.log, stretch, last.end().max(one.span.start))?;
            }
        }
        Ok(spool.believe()?)
    });
    believing.await
}

/// What one run knows over all of its connections.
struct StreamArchive<'a> {
    context: &'a Context,
    instance: &'a Instance,
    settings: &'a RedisSettings,
    options: &'a ArchiveOptions,
    watcher: &'a dyn ArchiveWatcher,
    spool: Spool,
    instants: SharedInstants,
    sender: Sender<'a>,
    bases: Bases,
    /// The timelines, as the store had them when it last said so, and those that began since.
    streams: Streams,
    /// The server has forked for this connection, and nothing has become of it yet.
    has_forked: bool,
    /// Between two of those.
    fork_wait: Duration,
    /// The last snapshot was not received to its end while it was stored.
    has_lost_snapshot: bool,
}

/// What is known of where the stream ended.
struct Known {
    streams: Streams,
    resume: Option<Resume>,
    /// The store has said what it has.
    is_whole: bool,
}

impl StreamArchive<'_> {
    /// One connection after the other.
    async fn receive_on(&mut self) -> Result<()> {
        let mut wait = RETRY_FIRST;
        let mut at_once = 0;
        loop {
            let connected = self.connect().await;
            // Each attempt makes the server fork: whatever keeps the stream from its beginning, it is not
            // asked for one after the other.
            if std::mem::take(&mut self.has_forked) {
                wait = self.fork_wait;
                self.fork_wait = (wait * 2).min(FORK_LAST);
            }
            let (reason, hints) = match connected {
                Ok(Ended::Asked) => return Ok(()),
                Err(error) if was_stopped(self.context, &error) => return Ok(()),
                Ok(Ended::Again) if at_once < AT_ONCE => {
                    at_once += 1;
                    continue;
                }
                Ok(Ended::WithoutBase) => {
                    ("the base with which the stream begins was not stored".to_owned(), Vec::new())
                }
                Ok(Ended::Again | Ended::Server) => {
                    wait = RETRY_FIRST;
                    ("the server is shut down".to_owned(), Vec::new())
                }
                Err(error) if !is_worth_another_try(&error) => return Err(error),
                Err(error) => (crate::status::with_causes(&error), error_hints(&error)),
            };
            self.watcher.see(ArchiveEvent::Waiting { reason, hints });
            // What was received and has no line is received again.
            believe(&self.spool, &self.instants).await?;
            self.sender.rest(wait).await?;
            if self.context.cancel.is_cancelled() {
                return Ok(());
            }
            wait = (wait * 2).min(self.options.longest_retry());
            at_once = 0;
        }
    }

    /// What is there says where it goes on, before the server is asked.
    async fn known(&mut self) -> Result<Known> {
        let (context, instance) = (self.context, &self.instance.id);
        let instants = self.instants.clone();
        let last = off_thread(move || Ok(instants.lock().last().map(Resume::from))).await?;
        let index = context.unless_cancelled(within(context.repo.log_index(instance))).await;
        let (index, is_whole) = match index {
            Ok(index) => (index, true),
            // It goes on from the spool, as long as nothing new has to be named.
            Err(error) if gap::is_away(&error) && last.is_some() => {
                tracing::warn!(%error, "the store does not say what it has");
                (LogIndex::default(), false)
            }
            Err(error) => return Err(error),
        };
        let looking = async {
            let mut streams = match is_whole {
                true => Streams::of(context, instance, &index).await?,
                false => self.streams.clone(),
            };
            for (log, text) in self.spool.with(|spool| Ok(spool.histories()?)).await? {
                let text = String::from_utf8_lossy(&text).into_owned();
                if let Some(history) = crate::log_view::streams::history_of(&log, Some(&text)) {
                    streams.add(log, history);
                }
            }
            let resume = match last {
                Some(last) if resume::is_behind(&last, &index) => {
                    // Another host went on with it: what it stored is not received a second time.
                    let stored = resume::in_store(context, instance, &index).await?;
                    Some(stored.filter(|stored| stored.log.lineage == last.log.lineage).unwrap_or(last))
                }
                Some(last) => Some(last),
                None => match resume::in_store(context, instance, &index).await? {
                    Some(resume) => Some(resume),
                    None => resume::at_base(context, instance, &streams).await?,
                },
            };
            Ok(Known { streams, resume, is_whole })
        };
        let known = context.unless_cancelled(looking).await?;
        self.streams = known.streams.clone();
        Ok(known)
    }

    async fn connect(&mut self) -> Result<Ended> {
        let Known { streams, resume, is_whole } = self.known().await?;
        let place = resume.as_ref().map(Resume::place);
        let attaching = async {
            let ChosenSource { address, connection, findings, .. } = source::choose(self.settings).await?;
            Ok((address, findings, attach(connection, place.as_ref()).await?))
        };
        let (address, findings, attached) = self.context.unless_cancelled(attaching).await?;
        for finding in findings {
            self.watcher.see(ArchiveEvent::Told { finding });
        }
        let unnamed = || Error::StoreSilent { seconds: STORE_LIMIT.as_secs() };
        match attached {
            Attached::Continues(receiver) => {
                let resume = resume.ok_or_else(|| Error::broken("nothing was to be continued"))?;
                // Which timeline another server begins is known from those before it alone.
                let is_another = receiver.place().replication_id != resume.replication_id;
                if is_another && !is_whole && !streams.knows(&resume.log) {
                    return Err(unnamed());
                }
                let goes_on = self.continued(&streams, resume, &receiver).await?;
                let looking = self.want_base_where_none_leads(&goes_on);
                let mut following = pin!(self.follow(&address, receiver, goes_on));
                tokio::select! {
                    ended = &mut following => ended,
                    () = looking => following.await,
                }
            }
            Attached::Full(sync) => {
                // A replica that is behind sends again what is here, and nothing is missing.
                let is_missing = |place: &&StreamPlace| {
                    place.replication_id != sync.place.replication_id || place.offset < sync.place.offset
                };
                if let Some(place) = place.as_ref().filter(is_missing) {
                    let is_another = place.replication_id != sync.place.replication_id;
                    self.watcher.see(ArchiveEvent::Broken { from: place.offset, is_another });
                }
                self.has_forked = true;
                match is_whole {
                    true => self.begin_anew(&address, sync, &streams, resume.as_ref()).await,
                    // Its base could not be stored, and the stream may have a name already.
                    false => Ok(Ended::WithoutBase),
                }
            }
        }
    }

    /// The stream goes on; with another id it is another timeline.
    async fn continued(
        &mut self,
        streams: &Streams,
        resume: Resume,
        receiver: &StreamReceiver,
    ) -> Result<Resume> {
        let id = &receiver.place().replication_id;
        if *id == resume.replication_id {
            return Ok(resume);
        }
        let log = if streams.knows(&resume.log) {
            let (log, history) = streams.next(&resume, id);
            self.sender.history(log.clone(), history.to_text().into_bytes().into()).await?;
            self.streams.add(log.clone(), history);
            log
        } else {
            // Where it came from does not read any more: nothing is guessed, and a base is wanted.
            streams.log_with(id)
        };
        self.sender.over(&resume.log);
        let event = ArchiveEvent::Timeline { log: log.clone(), from: resume.reader.at() };
        self.watcher.see(event);
        Ok(Resume { log, replication_id: id.clone(), reader: resume.reader })
    }

    async fn follow(&mut self, address: &Address, receiver: StreamReceiver, from: Resume) -> Result<Ended> {
        let keeper = Keeper::new(
            self.spool.clone(),
            self.instants.clone(),
            from.log.clone(),
            from.replication_id,
            from.reader,
        );
        self.watcher.see(ArchiveEvent::Began { log: from.log, from: keeper.reader.at() });
        stream::Stream::new(self, address, receiver, keeper).run().await
    }
}

fn error_hints(error: &Error) -> Vec<String> {
    use backstay_model::error::Classified;
    error.hints()
}

/// Between two full synchronisations of which no base came: what is written meanwhile is received by
/// nobody.
const FORK_LAST: Duration = Duration::from_secs(60);

/// A server says something every ten seconds; one that is silent for so long is not there.
const SILENCE: Duration = Duration::from_secs(60);
