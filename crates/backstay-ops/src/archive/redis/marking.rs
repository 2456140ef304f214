//! What the archive knows of a stream, for whoever seals a span of it.

use backstay_model::{LogId, LogMark, LogSpan};
use backstay_repo::log::LogForm;

use super::instants::SpanFacts;
use super::keeper::SharedInstants;
use crate::archive::STREAM_CUT_BYTES;
use crate::archive::sealing::Marking;

impl Marking for SharedInstants {
    fn form(&self) -> LogForm {
        LogForm::Bytes
    }

    fn cut_bytes(&self) -> u64 {
        STREAM_CUT_BYTES
    }

    fn marks(&self, log: &LogId, _: &[u8], _: u64, span: LogSpan) -> Vec<LogMark> {
        self.lock().marks(log, span)
    }

    /// Of most places no state is written down (see [`super::instants`]): it is read from the one before.
    fn facts(&self, log: &LogId, bytes: &[u8], start: u64, span: LogSpan) -> serde_json::Value {
        let (state, witnesses) = {
            let instants = self.lock();
            (instants.state_before(log, start, span.start), instants.witnesses(log, span))
        };
        let facts = state.and_then(|(replication_id, mut reader)| {
            let between = (reader.at() - start) as usize..(span.start - start) as usize;
            reader.push(bytes.get(between)?).ok()?;
            serde_json::to_value(SpanFacts { replication_id, reader, witnesses }).ok()
        });
        facts.unwrap_or_default()
    }
}
