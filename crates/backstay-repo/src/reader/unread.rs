//! Blocks of a file that need no reading: zeros, and what was read earlier in the same
//! run of a verification. They count towards the checksum of their file like the rest.

use backstay_model::Progress;

use super::outlet::Outlet;
use crate::Result;
use crate::crc::join;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    Zeros,
    /// With the CRC-32C of the block.
    Proven(u32),
}

/// Such blocks one behind the other, told to the outlet as one stretch.
pub struct UnreadRun<'a> {
    outlet: &'a Outlet,
    progress: &'a Progress,
    stretch: Option<Stretch>,
}

struct Stretch {
    from: u64,
    until: u64,
    last: Unread,
}

impl<'a> UnreadRun<'a> {
    pub fn new(outlet: &'a Outlet, progress: &'a Progress) -> Self {
        Self { outlet, progress, stretch: None }
    }

    /// The block of `length` bytes at `offset`; they ascend.
    pub fn add(&mut self, offset: u64, length: u32, block: Unread) -> Result<()> {
        let until = offset + u64::from(length);
        if let Some(stretch) = &mut self.stretch
            && stretch.until == offset
        {
            let joined = match (stretch.last, block) {
                (Unread::Zeros, Unread::Zeros) => Some(Unread::Zeros),
                (Unread::Proven(before), Unread::Proven(crc)) => {
                    let wants = self.outlet.wants_crc();
                    Some(Unread::Proven(if wants { join(before, crc, length.into()) } else { 0 }))
                }
                _ => None,
            };
            if let Some(last) = joined {
                (stretch.until, stretch.last) = (until, last);
                return Ok(());
            }
        }
        self.end()?;
        self.stretch = Some(Stretch { from: offset, until, last: block });
        Ok(())
    }

    pub fn end(&mut self) -> Result<()> {
        let Some(Stretch { from, until, last }) = self.stretch.take() else { return Ok(()) };
        let length = until - from;
        match last {
            Unread::Zeros => self.outlet.put_zeros(from, length)?,
            Unread::Proven(crc) => self.outlet.account(from, length, crc)?,
        }
        self.progress.done(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::parts::{FileShape, FileSpec, ParentFile, PartKind};

    use super::*;
    use crate::crc::crc32c;

    fn outlet(content: &[u8], crc32c: u32) -> Outlet {
        let shape = FileShape { size: content.len() as u64, block_size: 512 };
        let (path, kind) = ("base/1/1".to_owned(), PartKind::File(shape));
        let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
        Outlet::new(ParentFile { spec, crc32c: Some(crc32c) }, shape, None)
    }

    /// Proven blocks, zeros, a block that was read, and a short one at the end.
    fn run(content: &[u8], expected: u32) -> Result<()> {
        let (outlet, progress) = (outlet(content, expected), Progress::default());
        let mut run = UnreadRun::new(&outlet, &progress);
        for (number, block) in content.chunks(512).enumerate() {
            let (offset, length) = (number as u64 * 512, block.len() as u32);
            match number {
                3 => outlet.account(offset, u64::from(length), crc32c(block))?,
                _ if block.iter().all(|byte| *byte == 0) => {
                    run.add(offset, length, Unread::Zeros)?;
                }
                _ => run.add(offset, length, Unread::Proven(crc32c(block)))?,
            }
        }
        run.end()
    }

    #[test]
    fn the_checksum_of_a_file_is_compared_also_when_its_blocks_were_read_before() {
        let mut content: Vec<u8> = (0..20 * 512 + 100).map(|n| ((n * n) >> 5) as u8 | 1).collect();
        content[512 * 7..512 * 9].fill(0);
        run(&content, crc32c(&content)).unwrap();
        let error = run(&content, crc32c(&content) ^ 1).unwrap_err();
        assert!(error.to_string().contains("base/1/1"), "{error}");
    }
}
