//! The headers of tar archives, as far as it takes to find files in them.

pub(super) const BLOCK_BYTES: usize = 512;
/// What a header that describes the next one may hold; a person's paths are far below.
pub(super) const EXTRA_MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// What says more of the entry behind it, its size among other things.
    Pax,
    /// A long name of the entry behind it.
    Name,
    /// A directory, a link: without content that anybody would miss.
    Empty,
    /// Content in some other order, such as that of a file with holes.
    Other,
}

/// One entry as its header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub size_bytes: u64,
}

impl Header {
    /// `None` when no number stands where the size should.
    pub fn read(block: &[u8]) -> Option<Header> {
        let size_bytes = number(block.get(124..136)?)?;
        let kind = match block.get(156)? {
            b'0' | 0 | b'7' => Kind::File,
            b'x' | b'g' => Kind::Pax,
            b'L' | b'K' => Kind::Name,
            b'1'..=b'6' => Kind::Empty,
            _ => Kind::Other,
        };
        Some(Header { kind, size_bytes: if kind == Kind::Empty { 0 } else { size_bytes } })
    }

    /// The content with what fills its last block; `None` for a size that nothing has.
    pub fn padded_bytes(self) -> Option<u64> {
        self.size_bytes.checked_next_multiple_of(BLOCK_BYTES as u64)
    }
}

/// Whether the sum in a header is that of its bytes.
pub(super) fn is_sound(block: &[u8]) -> bool {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
        .sum();
    block.get(148..156).and_then(octal) == Some(sum)
}

/// The size that a description in words gives to the entry behind it.
pub(super) fn pax_size(description: &[u8]) -> Option<u64> {
    // `20 size=8589934592`, each on its line, with its own length before it.
    let lines = description.split(|byte| *byte == b'\n');
    // The last one counts.
    lines.rev().find_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        std::str::from_utf8(line.get(at + 1..)?.strip_prefix(b"size=")?).ok()?.parse().ok()
    })
}

/// In digits, or for what is too large for them in bytes behind a mark.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => {
            let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
            let is_small = high.iter().all(|byte| *byte == 0);
            is_small.then(|| low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        }
        _ => octal(field),
    }
}

pub(super) fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_however_it_is_written() {
        let mut block = [0; BLOCK_BYTES];
        block[124..136].copy_from_slice(b"00000000017\0");
        assert_eq!(Header::read(&block), Some(Header { kind: Kind::File, size_bytes: 15 }));
        block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(Header::read(&block).map(|header| header.size_bytes), Some((3 << 32) + 1));
        block[124] = 0xff;
        assert_eq!(Header::read(&block), None);
        assert_eq!(pax_size(b"30 mtime=1732240000.123456789\n20 size=8589934592\n"), Some(8_589_934_592));
        assert_eq!(pax_size(b"12 path=size=7\n"), None);
        assert_eq!(Header { kind: Kind::File, size_bytes: u64::MAX }.padded_bytes(), None);
    }
}
