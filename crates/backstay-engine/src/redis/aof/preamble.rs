//! A snapshot with commands behind it in the same file: where the one ends and the others begin.
//!
//! The format has no length in it, and no sum but the one at the end: the end is the place where
//! the sum of all bytes before it stands, and a command begins behind it. A server that was told
//! to write no sums has zeros there, which other places may have as well: then the beginning of a
//! whole command has to follow.

use crc_fast::{CrcAlgorithm, Digest};
use jiff::Timestamp;

use crate::Result;
use crate::redis::aux_fields::{AuxFields, HEAD_BYTES};
use crate::snapshot::{RdbCheck, RdbFacts};

const END: u8 = 0xFF;
/// With its sum.
const END_BYTES: usize = 9;
/// `*12\r\n$4`, and a little more.
const AHEAD_BYTES: usize = 16;

/// What a snapshot says of itself, and when it was made.
pub(super) type Made = (RdbFacts, Option<Timestamp>);

pub(super) struct Preamble {
    check: RdbCheck,
    head: Vec<u8>,
    /// Of what was taken from `held` already.
    sum: Digest,
    /// What may be the end, and a little behind it.
    held: Vec<u8>,
    /// Bytes of the file that were looked at.
    at: u64,
}

/// The snapshot came to its end.
pub(super) struct Ended {
    pub made: Made,
    /// Where in the file.
    pub at: u64,
    pub behind: Vec<u8>,
}

impl Default for Preamble {
    fn default() -> Self {
        Preamble {
            check: RdbCheck::default(),
            head: Vec::new(),
            sum: Digest::new(CrcAlgorithm::Crc64Redis),
            held: Vec::new(),
            at: 0,
        }
    }
}

impl Preamble {
    /// Until it ends; what stands behind it is handed back.
    pub fn push(&mut self, piece: &[u8]) -> Result<Option<Ended>> {
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        self.held.extend_from_slice(piece);
        let settled = self.held.len().saturating_sub(END_BYTES + AHEAD_BYTES);
        match self.end_before(settled) {
            Some(end) => self.ended(end).map(Some),
            None => {
                self.take(settled);
                Ok(None)
            }
        }
    }

    /// The file ended: with the snapshot, where nothing stands behind it.
    pub fn finish(mut self) -> Result<Ended> {
        let last = self.held.len().saturating_sub(END_BYTES);
        let end = self.end_before(last).unwrap_or(self.held.len());
        self.ended(end)
    }

    /// Of those ends that begin before this place in what is held, the first one.
    fn end_before(&self, limit: usize) -> Option<usize> {
        let (mut sum, mut summed) = (self.sum, 0);
        for at in memchr::memchr_iter(END, self.held.get(..limit)?) {
            let behind = self.held.get(at + END_BYTES..)?;
            if !matches!(behind.first(), Some(b'*' | b'#')) {
                continue;
            }
            let (before, rest) = self.held.split_at(at + 1);
            let written = rest.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))?;
            if written == 0 && begins_a_command(behind) {
                return Some(at + END_BYTES);
            }
            sum.update(before.get(summed..)?);
            summed = at + 1;
            if written != 0 && written == sum.finalize() {
                return Some(at + END_BYTES);
            }
        }
        None
    }

    fn take(&mut self, count: usize) {
        let taken = self.held.get(..count).unwrap_or_default();
        self.check.push(taken);
        self.sum.update(taken);
        self.at += taken.len() as u64;
        self.held.drain(..count);
    }

    fn ended(&mut self, end: usize) -> Result<Ended> {
        self.take(end);
        let facts = std::mem::take(&mut self.check).finish()?;
        let made_at = AuxFields::of(&self.head).made_at();
        Ok(Ended { made: (facts, made_at), at: self.at, behind: std::mem::take(&mut self.held) })
    }
}

/// `*3\r\n$3`, or `#TS:1`.
fn begins_a_command(bytes: &[u8]) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if let Some(second) = bytes.strip_prefix(b"#TS:") {
        return is_digit(second.first());
    }
    let Some(count) = bytes.strip_prefix(b"*") else { return false };
    let digits = count.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let behind = count.get(digits..).and_then(|behind| behind.strip_prefix(b"\r\n$"));
    digits > 0 && behind.is_some_and(|length| is_digit(length.first()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";

    /// With what looks like an end within.
    fn snapshot(has_sum: bool) -> Vec<u8> {
        let mut bytes = b"REDIS0011\xFA\x05ctime\xC2\x00\x00\x00\x40".to_vec();
        for word in [&b"\xFF\xFF\x00\x00\x00\x00\x00\x00\x00\x00*1\r*"[..], &[0xFF; 40], b"*#", COMMAND] {
            bytes.extend_from_slice(word);
        }
        bytes.push(END);
        let mut sum = Digest::new(CrcAlgorithm::Crc64Redis);
        sum.update(&bytes);
        bytes.extend_from_slice(&if has_sum { sum.finalize() } else { 0 }.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(u64, Vec<u8>, bool)> {
        let mut preamble = Preamble::default();
        let mut at = 0;
        for part in bytes.chunks(piece) {
            at += part.len();
            if let Some(ended) = preamble.push(part)? {
                return Ok((ended.at, [&ended.behind, &bytes[at..]].concat(), ended.made.1.is_some()));
            }
        }
        let ended = preamble.finish()?;
        Ok((ended.at, ended.behind, ended.made.1.is_some()))
    }

    #[test]
    fn the_end_is_found_in_pieces_of_any_size_and_with_anything_behind_it() {
        for has_sum in [true, false] {
            let own = snapshot(has_sum);
            for behind in [&b""[..], b"#TS:1795387246\r\n", COMMAND] {
                let bytes = [&own[..], behind].concat();
                for piece in 1..=bytes.len() {
                    let expected = (own.len() as u64, behind.to_vec(), true);
                    assert_eq!(read(&bytes, piece).unwrap(), expected, "{has_sum} {piece} {behind:?}");
                }
            }
        }
        // What is torn in its first command still has the sum before it.
        let torn = [&snapshot(true)[..], b"*"].concat();
        assert_eq!(read(&torn, 7).unwrap().1, b"*");
    }

    #[test]
    fn a_snapshot_that_is_cut_or_changed_has_no_end() {
        let bytes = [&snapshot(true)[..], COMMAND].concat();
        for at in 0..bytes.len() - COMMAND.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            assert!(read(&broken, 64).is_err(), "{at}");
            // Cut there, it could be one that has no sum.
            let seems_whole = bytes[..at].ends_with(b"\xFF\0\0\0\0\0\0\0\0");
            assert_eq!(read(&bytes[..at], 64).is_err(), !seems_whole, "{at}");
        }
    }
}
