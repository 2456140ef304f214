//! Where a stream goes on: behind what the spool has, or the store, or the newest base.
//!
//! Refuses nothing: the server decides whether it has what follows. Where nothing is known it is
//! asked for everything.

use std::collections::{BTreeMap, BTreeSet};

use backstay_engine::redis::base::RedisFacts;
use backstay_engine::redis::commands::CommandReader;
use backstay_engine::redis::lineage::{StreamHistory, log_id};
use backstay_engine::redis::sync::StreamPlace;
use backstay_model::error::Classified;
use backstay_model::{EngineKind, ErrorKind, InstanceId, LogId, LogSpan, TimelineId};
use backstay_repo::log::LogIndex;

use super::instants::{Line, SpanFacts};
use crate::context::Context;
use crate::error::Result;
use crate::known::Known;
use crate::log_view::streams;

/// A place in a stream, with all that is known there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resume {
    pub log: LogId,
    pub replication_id: String,
    pub reader: CommandReader,
}

impl Resume {
    pub fn place(&self) -> StreamPlace {
        StreamPlace { replication_id: self.replication_id.clone(), offset: self.reader.at() }
    }
}

impl From<&Line> for Resume {
    fn from(line: &Line) -> Resume {
        Resume {
            log: line.log.clone(),
            replication_id: line.replication_id.clone(),
            reader: line.reader.clone(),
        }
    }
}

/// The timelines that are known, with what the store says of where they came from.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    histories: BTreeMap<LogId, StreamHistory>,
    /// Those as well whose history does not read: their numbers are taken.
    names: BTreeSet<LogId>,
}

impl Streams {
    pub async fn of(context: &Context, instance: &InstanceId, index: &LogIndex) -> Result<Streams> {
        let mut known = Streams::default();
        for (log, timeline) in index.timelines() {
            let text = match timeline.has_history {
                true => match context.repo.log_history(instance, log).await {
                    // Of a stream that is over: the one that goes on must not end with it.
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                        tracing::warn!(timeline = log.timeline, %error, "a history does not read");
                        known.names.insert(log.clone());
                        continue;
                    }
                    text => text?,
                },
                false => None,
            };
            known.names.insert(log.clone());
            if let Some(history) = streams::history_of(log, text.as_deref()) {
                known.histories.insert(log.clone(), history);
            }
        }
        Ok(known)
    }

    pub fn add(&mut self, log: LogId, history: StreamHistory) {
        self.names.insert(log.clone());
        self.histories.insert(log, history);
    }

    /// Whether it is known where a timeline came from. The first came from nowhere.
    pub fn knows(&self, log: &LogId) -> bool {
        timeline_number(log) == Some(1) || self.histories.contains_key(log)
    }

    /// The log whose stream has this id; a new one where none has. The newest, where somebody who had
    /// less of it began it a second time.
    pub fn log_with(&self, replication_id: &str) -> LogId {
        let mut newest_first = self.histories.iter().rev();
        let known = newest_first.find(|(_, history)| history.replication_id == replication_id);
        known.map_or_else(|| log_id(replication_id, TimelineId(1)), |(log, _)| log.clone())
    }

    /// The timeline that goes on behind a place, with another id.
    pub fn next(&self, behind: &Resume, replication_id: &str) -> (LogId, StreamHistory) {
        let lineage = &behind.log.lineage;
        let first = || StreamHistory::first(lineage);
        let history = self.histories.get(&behind.log).cloned().unwrap_or_else(first);
        let own = timeline_number(&behind.log).unwrap_or(1);
        let history = history.goes_on(TimelineId(own), behind.reader.at(), replication_id);
        let is_same = |(log, known): &(&LogId, &StreamHistory)| log.lineage == *lineage && **known == history;
        if let Some((log, _)) = self.histories.iter().find(is_same) {
            return (log.clone(), history);
        }
        // Somebody may have been further, and given the number to a timeline that begins elsewhere.
        let of_lineage = self.names.iter().filter(|log| log.lineage == *lineage);
        let last = of_lineage.filter_map(timeline_number).max().unwrap_or(own).max(own);
        (log_id(lineage, TimelineId(last + 1)), history)
    }
}

/// Whether the store has more of this stream: on this timeline, or on one that came later.
pub(super) fn is_behind(last: &Resume, index: &LogIndex) -> bool {
    let own = (timeline_number(&last.log), last.reader.at());
    let ends =
        index.timelines().filter(|(log, _)| log.lineage == last.log.lineage).filter_map(|(log, there)| {
            Some((timeline_number(log), there.objects.iter().map(|object| object.span.end).max()?))
        });
    ends.max().is_some_and(|newest| newest > own)
}

/// Behind the newest of what the store has; nothing where that does not say in which state it ends.
pub(super) async fn in_store(
    context: &Context,
    instance: &InstanceId,
    index: &LogIndex,
) -> Result<Option<Resume>> {
    let mut newest = None;
    for (log, timeline) in index.timelines() {
        let Some(last) = timeline.objects.iter().max_by_key(|object| object.span.end) else { continue };
        let glance = context.repo.glance_at_log(instance, log, *last).await?;
        let at = (glance.head.last_time, timeline_number(log));
        if newest.as_ref().is_none_or(|(newest, _)| at > *newest) {
            newest = Some((at, (log.clone(), last.span)));
        }
    }
    let Some((_, (log, span))) = newest else { return Ok(None) };
    state_at(context, instance, &log, span).await
}

/// At the end of one object.
async fn state_at(
    context: &Context,
    instance: &InstanceId,
    log: &LogId,
    span: LogSpan,
) -> Result<Option<Resume>> {
    let read = context.repo.read_log_span(instance, log, span).await?;
    let Ok(SpanFacts { replication_id, mut reader, .. }) = serde_json::from_value(read.head.facts.clone())
    else {
        return Ok(None);
    };
    let read = reader.at() == span.start && reader.push(&read.content).is_ok();
    Ok(read.then(|| Resume { log: log.clone(), replication_id, reader }))
}

/// Where the newest base stands: the stream behind it may be there yet.
pub(super) async fn at_base(
    context: &Context,
    instance: &InstanceId,
    streams: &Streams,
) -> Result<Option<Resume>> {
    let known = Known::of(context, instance).await?;
    let newest = known.newest_first();
    let newest = newest.iter().map(|(record, _)| record).find(|record| record.engine == EngineKind::Redis);
    let facts = newest.and_then(|record| RedisFacts::from_json(&record.facts).ok());
    let facts = facts.filter(|facts| facts.position().is_some());
    Ok(facts.map(|facts| Resume {
        log: streams.log_with(&facts.replication_id),
        reader: CommandReader::new(facts.offset, facts.selected_database),
        replication_id: facts.replication_id,
    }))
}

fn timeline_number(log: &LogId) -> Option<u32> {
    u32::from_str_radix(&log.timeline, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn at(log: LogId, replication_id: &str, offset: u64) -> Resume {
        Resume { log, replication_id: replication_id.to_owned(), reader: CommandReader::new(offset, 0) }
    }

    #[test]
    fn a_number_that_another_host_gave_is_not_given_again_unless_it_means_the_same() {
        let mut streams = Streams::default();
        let first = log_id(&id('a'), TimelineId(1));
        streams.add(first.clone(), StreamHistory::first(&id('a')));
        let (second, history) = streams.next(&at(first.clone(), &id('a'), 100), &id('b'));
        assert_eq!(second, log_id(&id('a'), TimelineId(2)));
        // Another host stored where the timeline began, and nothing of it.
        streams.add(second.clone(), history);
        assert_eq!(streams.next(&at(first.clone(), &id('a'), 100), &id('b')).0, second);
        let (third, history) = streams.next(&at(first, &id('a'), 90), &id('b'));
        assert_eq!(third, log_id(&id('a'), TimelineId(3)));
        assert_eq!(history.ancestors, [(TimelineId(1), 90, id('a'))]);
        streams.add(third.clone(), history);
        assert_eq!(streams.log_with(&id('b')), third);
        let (fourth, history) = streams.next(&at(third, &id('b'), 150), &id('c'));
        assert_eq!(fourth, log_id(&id('a'), TimelineId(4)));
        let numbers: Vec<_> = history.ancestors.iter().map(|(number, ..)| number.0).collect();
        assert_eq!(numbers, [1, 3]);
    }

    #[test]
    fn the_number_of_a_timeline_whose_history_does_not_read_is_taken() {
        let mut streams = Streams::default();
        let first = log_id(&id('a'), TimelineId(1));
        let lost = log_id(&id('a'), TimelineId(2));
        streams.names.insert(lost.clone());
        assert!(streams.knows(&first) && !streams.knows(&lost));
        let (next, _) = streams.next(&at(first, &id('a'), 100), &id('b'));
        assert_eq!(next, log_id(&id('a'), TimelineId(3)));
    }
}
