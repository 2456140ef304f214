//! A long dump takes no more memory than a short one, packed by every codec, encrypted by
//! every cipher, and on the way back.
//!
//! One test in a process of its own: it looks at the most memory that the process ever had.
//! Dumps of gigabytes are written and read by `cargo xtask bench dump`.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;

use backstay_model::Secret;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_repo::dump::{DumpReader, DumpRecipe, DumpWriter};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfPath};
use bytes::Bytes;

const LONG_BYTES: usize = 300 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// Blocks of two workers raw and packed, the queues between the stages, the tables of the
/// codecs, and what the allocator keeps.
const MOST_KIB: u64 = 64 << 10;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Pieces of 64 KiB that are hardly alike, after a head by which a dump is known.
struct Pieces {
    state: u64,
    left_bytes: usize,
    first: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.left_bytes = self.left_bytes.checked_sub(PIECE_BYTES)?;
        let mut piece = Vec::with_capacity(PIECE_BYTES + 16);
        if std::mem::take(&mut self.first) {
            piece.extend_from_slice(b"PGDMP");
        }
        while piece.len() < PIECE_BYTES {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            piece.extend_from_slice(&(self.state >> 20).to_le_bytes()[..5]);
            piece.extend_from_slice(b"|sent|");
        }
        piece.truncate(PIECE_BYTES);
        Some(piece.into())
    }
}

fn pieces() -> Pieces {
    Pieces { state: 1, left_bytes: LONG_BYTES, first: true }
}

#[test]
fn a_long_dump_takes_no_more_memory_than_a_short_one() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(place.path()));
        let path: ShelfPath = "orders.dump".parse().unwrap();
        let secret = Secret::new("correct horse");
        for (compression, cipher) in [
            (DumpCompression::Zstd, DumpCipher::Openssl),
            (DumpCompression::Gzip, DumpCipher::None),
            (DumpCompression::None, DumpCipher::Openpgp),
        ] {
            let shape = DumpShape { format: DumpFormat::Custom, compression, cipher };
            let recipe = DumpRecipe { shape, level: Some(1), workers: 2 };
            let mut writer = DumpWriter::begin(&*shelf, &path, &recipe, Some(&secret)).await.unwrap();
            for piece in pieces() {
                writer.write(piece).await.unwrap();
            }
            let mut finished = writer.finish().await.unwrap();
            finished.commit().await.unwrap();
            let after_writing = peak_kib();

            let mut reader = DumpReader::open(&shelf, &path, Some(&secret)).await.unwrap();
            let mut expected = pieces();
            let mut ahead = Vec::new();
            while let Some(chunk) = reader.read().await.unwrap() {
                ahead.extend_from_slice(&chunk);
                while ahead.len() >= PIECE_BYTES {
                    assert!(ahead[..PIECE_BYTES] == expected.next().unwrap());
                    ahead.drain(..PIECE_BYTES);
                }
            }
            assert!(ahead.is_empty() && expected.next().is_none());
            assert_eq!(reader.finish().await.unwrap().raw_bytes, LONG_BYTES as u64);
            let peak = peak_kib();
            println!("{compression} {cipher}: {after_writing} KiB written, {peak} KiB read");
            assert!(peak < MOST_KIB, "{compression} {cipher} took {peak} KiB");
            shelf.delete(&path).await.unwrap();
        }
    });
}
