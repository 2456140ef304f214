//! What the archive knows of a stream, for whoever seals a span of it.

use backstay_model::{LogId, LogMark, LogSpan};
use backstay_repo::log::LogForm;

use super::keeper::SharedInstants;
use crate::archive::sealing::Marking;

impl Marking for SharedInstants {
    fn form(&self) -> LogForm {
        LogForm::Bytes
    }

    fn marks(&self, log: &LogId, _: &[u8], _: u64, span: LogSpan) -> Vec<LogMark> {
        self.lock().marks(log, span)
    }

    fn facts(&self, log: &LogId, span: LogSpan) -> serde_json::Value {
        let facts = self.lock().facts(log, span);
        facts.and_then(|facts| serde_json::to_value(facts).ok()).unwrap_or_default()
    }
}
