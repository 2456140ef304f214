//! The header of a page of the log (`XLogPageHeaderData`, `access/xlog_internal.h`).

use backstay_model::Lsn;

pub(super) const HEADER_BYTES: usize = 24;
/// Of the first page of a segment.
pub(super) const LONG_HEADER_BYTES: usize = 40;

const CONTINUES: u16 = 1;
const IS_LONG: u16 = 2;
const OVERWRITES: u16 = 8;

pub(super) struct PageHeader {
    magic: u16,
    info: u16,
    pub address: Lsn,
    /// Bytes of a record that began on an earlier page.
    pub rest_of_record: u32,
    /// The system identifier and the size of a segment.
    pub long: Option<(u64, u64)>,
}

impl PageHeader {
    /// Of at least [`HEADER_BYTES`]; what is missing counts as zero.
    pub fn parse(bytes: &[u8]) -> PageHeader {
        let info = u16::from_le_bytes(field(bytes, 2));
        let long = (info & IS_LONG != 0 && bytes.len() >= LONG_HEADER_BYTES)
            .then(|| (u64::from_le_bytes(field(bytes, 24)), u64::from(u32::from_le_bytes(field(bytes, 32)))));
        PageHeader {
            magic: u16::from_le_bytes(field(bytes, 0)),
            info,
            address: Lsn(u64::from_le_bytes(field(bytes, 8))),
            rest_of_record: u32::from_le_bytes(field(bytes, 16)),
            long,
        }
    }

    /// It is that of the first page of a segment, and longer.
    pub fn is_long(&self) -> bool {
        self.info & IS_LONG != 0
    }

    pub fn is_void(&self) -> bool {
        self.magic == 0 && self.info == 0 && self.address == Lsn(0)
    }

    pub fn continues_a_record(&self) -> bool {
        self.info & CONTINUES != 0
    }

    pub fn overwrites_a_record(&self) -> bool {
        self.info & OVERWRITES != 0
    }
}

pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}
