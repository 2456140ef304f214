//! Where a stream goes on: behind what the spool has, or the store, or the newest base.
//!
//! Refuses nothing: the server decides whether it has what follows. Where nothing is known it is
//! asked for everything.

use std::collections::BTreeMap;

use backstay_engine::redis::base::RedisFacts;
use backstay_engine::redis::commands::CommandReader;
use backstay_engine::redis::lineage::{StreamHistory, log_id};
use backstay_engine::redis::sync::StreamPlace;
use backstay_model::{EngineKind, InstanceId, LogId, LogSpan, TimelineId};
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

/// The histories of the store, by log: whose names are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(BTreeMap<LogId, StreamHistory>);

impl Streams {
    pub async fn of(context: &Context, instance: &InstanceId, index: &LogIndex) -> Result<Streams> {
        let mut known = BTreeMap::new();
        for (log, timeline) in index.timelines() {
            let text = match timeline.has_history {
                true => context.repo.log_history(instance, log).await?,
                false => None,
            };
            if let Some(history) = streams::history_of(log, text.as_deref()) {
                known.insert(log.clone(), history);
            }
        }
        Ok(Streams(known))
    }

    pub fn add(&mut self, log: LogId, history: StreamHistory) {
        self.0.insert(log, history);
    }

    /// Whether it is known where a timeline came from. The first came from nowhere.
    pub fn knows(&self, log: &LogId) -> bool {
        timeline_number(log) == Some(1) || self.0.contains_key(log)
    }

    /// The log whose stream has this id; a new one where none has.
    pub fn log_with(&self, replication_id: &str) -> LogId {
        let known = self.0.iter().find(|(_, history)| history.replication_id == replication_id);
        known.map_or_else(|| log_id(replication_id, TimelineId(1)), |(log, _)| log.clone())
    }

    /// The timeline that goes on behind a place, with another id.
    pub fn next(&self, behind: &Resume, replication_id: &str) -> (LogId, StreamHistory) {
        let first = || StreamHistory::first(&behind.log.lineage);
        let history = self.0.get(&behind.log).cloned().unwrap_or_else(first);
        let history = history.goes_on(behind.reader.at(), replication_id);
        (log_id(&behind.log.lineage, history.timeline()), history)
    }
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
