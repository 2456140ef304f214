//! One slot: the keyring wrapped under one secret, as one stored object.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use backstay_model::RepositoryId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Key, KeyKind, KeySecret, Keyring, random};
use crate::layout::ObjectName;
use crate::{Error, Result};

const SLOT_FORMAT: u32 = 1;
/// 64 MiB and three passes: a quarter of a second here, and too much memory for
/// a guessing machine to hold many at once.
const MEMORY_KIB: u32 = 64 << 10;
const ITERATIONS: u32 = 3;
const PARALLELISM: u32 = 1;
/// The most a stored slot may ask of us: whoever can write to the store must not
/// be able to stop the program by the parameters of a slot.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const ITERATIONS_MAX: u32 = 64;
const PARALLELISM_MAX: u32 = 16;

/// The parameters of Argon2id, stored with the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfParameters {
    pub(super) salt: String,
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

/// A slot object, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotDocument {
    format: u32,
    pub slot: String,
    pub kind: KeyKind,
    pub created: Timestamp,
    kdf: Option<KdfParameters>,
    nonce: String,
    wrapped: String,
}

fn associated_data(repository: RepositoryId, slot: &str) -> Vec<u8> {
    [&b"backstay keyring"[..], repository.as_bytes(), slot.as_bytes()].concat()
}

impl SlotDocument {
    pub fn parse(name: &ObjectName, bytes: &[u8]) -> Result<Self> {
        let parsed: serde_json::Result<Self> = serde_json::from_slice(bytes);
        let document = parsed.map_err(|error| Error::damaged(name, error.to_string()))?;
        if document.format > SLOT_FORMAT {
            return Err(Error::NewerFormat { found: document.format, known: SLOT_FORMAT });
        }
        let named = name.file_name().rsplit_once('-').map(|(slot, _)| slot);
        if named != Some(document.slot.as_str()) {
            return Err(Error::damaged(name, "it is the slot of another name"));
        }
        Ok(document)
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::broken(error.to_string()))
    }

    /// Wraps the keyring. Blocks for the time of the key derivation.
    pub fn wrap(
        ring: &Keyring,
        repository: RepositoryId,
        slot: &str,
        secret: &KeySecret,
        created: Timestamp,
    ) -> Result<Self> {
        let kdf = match secret.kind() {
            KeyKind::KeyFile => None,
            KeyKind::Passphrase => Some(KdfParameters {
                salt: BASE64.encode(random::<16>()?),
                memory_kib: MEMORY_KIB,
                iterations: ITERATIONS,
                parallelism: PARALLELISM,
            }),
        };
        let key = wrapping_key(secret, kdf.as_ref()).map_err(Error::broken)?;
        let nonce: [u8; 12] = random()?;
        let mut wrapped = ring.to_json()?;
        let sealing = gcm(&key)?;
        sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(repository, slot)),
                &mut *wrapped,
            )
            .map_err(|_| Error::broken("AES-256-GCM seals any short text"))?;
        Ok(Self {
            format: SLOT_FORMAT,
            slot: slot.to_owned(),
            kind: secret.kind(),
            created,
            kdf,
            nonce: BASE64.encode(nonce),
            wrapped: BASE64.encode(&*wrapped),
        })
    }

    /// The keyring, or `None` when the secret is not this slot's (or the slot was
    /// changed, which cannot be told apart). Blocks like [`wrap`](Self::wrap).
    pub fn unwrap(
        &self,
        name: &ObjectName,
        repository: RepositoryId,
        secret: &KeySecret,
    ) -> Result<Option<Keyring>> {
        if secret.kind() != self.kind {
            return Ok(None);
        }
        let damaged = |reason: &str| Error::damaged(name, reason);
        let key = wrapping_key(secret, self.kdf.as_ref()).map_err(|reason| damaged(&reason))?;
        let nonce = BASE64.decode(&self.nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce: [u8; 12] = nonce.ok_or_else(|| damaged("its nonce is not 12 bytes in base64"))?;
        let wrapped = BASE64.decode(&self.wrapped).map_err(|_| damaged("its keyring is not base64"))?;
        let mut wrapped = Zeroizing::new(wrapped);
        let opened = gcm(&key)?.open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data(repository, &self.slot)),
            &mut wrapped,
        );
        let Ok(json) = opened else { return Ok(None) };
        Keyring::from_json(json).map(Some).ok_or_else(|| damaged("its keyring is not understood"))
    }
}

fn gcm(key: &Key) -> Result<LessSafeKey> {
    let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::broken("a key has 32 bytes"))?;
    Ok(LessSafeKey::new(unbound))
}

fn wrapping_key(secret: &KeySecret, kdf: Option<&KdfParameters>) -> Result<Zeroizing<Key>, String> {
    match (secret, kdf) {
        (KeySecret::KeyFile(key), None) => {
            Ok(Zeroizing::new(blake3::derive_key("backstay 2026-11 key file", &**key)))
        }
        (KeySecret::Passphrase(phrase), Some(kdf)) => {
            if kdf.memory_kib > MEMORY_KIB_MAX
                || kdf.iterations > ITERATIONS_MAX
                || kdf.parallelism > PARALLELISM_MAX
            {
                return Err("its key derivation asks for more memory or time than any slot needs".into());
            }
            let salt = BASE64.decode(&kdf.salt).map_err(|_| "its salt is not base64".to_owned())?;
            let params = Params::new(kdf.memory_kib, kdf.iterations, kdf.parallelism, Some(32))
                .map_err(|error| format!("its key derivation is not possible: {error}"))?;
            let mut key = Zeroizing::new([0; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(phrase.reveal().as_bytes(), &salt, &mut *key)
                .map_err(|error| format!("its key derivation is not possible: {error}"))?;
            Ok(key)
        }
        _ => Err("its key derivation is not that of its kind".into()),
    }
}
