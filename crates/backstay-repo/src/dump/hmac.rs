//! What proves that a dump is as we wrote it: the line of text in `<file>.hmac`.
//!
//! Neither `openssl enc` nor a directory listing has a place for it, and CBC does not
//! notice what was changed. The line holds an HMAC-SHA256 over the file as it lies there,
//! with a key made from the dump's pass phrase and a salt of its own, and eight bytes that
//! tell whether a pass phrase is the right one before anything is read:
//!
//! ```text
//! backstay-hmac-1 kdf=pbkdf2-hmac-sha256 iterations=100000 salt=… check=… hmac-sha256=…
//! ```
//!
//! It can be checked without us, with OpenSSL 3, the salt in hexadecimal digits as it
//! stands in the line:
//!
//! ```text
//! KEY=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:"$PASSPHRASE" \
//!       -kdfopt hexsalt:$SALT -kdfopt iter:100000 PBKDF2 | tr -d ':\n')
//! openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY FILE
//! ```

use std::fmt::Write as _;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key, Tag};
use backstay_model::Secret;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{PBKDF2_ITERATIONS, pbkdf2_sha256, random};
use crate::Result;

/// More than the line ever has; a larger file is something else.
pub(super) const SIDECAR_MAX_BYTES: u64 = 4096;
const PREFIX: &str = "backstay-hmac-1";
const KDF: &str = "pbkdf2-hmac-sha256";
/// What the check value authenticates. The file can be no such text and be of use to
/// anybody, so the two are never confused.
const CHECK_TEXT: &[u8] = b"backstay: is this the pass phrase of the dump?";
const CHECK_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
/// A line that asks for more would only keep us busy.
const ITERATIONS_MAX: u32 = 100_000_000;

/// The key of one file's authentication.
pub(super) struct HmacKey {
    salt: [u8; SALT_BYTES],
    iterations: u32,
    key: Key,
}

/// The line, read.
pub(super) struct Sidecar {
    salt: [u8; SALT_BYTES],
    iterations: u32,
    check: [u8; CHECK_BYTES],
    hmac: [u8; 32],
}

impl HmacKey {
    /// Takes as long as the key derivation is meant to: not for the runtime's threads.
    pub fn draw(passphrase: &Secret) -> Result<Self> {
        Ok(Self::derive(passphrase, random()?, PBKDF2_ITERATIONS))
    }

    fn derive(passphrase: &Secret, salt: [u8; SALT_BYTES], iterations: u32) -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        pbkdf2_sha256(passphrase, &salt, iterations, &mut *bytes);
        Self { salt, iterations, key: Key::new(HMAC_SHA256, &*bytes) }
    }

    pub fn context(&self) -> Context {
        Context::with_key(&self.key)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let tag = aws_lc_rs::hmac::sign(&self.key, CHECK_TEXT);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&tag.as_ref()[..CHECK_BYTES]);
        check
    }

    /// The line for a file with this authentication.
    pub fn line(&self, tag: &Tag) -> Bytes {
        let mut line = String::with_capacity(256);
        let hex = |bytes: &[u8]| hex::encode(bytes);
        // Writing to a string does not fail.
        let _ = writeln!(
            line,
            "{PREFIX} kdf={KDF} iterations={} salt={} check={} hmac-sha256={}",
            self.iterations,
            hex(&self.salt),
            hex(&self.check()),
            hex(tag.as_ref())
        );
        line.into()
    }
}

impl Sidecar {
    /// `None` for anything that is not the line of this version.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        fn bytes<const N: usize>(hexadecimal: &str) -> Option<[u8; N]> {
            hex::decode(hexadecimal).ok()?.try_into().ok()
        }
        let (prefix, rest) = text.split_at_checked(PREFIX.len())?;
        if prefix != PREFIX.as_bytes() || rest.first() != Some(&b' ') {
            return None;
        }
        // The first word is the prefix, which has no value.
        let _ = value("");
        if value("kdf")? != KDF {
            return None;
        }
        let iterations = value("iterations")?.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let salt = bytes(value("salt")?)?;
        let check = bytes(value("check")?)?;
        let hmac = bytes(value("hmac-sha256")?)?;
        words.next().is_none().then_some(Self { salt, iterations, check, hmac })
    }

    /// The key, when this is the pass phrase that it was made from.
    pub fn open(&self, passphrase: &Secret) -> Option<HmacKey> {
        let key = HmacKey::derive(passphrase, self.salt, self.iterations);
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(&key.check(), &self.check);
        same.is_ok().then_some(key)
    }

    pub fn is_of(&self, tag: &Tag) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), &self.hmac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_opens_with_its_own_pass_phrase_alone() {
        let right = Secret::new("correct horse");
        let key = HmacKey::draw(&right).unwrap();
        let mut context = key.context();
        context.update(b"the file");
        let tag = context.sign();
        let line = key.line(&tag);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let sidecar = Sidecar::parse(&line).unwrap();
        assert!(sidecar.open(&Secret::new("correct house")).is_none());
        let opened = sidecar.open(&right).unwrap();
        assert!(sidecar.is_of(&aws_lc_rs::hmac::sign(&opened.key, b"the file")));
        assert!(!sidecar.is_of(&aws_lc_rs::hmac::sign(&opened.key, b"the fils")));
    }

    #[test]
    fn a_line_that_was_cut_or_means_something_else_is_none() {
        let key = HmacKey::derive(&Secret::new("x"), [7; SALT_BYTES], 10);
        let line = key.line(&key.context().sign());
        let text = String::from_utf8(line.to_vec()).unwrap();
        assert!(Sidecar::parse(text.as_bytes()).is_some());
        for length in 0..text.trim_end().len() {
            assert!(Sidecar::parse(&text.as_bytes()[..length]).is_none(), "{length}");
        }
        for (from, to) in [
            ("hmac-1", "hmac-2"),
            ("iterations=10", "iterations=0"),
            ("iterations=10", "iterations=4000000000"),
            ("pbkdf2-hmac-sha256", "scrypt"),
            ("\n", " more=x\n"),
        ] {
            assert!(Sidecar::parse(text.replacen(from, to, 1).as_bytes()).is_none(), "{to}");
        }
    }
}
