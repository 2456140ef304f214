//! What is marked in an object of the log, without its content.
//!
//! Whoever looks for a transaction in a month of log reads the heads and the marks of the
//! objects: some kilobytes of each, wherever the store is.

use std::sync::Arc;

use backstay_model::{InstanceId, LogId, LogMark, LogSpan};

use super::LogObject;
use super::object::{self, LogHead};
use crate::container::{Container, FramePlace};
use crate::frame::FrameOpener;
use crate::layout::InstanceLayout;
use crate::repo::Repo;
use crate::seal::ObjectKind;
use crate::store::StoreError;
use crate::{Error, Result};

/// An object whose head was read.
#[derive(Debug)]
pub struct LogGlance {
    pub head: LogHead,
    container: Arc<Container>,
}

/// The first and the last frame of the content of an object; they may be one.
#[derive(Debug, Clone)]
pub struct LogEdges {
    pub first: Vec<u8>,
    /// Where the last one belongs.
    pub last_at: u64,
    pub last: Vec<u8>,
    /// Of the object, that were read for it.
    pub stored_bytes: u64,
}

impl Repo {
    /// Reads the head of an object, as it was listed.
    pub async fn glance_at_log(
        &self,
        instance: &InstanceId,
        log: &LogId,
        of: LogObject,
    ) -> Result<LogGlance> {
        let name = InstanceLayout::new(instance.clone()).log_object(log, of.span)?;
        let keys = self.seal_keys();
        let container = Container::open(self.store(), keys, ObjectKind::Log, &name, of.size_bytes).await?;
        let container = Arc::new(container);
        let head = self.log_frames(&container, 0..1).await?;
        let head = head.first().map(Vec::as_slice).unwrap_or_default();
        Ok(LogGlance { head: object::parse_head(&name, of.span, head)?, container })
    }

    /// Whether the object of this span holds these bytes, by its digest; `None` when there is
    /// no such object.
    pub async fn log_holds(
        &self,
        instance: &InstanceId,
        log: &LogId,
        span: LogSpan,
        content: &[u8],
    ) -> Result<Option<bool>> {
        let name = InstanceLayout::new(instance.clone()).log_object(log, span)?;
        let size_bytes = match self.store().head(&name).await {
            Ok(found) => found.size_bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let glance = self.glance_at_log(instance, log, LogObject { span, size_bytes }).await?;
        let holds = glance.head.digest == object::hex(&self.seal_keys().hash_block(content));
        if holds {
            // Whoever put it there may have been stopped before its name was durable.
            self.store().settle(&name).await?;
        }
        Ok(Some(holds))
    }

    /// The marks of it, in ascending order.
    pub async fn marks_of(&self, glance: &LogGlance) -> Result<Vec<LogMark>> {
        let head = &glance.head;
        let damaged = |reason: &str| Error::damaged(glance.container.name(), reason.to_owned());
        if head.marks == 0 {
            return Ok(Vec::new());
        }
        let first = head.content_frames.checked_add(1).ok_or_else(|| damaged("its head is not one"))?;
        let behind = glance.container.frames().len() as u32;
        let mut marks = Vec::new();
        for raw in self.log_frames(&glance.container, first..behind).await? {
            object::read_marks(head.span.start, &raw, &mut marks)
                .map_err(|error| damaged(&error.to_string()))?;
        }
        match marks.len() as u64 == head.marks {
            true => Ok(marks),
            false => Err(damaged("it has not as many marks as its head says")),
        }
    }

    /// The edges of the content, when the frames of it are as long as the head says.
    pub async fn edges_of(&self, glance: &LogGlance) -> Result<LogEdges> {
        let (head, container) = (&glance.head, &glance.container);
        let damaged = |reason: &str| Error::damaged(container.name(), reason.to_owned());
        let behind = u64::from(head.content_frames) + 1;
        let frames = container.frames().get(1..behind as usize).filter(|frames| !frames.is_empty());
        let frames = frames.ok_or_else(|| damaged("it has not as many frames as its head says"))?;
        let raw: u64 = frames.iter().map(|frame| u64::from(frame.entry.raw_length)).sum();
        if raw != head.span.length() {
            return Err(damaged("its content is not as long as its head says"));
        }
        let last_number = head.content_frames;
        if last_number > 1 && !head.form.is_bytes() {
            return Err(damaged("its content is folded, and in more than one frame"));
        }
        let mut first = self.log_frames(container, 1..2).await?.pop().unwrap_or_default();
        if !head.form.is_bytes() {
            let (name, head) = (container.name().clone(), head.clone());
            let unfolding = tokio::task::spawn_blocking(move || {
                object::unfold(&name, &head, &mut first)?;
                Ok::<_, Error>(first)
            });
            first = unfolding.await.map_err(|error| Error::broken(error.to_string()))??;
        }
        let last = match last_number {
            1 => first.clone(),
            number => self.log_frames(container, number..number + 1).await?.pop().unwrap_or_default(),
        };
        let stored =
            |frame: Option<&FramePlace>| frame.map_or(0, |frame| u64::from(frame.entry.stored_length));
        let stored_bytes = stored(frames.first()) + if last_number > 1 { stored(frames.last()) } else { 0 };
        Ok(LogEdges { first, last_at: head.span.end - last.len() as u64, last, stored_bytes })
    }

    /// Frames that lie one behind the other, fetched at once.
    async fn log_frames(
        &self,
        container: &Arc<Container>,
        numbers: std::ops::Range<u32>,
    ) -> Result<Vec<Vec<u8>>> {
        let places = numbers.clone().map(|number| container.place(number)).collect::<Result<Vec<_>>>()?;
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
        let (start, end) = (first.offset, last.offset + u64::from(last.entry.stored_length));
        let stored = self.store().get_range(container.name(), start, end - start).await?;
        let container = Arc::clone(container);
        let opening = tokio::task::spawn_blocking(move || {
            let mut opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
            let mut frames = Vec::new();
            for (number, place) in numbers.zip(&places) {
                let from = (place.offset - start) as usize;
                let bytes = stored.get(from..from + place.entry.stored_length as usize);
                let bytes =
                    bytes.ok_or_else(|| Error::damaged(container.name(), "it is cut short".to_owned()))?;
                frames.push(container.open_frame(&mut opener, number, &mut bytes.to_vec())?.to_vec());
            }
            Ok(frames)
        });
        opening.await.map_err(|error| Error::broken(error.to_string()))?
    }
}
