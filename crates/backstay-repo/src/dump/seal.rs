//! The last steps of a dump's bytes, in order and on one thread that may block: the
//! cipher, and over what comes out of it the digest and the authentication.

use std::io::{self, Read, Write};

use aws_lc_rs::{digest, hmac};
use backstay_model::Secret;
use backstay_model::dump::DumpCipher;
use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use super::hmac::HmacKey;
use super::{DumpError, openpgp, openssl, random};
use crate::{Error, Result};

/// What is handed to the shelf at once.
const PIECE_BYTES: usize = 1 << 20;

/// What is known of the file when its last byte is through.
pub(super) struct Sealed {
    pub stored_bytes: u64,
    pub sha256_hex: String,
    pub hmac_line: Option<Bytes>,
}

/// Encrypts all that comes until the sender is dropped.
pub(super) fn seal(
    cipher: DumpCipher,
    passphrase: Option<&Secret>,
    plain: mpsc::Receiver<Bytes>,
    stored: mpsc::Sender<Bytes>,
) -> Result<Sealed> {
    let sealed =
        |passphrase: Option<&Secret>| passphrase.ok_or(Error::Dump(DumpError::NoPassphrase)).cloned();
    let failed = |source| DumpError::Encrypt { source };
    let mut plain = Inlet { from: plain, rest: Bytes::new() };
    match cipher {
        DumpCipher::None => {
            let mut outlet = Outlet::new(stored, None);
            while let Some(bytes) = plain.from.blocking_recv() {
                outlet.hand_over(bytes).map_err(failed)?;
            }
            outlet.finish()
        }
        DumpCipher::Openssl => {
            let passphrase = sealed(passphrase)?;
            let outlet = Outlet::new(stored, Some(HmacKey::draw(&passphrase)?));
            let begun = openssl::Encryptor::begin(outlet, &passphrase, random()?);
            let mut encryptor = begun.map_err(failed)?;
            while let Some(bytes) = plain.from.blocking_recv() {
                encryptor.write_all(&bytes).map_err(failed)?;
            }
            encryptor.finish().map_err(failed)?.finish()
        }
        DumpCipher::Openpgp => {
            let passphrase = sealed(passphrase)?;
            let mut outlet = Outlet::new(stored, Some(HmacKey::draw(&passphrase)?));
            openpgp::encrypt(&mut plain, &mut outlet, &passphrase).map_err(failed)?;
            outlet.finish()
        }
    }
}

struct Inlet {
    from: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The way to the shelf, past the digests.
struct Outlet {
    to: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    stored_bytes: u64,
    sha256: digest::Context,
    hmac: Option<(HmacKey, hmac::Context)>,
}

impl Outlet {
    fn new(to: mpsc::Sender<Bytes>, key: Option<HmacKey>) -> Self {
        let hmac = key.map(|key| {
            let context = key.context();
            (key, context)
        });
        let sha256 = digest::Context::new(&digest::SHA256);
        Self { to, piece: Vec::with_capacity(PIECE_BYTES), stored_bytes: 0, sha256, hmac }
    }

    fn hand_over(&mut self, bytes: Bytes) -> io::Result<()> {
        self.sha256.update(&bytes);
        if let Some((_, context)) = &mut self.hmac {
            context.update(&bytes);
        }
        self.stored_bytes += bytes.len() as u64;
        // Nobody takes it any more: whoever did knows why.
        self.to.blocking_send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn hand_over_piece(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        if piece.is_empty() { Ok(()) } else { self.hand_over(piece.into()) }
    }

    fn finish(mut self) -> Result<Sealed> {
        self.hand_over_piece().map_err(|source| DumpError::Encrypt { source })?;
        Ok(Sealed {
            stored_bytes: self.stored_bytes,
            sha256_hex: hex::encode(self.sha256.finish()),
            hmac_line: self.hmac.map(|(key, context)| key.line(&context.sign())),
        })
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE_BYTES {
            self.hand_over_piece()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
