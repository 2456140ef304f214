//! Log that was given up, and why: one document for each place (`docs/format.md`, section 11).
//!
//! Refuses to change one: the first word about a place stays.

use backstay_model::{InstanceId, LogGap, LogId};
use serde::{Deserialize, Serialize};

use crate::layout::{GapPlace, InstanceLayout, ObjectName};
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct GapDocument {
    format: u32,
    #[serde(flatten)]
    gap: LogGap,
}

impl Repo {
    /// Success as well when something is said of this place already.
    pub async fn put_log_gap(&self, instance: &InstanceId, log: &LogId, gap: &LogGap) -> Result<()> {
        let name = self.log_gap_name(instance, log, place_of(gap))?;
        let document = GapDocument { format: FORMAT, gap: gap.clone() };
        let json = serde_json::to_vec(&document).map_err(|error| Error::broken(error.to_string()))?;
        match self.put_document(&name, &json).await {
            Err(Error::Store(StoreError::AlreadyExists { .. })) => Ok(()),
            done => done,
        }
    }

    /// `None` when the store says that there is none.
    pub async fn log_gap(
        &self,
        instance: &InstanceId,
        log: &LogId,
        place: GapPlace,
    ) -> Result<Option<LogGap>> {
        let name = self.log_gap_name(instance, log, place)?;
        let json = match self.get_document(&name).await {
            Ok(json) => json,
            Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |reason: String| Error::damaged(&name, reason);
        let document: GapDocument =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if document.format > FORMAT {
            return Err(Error::NewerFormat { found: document.format, known: FORMAT });
        }
        if place_of(&document.gap) != place {
            return Err(damaged("it speaks of another place than its name".to_owned()));
        }
        Ok(Some(document.gap))
    }

    pub fn log_gap_name(&self, instance: &InstanceId, log: &LogId, place: GapPlace) -> Result<ObjectName> {
        Ok(InstanceLayout::new(instance.clone()).log_gap(log, place)?)
    }
}

fn place_of(gap: &LogGap) -> GapPlace {
    GapPlace { from: gap.from.0, server: gap.server.0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstay_model::{GapReason, Lsn, TimelineId};
    use bytes::Bytes;

    use super::*;
    use crate::log::LogPiece;
    use crate::repo::Parameters;
    use crate::seal::Cipher;
    use crate::store::{MemoryStore, Store};

    #[tokio::test]
    async fn the_first_word_about_a_gap_stays_and_is_no_log() {
        let store = MemoryStore::default();
        let keys = crate::seal::tests::keys(Cipher::Aes256Gcm);
        let repo = Arc::new(Repo::from_parts(Arc::new(store.clone()), keys, Parameters::default()));
        let instance: InstanceId = "orders".parse().unwrap();
        let log = LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() };
        let gap = LogGap {
            timeline: TimelineId(1),
            from: Lsn(0x5000000),
            server_timeline: TimelineId(1),
            server: Lsn(0x8000000),
            at: "2026-11-22T04:46:11Z".parse().unwrap(),
            reason: GapReason::MaxLag,
            slot: "backstay_orders".to_owned(),
            held_bytes: Some(3 << 24),
            max_lag_bytes: Some(2 << 24),
        };
        let place = place_of(&gap);
        assert_eq!(repo.log_gap(&instance, &log, place).await.unwrap(), None);
        repo.put_log_gap(&instance, &log, &gap).await.unwrap();
        let later = LogGap {
            reason: GapReason::SlotLost,
            at: "2026-11-22T05:00:00Z".parse().unwrap(),
            ..gap.clone()
        };
        repo.put_log_gap(&instance, &log, &later).await.unwrap();
        assert_eq!(repo.log_gap(&instance, &log, place).await.unwrap(), Some(gap.clone()));
        let there = repo.timeline_log(&instance, &log).await.unwrap();
        assert_eq!((there.gaps.as_slice(), there.objects.len()), (&[place][..], 0));
        // Under the name of another place it does not open.
        let name = repo.log_gap_name(&instance, &log, place).unwrap();
        let other = repo.log_gap_name(&instance, &log, GapPlace { server: 0x9000000, ..place }).unwrap();
        let bytes = store.get(&name, 1 << 20).await.unwrap();
        store.put_if_absent(&other, bytes).await.unwrap();
        assert!(repo.log_gap(&instance, &log, GapPlace { server: 0x9000000, ..place }).await.is_err());
    }

    #[tokio::test]
    async fn whether_a_segment_is_there_its_digest_says() {
        let keys = crate::seal::tests::keys(Cipher::Aes256Gcm);
        let repo = Arc::new(Repo::from_parts(Arc::new(MemoryStore::default()), keys, Parameters::default()));
        let instance: InstanceId = "orders".parse().unwrap();
        let log = LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() };
        let content = Bytes::from(vec![7; 4096]);
        let piece = LogPiece {
            log: log.clone(),
            start: 4096,
            content: content.clone(),
            form: crate::log::LogForm::Bytes,
            marks: Vec::new(),
            previous: None,
            facts: serde_json::Value::Null,
        };
        let span = piece.span().unwrap();
        assert_eq!(repo.log_holds(&instance, &log, span, &content).await.unwrap(), None);
        repo.put_log(&instance, piece, 2).await.unwrap();
        assert_eq!(repo.log_holds(&instance, &log, span, &content).await.unwrap(), Some(true));
        let mut other = content.to_vec();
        other[4095] ^= 1;
        assert_eq!(repo.log_holds(&instance, &log, span, &other).await.unwrap(), Some(false));
    }
}
