//! Where a recovery has come to, in the server's own words. It keeps them when it opens.

use backstay_model::{Lsn, TimelineId};
use jiff::Timestamp;

use super::connect::column;
use super::facts::lsn;
use super::scratch::{FIRST_DATABASE, Scratch};
use crate::Result;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedPoint {
    /// Behind the last record that was replayed.
    pub replayed: Option<Lsn>,
    /// When the last transaction that was replayed had ended.
    pub last_transaction: Option<Timestamp>,
    /// The server waits at its target.
    pub is_paused: bool,
    /// On which it is now; not known while it recovers.
    pub timeline: Option<TimelineId>,
}

/// Asks a scratch server that has recovered.
pub async fn reached(scratch: &Scratch) -> Result<ReachedPoint> {
    let session = scratch.session(FIRST_DATABASE).await?;
    let row = session
        .row(
            "ask where the recovery has come to",
            "SELECT pg_last_wal_replay_lsn()::text, \
                    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::int8, \
                    pg_is_in_recovery(), \
                    CASE WHEN pg_is_in_recovery() THEN NULL \
                         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END",
            &[],
        )
        .await?;
    let replayed: Option<String> = column(&row, 0)?;
    let microseconds: Option<i64> = column(&row, 1)?;
    let timeline: Option<i32> = column(&row, 3)?;
    Ok(ReachedPoint {
        replayed: replayed.as_deref().map(lsn).transpose()?,
        last_transaction: microseconds.and_then(|time| Timestamp::from_microsecond(time).ok()),
        is_paused: column(&row, 2)?,
        timeline: timeline.map(|timeline| TimelineId(timeline as u32)),
    })
}
