//! The format of `openssl enc -aes-256-cbc -pbkdf2 -iter 100000`.
//!
//! Eight letters, a salt, and AES-256 in CBC mode with a key and a first block made from
//! pass phrase and salt. It has no authentication: changed bytes come out as other bytes,
//! and only what lies inside may notice ([`hmac`](super::hmac) does). Nor does it know a
//! wrong pass phrase, which comes out as noise: so whoever opens one looks whether there
//! is something known inside.

use std::io::{self, Read, Write};

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, StreamingDecryptingKey, StreamingEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use backstay_model::Secret;
use zeroize::Zeroizing;

use super::{PBKDF2_ITERATIONS, pbkdf2_sha256};

pub(super) const MAGIC: &[u8] = b"Salted__";
pub(super) const SALT_BYTES: usize = 8;
pub(super) const HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES;
pub(super) const CIPHER_BLOCK_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// What is deciphered at once.
const PIECE_BYTES: usize = 64 << 10;

type Material = Zeroizing<[u8; KEY_BYTES + CIPHER_BLOCK_BYTES]>;

/// How key and first block are made from the pass phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derivation {
    /// `-pbkdf2 -iter N`, with SHA-256.
    Pbkdf2 { iterations: u32 },
    /// Without `-pbkdf2`: one round of SHA-256, as OpenSSL since 1.1.0 does by itself.
    OneRound,
}

impl Derivation {
    /// Ours first, then what `-pbkdf2` alone and the bare command use.
    pub const TRIED: [Derivation; 3] = [
        Derivation::Pbkdf2 { iterations: PBKDF2_ITERATIONS },
        Derivation::Pbkdf2 { iterations: 10_000 },
        Derivation::OneRound,
    ];

    fn material(self, passphrase: &Secret, salt: &[u8]) -> Material {
        let mut material = Zeroizing::new([0; KEY_BYTES + CIPHER_BLOCK_BYTES]);
        match self {
            Derivation::Pbkdf2 { iterations } => {
                pbkdf2_sha256(passphrase, salt, iterations, &mut *material);
            }
            Derivation::OneRound => {
                let mut previous: Zeroizing<Vec<u8>> = Zeroizing::default();
                for piece in material.chunks_mut(digest::SHA256_OUTPUT_LEN) {
                    let mut round = digest::Context::new(&digest::SHA256);
                    round.update(&previous);
                    round.update(passphrase.reveal().as_bytes());
                    round.update(salt);
                    *previous = round.finish().as_ref().to_vec();
                    piece.copy_from_slice(&previous[..piece.len()]);
                }
            }
        }
        material
    }
}

fn broken(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::other("AES-256-CBC refused its input")
}

fn key_and_first(material: &Material) -> io::Result<(UnboundCipherKey, FixedLength<16>)> {
    let key = UnboundCipherKey::new(&AES_256, &material[..KEY_BYTES]).map_err(broken)?;
    let mut first = [0; CIPHER_BLOCK_BYTES];
    first.copy_from_slice(&material[KEY_BYTES..]);
    Ok((key, FixedLength::from(first)))
}

/// Encrypts what is written to it into another writer.
pub(super) struct Encryptor<W> {
    into: W,
    key: StreamingEncryptingKey,
    buffer: Vec<u8>,
}

impl<W: Write> Encryptor<W> {
    pub fn begin(mut into: W, passphrase: &Secret, salt: [u8; SALT_BYTES]) -> io::Result<Self> {
        let material = Derivation::TRIED[0].material(passphrase, &salt);
        let (key, first) = key_and_first(&material)?;
        // "Less safe" is a first block that the caller chose: the format derives it.
        let key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, EncryptionContext::Iv128(first))
            .map_err(broken)?;
        into.write_all(MAGIC)?;
        into.write_all(&salt)?;
        Ok(Self { into, key, buffer: vec![0; PIECE_BYTES + CIPHER_BLOCK_BYTES] })
    }

    pub fn write_all(&mut self, plain: &[u8]) -> io::Result<()> {
        for piece in plain.chunks(PIECE_BYTES) {
            let update = self.key.update(piece, &mut self.buffer).map_err(broken)?;
            let length = update.written().len();
            self.into.write_all(&self.buffer[..length])?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<W> {
        let (_, update) = self.key.finish(&mut self.buffer).map_err(broken)?;
        let length = update.written().len();
        self.into.write_all(&self.buffer[..length])?;
        Ok(self.into)
    }
}

/// Deciphers what it reads from another reader, which stands after the salt.
pub(super) struct Decryptor<R> {
    from: R,
    key: Option<StreamingDecryptingKey>,
    cipher: Vec<u8>,
    plain: Vec<u8>,
    ready: std::ops::Range<usize>,
    read_bytes: u64,
}

fn decrypting(
    passphrase: &Secret,
    derivation: Derivation,
    salt: &[u8],
) -> io::Result<StreamingDecryptingKey> {
    let material = derivation.material(passphrase, salt);
    let (key, first) = key_and_first(&material)?;
    StreamingDecryptingKey::cbc_pkcs7(key, DecryptionContext::Iv128(first)).map_err(broken)
}

/// The beginning of what lies inside, as far as the beginning of the file shows it.
/// `head` is the file with its salt; `is_whole` that there is no more of it.
pub(super) fn look_inside(
    head: &[u8],
    is_whole: bool,
    passphrase: &Secret,
    derivation: Derivation,
) -> io::Result<Vec<u8>> {
    let mut key = decrypting(passphrase, derivation, &head[MAGIC.len()..HEADER_BYTES])?;
    let mut plain = vec![0; head.len() + CIPHER_BLOCK_BYTES];
    let mut length = key.update(&head[HEADER_BYTES..], &mut plain).map_err(broken)?.written().len();
    if is_whole {
        // Noise at its end is the business of whoever reads it.
        length += key.finish(&mut plain[length..]).map_or(0, |update| update.written().len());
    }
    plain.truncate(length);
    Ok(plain)
}

impl<R: Read> Decryptor<R> {
    /// `from` stands at the beginning of the file.
    pub fn begin(mut from: R, passphrase: &Secret, derivation: Derivation) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)?;
        let key = decrypting(passphrase, derivation, &header[MAGIC.len()..])?;
        let (cipher, plain) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES + CIPHER_BLOCK_BYTES]);
        Ok(Self { from, key: Some(key), cipher, plain, ready: 0..0, read_bytes: 0 })
    }

    /// Deciphers the next piece; `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(key) = &mut self.key else { return Ok(false) };
        let length = self.from.read(&mut self.cipher)?;
        self.read_bytes += length as u64;
        let ready = if length > 0 {
            key.update(&self.cipher[..length], &mut self.plain).map_err(broken)?.written().len()
        } else {
            let Some(key) = self.key.take() else { return Ok(false) };
            if !self.read_bytes.is_multiple_of(CIPHER_BLOCK_BYTES as u64) || self.read_bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = key.finish(&mut self.plain);
            end.map_err(|_| io::Error::other("its end is not that of an encrypted file"))?.written().len()
        };
        self.ready = 0..ready;
        Ok(true)
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            if buffer.is_empty() || !self.advance()? {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.ready.len());
        let from = self.ready.start;
        buffer[..length].copy_from_slice(&self.plain[from..from + length]);
        self.ready.start += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8], passphrase: &Secret) -> Vec<u8> {
        let mut encryptor = Encryptor::begin(Vec::new(), passphrase, *b"saltsalt").unwrap();
        encryptor.write_all(plain).unwrap();
        encryptor.finish().unwrap()
    }

    #[test]
    fn what_was_encrypted_comes_back_whatever_its_length() {
        let passphrase = Secret::new("correct horse");
        for length in [0, 1, 15, 16, 17, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES * 2 + 5] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let file = sealed(&plain, &passphrase);
            assert_eq!(file.len(), HEADER_BYTES + (length / 16 + 1) * 16);
            let mut back = Vec::new();
            let mut decryptor = Decryptor::begin(&*file, &passphrase, Derivation::TRIED[0]).unwrap();
            decryptor.read_to_end(&mut back).unwrap();
            assert!(back == plain, "{length}");
            let inside = look_inside(&file, true, &passphrase, Derivation::TRIED[0]).unwrap();
            assert!(inside == plain, "{length}");
        }
    }

    #[test]
    fn a_file_that_was_cut_inside_a_cipher_block_ends_too_early() {
        let passphrase = Secret::new("x");
        let file = sealed(&[7; 100], &passphrase);
        for length in [HEADER_BYTES, HEADER_BYTES + 1, file.len() - 1, file.len() - 15] {
            let mut decryptor = Decryptor::begin(&file[..length], &passphrase, Derivation::TRIED[0]).unwrap();
            let error = decryptor.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
    }
}
