//! One connection to the server: where it begins, and over which timelines it leads.
//!
//! Before anything is received, what is there is asked of everybody: the server for its slot,
//! the store and the spool for the end of the log, the spool for a gap that was begun.

use backstay_engine::postgres::receive::{LogReceiver, SlotFacts};
use backstay_model::log::history::History;
use backstay_model::{GapReason, LogGap, LogId, Lsn, TimelineId};
use backstay_repo::log::LogIndex;
use backstay_repo::log::spool::SpooledSpan;

use super::base::WantedBase;
use super::begin::{self, Beginning, log_of};
use super::gap::{self, Scene};
use super::stream::{Over, Stream};
use super::{Archive, ArchiveEvent, CUT_BYTES, Ended, STORE_LIMIT, within};
use crate::error::{Error, Result};

/// A connection that knows where to begin.
struct Course {
    beginning: Beginning,
    /// What was between is given up.
    is_behind_gap: bool,
    /// The server need not hold what was before the beginning.
    is_at_end: bool,
}

/// Receives until the server or somebody ends it.
pub(super) async fn receive(archive: &mut Archive<'_>) -> Result<Ended> {
    let (context, instance, slot_name) = (archive.context, archive.instance, &archive.options.slot);
    let settings = instance.postgres()?;
    let mut receiver = context.unless_cancelled(async { Ok(LogReceiver::connect(settings).await?) }).await?;
    let index = match context.unless_cancelled(ask_store(archive, &receiver)).await {
        Ok(index) => Ok(index),
        Err(error) if gap::is_away(&error) => Err(error),
        Err(error) => return Err(error),
    };
    let slot = context.unless_cancelled(async { Ok(receiver.slot(slot_name).await?) }).await?;
    // From behind it everything is reported as durable.
    let spooled = archive.spool.with(|spool| {
        spool.flush()?;
        Ok(spool.spans())
    });
    let spooled = spooled.await?;
    archive.durable_are(&spooled);
    let history = own_history(&mut receiver).await?;
    let durable = durable_end(&receiver, &history, &spooled, index.as_ref().ok());
    let held = slot.as_ref().and_then(|slot| slot.held_behind(durable)).unwrap_or(0);
    let frees_server = archive.lag.see(receiver.segment_bytes(), held);
    let scene = Scene {
        receiver: &receiver,
        history: &history,
        slot: slot.as_ref(),
        spooled: &spooled,
        index: index.as_ref().ok(),
    };
    if let Some((log, gap)) = gap::needed(archive, &scene, frees_server)? {
        // One that holds log behind what is gone is of use.
        let drops_slot = gap.reason != GapReason::LogGone || !gap::is_behind(&scene, &gap);
        drop(receiver);
        gap::open(archive, log, gap, drops_slot).await?;
        archive.log_gone = None;
        return Ok(Ended::Again);
    }
    let noted = gap::noted(archive).await?.filter(|(log, _)| *log.lineage == lineage_of(&receiver));
    let noted = noted.filter(|(_, gap)| gap::is_behind(&scene, gap));
    let gone_on = noted.as_ref().is_some_and(|(_, gap)| gap::has_gone_on(&scene, gap));
    for timeline in 2..=receiver.identity().timeline.0 {
        keep_history(archive, &mut receiver, TimelineId(timeline)).await?;
    }
    let behind = noted.as_ref().map(|(_, gap)| gap.clone());
    let course = match noted {
        Some((log, gap)) if !gone_on => {
            gap::store(archive, &log, &gap).await?;
            // What has no place here the server would hold again.
            archive.spool.with(|spool| Ok(spool.require_room(CUT_BYTES)?)).await?;
            let beginning = gap::go_on(archive, &mut receiver, &history, slot.as_ref(), &gap).await?;
            Course { beginning, is_behind_gap: true, is_at_end: true }
        }
        noted => {
            if let Some((log, gap)) = &noted {
                gap::store(archive, log, gap).await?;
            }
            let nothing = LogIndex::default();
            let index = match &index {
                Ok(index) => index,
                // What was received last lies in the spool: it says where the log goes on.
                Err(_) if spooled.iter().any(|one| *one.log.lineage == lineage_of(&receiver)) => &nothing,
                Err(_) => return index.map(|_| Ended::Again),
            };
            archive.spool.with(|spool| Ok(spool.clear_note()?)).await?;
            go_on(archive, &mut receiver, &history, slot, &spooled, index).await?
        }
    };
    let lineage = lineage_of(&receiver);
    let has_gaps = index.is_ok_and(|index| {
        index.timelines().any(|(log, timeline)| log.lineage == lineage && !timeline.gaps.is_empty())
    });
    let log = log_of(&receiver, course.beginning.timeline);
    let wants_base = match behind {
        Some(gap) => Some(gap),
        None if has_gaps => lacking_base(archive, &log, &spooled).await,
        None => None,
    };
    follow(archive, receiver, course, wants_base).await
}

/// So far the log was received for good; the last connection may have ended before it said so.
fn durable_end(
    receiver: &LogReceiver,
    history: &History,
    spooled: &[SpooledSpan],
    index: Option<&LogIndex>,
) -> Lsn {
    let nothing = LogIndex::default();
    let ends = begin::ends(receiver, spooled, index.unwrap_or(&nothing));
    // A server that is behind is refused where it is asked for the log.
    let goes_on = begin::go_on(receiver, history, &ends).ok().flatten();
    goes_on.map_or(Lsn(0), |beginning| beginning.from)
}

/// Exactly where the log ended; where there is none, where the slot holds it from.
async fn go_on(
    archive: &Archive<'_>,
    receiver: &mut LogReceiver,
    history: &History,
    slot: Option<SlotFacts>,
    spooled: &[SpooledSpan],
    index: &LogIndex,
) -> Result<Course> {
    let name = &archive.options.slot;
    let is_new = slot.is_none();
    let slot = match slot {
        Some(slot) => slot,
        None => {
            receiver.create_slot(name).await?;
            receiver.slot(name).await?.ok_or_else(|| Error::broken("a slot vanished"))?
        }
    };
    // The log since the last checkpoint may be more than the server may hold. Where nothing
    // was received yet, and nobody held it, nothing is lost with it.
    let is_at_end = is_new
        && archive.lag.is_worth_a_word(receiver.segment_bytes(), slot.held_bytes)
        && begin::ends(receiver, spooled, index).is_empty();
    let flushed = receiver.identity().flushed;
    let restart = slot.restart.filter(|_| !is_at_end).unwrap_or(flushed);
    let beginning = begin::choose(receiver, history, restart, spooled, index)?;
    Ok(Course { beginning, is_behind_gap: false, is_at_end })
}

/// Receives from there on, over the end of timelines.
async fn follow(
    archive: &mut Archive<'_>,
    mut receiver: LogReceiver,
    course: Course,
    mut wants_base: Option<LogGap>,
) -> Result<Ended> {
    let Course { beginning, mut is_behind_gap, mut is_at_end } = course;
    let (mut timeline, mut from) = (beginning.timeline, beginning.from);
    loop {
        receiver.begin(&archive.options.slot, from, timeline).await?;
        let log = log_of(&receiver, timeline);
        archive.watcher.see(ArchiveEvent::Began { log: log.clone(), from: from.0 });
        if std::mem::take(&mut is_at_end) {
            // The server holds no more than from here on.
            receiver.report(from, from, archive.context.clock.now()).await?;
        }
        if is_behind_gap {
            // What was before ends there.
            archive.sender.over(&log);
            archive.gap_was_accepted();
        }
        if let Some(gap) = wants_base.take() {
            archive.bases.want(WantedBase::behind(&gap));
        }
        let mut stream = Stream::new(archive, &mut receiver, log, from, is_behind_gap);
        match stream.run().await? {
            Over::Asked => return Ok(Ended::Asked),
            Over::Server => return Ok(Ended::Server),
            Over::FreesServer => return Ok(Ended::Again),
            Over::Timeline { next, at } => {
                is_behind_gap = stream.is_behind_gap;
                let ended = log_of(&receiver, timeline);
                archive.sender.over(&ended);
                keep_history(archive, &mut receiver, next).await?;
                // The segment in which it changed is kept under the new name as a whole.
                (timeline, from) = (next, begin::begin_of_segment(at, receiver.segment_bytes()));
                archive.watcher.see(ArchiveEvent::Timeline { log: log_of(&receiver, next), from: from.0 });
            }
        }
    }
}

/// What the store has, of the cluster that it should be.
async fn ask_store(archive: &mut Archive<'_>, receiver: &LogReceiver) -> Result<LogIndex> {
    let (context, instance) = (archive.context, archive.instance);
    let index = within(context.repo.log_index(&instance.id)).await?;
    let refused = begin::refuse_another(context, instance, receiver, &index);
    let is_known = match tokio::time::timeout(STORE_LIMIT, refused).await {
        Ok(refused) => refused?,
        Err(_) => return Err(Error::StoreSilent { seconds: STORE_LIMIT.as_secs() }),
    };
    if is_known {
        archive.lineage = Some(lineage_of(receiver));
    }
    Ok(index)
}

fn lineage_of(receiver: &LogReceiver) -> String {
    log_of(receiver, receiver.identity().timeline).lineage
}

/// Nobody waits for the answer: the log goes on whatever it is.
async fn lacking_base(archive: &Archive<'_>, log: &LogId, spooled: &[SpooledSpan]) -> Option<LogGap> {
    match tokio::time::timeout(STORE_LIMIT, gap::lacking_base(archive, log, spooled)).await {
        Ok(Ok(gap)) => gap,
        Ok(Err(error)) => {
            tracing::warn!(%error, "whether a base is missing behind a gap is not known");
            None
        }
        Err(_) => None,
    }
}

/// The way to where the server is, as it says.
async fn own_history(receiver: &mut LogReceiver) -> Result<History> {
    let timeline = receiver.identity().timeline;
    if timeline.0 < 2 {
        return Ok(History::default());
    }
    let history = receiver.history(timeline).await?;
    let parsed = History::parse(&String::from_utf8_lossy(&history.content));
    parsed.map_err(|damage| Error::broken(format!("{}: {damage}", history.name)))
}

/// Where a timeline came from. Without it nobody finds the way to it.
async fn keep_history(
    archive: &mut Archive<'_>,
    receiver: &mut LogReceiver,
    timeline: TimelineId,
) -> Result<()> {
    let log = log_of(receiver, timeline);
    if archive.histories.contains(&log) {
        return Ok(());
    }
    match receiver.history(timeline).await {
        Ok(history) => {
            archive.sender.history(log.clone(), history.content).await?;
            archive.histories.insert(log);
            Ok(())
        }
        // A server that was made from a base of a late timeline does not have those of the
        // timelines between: its own history tells of them.
        Err(error) if timeline != receiver.identity().timeline => {
            tracing::debug!(%error, %timeline, "the server does not have the history of a timeline");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
