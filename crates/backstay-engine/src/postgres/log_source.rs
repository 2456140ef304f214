//! Where a server is with its log, and what it holds of it for whoever receives it.
//!
//! Only asked, never changed: a status must be free to look at a server that suffers.

use backstay_model::{Lsn, TimelineId};

use super::connect::{Session, column};
use crate::{Error, Result};

const ACTION: &str = "look at the log of the server";

/// What a server says of its log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSource {
    pub timeline: TimelineId,
    /// Written so far; on a standby, replayed so far.
    pub position: Lsn,
    /// `None` when there is no slot of that name.
    pub slot: Option<HeldLog>,
    /// So much is held for slots at most; `None` for without end.
    pub keep_limit_bytes: Option<u64>,
    /// Its `archive_command` gives the log to this program.
    pub pushes: bool,
    /// The last segment that it wanted to give away was not taken.
    pub push_fails: bool,
    pub segment_bytes: u64,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLog {
    /// Somebody receives through it.
    pub is_active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub status: Option<String>,
    /// From where the slot holds the log to where the server is; `None` where it holds nothing.
    pub retained_bytes: Option<u64>,
}

/// Asks for the log, and for what is held by the slot of that name.
pub async fn look(session: &Session, slot: &str) -> Result<LogSource> {
    // What `archive_command` calls is known by its words alone.
    let asked = "SELECT (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') \
                              ELSE pg_current_wal_lsn() END)::text, \
                        CASE WHEN pg_is_in_recovery() THEN NULL \
                             ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END, \
                        greatest(c.timeline_id, r.min_recovery_end_timeline), \
                        (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), \
                        current_setting('archive_mode') <> 'off' \
                            AND current_setting('archive_command') LIKE '%wal push%', \
                        coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false), \
                        (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') \
                 FROM pg_control_checkpoint() c, pg_control_recovery() r, pg_stat_archiver a";
    let row = session.row(ACTION, asked, &[]).await?;
    let position: Lsn = parsed(&column::<String>(&row, 0)?)?;
    let of_segment: Option<String> = column(&row, 1)?;
    let timeline = match of_segment {
        Some(digits) => u32::from_str_radix(&digits, 16)
            .map_err(|_| Error::Protocol { reason: format!("{digits:?} is no timeline") })?,
        None => column::<i32>(&row, 2)? as u32,
    };
    let keep_mebibytes: Option<i64> = column(&row, 3)?;
    let asked = "SELECT active, wal_status, restart_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    let rows = session.query(ACTION, asked, &[&slot]).await?;
    let slot = match rows.first() {
        None => None,
        Some(row) => {
            let restart: Option<String> = column(row, 2)?;
            let restart: Option<Lsn> = restart.as_deref().map(parsed).transpose()?;
            Some(HeldLog {
                is_active: column(row, 0)?,
                status: column(row, 1)?,
                retained_bytes: restart.map(|restart| position.0.saturating_sub(restart.0)),
            })
        }
    };
    Ok(LogSource {
        timeline: TimelineId(timeline),
        position,
        slot,
        keep_limit_bytes: keep_mebibytes.and_then(|size| u64::try_from(size).ok()).map(|size| size << 20),
        pushes: column(&row, 4)?,
        push_fails: column(&row, 5)?,
        segment_bytes: column::<i64>(&row, 6)?.unsigned_abs(),
    })
}

fn parsed(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error| Error::Protocol { reason: format!("{error}") })
}
