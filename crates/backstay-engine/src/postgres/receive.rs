//! A receiver of the log: a replication connection with a slot that holds the log for it.
//!
//! Responsible for what a server says of itself before its log is believed: which cluster
//! it is, on which timeline, in segments of which size, and where the slot holds the log.
//!
//! Refuses a slot that is of another kind, and to drop one by itself.

use std::time::Duration;

use backstay_model::{LogId, Lsn, TimelineId};

use super::connect::Session;
use super::settings::{Address, PostgresSettings};
use super::walsender::{LogStream, StandbyReport, StreamEvent, SystemIdentity, TimelineHistory, Walsender};
use crate::{Error, Result};

/// The name of a log of PostgreSQL.
pub fn log_id(system_identifier: u64, timeline: TimelineId) -> LogId {
    LogId { lineage: format!("{system_identifier:016X}"), timeline: format!("{:08X}", timeline.0) }
}

/// The timeline that a log's name says.
pub fn timeline_of(log: &LogId) -> Option<TimelineId> {
    let is_name = log.timeline.len() == 8;
    is_name.then(|| u32::from_str_radix(&log.timeline, 16).ok()).flatten().map(TimelineId)
}

/// What the server keeps for a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// From here on the log is held; `None` where nothing is yet.
    pub restart: Option<Lsn>,
    pub is_active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub status: Option<String>,
    /// How much more may be written before the server gives the slot up; `None` for ever.
    pub safe_bytes: Option<u64>,
}

impl SlotFacts {
    /// The server has let go of log that was held for it.
    pub fn is_lost(&self) -> bool {
        self.status.as_deref() == Some("lost")
    }
}

pub struct LogReceiver {
    walsender: Walsender,
    address: Address,
    identity: SystemIdentity,
    segment_bytes: u64,
    stream: Option<LogStream>,
}

impl LogReceiver {
    pub async fn connect(settings: &PostgresSettings) -> Result<LogReceiver> {
        let address = settings.address()?;
        let mut walsender = Walsender::connect(&address).await?;
        let identity = walsender.identify_system().await?;
        let segment_bytes = bytes_of(&walsender.show("wal_segment_size").await?)?;
        Ok(LogReceiver { walsender, address, identity, segment_bytes, stream: None })
    }

    pub fn identity(&self) -> &SystemIdentity {
        &self.identity
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub fn server_version(&self) -> &str {
        self.walsender.version()
    }

    /// `None` when there is no slot of that name.
    ///
    /// # Errors
    ///
    /// [`Error::SlotKind`] for one that is not for physical replication.
    pub async fn slot(&self, name: &str) -> Result<Option<SlotFacts>> {
        const ACTION: &str = "look at the replication slot";
        let session = Session::open(&self.address).await?;
        let asked = "SELECT slot_type, restart_lsn::text, active, wal_status, safe_wal_size \
                     FROM pg_replication_slots WHERE slot_name = $1";
        let rows = session.query(ACTION, asked, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let strange = |error: tokio_postgres::Error| Error::sql(ACTION, error);
        let kind: String = row.try_get(0).map_err(strange)?;
        if kind != "physical" {
            return Err(Error::SlotKind { slot: name.to_owned(), kind });
        }
        let restart: Option<String> = row.try_get(1).map_err(strange)?;
        let restart = restart.map(|text| text.parse()).transpose();
        let safe: Option<i64> = row.try_get(4).map_err(strange)?;
        Ok(Some(SlotFacts {
            restart: restart.map_err(|error| Error::Protocol { reason: format!("{error}") })?,
            is_active: row.try_get(2).map_err(strange)?,
            status: row.try_get(3).map_err(strange)?,
            safe_bytes: safe.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        }))
    }

    /// A slot that holds the log from the last checkpoint on.
    pub async fn create_slot(&mut self, name: &str) -> Result<()> {
        self.walsender.create_slot(name).await
    }

    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        self.walsender.drop_slot(name).await
    }

    pub async fn history(&mut self, timeline: TimelineId) -> Result<TimelineHistory> {
        self.walsender.timeline_history(timeline).await
    }

    /// Begins, or begins again after the end of a timeline.
    pub async fn begin(&mut self, slot: &str, from: Lsn, timeline: TimelineId) -> Result<()> {
        self.stream = Some(self.walsender.start_log(Some(slot), from, timeline).await?);
        Ok(())
    }

    /// The next event; `None` when there is none within `wait`. Dropped half-way, it loses
    /// nothing.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<StreamEvent>> {
        match &mut self.stream {
            Some(stream) => stream.next(&mut self.walsender, wait).await,
            None => Err(not_begun()),
        }
    }

    /// Behind the last byte that came, and how far the server has written.
    pub fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.stream.as_ref().map(|stream| (stream.received(), stream.server_end()))
    }

    pub async fn report(&mut self, report: StandbyReport) -> Result<()> {
        match &self.stream {
            Some(stream) => stream.report(&mut self.walsender, report).await,
            None => Err(not_begun()),
        }
    }

    /// Ends the stream from our side.
    pub async fn stop(&mut self) -> Result<()> {
        match self.stream.take() {
            Some(stream) => stream.stop(&mut self.walsender).await,
            None => Ok(()),
        }
    }
}

fn not_begun() -> Error {
    Error::Protocol { reason: "the stream of the log was not begun".to_owned() }
}

/// `16MB`, as `SHOW` says it.
fn bytes_of(text: &str) -> Result<u64> {
    let wrong = || Error::Protocol { reason: format!("{text:?} is no size of a segment") };
    let units = [("kB", 10), ("MB", 20), ("GB", 30), ("B", 0)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)))
        .ok_or_else(wrong)?;
    let bytes = digits.trim().parse::<u64>().map_err(|_| wrong())?.checked_shl(shift).ok_or_else(wrong)?;
    if bytes.is_power_of_two() && bytes >= 1 << 20 { Ok(bytes) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_after_its_cluster_and_timeline_and_reads_back() {
        let log = log_id(7_345_678_901_234_567_890, TimelineId(26));
        assert_eq!((log.lineage.as_str(), log.timeline.as_str()), ("65F1180AA62B0AD2", "0000001A"));
        assert_eq!(timeline_of(&log), Some(TimelineId(26)));
        assert_eq!(timeline_of(&LogId { timeline: "x".to_owned(), ..log }), None);
    }

    #[test]
    fn the_size_of_a_segment_is_read_as_the_server_says_it() {
        for (text, bytes) in [("16MB", 16 << 20), ("1GB", 1 << 30), ("1MB", 1 << 20)] {
            assert_eq!(bytes_of(text).unwrap(), bytes);
        }
        for wrong in ["16", "", "MB", "3MB", "16kB", "99999999999GB"] {
            assert!(bytes_of(wrong).is_err(), "{wrong}");
        }
    }
}
