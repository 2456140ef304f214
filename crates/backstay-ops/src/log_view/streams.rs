//! How the streams of Redis are called by servers, and which log of the archive each is.

use backstay_engine::redis::lineage::StreamHistory;
use backstay_engine::redis::sync::is_replication_id;
use backstay_model::LogId;

/// Of one timeline, with the text of its history where it has one; `None` for what is no stream.
pub(crate) fn history_of(log: &LogId, text: Option<&str>) -> Option<StreamHistory> {
    if !is_replication_id(&log.lineage) {
        return None;
    }
    match text {
        Some(text) => StreamHistory::parse(text),
        None => Some(StreamHistory::first(&log.lineage)),
    }
}
