//! The one dump in a tar archive.
//!
//! Invariant: the end comes only when the archive was read to its own. Refuses an archive
//! in which something lies beside the dump that somebody could miss: a second dump, or
//! files of some size. It would be kept, and go, with a dump that knows nothing of it.

use std::io::{self, Read};

use super::peeked::Peeked;
use super::source::Source;
use crate::dump::content::tar::{Member, dump_in, is_dump, may_be_missed};
use crate::dump::tar::{BLOCK_BYTES, EXTRA_MAX_BYTES, Header, Kind, is_sound, pax_size};

/// Notes, sums and the lines of a log.
const OTHERS_MAX_BYTES: u64 = 1 << 20;
/// So much of a file says whether it is a dump.
const LOOK_BYTES: u64 = 64 << 10;

pub(super) struct OnlyDump<R> {
    archive: R,
    source: Source,
    left_bytes: u64,
    padding_bytes: u64,
    others_bytes: u64,
    is_over: bool,
}

impl<R: Read> OnlyDump<Peeked<R>> {
    /// `None` where the head shows no dump.
    pub fn begin(mut archive: Peeked<R>, source: Source) -> Option<io::Result<Self>> {
        let Member { at, size_bytes, before_bytes } = dump_in(archive.head())?;
        let padding_bytes = size_bytes.checked_next_multiple_of(BLOCK_BYTES as u64)? - size_bytes;
        Some(skip(&mut archive, at as u64).map(|()| Self {
            archive,
            source,
            left_bytes: size_bytes,
            padding_bytes,
            others_bytes: before_bytes,
            is_over: false,
        }))
    }
}

impl<R: Read> OnlyDump<R> {
    /// What lies behind the dump, to the end of the archive.
    fn end(&mut self) -> io::Result<()> {
        skip(&mut self.archive, self.padding_bytes)?;
        let mut block = [0; BLOCK_BYTES];
        let mut described = None;
        loop {
            self.archive.read_exact(&mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                // The second of the two that end it, and what fills the last record: zeros. Anything
                // else is an archive behind this one, or a header that was lost.
                return match only_zeros(&mut self.archive)? {
                    Some(count) if count >= BLOCK_BYTES as u64 => Ok(()),
                    Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    None => {
                        self.source.several("something behind its end");
                        Err(io::Error::other("it goes on behind its end"))
                    }
                };
            }
            let header = Header::read(&block).filter(|_| is_sound(&block));
            let mut header = header.ok_or_else(|| io::Error::other("a header in it has another sum"))?;
            if header.kind == Kind::Pax && header.size_bytes <= EXTRA_MAX_BYTES {
                let mut text = Vec::new();
                (&mut self.archive).take(header.size_bytes).read_to_end(&mut text)?;
                described = pax_size(&text).or(described);
                let read = text.len() as u64;
                skip(&mut self.archive, header.padded_bytes().unwrap_or(read).saturating_sub(read))?;
                continue;
            }
            if matches!(header.kind, Kind::File | Kind::Other) {
                header.size_bytes = described.take().unwrap_or(header.size_bytes);
                self.others_bytes = self.others_bytes.saturating_add(header.size_bytes);
            }
            let content = header.padded_bytes().ok_or_else(|| io::Error::other("a size in it is none"))?;
            let mut begin = Vec::new();
            (&mut self.archive).take(content.min(LOOK_BYTES)).read_to_end(&mut begin)?;
            let is_file = header.kind == Kind::File;
            let is_second = is_file && is_dump(&begin);
            if is_second || (is_file && may_be_missed(&begin)) || self.others_bytes > OTHERS_MAX_BYTES {
                self.source.several(if is_second { "several dumps" } else { "other files beside a dump" });
                return Err(io::Error::other("it holds more than a dump"));
            }
            skip(&mut self.archive, content - begin.len() as u64)?;
        }
    }
}

impl<R: Read> Read for OnlyDump<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left_bytes > 0 && !buffer.is_empty() {
            let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.archive.read(&mut buffer[..most])?;
            self.left_bytes -= count as u64;
            return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) };
        }
        if self.left_bytes == 0 && !self.is_over {
            self.end()?;
            self.is_over = true;
        }
        Ok(0)
    }
}

/// How many there are to the end; `None` where anything else lies there.
fn only_zeros(archive: &mut impl Read) -> io::Result<Option<u64>> {
    let (mut block, mut all) = ([0; 8 * BLOCK_BYTES], 0);
    loop {
        match archive.read(&mut block) {
            Ok(0) => return Ok(Some(all)),
            Ok(count) if block[..count].iter().any(|byte| *byte != 0) => return Ok(None),
            Ok(count) => all += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut archive.take(bytes), &mut io::sink())? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
