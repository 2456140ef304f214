//! The stream behind a base of Redis, as the server replays it: from where the snapshot is the state
//! up to the last place before the target at which it can be cut.
//!
//! Invariant: what is written ends between two commands, and not within a transaction. Bytes that
//! are missing are an error, and never a shorter stream.

use backstay_engine::redis::base::RedisFacts;
use backstay_engine::redis::commands::{CommandReader, select};
use backstay_engine::redis::lineage::log_id;
use backstay_engine::redis::place::RedisPlace;
use backstay_model::plan::restore::{LogRange, Recovery};
use backstay_model::{Finding, InstanceId, LogId, LogSpan, RecoveryTarget};

use crate::archive::redis::instants::SpanFacts;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// What is read at once.
const PIECE: u64 = backstay_repo::log::SPAN_BYTES_MAX;

pub(super) struct Stream<'a> {
    pub context: &'a Context,
    pub instance: &'a InstanceId,
    pub recovery: &'a Recovery,
    pub ranges: &'a [LogRange],
    pub facts: &'a RedisFacts,
}

/// What became of it.
pub(super) struct Written {
    pub bytes: u64,
    /// The state is that of here.
    pub offset: u64,
    pub finding: Option<Finding>,
}

impl Stream<'_> {
    pub async fn write(&self, mut place: RedisPlace) -> Result<(RedisPlace, Written)> {
        let from = self.recovery.own_to.0;
        let all: u64 = self.ranges.iter().map(|range| range.bytes).sum();
        self.context.progress.begin("write the stream", all);
        let mut reader = self.state_at_base().await?;
        let before = select(reader.database());
        let head = before.len() as u64;
        place = off_thread(move || {
            place.add_stream(&before)?;
            Ok(place)
        })
        .await?;
        for range in self.ranges {
            let log = log_id(&self.recovery.lineage, range.timeline);
            let there = self.context.repo.timeline_log(self.instance, &log).await?;
            let mut at = range.from.0;
            while at < range.to.0 {
                self.context.check_cancelled()?;
                // As the objects are cut, so that most are read once.
                let end = range.to.0.min((at / PIECE + 1) * PIECE);
                let span = LogSpan { start: at, end };
                let (bytes, found) = self.context.repo.read_log(self.instance, &log, &there, span).await?;
                if !found.contains(&span) {
                    return Err(self.missing(&log, span));
                }
                let pushed = off_thread(move || {
                    reader.push(&bytes).map_err(|damage| Error::StreamBroken { source: damage })?;
                    place.add_stream(&bytes)?;
                    Ok((place, reader))
                });
                (place, reader) = pushed.await?;
                self.context.progress.done(span.length());
                at = end;
            }
        }
        let (reached, wanted) = (reader.boundary(), self.recovery.to.0);
        if reader.at() != wanted || reached < from {
            return Err(Error::broken("the stream was not written to its end"));
        }
        place.cut_stream(head + reached - from)?;
        let finding = (reached < wanted).then(|| self.cut_before(wanted, reached)).transpose()?;
        Ok((place, Written { bytes: head + reached - from, offset: reached, finding }))
    }

    /// A mark lies between commands; an offset that a person names may not, and the end of what had
    /// come may not.
    fn cut_before(&self, wanted: u64, reached: u64) -> Result<Finding> {
        let fact = match self.recovery.target {
            RecoveryTarget::Offset(_) => {
                format!(
                    "offset {wanted} lies within a command or a transaction, which is left out: the state is that of offset {reached}"
                )
            }
            RecoveryTarget::Latest => {
                format!(
                    "the last command or transaction had not come to its end, and is left out: the state is that of offset {reached}"
                )
            }
            _ => return Err(Error::broken("a mark of the stream does not lie between two commands")),
        };
        Ok(Finding::info(
            "the stream",
            fact,
            "a server that loses its connection there leaves it out as well",
        ))
    }

    fn missing(&self, log: &LogId, span: LogSpan) -> Error {
        backstay_repo::Error::Damaged {
            object: format!("{}/log/{log}", self.instance),
            reason: format!("bytes {} to {} of the stream are not there", span.start, span.end),
        }
        .into()
    }

    /// Which database is selected there. The archive knows it from what came before; where the
    /// stream begins with the base, the snapshot says it.
    async fn state_at_base(&self) -> Result<CommandReader> {
        let (offset, database) = (self.facts.offset, self.facts.selected_database);
        let Some(first) = self.ranges.first() else { return Ok(CommandReader::new(offset, database)) };
        let log = log_id(&self.recovery.lineage, first.timeline);
        let there = self.context.repo.timeline_log(self.instance, &log).await?;
        let around =
            there.objects.iter().rfind(|object| object.span.start <= offset && offset < object.span.end);
        let Some(around) = around else { return Ok(CommandReader::new(offset, database)) };
        let read = self.context.repo.read_log_span(self.instance, &log, around.span).await?;
        let Ok(SpanFacts { mut reader, .. }) = serde_json::from_value(read.head.facts.clone()) else {
            return Ok(CommandReader::new(offset, database));
        };
        let before = read.content.get(..(offset - around.span.start) as usize).unwrap_or_default();
        reader.push(before).map_err(|damage| Error::StreamBroken { source: damage })?;
        match reader.boundary() == offset {
            // What was open before the snapshot is a part of it.
            true => Ok(CommandReader::new(offset, reader.database())),
            false => Err(Error::broken("the base does not lie between two commands of the stream")),
        }
    }
}
