//! Records at which a recovery can be told to stop: ends of transactions and restore
//! points (`access/xact.h`, `access/xlog_internal.h`).

use backstay_model::{LogMark, LogMarkKind, Lsn};
use jiff::Timestamp;

use super::RECORD_HEADER_BYTES;
use super::page::field;

const RMGR_XLOG: u8 = 0;
const RMGR_XACT: u8 = 1;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
const XACT_OPERATIONS: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
/// The upper half of the info byte is the resource manager's.
const INFO_MASK: u8 = 0xf0;
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
/// Whether the record says, beside its time, what else happened.
const XACT_HAS_INFO: u8 = 0x80;

fn manager(record: &[u8]) -> (u8, u8) {
    (record.get(17).copied().unwrap_or(u8::MAX), record.get(16).copied().unwrap_or_default())
}

/// Where the record before it began.
pub(super) fn previous(record: &[u8]) -> u64 {
    u64::from_le_bytes(field(record, 8))
}

/// After it, the rest of the segment is padding.
pub(super) fn is_switch(record: &[u8]) -> bool {
    let (manager, info) = manager(record);
    manager == RMGR_XLOG && info & INFO_MASK == XLOG_SWITCH
}

/// `record` may be cut where nothing that is looked at can be.
pub(super) fn of_record(record: &[u8], at: Lsn) -> Option<LogMark> {
    let xid = u32::from_le_bytes(field(record, 4));
    let kind = match manager(record) {
        (RMGR_XLOG, info) if info & INFO_MASK == XLOG_RESTORE_POINT => {
            let name = main_data(record)?.get(8..)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            LogMarkKind::Point { name: String::from_utf8_lossy(name).into_owned() }
        }
        (RMGR_XACT, info) => match info & XACT_OPERATIONS {
            XACT_COMMIT => LogMarkKind::Commit { transaction: xid.into() },
            XACT_ABORT => LogMarkKind::Abort { transaction: xid.into() },
            XACT_COMMIT_PREPARED => {
                LogMarkKind::Commit { transaction: prepared(record, info).unwrap_or(xid).into() }
            }
            XACT_ABORT_PREPARED => {
                LogMarkKind::Abort { transaction: prepared(record, info).unwrap_or(xid).into() }
            }
            _ => return None,
        },
        _ => return None,
    };
    let time = i64::from_le_bytes(*main_data(record)?.first_chunk()?);
    let time = Timestamp::from_microsecond(time.checked_add(POSTGRES_EPOCH_MICROSECONDS)?).ok()?;
    Some(LogMark { at: at.0, time, kind })
}

/// What the record's own manager wrote: behind the headers of its parts. None of these
/// records has pages.
fn main_data(record: &[u8]) -> Option<&[u8]> {
    const SHORT: u8 = 255;
    const LONG: u8 = 254;
    const ORIGIN: u8 = 253;
    const TOP_XID: u8 = 252;
    let mut at = RECORD_HEADER_BYTES;
    loop {
        match *record.get(at)? {
            SHORT => return record.get(at + 2..),
            LONG => return record.get(at + 5..),
            ORIGIN => at += 3,
            TOP_XID => at += 5,
            _ => return None,
        }
    }
}

/// The transaction that was prepared under another one's number, which the record of its
/// end is written under. Behind lists of subtransactions, files and messages, of which a
/// prepared one may have any number: only found where these are short.
fn prepared(record: &[u8], info: u8) -> Option<u32> {
    const HAS_DATABASE: u32 = 1;
    const HAS_SUBTRANSACTIONS: u32 = 2;
    const HAS_FILES: u32 = 4;
    const HAS_MESSAGES: u32 = 8;
    const HAS_PREPARED: u32 = 16;
    const HAS_DROPPED_STATISTICS: u32 = 256;
    if info & XACT_HAS_INFO == 0 {
        return None;
    }
    let data = main_data(record)?;
    let what = u32::from_le_bytes(*data.get(8..)?.first_chunk()?);
    if what & HAS_PREPARED == 0 || what & (HAS_FILES | HAS_MESSAGES | HAS_DROPPED_STATISTICS) != 0 {
        return None;
    }
    let mut at = 12;
    if what & HAS_DATABASE != 0 {
        at += 8;
    }
    if what & HAS_SUBTRANSACTIONS != 0 {
        let count = u32::from_le_bytes(*data.get(at..)?.first_chunk()?);
        at += 4 + 4 * usize::try_from(count).ok()?;
    }
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}
