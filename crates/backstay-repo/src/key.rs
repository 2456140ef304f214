//! The keyring: what seals and names everything in a repository, and the slots
//! in which it is kept (`docs/format.md`, section 3).
//!
//! The keyring is random and never leaves memory but wrapped; what a person holds
//! is a key file or a pass phrase that opens a slot. So a secret can be added,
//! removed or changed without touching a byte of data. A new generation of the key
//! is used from the next pack on, once every slot holds it: what is sealed can be
//! opened with every secret at every moment.
//!
//! Refuses: to print a key; to remove the last slot; to rotate a slot out by
//! having forgotten it; to seal with a key that some slot does not hold.

use std::fmt;

use backstay_model::RepositoryId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::seal::{Cipher, SealKeys};
use crate::{Error, Result};

mod secret;
mod slot;
mod slots;

pub use secret::{KEY_FILE_PREFIX, KeyKind, KeySecret, create_key_file, read_key_file};
pub use slot::KdfParameters;
pub use slots::{NewSlot, Rotation, SlotInfo, Slots};

pub type Key = [u8; 32];

/// One key of the keyring.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Generation {
    pub number: u32,
    pub key: Key,
}

/// All keys of one repository.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Keyring {
    generations: Vec<Generation>,
    /// The number of the one that new objects are sealed under: the newest that
    /// every slot holds. Not stored; those who open the keyring look.
    sealing: u32,
    hash_key: Key,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// How the keyring is written before it is wrapped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct KeyringText {
    generations: Vec<GenerationText>,
    hash_key: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct GenerationText {
    number: u32,
    key: String,
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes)
}

fn key_from_base64(text: &str) -> Option<Key> {
    let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
    bytes.as_slice().try_into().ok()
}

impl Keyring {
    pub fn generate() -> Result<Self> {
        let first = Generation { number: 1, key: random()? };
        Ok(Self { generations: vec![first], sealing: 1, hash_key: random()? })
    }

    /// The public keyring of a repository without encryption: it makes damage
    /// visible and keeps nothing secret.
    pub fn unencrypted(repository: RepositoryId) -> Self {
        let key = blake3::derive_key("backstay 2026-11 unencrypted keyring", repository.as_bytes());
        let hash_key = blake3::derive_key("backstay 2026-11 unencrypted hash key", repository.as_bytes());
        Self { generations: vec![Generation { number: 1, key }], sealing: 1, hash_key }
    }

    /// In ascending order of their numbers, never empty.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The number of the generation that new objects are sealed under.
    pub fn sealing_generation(&self) -> u32 {
        self.sealing
    }

    /// The same keyring that seals with its generation at `held`, counted from 1:
    /// so many generations does every slot hold.
    fn sealing_with(mut self, held: usize) -> Self {
        let position = held.clamp(1, self.generations.len()) - 1;
        self.sealing = self.generations[position].number;
        self
    }

    pub fn hash_key(&self) -> &Key {
        &self.hash_key
    }

    /// The key that authenticates `backstay.json`.
    pub fn description_key(&self) -> Key {
        blake3::derive_key("backstay 2026-11 description mac", &self.hash_key)
    }

    pub fn seal_keys(&self, repository: RepositoryId, cipher: Cipher) -> SealKeys {
        let generations = self.generations.iter().map(|generation| (generation.number, generation.key));
        SealKeys::new(repository, cipher, generations, &self.hash_key).with_sealing_generation(self.sealing)
    }

    /// The same keyring with one more generation.
    fn rotated(&self) -> Result<Self> {
        let mut next = self.clone();
        let number = next.generations.last().map_or(0, |last| last.number) + 1;
        next.generations.push(Generation { number, key: random()? });
        next.sealing = number;
        Ok(next)
    }

    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>> {
        let generations = self.generations.iter().map(|generation| GenerationText {
            number: generation.number,
            key: BASE64.encode(generation.key),
        });
        let text = KeyringText { generations: generations.collect(), hash_key: BASE64.encode(self.hash_key) };
        let json = serde_json::to_vec(&text).map_err(|error| Error::broken(error.to_string()))?;
        Ok(Zeroizing::new(json))
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        let text: KeyringText = serde_json::from_slice(json).ok()?;
        let mut generations = Vec::with_capacity(text.generations.len());
        for generation in &text.generations {
            generations
                .push(Generation { number: generation.number, key: key_from_base64(&generation.key)? });
        }
        let ascending = generations.windows(2).all(|pair| pair[0].number < pair[1].number);
        let hash_key = key_from_base64(&text.hash_key)?;
        let sealing = generations.last()?.number;
        ascending.then_some(Self { generations, sealing, hash_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_does_not_print_and_reads_back() {
        let ring = Keyring::generate().unwrap().rotated().unwrap();
        assert_eq!(format!("{ring:?} {:?}", ring.generations()[0]), "**** ****");
        let read = Keyring::from_json(&ring.to_json().unwrap()).unwrap();
        assert!(read == ring);
        assert_eq!(read.generations().iter().map(|g| g.number).collect::<Vec<_>>(), [1, 2]);
        assert!(Keyring::from_json(b"{\"generations\":[],\"hash_key\":\"\"}").is_none());
    }

    #[test]
    fn a_rotation_keeps_the_hash_key_so_that_blocks_stay_the_same() {
        let ring = Keyring::generate().unwrap();
        let next = ring.rotated().unwrap();
        assert_eq!(ring.hash_key(), next.hash_key());
        assert_eq!(ring.description_key(), next.description_key());
        assert!(ring.generations()[0] == next.generations()[0]);
    }
}
