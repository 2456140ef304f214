//! A dump: the snapshot of a server as it comes, looked at on its way.
//!
//! Nothing lies beside it: users and settings are no part of a snapshot, and a base has them.
//!
//! Invariant: the end is told when the snapshot was whole, and never otherwise.

use bytes::Bytes;

use super::base::RedisFacts;
use super::connection::Connection;
use super::facts::ServerFacts;
use super::settings::Address;
use super::sync::FullSync;
use crate::snapshot::{RdbCheck, RdbFacts};
use crate::{Error, Result};

/// A dump that has begun.
pub struct RedisDump {
    sync: FullSync,
    server: ServerFacts,
    check: Option<RdbCheck>,
    ended: Option<(RedisFacts, RdbFacts)>,
}

impl RedisDump {
    /// # Errors
    ///
    /// Where the server is away, or the user may not ask.
    pub async fn begin(address: &Address) -> Result<RedisDump> {
        let mut connection = Connection::open(address).await?;
        let server = ServerFacts::ask(&mut connection).await?;
        let sync = FullSync::begin(connection).await?;
        Ok(RedisDump { sync, server, check: Some(RdbCheck::default()), ended: None })
    }

    /// About how many bytes will come: a snapshot is smaller than the memory that it describes.
    pub fn estimated_bytes(&self) -> u64 {
        self.server.used_memory_bytes
    }

    /// The next piece; nothing behind the last. Whoever drops this tells the server to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] for what is none, or not whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(check) = &mut self.check else { return Ok(None) };
        if let Some(piece) = self.sync.next().await? {
            check.push(&piece);
            // What is no snapshot at all is not stored to its end first.
            check.version()?;
            return Ok(Some(piece));
        }
        if let Some(check) = self.check.take() {
            let found = check.finish()?;
            let facts =
                RedisFacts::new(self.server.clone(), self.sync.place.clone(), &found, self.sync.received());
            self.ended = Some((facts, found));
        }
        Ok(None)
    }

    /// What is known of it, and what it says of itself.
    ///
    /// # Errors
    ///
    /// Before its end, when nothing is known.
    pub fn facts(&self) -> Result<&(RedisFacts, RdbFacts)> {
        let early =
            || Error::Protocol { reason: "a snapshot was asked for its facts before its end".to_owned() };
        self.ended.as_ref().ok_or_else(early)
    }
}
