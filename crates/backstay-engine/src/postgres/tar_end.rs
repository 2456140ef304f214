//! The end of a tar archive, which readers of tar do not ask for: one that was cut between
//! two files looks whole to them.

use std::io::{self, Read};

const BLOCK: u64 = 512;

/// Counts, and knows with how many zeros it ended: a tar archive consists of blocks, and the
/// last two are zeros.
pub(crate) struct Ending<R> {
    inner: R,
    bytes: u64,
    zeros: u64,
}

impl<R> Ending<R> {
    pub fn of(inner: R) -> Self {
        Ending { inner, bytes: 0, zeros: 0 }
    }

    /// Once it was read to its end.
    pub fn is_whole(&self) -> bool {
        self.bytes.is_multiple_of(BLOCK) && self.zeros >= 2 * BLOCK
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = &buffer[..count];
        self.bytes += count as u64;
        self.zeros = match read.iter().rposition(|byte| *byte != 0) {
            Some(last) => (count - 1 - last) as u64,
            None => self.zeros + count as u64,
        };
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(bytes: &[u8]) -> bool {
        let mut ending = Ending::of(bytes);
        // In pieces, so that the zeros of several count.
        let mut piece = [0; 300];
        while ending.read(&mut piece).unwrap() > 0 {}
        ending.is_whole()
    }

    #[test]
    fn an_archive_has_its_end_or_was_cut() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        header.set_cksum();
        builder.append(&header, [7u8; 700].as_slice()).unwrap();
        let whole = builder.into_inner().unwrap();
        assert!(is_whole(&whole));
        for length in [whole.len() - 1, whole.len() - 512, whole.len() - 1024, 1024, 0] {
            assert!(!is_whole(&whole[..length]), "{length}");
        }
    }
}
