//! Reads tar entries out of a stream that is cut at arbitrary places.
//!
//! What a server sends is ustar with base-256 sizes; long names and links of GNU
//! tar are understood too. Content is handed on as slices of what came in.
//!
//! Refuses what would make it guess: a header whose sum is wrong, an extended
//! header (pax) that could give the next entry another name or size.

use bytes::{Buf, Bytes};

use crate::{Error, Result};

const BLOCK: usize = 512;

/// Longest name or link target that an extra header may carry.
const LONG_NAME_MAX: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// The type letter of something else, which has no place in a backup.
    Other(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// As many bytes of content follow.
    pub size: u64,
    pub mode: u32,
    pub user_id: u32,
    pub group_id: u32,
    pub modified: i64,
}

#[derive(Debug)]
pub(super) enum Event {
    Entry(Entry),
    /// The next bytes of the entry that came last; never empty.
    Content(Bytes),
}

#[derive(Default)]
pub(super) struct TarReader {
    header: Vec<u8>,
    /// Bytes of the present entry still to come, and of its padding.
    content_left: u64,
    padding_left: u64,
    /// The present entry carries the name or the link target of the next one.
    extra: Option<Extra>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

struct Extra {
    is_link: bool,
    text: Vec<u8>,
}

impl TarReader {
    /// Takes from `input` until there is something to tell or it is empty.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>> {
        while !input.is_empty() {
            if self.content_left > 0 {
                let take = input.len().min(usize::try_from(self.content_left).unwrap_or(usize::MAX));
                let content = input.split_to(take);
                self.content_left -= take as u64;
                match &mut self.extra {
                    None => return Ok(Some(Event::Content(content))),
                    Some(extra) => extra.text.extend_from_slice(&content),
                }
                if self.content_left == 0 {
                    self.finish_extra();
                }
            } else if self.padding_left > 0 {
                let take = (input.len() as u64).min(self.padding_left);
                input.advance(take as usize);
                self.padding_left -= take;
            } else {
                let take = input.len().min(BLOCK - self.header.len());
                self.header.extend_from_slice(&input[..take]);
                input.advance(take);
                if self.header.len() == BLOCK {
                    let header = std::mem::take(&mut self.header);
                    if let Some(entry) = self.begin(&header)? {
                        return Ok(Some(Event::Entry(entry)));
                    }
                    self.header = header;
                    self.header.clear();
                }
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here: not inside of an entry or a header.
    pub(super) fn is_between_entries(&self) -> bool {
        self.content_left == 0 && self.padding_left == 0 && self.header.is_empty() && self.extra.is_none()
    }

    fn begin(&mut self, header: &[u8]) -> Result<Option<Entry>> {
        // The end of an archive is marked with blocks of zeros; older servers leave them out.
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if number(&header[148..156])? != header_sum(header) {
            return Err(malformed("the sum of a header is wrong"));
        }
        let size = number(&header[124..136])?;
        let kind = match header[156] {
            b'0' | b'7' | 0 => EntryKind::File,
            b'5' => EntryKind::Directory,
            b'2' => {
                EntryKind::Symlink(self.long_link.take().unwrap_or_else(|| text(&header[157..257]).to_vec()))
            }
            letter @ (b'L' | b'K') => {
                if size > LONG_NAME_MAX {
                    return Err(malformed("a name is too long"));
                }
                self.expect(size);
                self.extra = Some(Extra { is_link: letter == b'K', text: Vec::new() });
                return Ok(None);
            }
            b'x' | b'g' => return Err(malformed("an extended header, which no server sends")),
            letter => EntryKind::Other(letter),
        };
        // Only files and unknown things have content, whatever the size field says.
        let size = if matches!(kind, EntryKind::Directory | EntryKind::Symlink(_)) { 0 } else { size };
        self.expect(size);
        self.long_link = None;
        Ok(Some(Entry {
            path: self.long_path.take().unwrap_or_else(|| short_path(header)),
            kind,
            size,
            mode: number(&header[100..108])? as u32 & 0o7777,
            user_id: number(&header[108..116])? as u32,
            group_id: number(&header[116..124])? as u32,
            modified: number(&header[136..148])? as i64,
        }))
    }

    fn expect(&mut self, size: u64) {
        self.content_left = size;
        self.padding_left = size.wrapping_neg() % BLOCK as u64;
    }

    fn finish_extra(&mut self) {
        if let Some(extra) = self.extra.take() {
            let name = Some(text(&extra.text).to_vec());
            *(if extra.is_link { &mut self.long_link } else { &mut self.long_path }) = name;
        }
    }
}

/// The name, with the prefix that ustar splits off behind 100 bytes.
fn short_path(header: &[u8]) -> Vec<u8> {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    // GNU tar ("ustar  ") keeps times where ustar keeps the prefix.
    if &header[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// The bytes before the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal, or in base 256 when the highest bit of its field is set.
fn number(field: &[u8]) -> Result<u64> {
    let (first, rest) = field.split_first().ok_or_else(|| malformed("a number is missing"))?;
    if first & 0x80 != 0 {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            if value >> 56 != 0 {
                return Err(malformed("a number is too large"));
            }
            Ok(value << 8 | u64::from(*byte))
        });
    }
    let mut digits = field.iter().copied().skip_while(|b| *b == b' ').take_while(|b| *b != b' ' && *b != 0);
    digits.try_fold(0, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | u64::from(digit - b'0')),
        _ => Err(malformed("a number is not octal")),
    })
}

/// The sum of all bytes, with the field of the sum itself as blanks.
fn header_sum(header: &[u8]) -> u64 {
    let blanks = 8 * u64::from(b' ');
    let of = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    of(&header[..148]) + blanks + of(&header[156..])
}

fn malformed(reason: &str) -> Error {
    Error::Protocol { reason: format!("the tar stream of the backup: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut entry = |path: &str, kind, link: Option<&str>, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_uid(70);
            header.set_gid(71);
            header.set_mtime(1_700_000_000);
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            match link {
                Some(link) => builder.append_link(&mut header, path, link).unwrap(),
                None => builder.append_data(&mut header, path, content).unwrap(),
            }
        };
        entry("base", tar::EntryType::Directory, None, b"");
        entry("base/1", tar::EntryType::Regular, None, &[7; 1000]);
        entry(&format!("base/{}", "n".repeat(150)), tar::EntryType::Regular, None, b"");
        entry("pg_wal", tar::EntryType::Symlink, Some(&"/w".repeat(90)), b"");
        entry("exact", tar::EntryType::Regular, None, &[9; 512]);
        builder.into_inner().unwrap()
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> Vec<(Entry, Vec<u8>)> {
        let mut reader = TarReader::default();
        let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
        for chunk in bytes.chunks(piece) {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(event) = reader.next(&mut input).unwrap() {
                match event {
                    Event::Entry(entry) => entries.push((entry, Vec::new())),
                    Event::Content(content) => entries.last_mut().unwrap().1.extend_from_slice(&content),
                }
            }
        }
        assert!(reader.is_between_entries());
        entries
    }

    #[test]
    fn entries_come_out_the_same_however_the_stream_is_cut() {
        let archive = archive();
        let whole = read_in_pieces(&archive, archive.len());
        for piece in [1, 7, 511, 512, 513, 4096] {
            assert_eq!(read_in_pieces(&archive, piece), whole, "pieces of {piece}");
        }
        let names: Vec<_> = whole.iter().map(|(entry, _)| entry.path.len()).collect();
        assert_eq!(names, [4, 6, 155, 6, 5]);
        assert_eq!(whole[1].1, vec![7; 1000]);
        assert_eq!(whole[3].0.kind, EntryKind::Symlink("/w".repeat(90).into_bytes()));
        assert_eq!((whole[1].0.mode, whole[1].0.user_id, whole[1].0.group_id), (0o600, 70, 71));
        assert_eq!(whole[4].1.len(), 512);
    }

    #[test]
    fn a_size_beyond_eight_gibibytes_is_read() {
        let mut header = tar::Header::new_ustar();
        header.set_path("large").unwrap();
        header.set_size(9 << 30);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut reader = TarReader::default();
        match reader.next(&mut Bytes::copy_from_slice(header.as_bytes())).unwrap() {
            Some(Event::Entry(entry)) => assert_eq!(entry.size, 9 << 30),
            other => panic!("{other:?}"),
        }
        assert!(!reader.is_between_entries());
    }

    #[test]
    fn a_header_with_a_flipped_bit_is_refused() {
        let mut archive = archive();
        archive[3] ^= 1;
        assert!(TarReader::default().next(&mut Bytes::from(archive)).is_err());
    }
}
