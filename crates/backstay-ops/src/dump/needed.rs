//! What statements need of a server, found beside the dump while its bytes pass.
//!
//! Reading them is work for a processor: it is done by a thread of its own, which gets the
//! blocks in their order and never more than a few ahead of it. Whatever becomes of it, the
//! dump is as good as without.

use std::collections::BTreeMap;

use backstay_engine::postgres::reload::{ScriptNames, ScriptScan};
use backstay_model::dump::{DumpContent, StatementNeeds};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Blocks on their way; each is 256 KiB at most.
const QUEUE_BLOCKS: usize = 16;

/// Statements that are read for what they name. The thread ends when this is dropped.
pub(crate) struct Needed {
    blocks: mpsc::Sender<Bytes>,
    thread: JoinHandle<ScriptNames>,
}

impl Needed {
    pub fn begin() -> Self {
        let (blocks, mut received) = mpsc::channel::<Bytes>(QUEUE_BLOCKS);
        let thread = tokio::task::spawn_blocking(move || {
            let mut scan = ScriptScan::default();
            while let Some(bytes) = received.blocking_recv() {
                scan.push(&bytes);
            }
            scan.finish()
        });
        Self { blocks, thread }
    }

    pub async fn push(&self, bytes: &Bytes) {
        // Refused by a thread that has died, of which the end tells.
        let _ = self.blocks.send(bytes.clone()).await;
    }

    /// There is no more. Nothing where it is not known.
    pub async fn finish(self) -> ScriptNames {
        drop(self.blocks);
        self.thread.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what the statements of a dump need was not found out");
            ScriptNames::default()
        })
    }
}

/// What a record says of it.
pub(crate) fn of(names: Option<ScriptNames>, content: &DumpContent) -> BTreeMap<String, StatementNeeds> {
    names.map(|names| names.of(content)).unwrap_or_default()
}
