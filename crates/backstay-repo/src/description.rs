//! `backstay.json`: what this place is (`docs/format.md`, section 4).
//!
//! It is readable without a key, so that a program which is too old, or a person
//! without the key, gets a sentence and not a riddle; it is authenticated, so that
//! nobody turns encryption off by editing it.
//!
//! Refuses: a newer format and requirements it does not know, before it looks at
//! anything else.

use backstay_model::RepositoryId;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::Keyring;
use crate::layout;
use crate::seal::Cipher;
use crate::store::{Store, StoreError};
use crate::{Error, Result};

/// The newest format that this program reads, and the one that it writes.
pub const FORMAT: u32 = 1;
/// Additions without which a repository must not be read or written.
const KNOWN_REQUIREMENTS: [&str; 0] = [];
/// Raw bytes of a frame, the unit of compression and encryption.
pub const FRAME_SIZE: u32 = 128 << 10;
/// Bytes after which a pack is closed.
pub const PACK_SIZE: u32 = 32 << 20;
/// It is a few hundred bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;
const MAC: &str = "mac";

/// What the probe of `init` found the store able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFacts {
    /// Of several that create one name, one wins and the others learn it. Without
    /// it only one process may write, and dead sessions cannot be told apart.
    pub create_if_absent: bool,
    pub read_after_write: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub format: u32,
    pub repository: RepositoryId,
    pub created: Timestamp,
    #[serde(with = "cipher_text")]
    pub cipher: Cipher,
    pub frame_size: u32,
    pub pack_size: u32,
    pub requires: Vec<String>,
    pub store: StoreFacts,
}

mod cipher_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::seal::Cipher;

    pub fn serialize<S: Serializer>(cipher: &Cipher, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match cipher {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::None => "none",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cipher, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "aes-256-gcm" => Ok(Cipher::Aes256Gcm),
            "none" => Ok(Cipher::None),
            other => Err(de::Error::custom(format!("cipher {other:?} is not known"))),
        }
    }
}

/// A description that was read, and not yet authenticated: who it is and how it
/// is sealed decide which key must be asked for.
#[derive(Debug)]
pub struct Unauthenticated {
    description: Description,
    json: Value,
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::damaged(&layout::description(), reason)
}

/// The bytes that the mac covers: `serde_json` keeps the keys of its maps sorted.
fn mac_of(json: &Value, ring: &Keyring) -> Result<blake3::Hash> {
    let mut covered = json.clone();
    if let Some(object) = covered.as_object_mut() {
        object.remove(MAC);
    }
    let text = serde_json::to_string(&covered).map_err(|error| damaged(error.to_string()))?;
    if !text.is_ascii() {
        return Err(damaged("it holds characters that are not ASCII"));
    }
    Ok(blake3::keyed_hash(&ring.description_key(), text.as_bytes()))
}

impl Description {
    /// As it is stored, with its mac.
    pub fn to_bytes(&self, ring: &Keyring) -> Result<Bytes> {
        let broken = |error: serde_json::Error| Error::broken(error.to_string());
        let mut json = serde_json::to_value(self).map_err(broken)?;
        let mac = mac_of(&json, ring)?.to_hex();
        if let Some(object) = json.as_object_mut() {
            object.insert(MAC.to_owned(), Value::from(mac.as_str()));
        }
        Ok(serde_json::to_vec_pretty(&json).map_err(broken)?.into())
    }

    /// Reads it from the store. `NoRepository` only when the store says that it is
    /// not there: a store that cannot be read is never an empty one.
    pub async fn read(store: &dyn Store) -> Result<Unauthenticated> {
        match store.get(&layout::description(), DESCRIPTION_BYTES_MAX).await {
            Ok(bytes) => Self::parse(&bytes),
            Err(StoreError::NotFound { .. }) => {
                Err(Error::NoRepository { location: store.location().to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Unauthenticated> {
        let json: Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let found = json.get("format").and_then(Value::as_u64).ok_or_else(|| damaged("it has no format"))?;
        if found > u64::from(FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Error::NewerFormat { found, known: FORMAT });
        }
        let unknown: Vec<String> = json
            .get("requires")
            .and_then(Value::as_array)
            .ok_or_else(|| damaged("it does not say what it requires"))?
            .iter()
            .filter(|entry| !entry.as_str().is_some_and(|text| KNOWN_REQUIREMENTS.contains(&text)))
            .map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned))
            .collect();
        if !unknown.is_empty() {
            return Err(Error::UnknownRequirement { requirements: unknown });
        }
        let description = serde_json::from_value(json.clone()).map_err(|error| damaged(error.to_string()))?;
        Ok(Unauthenticated { description, json })
    }
}

impl Unauthenticated {
    /// What it claims: good enough to choose the key, and for an error text.
    pub fn claimed(&self) -> &Description {
        &self.description
    }

    pub fn authenticate(self, ring: &Keyring) -> Result<Description> {
        let stored = self.json.get(MAC).and_then(Value::as_str).unwrap_or_default();
        let stored = blake3::Hash::from_hex(stored).map_err(|_| damaged("it has no mac"))?;
        // The comparison of hashes takes the same time wherever they differ.
        if stored != mac_of(&self.json, ring)? {
            return Err(damaged("it was changed, or it is of another repository than the key"));
        }
        Ok(self.description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(cipher: Cipher) -> Description {
        Description {
            format: FORMAT,
            repository: RepositoryId::from_bytes([9; 16]),
            created: "2026-11-21T02:43:00Z".parse().unwrap(),
            cipher,
            frame_size: FRAME_SIZE,
            pack_size: PACK_SIZE,
            requires: Vec::new(),
            store: StoreFacts { create_if_absent: true, read_after_write: true },
        }
    }

    #[test]
    fn it_reads_back_with_its_key_and_with_no_other() {
        let ring = Keyring::generate().unwrap();
        let bytes = description(Cipher::Aes256Gcm).to_bytes(&ring).unwrap();
        let read = Description::parse(&bytes).unwrap().authenticate(&ring).unwrap();
        assert_eq!(read, description(Cipher::Aes256Gcm));
        let other = Keyring::generate().unwrap();
        assert!(Description::parse(&bytes).unwrap().authenticate(&other).is_err());
    }

    #[test]
    fn no_changed_word_passes() {
        let ring = Keyring::generate().unwrap();
        let text =
            String::from_utf8(description(Cipher::Aes256Gcm).to_bytes(&ring).unwrap().to_vec()).unwrap();
        for (from, to) in [
            ("aes-256-gcm", "none"),
            ("0909", "0908"),
            ("131072", "131073"),
            ("true", "false"),
            ("2026", "2025"),
        ] {
            assert!(text.contains(from));
            let changed = text.replacen(from, to, 1);
            let outcome = Description::parse(changed.as_bytes()).and_then(|read| read.authenticate(&ring));
            assert!(matches!(outcome, Err(Error::Damaged { .. })), "{from} to {to}: {outcome:?}");
        }
        let added = text.replacen('{', "{\"more\": 1,", 1);
        assert!(Description::parse(added.as_bytes()).unwrap().authenticate(&ring).is_err());
    }

    #[test]
    fn a_newer_format_and_unknown_requirements_are_named_before_all_else() {
        let newer = Description::parse(br#"{"format": 7, "all": "else is unknown"}"#);
        assert!(matches!(newer, Err(Error::NewerFormat { found: 7, known: 1 })), "{newer:?}");
        let unknown = Description::parse(br#"{"format": 1, "requires": ["chunk-trees"], "x": 2}"#);
        assert!(matches!(&unknown, Err(Error::UnknownRequirement { requirements })
            if requirements == &["chunk-trees"]));
        for text in ["", "[]", "{}", "{\"format\": -1}", "{\"format\": 1}", "{\"format\": \"1\"}"] {
            assert!(matches!(Description::parse(text.as_bytes()), Err(Error::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn the_stored_text_is_frozen() {
        let ring = Keyring::unencrypted(RepositoryId::from_bytes([9; 16]));
        let bytes = description(Cipher::None).to_bytes(&ring).unwrap();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json[MAC], FROZEN_MAC);
    }

    /// As a second JSON and BLAKE3 implementation computes it; changes only with the format.
    const FROZEN_MAC: &str = "b1f215f56f39b155bba4ceea07646af764359cde8ddae5550de8062c346cbd4f";
}
