//! Extents whose bytes are already here.

use std::sync::Arc;

use backstay_model::Fault;
use backstay_model::parts::ExtentReader;

use super::buffers::Buffers;
use super::second_look::SecondLook;
use crate::postgres::page::PageCheck;

/// What all extents of a backup share.
pub(super) struct Pages {
    pub check: PageCheck,
    pub second_look: SecondLook,
    pub buffers: Arc<Buffers>,
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
