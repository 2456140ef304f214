//! Documents: sealed JSON in one frame (`docs/format.md`, section 5). Manifests,
//! tombstones, intents, markers, proofs and findings are documents.

use bytes::Bytes;

use crate::frame::{FrameEntry, FrameOpener, FrameSealer};
use crate::layout::ObjectName;
use crate::seal::{Codec, HEADER_SIZE, ObjectKind, SealError, SealKeys};
use crate::varint::Input;
use crate::{Error, Result};

const PREFIX_SIZE: usize = HEADER_SIZE + 8;
/// The manifest of 100 TiB, with 3 million packs of 32 MiB, is about 150 MiB of JSON.
const RAW_MAX: usize = 256 << 20;
/// No document is larger, so nothing larger is fetched.
pub const DOCUMENT_STORED_MAX: u64 = 128 << 20;
/// Documents are small and read by people in trouble: size matters more than time.
const LEVEL: i32 = 9;

pub fn seal_document(keys: &SealKeys, name: &ObjectName, json: &[u8]) -> Result<Bytes> {
    let broken = |error: SealError| Error::broken(format!("seal {name}: {error}"));
    if json.len() > RAW_MAX {
        return Err(Error::broken(format!("{name} is larger than any document may be")));
    }
    let (header, seal) = keys.begin(ObjectKind::Document, name.as_str()).map_err(broken)?;
    let mut frame = Vec::new();
    let mut sealer = FrameSealer::new(LEVEL, true).map_err(|error| Error::broken(error.to_string()))?;
    let entry = sealer.seal(&seal, 0, json, &mut frame).map_err(broken)?;
    let mut object = Vec::with_capacity(PREFIX_SIZE + frame.len());
    object.extend_from_slice(header.as_bytes());
    object.extend_from_slice(&entry.raw_length.to_le_bytes());
    object.extend_from_slice(&[entry.codec as u8, 0, 0, 0]);
    object.extend_from_slice(&frame);
    Ok(Bytes::from(object))
}

pub fn open_document(keys: &SealKeys, name: &ObjectName, object: &[u8]) -> Result<Vec<u8>> {
    let damaged = |error: SealError| match error {
        SealError::NewerFormat(found) => {
            Error::NewerFormat { found: found.into(), known: crate::seal::FORMAT_VERSION.into() }
        }
        other => Error::damaged(name, other.to_string()),
    };
    let seal = keys.open(ObjectKind::Document, name.as_str(), object).map_err(damaged)?;
    let prefix = object.get(HEADER_SIZE..PREFIX_SIZE).ok_or_else(|| damaged(SealError::Truncated))?;
    let mut input = Input::new(prefix);
    let raw_length = input.array::<4>().map(u32::from_le_bytes).map_err(|_| damaged(SealError::Truncated))?;
    let codec = input.byte().ok().and_then(Codec::from_byte).ok_or_else(|| damaged(SealError::Truncated))?;
    // The three bytes behind are outside the associated data, so they are compared here.
    if raw_length as usize > RAW_MAX || prefix[5..] != [0, 0, 0] {
        return Err(damaged(SealError::Truncated));
    }
    let mut stored = object[PREFIX_SIZE..].to_vec();
    let entry = FrameEntry { stored_length: stored.len() as u32, raw_length, codec };
    let mut opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
    Ok(opener.open(&seal, 0, entry, &mut stored).map_err(damaged)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Cipher;

    #[test]
    fn a_document_opens_under_its_own_name_only_and_notices_every_bit() {
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let keys = crate::seal::tests::keys(cipher);
            let name: ObjectName = "orders/backups/20261121T024300Z-7q3f".parse().unwrap();
            let other: ObjectName = "orders/backups/20261121T024300Z-7q3g".parse().unwrap();
            let json = br#"{"format":1,"text":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;
            let object = seal_document(&keys, &name, json).unwrap();
            assert_eq!(open_document(&keys, &name, &object).unwrap(), json);
            assert!(open_document(&keys, &other, &object).is_err());
            for bit in 0..object.len() * 8 {
                let mut flipped = object.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(open_document(&keys, &name, &flipped).is_err(), "bit {bit}");
            }
            for length in 0..object.len() {
                assert!(open_document(&keys, &name, &object[..length]).is_err(), "cut to {length}");
            }
        }
    }
}
