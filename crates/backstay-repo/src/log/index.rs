//! What of a log lies in the store, by the names of its objects alone.

use std::collections::BTreeMap;

use backstay_model::{Coverage, InstanceId, LogId, LogSpan};

use crate::Result;
use crate::layout::{GapPlace, InstanceLayout, LogItem};
use crate::repo::Repo;

/// One object of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogObject {
    pub span: LogSpan,
    /// Of the object.
    pub size_bytes: u64,
}

/// All that is there of one timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimelineLog {
    /// In the order of their starts; they may overlap.
    pub objects: Vec<LogObject>,
    pub has_history: bool,
    /// Where log was given up, in ascending order.
    pub gaps: Vec<GapPlace>,
}

impl TimelineLog {
    pub fn coverage(&self) -> Coverage {
        self.objects.iter().map(|object| object.span).collect()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size_bytes).sum()
    }

    /// Objects that together hold all of the span that is there, as few as will do: from
    /// each place on the one that goes furthest.
    pub fn covering(&self, span: LogSpan) -> Vec<LogObject> {
        let mut chosen: Vec<LogObject> = Vec::new();
        let (mut from, mut next, mut furthest) = (span.start, 0, None::<LogObject>);
        while from < span.end {
            while let Some(object) = self.objects.get(next).filter(|object| object.span.start <= from) {
                if furthest.is_none_or(|furthest| furthest.span.end < object.span.end) {
                    furthest = Some(*object);
                }
                next += 1;
            }
            match (furthest.filter(|object| from < object.span.end), self.objects.get(next)) {
                (Some(object), _) => {
                    chosen.push(object);
                    from = object.span.end;
                }
                (None, Some(behind)) => from = behind.span.start,
                (None, None) => break,
            }
        }
        chosen
    }
}

/// What there is of all timelines of an instance. Takes 24 bytes of memory for each object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogIndex {
    timelines: BTreeMap<LogId, TimelineLog>,
}

impl LogIndex {
    pub fn timelines(&self) -> impl Iterator<Item = (&LogId, &TimelineLog)> {
        self.timelines.iter()
    }

    pub fn timeline(&self, log: &LogId) -> Option<&TimelineLog> {
        self.timelines.get(log)
    }

    pub fn is_empty(&self) -> bool {
        self.timelines.is_empty()
    }
}

impl Repo {
    /// Lists the log of an instance. A listing that breaks off is an error, never a
    /// shorter log.
    pub async fn log_index(&self, instance: &InstanceId) -> Result<LogIndex> {
        let layout = InstanceLayout::new(instance.clone());
        self.log_below(&layout, &layout.log()).await
    }

    /// Of one timeline.
    pub async fn timeline_log(&self, instance: &InstanceId, log: &LogId) -> Result<TimelineLog> {
        let layout = InstanceLayout::new(instance.clone());
        let mut index = self.log_below(&layout, &layout.log_of(log)?).await?;
        Ok(index.timelines.remove(log).unwrap_or_default())
    }

    async fn log_below(&self, layout: &InstanceLayout, prefix: &crate::layout::Prefix) -> Result<LogIndex> {
        let mut index = LogIndex::default();
        let mut listing = self.store().list(prefix).await?;
        while let Some(page) = listing.next_page().await? {
            for object in page {
                let Some((log, item)) = layout.log_object_of(&object.name) else { continue };
                let timeline = index.timelines.entry(log).or_default();
                match item {
                    LogItem::History => timeline.has_history = true,
                    LogItem::Gap(place) => timeline.gaps.push(place),
                    LogItem::Span(span) => {
                        timeline.objects.push(LogObject { span, size_bytes: object.size_bytes });
                    }
                }
            }
        }
        for timeline in index.timelines.values_mut() {
            timeline.objects.sort_unstable();
            timeline.gaps.sort_unstable();
        }
        Ok(index)
    }
}
