//! To which instants an instance can be restored, and which holes keep it from others.

use std::collections::BTreeMap;

use backstay_model::log::history::History;
use backstay_model::plan::restore::{LineageLog, Stretch};
use backstay_model::plan::window::{LoggedBase, PositionHole, PositionWindow, Windows, windows};
use backstay_model::status::{Hole, RecoveryWindow};
use backstay_model::{BackupId, BackupRecord, EngineKind, InstanceId, LogGap, Lsn, Position, TimelineId};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Result;
use crate::log_view::bases::state_at;
use crate::log_view::marks::Seeker;
use crate::log_view::{LogView, holes};

/// What can be reached, and the lineage of the newest base.
#[derive(Default)]
pub(crate) struct Reach {
    /// In the order of time.
    pub windows: Vec<RecoveryWindow>,
    pub holes: Vec<Hole>,
    /// Why the newest base does not get to the end of its log.
    pub stopped: Option<String>,
    /// It does, and no hole keeps it from anything.
    pub is_open_ended: bool,
    /// Of the newest base, or of the log where there is none.
    pub lineage: Option<String>,
    pub newest_commit: Option<Timestamp>,
    /// The end of what is stored of the newest lineage.
    pub stored: Option<(TimelineId, Lsn)>,
    /// How servers call the timelines of that lineage, where it is a stream.
    pub replication_ids: BTreeMap<TimelineId, String>,
    /// The ways to the timelines of that lineage.
    pub histories: BTreeMap<TimelineId, History>,
    /// Log was given up behind that, and nothing has come since, nor any base.
    pub open_gap: Option<LogGap>,
}

/// `oldest_first` are the sound backups.
pub(crate) async fn look(
    context: &Context,
    instance: &InstanceId,
    view: &LogView,
    oldest_first: &[&BackupRecord],
) -> Result<Reach> {
    let mut reach = Reach::default();
    let bases = view.bases(oldest_first.iter().copied());
    let ended: BTreeMap<&BackupId, Timestamp> =
        oldest_first.iter().map(|record| (&record.id, state_at(record))).collect();
    for record in oldest_first.iter().filter(|record| LoggedBase::of(record, &view.known).is_none()) {
        reach.windows.push(point(record));
    }
    let newest_lineage = oldest_first.last().and_then(|record| view.known.bases.get(&record.id));
    let only_lineage = || view.known.lineages.keys().next_back();
    let newest_lineage = newest_lineage.map(|base| &base.lineage).or_else(only_lineage);
    for (lineage, bases) in &bases {
        let seeker = Seeker { context, instance, index: &view.index, lineage };
        let telling = Telling { seeker, log: view.lineage(lineage), ended: &ended };
        let found = windows(view.lineage(lineage), bases);
        for window in &found.windows {
            reach.windows.push(telling.window(window).await?);
        }
        for hole in &found.holes {
            reach.holes.push(telling.hole(hole).await?);
        }
        if newest_lineage.is_some_and(|newest| newest == lineage) {
            reach.stopped = stopped(&found, bases, view.lineage(lineage));
            reach.is_open_ended = found.newest.is_some_and(|newest| !newest.stopped_by_hole);
        }
    }
    if let Some(lineage) = newest_lineage {
        reach.lineage = Some(lineage.clone());
        let known = view.lineage(lineage);
        reach.histories.clone_from(&known.histories);
        reach.replication_ids.clone_from(&known.replication_ids);
        let newest = known.timelines.iter().next_back();
        reach.stored = newest.and_then(|(timeline, there)| Some((*timeline, Lsn(there.end()?))));
        let ends = bases.get(lineage.as_str()).into_iter().flatten().map(|base| base.end);
        let last = ends.chain(reach.stored).max();
        let open = |gap: &&LogGap| last.is_none_or(|last| last <= (gap.timeline, gap.from));
        reach.open_gap = known.gaps.iter().rfind(open).cloned();
        let seeker = Seeker { context, instance, index: &view.index, lineage };
        let stretches: Vec<Stretch> = known
            .timelines
            .keys()
            .map(|timeline| Stretch { timeline: *timeline, from: Lsn(0), to: Lsn(u64::MAX) })
            .collect();
        reach.newest_commit = seeker.last(&stretches).await?.map(|mark| mark.time);
    }
    reach.windows.sort_by_key(|window| (window.to, window.from));
    reach.holes.extend(between_streams(view, &reach.windows, &first_bases(oldest_first, view, &ended)));
    Ok(reach)
}

/// The first base of each stream, with when it was the state, in the order of time.
fn first_bases<'a>(
    oldest_first: &[&'a BackupRecord],
    view: &'a LogView,
    ended: &BTreeMap<&BackupId, Timestamp>,
) -> Vec<(&'a BackupId, &'a str, Timestamp)> {
    let mut first: Vec<(&BackupId, &str, Timestamp)> = Vec::new();
    for record in oldest_first.iter().filter(|record| record.engine == EngineKind::Redis) {
        let Some(base) = view.known.bases.get(&record.id) else { continue };
        if let Some(at) = ended.get(&record.id)
            && first.iter().all(|(_, lineage, _)| *lineage != base.lineage)
        {
            first.push((&record.id, &base.lineage, *at));
        }
    }
    first.sort_by_key(|(_, _, at)| *at);
    first
}

/// A server that begins another stream does not say what it did before: between the end of what was
/// received of the one and the first base of the other there may be nothing, or much.
fn between_streams(
    view: &LogView,
    windows: &[RecoveryWindow],
    first: &[(&BackupId, &str, Timestamp)],
) -> Vec<Hole> {
    let pairs = first.windows(2).filter_map(|pair| {
        let ((_, before, _), (base, after, begins)) = (pair[0], pair[1]);
        let known = view.known.lineages.get(before)?;
        let (timeline, end) = known
            .timelines
            .iter()
            .next_back()
            .and_then(|(timeline, there)| Some((*timeline, Lsn(there.end()?))))?;
        let position = known.position(timeline, end).to_string();
        let from = windows.iter().find(|window| window.to_position.as_ref() == Some(&position))?.to;
        let point = view.known.points.get(base)?;
        let new = Position::Stream { replication_id: after.to_owned(), offset: point.at.0 };
        (from < begins).then(|| Hole {
            from,
            to: None,
            why: "the server began another stream, and what it did between is not known".to_owned(),
            given_up_at: None,
            timeline,
            from_position: position,
            to_position: Some(new.to_string()),
            backup: Some(base.clone()),
            reachable_from: Some(begins),
        })
    });
    pairs.collect()
}

fn point(record: &BackupRecord) -> RecoveryWindow {
    let position = record.stop_position.as_ref().map(ToString::to_string);
    RecoveryWindow {
        from: record.finished_at,
        to: record.finished_at,
        timeline: record.stop_position.as_ref().and_then(Position::timeline),
        from_position: position.clone(),
        to_position: position,
    }
}

fn stopped(found: &Windows, bases: &[LoggedBase<'_>], log: &LineageLog) -> Option<String> {
    let (base, timeline) = (bases.last()?, found.newest_timeline?);
    match found.newest {
        None => Some(format!(
            "no way leads from the newest backup {}, on timeline {}, to timeline {timeline}",
            base.id, base.end.0
        )),
        Some(newest) if newest.stopped_by_hole => Some(format!(
            "log behind the newest backup is missing: from {} on, nothing that was archived can be restored to",
            log.position(newest.timeline, newest.lsn)
        )),
        Some(_) => None,
    }
}

/// Positions of one lineage as instants.
struct Telling<'a> {
    seeker: Seeker<'a>,
    log: &'a LineageLog,
    ended: &'a BTreeMap<&'a BackupId, Timestamp>,
}

impl Telling<'_> {
    fn ended(&self, base: Option<&BackupId>) -> Option<Timestamp> {
        self.ended.get(base?).copied()
    }

    async fn window(&self, window: &PositionWindow) -> Result<RecoveryWindow> {
        let timeline = window.timeline;
        let of_newest = self.ended(Some(&window.newest));
        let own = Stretch { timeline, from: window.from, to: window.to };
        let from = match self.ended(window.begins_with.as_ref()) {
            Some(ended) => Some(ended),
            None => match self.seeker.last(&window.before).await? {
                Some(mark) => Some(mark.time),
                None => self.seeker.first(&own).await?.map(|mark| mark.time),
            },
        };
        let last = self.seeker.last(&window.within).await?.map(|mark| mark.time);
        let from = from.or(last).or(of_newest).unwrap_or(Timestamp::MIN);
        // A base behind the last commit is an instant of its own.
        let of_base = of_newest.filter(|_| window.begins_with.is_some());
        let to = last.into_iter().chain(of_base).fold(from, Timestamp::max);
        let position = |lsn| Some(self.log.position(timeline, lsn).to_string());
        Ok(RecoveryWindow {
            from,
            to,
            timeline: Some(timeline),
            from_position: position(window.from),
            to_position: position(window.to),
        })
    }

    async fn hole(&self, hole: &PositionHole) -> Result<Hole> {
        let timeline = hole.timeline;
        let before = Stretch { timeline, from: Lsn(0), to: Lsn(hole.span.start) };
        let behind = Stretch { timeline, from: Lsn(hole.span.end), to: Lsn(u64::MAX) };
        let last = self.seeker.last(&[before]).await?.map(|mark| mark.time);
        let of_base = self.ended(hole.last.as_ref());
        let to = self.seeker.first(&behind).await?.map(|mark| mark.time);
        let position = |lsn| self.log.position(timeline, Lsn(lsn)).to_string();
        Ok(Hole {
            from: last.or(of_base).or(to).unwrap_or(Timestamp::MIN),
            to,
            why: holes::why(&self.seeker, self.log, hole).await?,
            given_up_at: self.log.gap(timeline, hole.span).map(|gap| gap.at),
            timeline,
            from_position: position(hole.span.start),
            to_position: Some(position(hole.span.end)),
            backup: hole.again.clone(),
            reachable_from: self.ended(hole.again.as_ref()),
        })
    }
}
