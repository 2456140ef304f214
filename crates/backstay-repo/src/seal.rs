//! Sealing: how bytes become unreadable to others and unchangeable by anyone
//! (`docs/format.md`, section 5).
//!
//! Every object draws a random salt and so has a key of its own; therefore the
//! frame's number can be the nonce, and no counter has to survive a crash. The
//! object's name and the repository's id are authenticated with every frame:
//! nothing opens under another name, in another repository or at another place.
//!
//! An unencrypted repository goes through the same code with a public key and a
//! keyed BLAKE3 in the place of the tag, so that damage is noticed all the same.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use backstay_model::RepositoryId;
use zeroize::Zeroize;

pub const HEADER_SIZE: usize = 48;
pub const TAG_SIZE: usize = 16;
pub const FORMAT_VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"BSTY";

/// Why stored bytes do not open. The caller adds which object it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("it does not begin with a Backstay header")]
    NoHeader,
    #[error("its format {0} is newer than this program understands ({FORMAT_VERSION})")]
    NewerFormat(u8),
    #[error("it is of another kind than its name says")]
    WrongKind,
    #[error("it is sealed in another way than the repository says")]
    WrongCipher,
    #[error("key generation {0} is not in the keyring")]
    UnknownGeneration(u32),
    #[error("frame {0} fails authentication: the bytes were changed, moved or cut")]
    Forged(u32),
    #[error("frame {0} does not decompress to the length it was sealed with")]
    WrongLength(u32),
    #[error("it is cut short")]
    Truncated,
    #[error("no random number could be drawn")]
    NoRandom,
}

/// How the frames of a repository are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// Readable by anyone; changes are noticed, forgery is not.
    None,
    Aes256Gcm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    Pack = 1,
    Map = 2,
    Document = 3,
    Log = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Raw = 0,
    Zstd = 1,
}

impl Codec {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// The keys of an open repository, ready to seal and open objects.
#[derive(Clone)]
pub struct SealKeys {
    repository: RepositoryId,
    cipher: Cipher,
    generations: BTreeMap<u32, [u8; 32]>,
    /// `None` for the newest.
    sealing: Option<u32>,
    block_hash: [u8; 32],
    /// Tests make hashes collide by leaving only so many bytes of each.
    #[cfg(test)]
    pub(crate) hash_bytes: usize,
}

impl Drop for SealKeys {
    fn drop(&mut self) {
        self.generations.values_mut().for_each(Zeroize::zeroize);
        self.block_hash.zeroize();
    }
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKeys").field("repository", &self.repository).finish_non_exhaustive()
    }
}

impl SealKeys {
    /// `generations` are the keyring's, `hash_key` its hash key.
    pub fn new(
        repository: RepositoryId,
        cipher: Cipher,
        generations: impl IntoIterator<Item = (u32, [u8; 32])>,
        hash_key: &[u8; 32],
    ) -> Self {
        Self {
            repository,
            cipher,
            generations: generations.into_iter().collect(),
            sealing: None,
            block_hash: blake3::derive_key("backstay 2026-11 block hash", hash_key),
            #[cfg(test)]
            hash_bytes: 16,
        }
    }

    /// New objects are sealed under this generation, and the newer ones only read.
    pub fn with_sealing_generation(mut self, number: u32) -> Self {
        self.sealing = Some(number);
        self
    }

    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The key of block hashes and file digests; the same for all generations, so
    /// that a rotation does not make every block look new.
    pub fn block_hash_key(&self) -> &[u8; 32] {
        &self.block_hash
    }

    /// The hash by which a block is compared and checked.
    pub fn hash_block(&self, block: &[u8]) -> [u8; 16] {
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::keyed_hash(&self.block_hash, block).as_bytes()[..16]);
        #[cfg(test)]
        hash[self.hash_bytes..].fill(0);
        hash
    }

    /// A new object with a fresh salt under the generation that seals.
    pub fn begin(&self, kind: ObjectKind, name: &str) -> Result<(Header, ObjectSeal), SealError> {
        let mut salt = [0u8; 32];
        getrandom::fill(&mut salt).map_err(|_| SealError::NoRandom)?;
        let newest = || self.generations.keys().next_back().copied();
        let generation = self.sealing.or_else(newest).ok_or(SealError::UnknownGeneration(0))?;
        let header = Header::new(kind, self.cipher, generation, &salt);
        let seal = self.seal_of(&header, name)?;
        Ok((header, seal))
    }

    /// The keys of a stored object, from its header and the name it was read under.
    pub fn open(&self, kind: ObjectKind, name: &str, header: &[u8]) -> Result<ObjectSeal, SealError> {
        let header = Header::parse(header)?;
        if header.0[5] != kind as u8 {
            return Err(SealError::WrongKind);
        }
        if header.0[6] != cipher_byte(self.cipher) {
            return Err(SealError::WrongCipher);
        }
        self.seal_of(&header, name)
    }

    fn seal_of(&self, header: &Header, name: &str) -> Result<ObjectSeal, SealError> {
        let generation = header.generation();
        let master = self.generations.get(&generation).ok_or(SealError::UnknownGeneration(generation))?;
        let mut material = [0u8; 64];
        material[..32].copy_from_slice(master);
        material[32..].copy_from_slice(&header.0[16..48]);
        let mut key = blake3::derive_key("backstay 2026-11 object key", &material);
        material.zeroize();
        let key_of_frames = match self.cipher {
            Cipher::None => FrameKey::Checksum(key),
            Cipher::Aes256Gcm => {
                let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::NoRandom)?;
                FrameKey::Gcm(Box::new(LessSafeKey::new(unbound)))
            }
        };
        key.zeroize();
        let mut associated = Vec::with_capacity(HEADER_SIZE + 16 + 2 + name.len() + 9);
        associated.extend_from_slice(&header.0);
        associated.extend_from_slice(self.repository.as_bytes());
        associated.extend_from_slice(&(name.len() as u16).to_le_bytes());
        associated.extend_from_slice(name.as_bytes());
        Ok(ObjectSeal { key: key_of_frames, associated })
    }
}

fn cipher_byte(cipher: Cipher) -> u8 {
    match cipher {
        Cipher::None => 0,
        Cipher::Aes256Gcm => 1,
    }
}

/// The first 48 bytes of every object.
#[derive(Clone)]
pub struct Header([u8; HEADER_SIZE]);

impl Header {
    fn new(kind: ObjectKind, cipher: Cipher, generation: u32, salt: &[u8; 32]) -> Self {
        let mut bytes = [0u8; HEADER_SIZE];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = FORMAT_VERSION;
        bytes[5] = kind as u8;
        bytes[6] = cipher_byte(cipher);
        bytes[8..12].copy_from_slice(&generation.to_le_bytes());
        bytes[16..48].copy_from_slice(salt);
        Self(bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let bytes: [u8; HEADER_SIZE] =
            bytes.get(..HEADER_SIZE).and_then(|b| b.try_into().ok()).ok_or(SealError::Truncated)?;
        if &bytes[..4] != MAGIC {
            return Err(SealError::NoHeader);
        }
        if bytes[4] > FORMAT_VERSION {
            return Err(SealError::NewerFormat(bytes[4]));
        }
        Ok(Self(bytes))
    }

    fn generation(&self) -> u32 {
        u32::from_le_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    pub fn as_bytes(&self) -> &[u8; HEADER_SIZE] {
        &self.0
    }
}

enum FrameKey {
    Checksum([u8; 32]),
    Gcm(Box<LessSafeKey>),
}

/// Seals and opens the frames of one object. Cheap to use from several threads.
pub struct ObjectSeal {
    key: FrameKey,
    associated: Vec<u8>,
}

impl ObjectSeal {
    fn associated(&self, frame: u32, raw_length: u32, codec: Codec) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.associated.len() + 9);
        data.extend_from_slice(&self.associated);
        data.extend_from_slice(&frame.to_le_bytes());
        data.extend_from_slice(&raw_length.to_le_bytes());
        data.push(codec as u8);
        data
    }

    /// Seals `bytes[from..]` in place and appends the tag.
    pub fn seal(
        &self,
        frame: u32,
        raw_length: u32,
        codec: Codec,
        bytes: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        let associated = self.associated(frame, raw_length, codec);
        match &self.key {
            FrameKey::Gcm(key) => {
                let tag = key
                    .seal_in_place_separate_tag(nonce(frame), Aad::from(&associated), &mut bytes[from..])
                    .map_err(|_| SealError::Forged(frame))?;
                bytes.extend_from_slice(tag.as_ref());
            }
            FrameKey::Checksum(key) => {
                let tag = checksum(key, &associated, &bytes[from..]);
                bytes.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Opens stored bytes (tag at the end) in place; what is returned is still compressed.
    pub fn open<'a>(
        &self,
        frame: u32,
        raw_length: u32,
        codec: Codec,
        stored: &'a mut [u8],
    ) -> Result<&'a [u8], SealError> {
        if stored.len() < TAG_SIZE {
            return Err(SealError::Truncated);
        }
        let associated = self.associated(frame, raw_length, codec);
        match &self.key {
            FrameKey::Gcm(key) => key
                .open_in_place(nonce(frame), Aad::from(&associated), stored)
                .map(|plain| &*plain)
                .map_err(|_| SealError::Forged(frame)),
            FrameKey::Checksum(key) => {
                let (bytes, tag) = stored.split_at(stored.len() - TAG_SIZE);
                if checksum(key, &associated, bytes) == tag {
                    Ok(bytes)
                } else {
                    Err(SealError::Forged(frame))
                }
            }
        }
    }
}

fn nonce(frame: u32) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[..4].copy_from_slice(&frame.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn checksum(key: &[u8; 32], associated: &[u8], bytes: &[u8]) -> [u8; TAG_SIZE] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(associated).update(bytes);
    let mut tag = [0u8; TAG_SIZE];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_SIZE]);
    tag
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn keys(cipher: Cipher) -> SealKeys {
        SealKeys::new(RepositoryId::from_bytes([7; 16]), cipher, [(1, [1; 32])], &[2; 32])
    }

    #[test]
    fn a_frame_opens_only_as_what_it_was_sealed() {
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let keys = keys(cipher);
            let (header, seal) = keys.begin(ObjectKind::Pack, "a/packs/x-0").unwrap();
            let mut stored = b"some bytes".to_vec();
            seal.seal(3, 10, Codec::Raw, &mut stored, 0).unwrap();

            let again = keys.open(ObjectKind::Pack, "a/packs/x-0", header.as_bytes()).unwrap();
            assert_eq!(again.open(3, 10, Codec::Raw, &mut stored.clone()).unwrap(), b"some bytes");
            assert!(again.open(4, 10, Codec::Raw, &mut stored.clone()).is_err(), "another frame");
            assert!(again.open(3, 11, Codec::Raw, &mut stored.clone()).is_err(), "another length");
            assert!(again.open(3, 10, Codec::Zstd, &mut stored.clone()).is_err(), "another codec");
            let renamed = keys.open(ObjectKind::Pack, "a/packs/x-1", header.as_bytes()).unwrap();
            assert!(renamed.open(3, 10, Codec::Raw, &mut stored.clone()).is_err(), "another name");
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(again.open(3, 10, Codec::Raw, &mut flipped).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_bit_of_the_header_counts() {
        let keys = keys(Cipher::Aes256Gcm);
        let (header, seal) = keys.begin(ObjectKind::Document, "a/backups/x").unwrap();
        let mut stored = b"{}".to_vec();
        seal.seal(0, 2, Codec::Raw, &mut stored, 0).unwrap();
        for bit in 0..HEADER_SIZE * 8 {
            let mut bytes = *header.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = keys
                .open(ObjectKind::Document, "a/backups/x", &bytes)
                .and_then(|seal| seal.open(0, 2, Codec::Raw, &mut stored.clone()).map(<[u8]>::to_vec));
            assert!(opened.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_and_another_repository_is_refused() {
        let keys = keys(Cipher::Aes256Gcm);
        let (header, _) = keys.begin(ObjectKind::Map, "m").unwrap();
        let mut bytes = *header.as_bytes();
        bytes[4] = 2;
        assert_eq!(keys.open(ObjectKind::Map, "m", &bytes).err(), Some(SealError::NewerFormat(2)));
        let plain = self::keys(Cipher::None);
        assert_eq!(plain.open(ObjectKind::Map, "m", header.as_bytes()).err(), Some(SealError::WrongCipher));
    }
}
