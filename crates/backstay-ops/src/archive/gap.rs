//! Log is given up, and the archive goes on behind it.
//!
//! The order makes it safe. First it is noted what will be given up, and why, where it
//! outlives this process: in the spool, and in the store as soon as that answers. Then the
//! slot is dropped, and the server lets go. When the store has the note, a new slot is made,
//! the log goes on, and a base is taken behind the gap. Whoever finds the note in the spool
//! goes on where the one before was stopped.
//!
//! Invariant: no slot is dropped before somebody will know why log is missing.
//!
//! Refuses to give up the log of a server that nobody can tell to be the right one.

use backstay_engine::postgres::receive::{LogReceiver, SlotFacts, drop_slot, log_id, timeline_of};
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::log::history::History;
use backstay_model::plan::window::windows;
use backstay_model::{BackupRecord, GapReason, LogGap, LogId, LogSpan, Lsn, TimelineId};
use backstay_repo::log::LogIndex;
use backstay_repo::log::spool::SpooledSpan;

use super::begin::{self, Beginning};
use super::{Archive, ArchiveEvent, within};
use crate::error::{Error, Result};
use crate::known::Known;
use crate::log_view::LogView;

/// What is known when it is decided whether log is given up.
pub(super) struct Scene<'a> {
    pub receiver: &'a LogReceiver,
    /// Of the server's timeline.
    pub history: &'a History,
    pub slot: Option<&'a SlotFacts>,
    pub spooled: &'a [SpooledSpan],
    /// `None` where the store does not answer.
    pub index: Option<&'a LogIndex>,
}

impl Scene<'_> {
    /// Where the log that was received ends.
    fn end(&self) -> Result<(TimelineId, Lsn)> {
        let server = self.receiver.identity();
        let nothing = LogIndex::default();
        let ends = begin::ends(self.receiver, self.spooled, self.index.unwrap_or(&nothing));
        let on_the_way = begin::go_on(self.receiver, self.history, &ends)?;
        // The server may forget what is durable here, and nothing else.
        let acknowledged = self.slot.and_then(|slot| slot.restart).map(|lsn| (server.timeline, lsn));
        let known = on_the_way.map(|way| (way.timeline, way.from));
        match (known, acknowledged, self.index) {
            (Some((timeline, end)), acknowledged, None) => {
                Ok(acknowledged.map_or((timeline, end), |of_slot| of_slot.max((timeline, end))))
            }
            (Some((timeline, end)), _, Some(_)) => Ok((timeline, end)),
            (None, Some(of_slot), _) => Ok(of_slot),
            (None, None, Some(_)) => Ok((server.timeline, server.flushed)),
            (None, None, None) => Err(Error::GapNotNoted { reason: "the store does not answer".to_owned() }),
        }
    }
}

/// The note that an earlier run left, or this one.
pub(super) async fn noted(archive: &Archive<'_>) -> Result<Option<(LogId, LogGap)>> {
    let text = archive.spool.with(|spool| Ok(spool.note()?)).await?;
    // One that does not read was never written to its end: then nothing was given up for it.
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Notes what is given up, and lets the server go. The caller has closed every connection
/// that receives.
pub(super) async fn open(archive: &mut Archive<'_>, log: LogId, gap: LogGap, drops_slot: bool) -> Result<()> {
    let text = serde_json::to_vec(&(&log, &gap)).map_err(|error| Error::broken(error.to_string()))?;
    let in_spool = match archive.spool.with(move |spool| Ok(spool.set_note(&text)?)).await {
        Err(Error::Repo(error)) if error.is_full_spool() => Err(error.to_string()),
        done => done.map(Ok)?,
    };
    let in_store = store(archive, &log, &gap).await;
    if let (Err(of_spool), Err(of_store)) = (&in_spool, &in_store) {
        let reason = format!("{of_spool}; {}", crate::status::with_causes(of_store));
        return Err(Error::GapNotNoted { reason });
    }
    if drops_slot {
        drop_slot(archive.instance.postgres()?, &archive.options.slot).await?;
    }
    archive.watcher.see(ArchiveEvent::GapOpened { gap });
    Ok(())
}

/// The store knows of the gap.
pub(super) async fn store(archive: &Archive<'_>, log: &LogId, gap: &LogGap) -> Result<()> {
    within(archive.context.repo.put_log_gap(&archive.instance.id, log, gap)).await
}

/// The gap that is to be opened now, if one is.
pub(super) fn needed(
    archive: &mut Archive<'_>,
    scene: &Scene<'_>,
    frees_server: bool,
) -> Result<Option<(LogId, LogGap)>> {
    let slot_name = &archive.options.slot;
    let is_lost = scene.slot.is_some_and(SlotFacts::is_lost);
    let reason = match (is_lost, &archive.log_gone) {
        (true, _) if !archive.accepts_gap => {
            return Err(Error::SlotLost { instance: archive.instance.id.clone(), slot: slot_name.clone() });
        }
        (true, _) => GapReason::SlotLost,
        (false, Some(_)) => GapReason::LogGone,
        (false, None) if frees_server => GapReason::MaxLag,
        (false, None) => return Ok(None),
    };
    let server = scene.receiver.identity();
    let (timeline, from) = scene.end()?;
    let log = log_id(server.system_identifier, timeline);
    let is_ours = archive.lineage.as_ref() == Some(&log.lineage)
        || scene.spooled.iter().any(|one| one.log.lineage == log.lineage);
    if !is_ours && scene.index.is_none() {
        return Err(Error::GapNotNoted { reason: "the store does not answer".to_owned() });
    }
    if !is_ours && reason == GapReason::MaxLag {
        // Nothing of this server was ever received. What it holds is to come yet.
        return Ok(None);
    }
    let limit = archive.lag.limit(scene.receiver.segment_bytes());
    let gap = LogGap {
        timeline,
        from,
        server_timeline: server.timeline,
        server: server.flushed,
        at: archive.context.clock.now(),
        reason,
        slot: slot_name.clone(),
        held_bytes: scene.slot.and_then(|slot| slot.held_bytes),
        max_lag_bytes: limit.map(|limit| limit.max_bytes).filter(|_| reason == GapReason::MaxLag),
    };
    Ok(Some((log, gap)))
}

/// Whether the slot holds the log behind a gap already, and none of what was given up. What lies
/// on a later timeline of the way is behind, wherever the older one came to.
pub(super) fn is_behind(scene: &Scene<'_>, gap: &LogGap) -> bool {
    let server = scene.receiver.identity().timeline;
    scene.slot.is_none_or(|slot| {
        let timeline = |restart| begin::timeline_at(scene.history, server, restart);
        let is_behind = |restart| (timeline(restart), restart) > (gap.timeline, gap.from);
        !slot.is_lost() && slot.restart.is_none_or(is_behind)
    })
}

/// Whether log behind a gap lies in the spool already, of an archive that was killed before it
/// could take its note back: then the log goes on at the end of that.
pub(super) fn has_gone_on(scene: &Scene<'_>, gap: &LogGap) -> bool {
    let server = scene.receiver.identity();
    let is_on_the_way = |timeline: TimelineId| {
        timeline == server.timeline || scene.history.ancestors.iter().any(|(own, _)| *own == timeline)
    };
    scene.spooled.iter().any(|one| {
        log_id(server.system_identifier, server.timeline).lineage == one.log.lineage
            && timeline_of(&one.log).is_some_and(|timeline| {
                is_on_the_way(timeline) && (timeline, Lsn(one.span.end)) > (gap.timeline, gap.from)
            })
    })
}

/// Where the log goes on: at the end of what the server has, or where the slot holds it.
/// A segment is received from its beginning on, so that a restore finds all of it.
pub(super) async fn go_on(
    archive: &Archive<'_>,
    receiver: &mut LogReceiver,
    history: &History,
    slot: Option<&SlotFacts>,
    gap: &LogGap,
) -> Result<Beginning> {
    if slot.is_none() {
        receiver.create_empty_slot(&archive.options.slot).await?;
    }
    let server = receiver.identity();
    let at = slot.and_then(|slot| slot.restart).unwrap_or(server.flushed);
    let timeline = begin::timeline_at(history, server.timeline, at);
    let from = begin::begin_of_segment(at, receiver.segment_bytes());
    // In the segment in which it ended, nothing is missing.
    let is_same = gap.timeline == timeline;
    Ok(Beginning { timeline, from: if is_same { from.max(gap.from) } else { from } })
}

/// The gap behind which log lies that no base leads to: somebody was stopped before it was
/// taken.
pub(super) async fn lacking_base(
    archive: &Archive<'_>,
    log: &LogId,
    spooled: &[SpooledSpan],
) -> Result<Option<LogGap>> {
    let (context, instance) = (archive.context, &archive.instance.id);
    let known = Known::of(context, instance).await?;
    let newest_first = known.newest_first();
    let oldest_first: Vec<&BackupRecord> = newest_first
        .iter()
        .rev()
        .filter(|(_, marks)| !marks.is_damaged())
        .map(|(record, _)| record)
        .collect();
    let mut view = LogView::of(context, instance, oldest_first.iter().copied()).await?;
    let Some(lineage) = view.known.lineages.get_mut(&log.lineage).filter(|lineage| !lineage.gaps.is_empty())
    else {
        return Ok(None);
    };
    for one in spooled.iter().filter(|one| one.log.lineage == log.lineage) {
        let Some(timeline) = timeline_of(&one.log) else { continue };
        let there = lineage.timelines.entry(timeline).or_default();
        *there = there.spans().iter().copied().chain([one.span]).collect();
    }
    let bases = view.bases(oldest_first.iter().copied());
    let lineage = view.lineage(&log.lineage);
    let bases = bases.get(log.lineage.as_str()).map(Vec::as_slice).unwrap_or_default();
    Ok(match windows(lineage, bases).newest {
        // No base, or none on the way to where the log is.
        None => lineage.gaps.last().cloned(),
        Some(newest) if newest.stopped_by_hole => {
            let missing = LogSpan { start: newest.lsn.0, end: newest.lsn.0 + 1 };
            lineage.gap(newest.timeline, missing).cloned()
        }
        Some(_) => None,
    })
}

/// The store does not answer just now.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::StoreSilent { .. } => true,
        Error::Repo(backstay_repo::Error::Spool { .. }) => false,
        Error::Repo(error) => error.kind() == ErrorKind::Unavailable,
        _ => false,
    }
}
