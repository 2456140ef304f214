//! Extents whose bytes are already here, and the second look at a page.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use backstay_model::Fault;
use backstay_model::Finding;
use backstay_model::parts::ExtentReader;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;

use super::buffers::Buffers;
use crate::Result;
use crate::postgres::connect::{Session, column};
use crate::postgres::facts::Tablespace;
use crate::postgres::outcome::Outcome;
use crate::postgres::page::PageCheck;
use crate::postgres::tablespaces;

/// Pages that are read a second time. A torn page is rare; a disk that gives
/// thousands of wrong pages needs no second look at each.
const SECOND_LOOKS: u32 = 1000;

/// What all extents of a backup share.
pub(super) struct Pages {
    pub check: PageCheck,
    pub second_look: SecondLook,
    pub buffers: Arc<Buffers>,
}

/// Reads a page again through an ordinary session, which a role may do that has
/// been granted the function.
pub(super) struct SecondLook {
    pub session: Session,
    pub runtime: Handle,
    pub outcome: Outcome,
    pub taken: AtomicU32,
}

impl SecondLook {
    /// What the server has by now.
    pub(super) fn tablespaces(&self) -> Result<Vec<Tablespace>> {
        self.runtime.block_on(tablespaces::list(&self.session))
    }

    fn read(&self, path: &str, offset: u64, page: &mut [u8]) -> io::Result<usize> {
        let looks = self.taken.fetch_add(1, Ordering::Relaxed);
        if looks >= SECOND_LOOKS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (offset, length) = (offset as i64, page.len() as i64);
        let parameters: [&(dyn ToSql + Sync); 3] = [&path, &offset, &length];
        let statement = "SELECT pg_read_binary_file($1, $2, $3, true)";
        let read = self.session.row("read a page again", statement, &parameters);
        let row = self.runtime.block_on(read).map_err(|error| {
            if looks == 0 {
                self.outcome.find(Finding::warning(
                    "page checksums",
                    format!("a page could not be read a second time, so that a wrong one may only have been in the middle of a write: {error}"),
                    "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) to the role of the backup",
                ));
            }
            io::Error::other(error)
        })?;
        // NULL: the file is gone, and with it the page.
        let bytes: Option<&[u8]> = column(&row, 0).map_err(io::Error::other)?;
        let bytes = bytes.unwrap_or_default();
        let length = bytes.len().min(page.len());
        page[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }
}

/// An extent that was received.
pub(super) struct ReceivedExtent {
    pub path: Arc<str>,
    pub offset: u64,
    pub bytes: Vec<u8>,
    pub pages: Arc<Pages>,
}

impl ExtentReader for ReceivedExtent {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let Self { path, offset, bytes, pages } = *self;
        pages.check.check(&path, offset, &bytes, |at, page| pages.second_look.read(&path, at, page));
        pages.buffers.give(std::mem::replace(buffer, bytes));
        Ok(())
    }
}

/// An extent of blocks that neither the server nor the parent has.
pub(super) struct ZeroExtent {
    pub length: u32,
}

impl ExtentReader for ZeroExtent {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.resize(self.length as usize, 0);
        Ok(())
    }
}
