//! Large writes in pieces.
//!
//! Linux takes what one call writes into blocks of its cache that are as large as the call
//! allows, and has to get large blocks together first. Where memory was given back to a
//! hypervisor that takes far longer than the copy: a segment of 16 MiB at once was written in 29
//! to 45 ms, and in pieces of 128 to 512 KiB in 4 (ext4, Linux 6.18, a virtual machine). Elsewhere
//! nothing is lost, but on a mount with `sync`, where every call waits.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: usize = 256 << 10;

/// All of it from this place of the file on.
///
/// # Errors
///
/// As `write_all_at`: how much was written is not known then.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = offset;
    for piece in bytes.chunks(PIECE) {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// All of it and nothing else, in a new file or in the place of what one holds. What cannot seek,
/// as a pipe, is written to as well.
///
/// # Errors
///
/// As `std::fs::write`.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    bytes.chunks(PIECE).try_for_each(|piece| file.write_all(piece))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_pieces_lie_one_behind_the_other() {
        let bytes: Vec<u8> = (0..2 * PIECE + 77).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        write_all_at(&file, &bytes, 5).unwrap();
        write_all_at(&file, b"", 900).unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert!(found[..5] == [0; 5] && found[5..] == bytes);
    }

    #[test]
    fn a_file_is_replaced_and_a_pipe_is_written_to() {
        let place = tempfile::TempDir::new().unwrap();
        let bytes: Vec<u8> = (0..PIECE + 77).map(|at| (at % 251) as u8).collect();
        let file = place.path().join("file");
        std::fs::write(&file, vec![1; 2 * PIECE]).unwrap();
        write(&file, &bytes).unwrap();
        assert!(std::fs::read(&file).unwrap() == bytes);
        let (mut reading, writing) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writing));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                write(Path::new(&path), &bytes).unwrap();
                drop(writing);
            });
            let mut found = Vec::new();
            reading.read_to_end(&mut found).unwrap();
            assert_eq!(found.len(), PIECE + 77);
        });
    }
}
