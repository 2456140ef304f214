//! What the tests put into dumps, and the ways to and from a shelf.

use std::sync::Arc;

use backstay_model::Secret;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_repo::dump::{DumpInside, DumpLayer, DumpRead, DumpReader, DumpRecipe, DumpWriter, DumpWritten};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfPath};
use bytes::Bytes;
use tempfile::TempDir;

pub const PASSPHRASE: &str = "correct horse, Zündhölzer & \"staple\"";

pub fn passphrase() -> Secret {
    Secret::new(PASSPHRASE)
}

/// A plain dump of some length that packs about as well as real ones.
pub fn sql(bytes: usize) -> Vec<u8> {
    let mut text =
        b"--\n-- PostgreSQL database dump\n--\n\nCOPY public.orders (id, state, sum) FROM stdin;\n".to_vec();
    let mut state = 7u64;
    while text.len() < bytes {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let word = ["open", "paid", "sent", "returned"][(state >> 60) as usize % 4];
        text.extend_from_slice(format!("{}\t{word}\t{}\n", text.len(), state >> 40).as_bytes());
    }
    text.truncate(bytes);
    text
}

/// The beginning of a custom archive, and bytes that do not pack.
pub fn archive(bytes: usize) -> Vec<u8> {
    let mut archive = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
    let mut state = 11u64;
    while archive.len() < bytes {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        archive.extend_from_slice(&(state >> 16).to_le_bytes()[..6]);
    }
    archive.truncate(bytes);
    archive
}

pub struct Place {
    pub directory: TempDir,
    pub shelf: Arc<dyn Shelf>,
}

pub fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(directory.path()));
    Place { directory, shelf }
}

pub fn path(text: &str) -> ShelfPath {
    text.parse().unwrap()
}

pub fn recipe(format: DumpFormat, compression: DumpCompression, cipher: DumpCipher) -> DumpRecipe {
    DumpRecipe { shape: DumpShape { format, compression, cipher }, level: None, workers: 2 }
}

/// Writes a dump in pieces of an odd size, and its authentication beside it.
pub async fn write(place: &Place, name: &str, recipe: &DumpRecipe, raw: &[u8]) -> DumpWritten {
    let secret = passphrase();
    let secret = (recipe.shape.cipher != DumpCipher::None).then_some(&secret);
    let mut writer = DumpWriter::begin(&*place.shelf, &path(name), recipe, secret).await.unwrap();
    for piece in raw.chunks(70_001) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let mut finished = writer.finish().await.unwrap();
    assert!(!place.directory.path().join(name).exists(), "it has a name before its commit");
    let written = finished.commit().await.unwrap().clone();
    if let Some(line) = &written.hmac {
        place.shelf.put_if_absent(&path(&format!("{name}.hmac")), line.clone()).await.unwrap();
    }
    written
}

#[derive(Debug)]
pub struct Opened {
    pub layers: Vec<DumpLayer>,
    pub inside: DumpInside,
    pub raw: Vec<u8>,
    pub read: DumpRead,
}

pub async fn read_with(
    place: &Place,
    name: &str,
    secret: Option<&Secret>,
) -> Result<Opened, backstay_repo::Error> {
    let mut reader = DumpReader::open(&place.shelf, &path(name), secret).await?;
    let (layers, inside) = (reader.layers().to_vec(), reader.inside());
    let mut raw = Vec::new();
    while let Some(chunk) = reader.read().await? {
        raw.extend_from_slice(&chunk);
    }
    Ok(Opened { layers, inside, raw, read: reader.finish().await? })
}

pub async fn read(place: &Place, name: &str) -> Result<Opened, backstay_repo::Error> {
    read_with(place, name, Some(&passphrase())).await
}
