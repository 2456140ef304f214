//! A receiver of the log: a replication connection with a slot that holds the log for it.
//!
//! Responsible for what a server says of itself before its log is believed: which cluster
//! it is, on which timeline, in segments of which size, and where the slot holds the log.
//!
//! Refuses a slot that is of another kind, and to drop one that nobody told it to drop.

use std::time::{Duration, Instant};

use backstay_model::{LogId, Lsn, TimelineId};
use jiff::Timestamp;

use super::connect::{Session, column};
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
    /// What the server has written since, and holds on its own disk.
    pub held_bytes: Option<u64>,
}

impl SlotFacts {
    /// The server has let go of log that was held for it.
    pub fn is_lost(&self) -> bool {
        self.status.as_deref() == Some("lost")
    }

    /// What of it is not durable with the receiver either: a server that was not told yet holds
    /// more than it will in a moment.
    pub fn held_behind(&self, durable: Lsn) -> Option<u64> {
        let told = self.restart.map_or(0, |restart| durable.0.saturating_sub(restart.0));
        self.held_bytes.map(|held| held.saturating_sub(told))
    }
}

/// Whether commits wait for a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitedFor {
    pub is_so: bool,
    /// `synchronous_standby_names` of the server.
    pub names: String,
}

/// For a server that would wait for a silent receiver for ever.
const PATIENCE: Duration = Duration::from_secs(60);
async fn slot_facts(session: &Session, name: &str) -> Result<Option<SlotFacts>> {
    const ACTION: &str = "look at the replication slot";
    let asked = "SELECT slot_type, restart_lsn::text, active, wal_status, safe_wal_size, \
                        pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
                                             THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
                                             ELSE pg_current_wal_lsn() END, restart_lsn)::bigint \
                 FROM pg_replication_slots WHERE slot_name = $1";
    let rows = session.query(ACTION, asked, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let kind: String = column(row, 0)?;
    if kind != "physical" {
        return Err(Error::SlotKind { slot: name.to_owned(), kind });
    }
    let restart: Option<String> = column(row, 1)?;
    let restart = restart.map(|text| text.parse()).transpose();
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    Ok(Some(SlotFacts {
        restart: restart.map_err(|error| Error::Protocol { reason: format!("{error}") })?,
        is_active: column(row, 2)?,
        status: column(row, 3)?,
        safe_bytes: column::<Option<i64>>(row, 4)?.map(bytes),
        held_bytes: column::<Option<i64>>(row, 5)?.map(bytes),
    }))
}

/// Looks at a slot again and again, beside the connection that receives through it.
pub struct SlotWatch {
    address: Address,
    session: Option<Session>,
}

impl SlotWatch {
    pub fn new(settings: &PostgresSettings) -> Result<SlotWatch> {
        Ok(SlotWatch { address: settings.address()?, session: None })
    }

    /// `None` when there is no slot of that name.
    pub async fn look(&mut self, name: &str) -> Result<Option<SlotFacts>> {
        let session = match self.session.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => Session::open(&self.address).await?,
        };
        let facts = slot_facts(&session, name).await?;
        self.session = Some(session);
        Ok(facts)
    }
}

/// How long a connection that was closed may hold its slot.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
const RELEASE_LOOK: Duration = Duration::from_millis(50);

/// Drops a slot, so that the server lets go of what it holds for it. Success as well when
/// there is none. Whoever receives through it has closed the connection before.
///
/// # Errors
///
/// [`Error::SlotInUse`] when somebody else does.
pub async fn drop_slot(settings: &PostgresSettings, name: &str) -> Result<()> {
    const ACTION: &str = "drop the replication slot";
    const OBJECT_IN_USE: &str = "55006";
    const UNDEFINED_OBJECT: &str = "42704";
    let session = Session::open(&settings.address()?).await?;
    let begun = Instant::now();
    loop {
        let dropped = session.query(ACTION, "SELECT pg_drop_replication_slot($1)", &[&name]).await;
        let error = match dropped {
            Ok(_) => return Ok(()),
            Err(Error::Server { source, .. }) if source.code == UNDEFINED_OBJECT => return Ok(()),
            Err(Error::Server { source, .. }) if source.code == OBJECT_IN_USE => {
                Error::SlotInUse { slot: name.to_owned(), source: Box::new(source) }
            }
            Err(error) => return Err(error),
        };
        if begun.elapsed() >= RELEASE_LIMIT {
            return Err(error);
        }
        tokio::time::sleep(RELEASE_LOOK).await;
    }
}

pub struct LogReceiver {
    walsender: Walsender,
    address: Address,
    identity: SystemIdentity,
    segment_bytes: u64,
    /// So long may the server be silent: as long as it would bear that of a receiver.
    patience: Duration,
    heard: Instant,
    stream: Option<LogStream>,
}

impl LogReceiver {
    pub async fn connect(settings: &PostgresSettings) -> Result<LogReceiver> {
        let address = settings.address()?;
        let mut walsender = Walsender::connect(&address).await?;
        let identity = walsender.identify_system().await?;
        let segment_bytes = bytes_of(&walsender.show("wal_segment_size").await?)?;
        let patience = match duration_of(&walsender.show("wal_sender_timeout").await?)? {
            Duration::ZERO => PATIENCE,
            limited => limited,
        };
        let heard = Instant::now();
        Ok(LogReceiver { walsender, address, identity, segment_bytes, patience, heard, stream: None })
    }

    pub fn identity(&self) -> &SystemIdentity {
        &self.identity
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// So long may the server be silent while it streams; so long it bears a receiver's silence.
    pub fn patience(&self) -> Duration {
        self.patience
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
        slot_facts(&Session::open(&self.address).await?, name).await
    }

    /// Asks, over a connection of its own, whether commits of the server wait for whoever has
    /// the slot; `None` where nobody has it, or the role may not know.
    pub fn waited_for(&self, slot: &str) -> impl Future<Output = Result<Option<WaitedFor>>> + Send + 'static {
        const ACTION: &str = "look whether commits wait for the archive";
        let (address, slot) = (self.address.clone(), slot.to_owned());
        async move {
            let session = Session::open(&address).await?;
            // What counts is what the server makes of its setting, for this connection.
            let asked = "SELECT walsender.sync_state, current_setting('synchronous_standby_names') \
                         FROM pg_replication_slots slot JOIN pg_stat_replication walsender \
                         ON walsender.pid = slot.active_pid WHERE slot.slot_name = $1";
            let rows = session.query(ACTION, asked, &[&slot]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let strange = |error: tokio_postgres::Error| Error::sql(ACTION, error);
            let state: Option<String> = row.try_get(0).map_err(strange)?;
            let names: String = row.try_get(1).map_err(strange)?;
            // Without names nobody is waited for, whatever the role may see.
            let state = state.or_else(|| names.is_empty().then(|| "async".to_owned()));
            Ok(state.map(|state| WaitedFor { is_so: state != "async", names }))
        }
    }

    /// A slot that holds the log from the last checkpoint on.
    pub async fn create_slot(&mut self, name: &str) -> Result<()> {
        self.walsender.create_slot(name).await
    }

    /// A slot that holds nothing until something is received through it.
    pub async fn create_empty_slot(&mut self, name: &str) -> Result<()> {
        self.walsender.create_empty_slot(name).await
    }

    pub async fn history(&mut self, timeline: TimelineId) -> Result<TimelineHistory> {
        self.walsender.timeline_history(timeline).await
    }

    /// Begins, or begins again after the end of a timeline.
    pub async fn begin(&mut self, slot: &str, from: Lsn, timeline: TimelineId) -> Result<()> {
        self.stream = Some(self.walsender.start_log(Some(slot), from, timeline).await?);
        self.heard = Instant::now();
        Ok(())
    }

    /// The next event; `None` when there is none within `wait`. Dropped half-way, it loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the server did not even answer reports: a machine that is gone
    /// does not end its connections.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<StreamEvent>> {
        let Some(stream) = &mut self.stream else { return Err(not_begun()) };
        let event = stream.next(&mut self.walsender, wait).await?;
        if event.is_some() {
            self.heard = Instant::now();
        } else if self.heard.elapsed() >= self.patience {
            return Err(Error::Timeout { action: "receive the log", seconds: self.patience.as_secs() });
        }
        Ok(event)
    }

    /// Behind the last byte that came, and how far the server has written.
    pub fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.stream.as_ref().map(|stream| (stream.received(), stream.server_end()))
    }

    /// Says what was written and what is durable. After half of its patience it asks for an
    /// answer, so whoever reports several times in that time does not give up a server that is
    /// merely idle.
    pub async fn report(&mut self, written: Lsn, flushed: Lsn, time: Timestamp) -> Result<()> {
        let wants_answer = self.heard.elapsed() >= self.patience / 2;
        let report = StandbyReport { written, flushed, time, wants_answer };
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

/// `1min`, as `SHOW` says it.
fn duration_of(text: &str) -> Result<Duration> {
    let wrong = || Error::Protocol { reason: format!("{text:?} is no time") };
    let units = [("ms", 1), ("min", 60_000), ("s", 1000), ("h", 3_600_000), ("d", 86_400_000), ("", 1)];
    let (digits, milliseconds) = units
        .iter()
        .find_map(|(unit, milliseconds)| text.strip_suffix(unit).map(|digits| (digits, *milliseconds)))
        .ok_or_else(wrong)?;
    let count = digits.trim().parse::<u64>().map_err(|_| wrong())?;
    count.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_here_is_not_held_for_long() {
        let slot = SlotFacts {
            restart: Some(Lsn(0x100)),
            is_active: true,
            status: None,
            safe_bytes: None,
            held_bytes: Some(0x30),
        };
        for (durable, held) in [(0, 0x30), (0x100, 0x30), (0x110, 0x20), (0x130, 0), (0x200, 0)] {
            assert_eq!(slot.held_behind(Lsn(durable)), Some(held), "{durable:x}");
        }
        let of_nothing = SlotFacts { restart: None, held_bytes: None, ..slot };
        assert_eq!(of_nothing.held_behind(Lsn(1)), None);
    }

    #[test]
    fn a_time_is_read_as_the_server_says_it() {
        for (text, milliseconds) in [
            ("1min", 60_000),
            ("5s", 5000),
            ("2500ms", 2500),
            ("0", 0),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration_of(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for wrong in ["", "s", "1 year", "99999999999999999d"] {
            assert!(duration_of(wrong).is_err(), "{wrong}");
        }
    }

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
