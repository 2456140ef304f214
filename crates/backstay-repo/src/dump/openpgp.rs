//! The format of `gpg --symmetric --cipher-algo AES256`.
//!
//! A packet with the way from pass phrase to key (SHA-256, salted and iterated), and one
//! with the encrypted bytes and their SHA-1 inside, which shows what was changed. Read is
//! whatever `gpg` makes with a pass phrase, its own compression and its text form too.
//!
//! The packets are those of the `pgp` crate, which does not look at the two bytes that
//! tell a wrong pass phrase at once; [`find_key`] does.
//!
//! Refuses: private keys; the packet of the last century that notices no change.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

use backstay_model::Secret;
use pgp::armor::Dearmor;
use pgp::composed::{DecryptionOptions, Message, MessageBuilder, PlainSessionKey, TheRing};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PacketHeader, SymKeyEncryptedSessionKey};
use pgp::types::{Password, Seipdv1ReadMode, StringToKey, Tag};
use rand_core::{CryptoRng, RngCore};

/// The coded number of bytes that are hashed for the key: 65,011,712, the most that the
/// format can say. `gpg` measures how many it can do in 100 ms and comes near.
const S2K_COUNT: u8 = 255;
/// Compressed messages inside of one another before it is called an attack.
const NESTED_MAX: usize = 4;
const SESSION_KEY_BY_PUBLIC_KEY: u8 = 1;
const SESSION_KEY_BY_PASSPHRASE: u8 = 3;
const ENCRYPTED_UNPROTECTED: u8 = 9;
const ENCRYPTED_PROTECTED: u8 = 18;
const ENCRYPTED_GNUPG: u8 = 20;

/// Why a message does not open.
#[derive(Debug)]
pub(super) enum Closed {
    WrongPassphrase,
    Unsupported(String),
    Damaged(String),
}

impl Closed {
    fn damaged(error: &pgp::errors::Error) -> Self {
        Closed::Damaged(error.to_string())
    }
}

/// The first packet: its tag, and as much of its body as there is.
pub(super) fn packet(bytes: &[u8]) -> Option<(u8, &[u8])> {
    next_packet(bytes).map(|(tag, body, _)| (tag, body))
}

/// The same, and where the packet after it begins, when that can be told and is there.
fn next_packet(bytes: &[u8]) -> Option<(u8, &[u8], Option<usize>)> {
    let first = *bytes.first().filter(|byte| **byte & 0x80 != 0)?;
    let big_endian = |range: std::ops::Range<usize>| {
        Some(bytes.get(range)?.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let (tag, header_bytes, length) = if first & 0x40 != 0 {
        let (header_bytes, length) = match *bytes.get(1)? {
            short @ 0..192 => (2, Some(usize::from(short))),
            high @ 192..224 => (3, Some((usize::from(high - 192) << 8) + usize::from(*bytes.get(2)?) + 192)),
            // A first part of many: the end is not known.
            224..255 => (2, None),
            255 => (6, Some(big_endian(2..6)?)),
        };
        (first & 0x3f, header_bytes, length)
    } else {
        let (header_bytes, length) = match first & 3 {
            0 => (2, Some(big_endian(1..2)?)),
            1 => (3, Some(big_endian(1..3)?)),
            2 => (5, Some(big_endian(1..5)?)),
            _ => (1, None),
        };
        ((first >> 2) & 0xf, header_bytes, length)
    };
    let body = bytes.get(header_bytes..)?;
    let end = length.filter(|length| *length <= body.len());
    Some((tag, &body[..end.unwrap_or(body.len())], end.map(|length| header_bytes + length)))
}

enum Found {
    Key(PlainSessionKey),
    /// The message has another way to tell whether the pass phrase is right.
    Untested,
}

/// The key of the message that begins with `head`, tested on its first bytes.
fn find_key(head: &[u8], passphrase: &Secret) -> Result<Found, Closed> {
    let (mut candidates, mut private, mut at) = (Vec::new(), false, 0);
    let cut = || Closed::Damaged("its packets end too early".to_owned());
    let prefix = loop {
        let (tag, body, next) = next_packet(&head[at..]).ok_or_else(cut)?;
        match tag {
            SESSION_KEY_BY_PASSPHRASE if body.first() == Some(&4) => candidates.push(body),
            SESSION_KEY_BY_PUBLIC_KEY => private = true,
            ENCRYPTED_PROTECTED if body.first() == Some(&1) => break &body[1..],
            ENCRYPTED_PROTECTED | ENCRYPTED_GNUPG => return Ok(Found::Untested),
            ENCRYPTED_UNPROTECTED => {
                return Err(Closed::Unsupported("OpenPGP without integrity protection".to_owned()));
            }
            _ => {}
        }
        at += next.ok_or_else(cut)?;
    };
    if candidates.is_empty() && private {
        return Err(Closed::Unsupported("a private OpenPGP key".to_owned()));
    }
    for body in candidates {
        let header = PacketHeader::new_fixed(Tag::SymKeyEncryptedSessionKey, body.len() as u32);
        let Ok(packet) = SymKeyEncryptedSessionKey::try_from_reader(header, body) else { continue };
        if let Some(key) = session_key(&packet, passphrase)
            && opens(&key, prefix).ok_or_else(cut)?
        {
            return Ok(Found::Key(key));
        }
    }
    Err(Closed::WrongPassphrase)
}

fn session_key(packet: &SymKeyEncryptedSessionKey, passphrase: &Secret) -> Option<PlainSessionKey> {
    let sym_alg = packet.sym_algorithm()?;
    let key = packet.s2k()?.derive_key(passphrase.reveal().as_bytes(), sym_alg.key_size()).ok()?;
    // Without a key in it, the key is the one that the pass phrase makes.
    match packet.encrypted_key().filter(|encrypted| !encrypted.is_empty()) {
        Some(_) => packet.decrypt(&key).ok(),
        None => Some(PlainSessionKey::V3_4 { sym_alg, key }),
    }
}

/// Whether the random bytes before the message end with the two that are repeated. One
/// wrong key in 65,536 passes; what comes out then is no message.
fn opens(key: &PlainSessionKey, prefix: &[u8]) -> Option<bool> {
    let PlainSessionKey::V3_4 { sym_alg, key } = key else { return Some(false) };
    let block = sym_alg.block_size();
    let mut prefix = prefix.get(..block + 2)?.to_vec();
    let opened = sym_alg.decrypt_with_iv_regular(key.as_ref(), &vec![0; block], &mut prefix);
    Some(opened.is_ok() && prefix[block - 2..block] == prefix[block..])
}

/// The bytes of an encrypted message that begins with `head`, from a reader that begins
/// there too.
pub(super) fn reader(
    message: Box<dyn Read + Send>,
    head: &[u8],
    passphrase: &Secret,
) -> Result<Box<dyn Read + Send>, Closed> {
    let found = find_key(head, passphrase)?;
    let password = Password::from(passphrase.reveal());
    let decrypt_options =
        DecryptionOptions::new().enable_gnupg_aead().set_seipdv1_read_mode(Seipdv1ReadMode::Streaming);
    let is_tested = matches!(found, Found::Key(_));
    let ring = match found {
        Found::Key(key) => TheRing { session_keys: vec![key], decrypt_options, ..Default::default() },
        Found::Untested => {
            TheRing { message_password: vec![&password], decrypt_options, ..Default::default() }
        }
    };
    let source = Source(BufReader::new(message));
    let message = Message::from_bytes(source).map_err(|error| Closed::damaged(&error))?;
    let opened = message.decrypt_the_ring(ring, true).map_err(|error| match is_tested {
        true => Closed::damaged(&error),
        false => Closed::WrongPassphrase,
    });
    let mut message = opened?.0;
    for _ in 0..NESTED_MAX {
        if !message.is_compressed() {
            return Ok(Box::new(message));
        }
        message = message.decompress().map_err(|error| Closed::damaged(&error))?;
    }
    Err(Closed::Unsupported("a message compressed over and over".to_owned()))
}

/// The packets of a message in its text form.
pub(super) fn armour_reader(text: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
    Box::new(Dearmor::new(Source(BufReader::new(text))))
}

/// What the crate wants to be able to print.
struct Source(BufReader<Box<dyn Read + Send>>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.0.consume(length);
    }
}

/// Encrypts all that `plain` gives into a message without compression: the bytes are
/// compressed already, or are not to be.
pub(super) fn encrypt(plain: impl Read, into: impl Write, passphrase: &Secret) -> io::Result<()> {
    let mut random = SystemRandom { failed: false };
    let s2k = StringToKey::new_iterated(&mut random, HashAlgorithm::Sha256, S2K_COUNT);
    let mut message =
        MessageBuilder::from_reader("", plain).seipd_v1(&mut random, SymmetricKeyAlgorithm::AES256);
    message.encrypt_with_password(s2k, &Password::from(passphrase.reveal())).map_err(io::Error::other)?;
    message.to_writer(&mut random, into).map_err(io::Error::other)?;
    match random.failed {
        true => Err(io::Error::other("no random numbers from the operating system")),
        false => Ok(()),
    }
}

/// The system's random numbers in the form that the crate takes, which cannot fail: that
/// they did is looked at in the end, before the file may have its name.
struct SystemRandom {
    failed: bool,
}

impl RngCore for SystemRandom {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.failed |= getrandom::fill(bytes).is_err();
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for SystemRandom {}
