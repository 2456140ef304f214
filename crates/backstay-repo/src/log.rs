//! The log of a database in a repository: spans of bytes, each an object of its own that
//! opens without any other (`docs/format.md`, section 11).
//!
//! Several writers may store the same log, in different cuts: what is there is the union
//! of all spans. Nothing is ever replaced. A writer that brings other bytes for a place is
//! refused where it can be seen, for one of the two is of another server.
//!
//! Refuses to know what the bytes mean: marks are positions with a time, and what a
//! timeline is the engine knows. Only `form` looks at how they are built, to store less.

mod form;
mod gap;
mod glance;
mod index;
mod object;
mod reader;
mod remove;
pub mod spool;

use std::sync::Arc;

use backstay_model::{InstanceId, LogId, LogMark, LogSpan};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::form::LogForm;
pub use self::glance::{LogEdges, LogGlance};
pub use self::index::{LogIndex, LogObject, TimelineLog};
pub use self::object::LogHead;
pub use self::reader::LogRead;
use crate::layout::{InstanceLayout, ObjectName};
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

/// The longest span of one object: a segment of PostgreSQL's usual size.
pub const SPAN_BYTES_MAX: u64 = 16 << 20;

/// What is to be stored of a log.
#[derive(Debug, Clone)]
pub struct LogPiece {
    pub log: LogId,
    /// Where the first byte belongs.
    pub start: u64,
    /// Folded in place where nobody else holds it, copied otherwise.
    pub content: Bytes,
    pub form: LogForm,
    /// In ascending order, of this content.
    pub marks: Vec<LogMark>,
    /// The object that the same writer stored before this one, where there was one.
    pub previous: Option<PreviousSpan>,
    /// What the engine wants to find again: the size of its segments.
    pub facts: serde_json::Value,
}

impl LogPiece {
    /// `None` when there is nothing in it.
    pub fn span(&self) -> Option<LogSpan> {
        LogSpan::new(self.start, self.start + self.content.len() as u64)
    }
}

/// By this an object names the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousSpan {
    #[serde(flatten)]
    pub span: LogSpan,
    /// Of its content, as hexadecimal digits.
    pub digest: String,
}

/// An object of the log that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSpan {
    pub span: LogSpan,
    pub digest: String,
    /// Of the object; `None` when it was there before.
    pub stored_bytes: Option<u64>,
}

/// A piece on its way to the store: nothing of its content is held any more.
#[derive(Debug, Clone)]
pub struct SealedLog {
    name: ObjectName,
    span: LogSpan,
    object: Bytes,
    digest: String,
}

impl Repo {
    /// Stores a piece; success when exactly its bytes are there already. When this returns,
    /// it is durable.
    ///
    /// # Errors
    ///
    /// [`Error::LogDiffers`] when other bytes have its name.
    pub async fn put_log(
        self: &Arc<Self>,
        instance: &InstanceId,
        piece: LogPiece,
        level: i32,
    ) -> Result<StoredSpan> {
        let sealed = self.seal_log(instance, piece, level).await?;
        self.put_sealed_log(&sealed).await
    }

    /// The first half of [`put_log`](Self::put_log): compressed, encrypted, and looked at again.
    pub async fn seal_log(
        self: &Arc<Self>,
        instance: &InstanceId,
        piece: LogPiece,
        level: i32,
    ) -> Result<SealedLog> {
        let span = piece.span().ok_or_else(|| Error::broken("nothing of a log is to be stored"))?;
        if span.length() > SPAN_BYTES_MAX {
            return Err(Error::broken(format!("{} bytes of a log are too many at once", span.length())));
        }
        let name = InstanceLayout::new(instance.clone()).log_object(&piece.log, span)?;
        let (keys, sealed_name) = (Arc::clone(self.seal_keys()), name.clone());
        let sealing = tokio::task::spawn_blocking(move || object::seal(&keys, &sealed_name, piece, level));
        let (object, digest) = sealing.await.map_err(|error| Error::broken(error.to_string()))??;
        Ok(SealedLog { name, span, object, digest })
    }

    /// The second half. It may be tried again with the same.
    pub async fn put_sealed_log(self: &Arc<Self>, sealed: &SealedLog) -> Result<StoredSpan> {
        let SealedLog { name, span, object, digest } = sealed;
        let (span, digest) = (*span, digest.clone());
        let stored_bytes = object.len() as u64;
        match self.store().put_if_absent(name, object.clone()).await {
            Ok(()) => Ok(StoredSpan { span, digest, stored_bytes: Some(stored_bytes) }),
            Err(StoreError::AlreadyExists { .. }) => {
                let there = self.read_log_object(name, Vec::new()).await?;
                match there.head.digest == digest {
                    true => Ok(StoredSpan { span, digest, stored_bytes: None }),
                    false => Err(Error::LogDiffers { object: name.to_string() }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores where a timeline came from; success when exactly that is there already.
    pub async fn put_log_history(&self, instance: &InstanceId, log: &LogId, history: &[u8]) -> Result<()> {
        let name = InstanceLayout::new(instance.clone()).log_history(log)?;
        let text = String::from_utf8_lossy(history);
        let document = HistoryDocument { format: 1, history: text.into_owned() };
        let json = serde_json::to_vec(&document).map_err(|error| Error::broken(error.to_string()))?;
        match self.put_document(&name, &json).await {
            Err(Error::Store(StoreError::AlreadyExists { .. })) => {
                match self.log_history(instance, log).await? {
                    Some(there) if there == document.history => Ok(()),
                    _ => Err(Error::LogDiffers { object: name.to_string() }),
                }
            }
            done => done,
        }
    }

    /// `None` when the store says that there is none.
    pub async fn log_history(&self, instance: &InstanceId, log: &LogId) -> Result<Option<String>> {
        let name = InstanceLayout::new(instance.clone()).log_history(log)?;
        let json = match self.get_document(&name).await {
            Ok(json) => json,
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        let document: HistoryDocument =
            serde_json::from_slice(&json).map_err(|error| Error::damaged(&name, error.to_string()))?;
        Ok(Some(document.history))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct HistoryDocument {
    format: u32,
    history: String,
}

#[cfg(test)]
mod tests;
