//! What statements need of a server, found beside the dump while its bytes pass.
//!
//! Rows are nearly all of a dump, and passed over here at the speed of memory. To read
//! statements is work for a processor, and done by a thread that may be blocked. Whatever
//! becomes of it, the dump is as good as without.

use std::collections::BTreeMap;

use backstay_engine::postgres::reload::{ScriptNames, ScriptScan};
use backstay_model::dump::{DumpContent, StatementNeeds};
use bytes::Bytes;

use crate::context::off_thread;

/// Statements that are read for what they name.
pub(crate) struct Needed {
    /// None after a reading that did not end: it is not known then.
    scan: Option<ScriptScan>,
}

impl Needed {
    pub fn begin() -> Self {
        Self { scan: Some(ScriptScan::default()) }
    }

    /// The next bytes. Whoever drops this before its end learns nothing more.
    pub async fn push(&mut self, bytes: &Bytes) {
        let Some(mut scan) = self.scan.take() else { return };
        let passed = scan.pass_rows(bytes);
        if passed == bytes.len() {
            self.scan = Some(scan);
            return;
        }
        let rest = bytes.slice(passed..);
        let read = off_thread(move || {
            scan.push(&rest);
            Ok(scan)
        });
        match read.await {
            Ok(scan) => self.scan = Some(scan),
            Err(error) => tracing::warn!(%error, "what the statements of a dump need is not found out"),
        }
    }

    /// There is no more. Nothing where it is not known.
    pub fn finish(self) -> ScriptNames {
        self.scan.map(ScriptScan::finish).unwrap_or_default()
    }
}

/// What a record says of it.
pub(crate) fn of(names: Option<ScriptNames>, content: &DumpContent) -> BTreeMap<String, StatementNeeds> {
    names.map(|names| names.of(content)).unwrap_or_default()
}
