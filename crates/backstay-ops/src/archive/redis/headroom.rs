//! How long the connection could be away before the server has forgotten what follows.
//!
//! A server keeps the last bytes of its stream in a ring of memory, one MiB when nobody says
//! otherwise. Who comes back later than that gets everything anew, and what was between is gone.

use std::time::{Duration, Instant};

use backstay_engine::redis::connection::Connection;
use backstay_engine::redis::facts::ServerFacts;
use backstay_engine::redis::settings::Address;
use tokio::task::JoinSet;

use crate::archive::{ArchiveEvent, ArchiveWatcher};

/// How often the server is asked.
const LOOK: Duration = Duration::from_secs(10);
/// A restart of this program, or of a switch, takes as long.
const SHORT: f64 = 60.0;
/// Told again only when all was well between.
const WELL: f64 = 120.0;

type Seen = (Instant, ServerFacts);

pub(super) struct Headroom<'a> {
    /// Of the server whose stream it is.
    address: Address,
    watcher: &'a dyn ArchiveWatcher,
    next: Instant,
    /// Ended with the connection.
    asking: JoinSet<backstay_engine::Result<Seen>>,
    before: Option<(Instant, u64)>,
    is_short: bool,
}

impl<'a> Headroom<'a> {
    pub fn new(address: Address, watcher: &'a dyn ArchiveWatcher) -> Self {
        let next = Instant::now();
        Headroom { address, watcher, next, asking: JoinSet::new(), before: None, is_short: false }
    }

    /// Returns at once: what the server said, when it just did.
    pub fn look(&mut self, durable: u64) -> Option<ServerFacts> {
        if self.next <= Instant::now() && self.asking.is_empty() {
            self.next = Instant::now() + LOOK;
            let address = self.address.clone();
            self.asking.spawn(async move {
                let mut connection = Connection::open(&address).await?;
                let facts = ServerFacts::ask(&mut connection).await?;
                Ok((Instant::now(), facts))
            });
        }
        match self.asking.try_join_next() {
            Some(Ok(Ok((at, facts)))) => {
                self.see(at, &facts, durable);
                Some(facts)
            }
            Some(Ok(Err(error))) => {
                tracing::debug!(%error, "the server does not say what it keeps");
                None
            }
            _ => None,
        }
    }

    fn see(&mut self, at: Instant, facts: &ServerFacts, durable: u64) {
        let (offset, backlog_bytes) = (facts.offset, facts.backlog_bytes);
        if let Some((before, from)) = self.before.replace((at, offset)) {
            let rate = offset.saturating_sub(from) as f64 / (at - before).as_secs_f64().max(0.001);
            let seconds = seconds_left(backlog_bytes, offset.saturating_sub(durable), rate);
            if seconds < SHORT && !self.is_short {
                self.is_short = true;
                self.watcher.see(ArchiveEvent::Headroom { seconds, backlog_bytes, bytes_per_second: rate });
            } else if seconds > WELL {
                self.is_short = false;
            }
        }
    }
}

/// What is left of the ring, at this rate.
pub(crate) fn seconds_left(backlog_bytes: u64, behind: u64, bytes_per_second: f64) -> f64 {
    let left = backlog_bytes.saturating_sub(behind) as f64;
    if bytes_per_second <= 0.0 { f64::INFINITY } else { left / bytes_per_second }
}
