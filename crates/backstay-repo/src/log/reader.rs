//! Bytes of a log, out of the objects that hold them.

use std::sync::Arc;

use backstay_model::{Coverage, InstanceId, LogId, LogMark, LogSpan};

use super::object::{self, LogHead};
use super::{LogObject, SPAN_BYTES_MAX, TimelineLog};
use crate::large_buffer::large_buffer;
use crate::layout::{InstanceLayout, LogItem, ObjectName};
use crate::repo::Repo;
use crate::{Error, Result};

/// What lies over the content at most: head, marks, seals.
const OBJECT_BYTES_MAX: u64 = 4 * SPAN_BYTES_MAX;

/// One object, opened and checked as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRead {
    pub head: LogHead,
    pub content: Vec<u8>,
    pub marks: Vec<LogMark>,
}

impl Repo {
    /// One object of the log.
    pub async fn read_log_span(&self, instance: &InstanceId, log: &LogId, span: LogSpan) -> Result<LogRead> {
        self.read_log_span_into(instance, log, span, Vec::new()).await
    }

    /// The same in a buffer that was used before, whatever is in it: to get fresh memory for a
    /// whole segment of PostgreSQL takes as long as to decompress it.
    pub async fn read_log_span_into(
        &self,
        instance: &InstanceId,
        log: &LogId,
        span: LogSpan,
        buffer: Vec<u8>,
    ) -> Result<LogRead> {
        let name = InstanceLayout::new(instance.clone()).log_object(log, span)?;
        self.read_log_object(&name, buffer).await
    }

    pub(super) async fn read_log_object(&self, name: &ObjectName, buffer: Vec<u8>) -> Result<LogRead> {
        let instance = name.as_str().split('/').next().unwrap_or_default().parse::<InstanceId>();
        let item = instance.ok().and_then(|instance| InstanceLayout::new(instance).log_object_of(name));
        let Some((_, LogItem::Span(span))) = item else {
            return Err(Error::broken(format!("{name} is not of a log")));
        };
        let mut bytes = Vec::from(self.store().get(name, OBJECT_BYTES_MAX).await?);
        let (keys, name) = (Arc::clone(self.seal_keys()), name.clone());
        let opening =
            tokio::task::spawn_blocking(move || object::open(&keys, &name, span, &mut bytes, buffer));
        let opened = opening.await.map_err(|error| Error::broken(error.to_string()))??;
        Ok(LogRead { head: opened.head, content: opened.content, marks: opened.marks })
    }

    /// The bytes of a span that are there, and which they are: everything else is zero.
    /// `timeline` is what was listed of the log.
    ///
    /// # Errors
    ///
    /// [`Error::LogDiffers`] where two objects hold different bytes of one place, and
    /// [`Error::Damaged`] for an object that does not open. Both are never an absence.
    pub async fn read_log(
        &self,
        instance: &InstanceId,
        log: &LogId,
        timeline: &TimelineLog,
        span: LogSpan,
    ) -> Result<(Vec<u8>, Coverage)> {
        // The usual case by far, in half the memory.
        if let [whole] = timeline.covering(span)[..]
            && whole.span == span
        {
            let read = self.read_log_span(instance, log, span).await?;
            return Ok((read.content, [span].into_iter().collect()));
        }
        let mut bytes = large_buffer(span.length() as usize);
        bytes.resize(span.length() as usize, 0);
        let mut there: Vec<LogSpan> = Vec::new();
        for LogObject { span: of, .. } in timeline.covering(span) {
            let Some(common) = of.common(&span) else { continue };
            let read = self.read_log_span(instance, log, of).await?;
            let from = &read.content[(common.start - of.start) as usize..(common.end - of.start) as usize];
            let to = &mut bytes[(common.start - span.start) as usize..(common.end - span.start) as usize];
            // Where this one overlaps what came before it, both must say the same.
            for before in &there {
                if let Some(twice) = before.common(&common) {
                    let part = (twice.start - common.start) as usize..(twice.end - common.start) as usize;
                    if to[part.clone()] != from[part] {
                        let name = InstanceLayout::new(instance.clone()).log_object(log, of)?;
                        return Err(Error::LogDiffers { object: name.to_string() });
                    }
                }
            }
            to.copy_from_slice(from);
            there.push(common);
        }
        Ok((bytes, there.into_iter().collect()))
    }
}
