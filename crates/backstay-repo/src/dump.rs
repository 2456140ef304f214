//! The bytes of portable dumps: packed and encrypted in formats that other programs open,
//! and read back whoever wrote them.
//!
//! Responsible for everything between the output of a server's own tool and the file on
//! a [`Shelf`](crate::shelf::Shelf), both ways. What `pg_dump` is and what its archive
//! holds, others know.
//!
//! Invariant: no file has its name before its last byte is on the disk, and nothing that
//! was read is called whole before all of it was checked: [`DumpReader::finish`].
//!
//! Refuses: to take what lies in a file from its name; to keep more than a few blocks in
//! memory, however long the file is. What that costs with files of gigabytes is measured
//! by `cargo xtask bench dump` and not by a test.

mod compress;
mod content;
mod error;
mod gzip;
pub mod hmac;
mod openpgp;
mod openssl;
mod reader;
mod seal;
mod tar;
mod writer;
mod zstd;

pub use compress::BLOCK_BYTES;
pub use content::{DumpInside, DumpLayer};
pub use error::DumpError;
pub use reader::{DumpRead, DumpReader};
pub use writer::{DumpRecipe, DumpWriter, DumpWritten, FinishedDump};

use backstay_model::Secret;

use crate::{Error, Result};

/// What follows the name of a dump in the name of its authentication.
pub const HMAC_SUFFIX: &str = ".hmac";
/// Rounds of PBKDF2, for the cipher of `openssl enc` and for the authentication. The
/// number stands in everybody's scripts and commands, so it can only be what it is.
pub const PBKDF2_ITERATIONS: u32 = 100_000;

/// Derives key material from a pass phrase as `openssl enc -pbkdf2 -md sha256` does.
fn pbkdf2_sha256(passphrase: &Secret, salt: &[u8], iterations: u32, out: &mut [u8]) {
    let iterations = std::num::NonZeroU32::new(iterations).unwrap_or(std::num::NonZeroU32::MIN);
    let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256;
    aws_lc_rs::pbkdf2::derive(algorithm, iterations, salt, passphrase.reveal().as_bytes(), out);
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes)
}

/// The result of work on a thread that may block. One that died is a bug of ours.
fn ended<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match joined {
        Ok(result) => result,
        Err(join) if join.is_cancelled() => Err(Error::Cancelled),
        Err(_) => Err(Error::broken("a thread that handles the bytes of a dump does not die")),
    }
}
