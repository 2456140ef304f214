//! What is said of one backup that is to be handed out, or to be kept.

use std::path::PathBuf;

use backstay_model::dump::{DumpCipher, DumpCompression};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{compression, time};
use crate::error::Error;

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The backup or dump, as `backstay list` shows its id
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// A directory that is there or ends with /, or the name of the file (of a base backup one that ends with .tar, .tar.gz or .tar.zst, and .enc or .gpg after it); nothing is written over
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
    /// zstd, gzip or none, with a level as in zstd:3; inside leaves an archive as `pg_dump` compressed it [default: dump.compression]
    #[arg(long, value_name = "HOW", value_parser = compression)]
    pub compress: Option<(DumpCompression, Option<i32>)>,
    /// openssl, openpgp or none [default: dump.encryption]
    #[arg(long, value_name = "HOW")]
    pub encrypt: Option<DumpCipher>,
    #[command(flatten)]
    pub passphrases: PassphraseArguments,
}

/// What opens dumps that were encrypted before the pass phrase changed.
#[derive(Debug, Args)]
pub struct PassphraseArguments {
    /// A file with another pass phrase that dumps may have; each is tried in turn, that of dump.passphrase first
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Vec<PathBuf>,
}

impl PassphraseArguments {
    /// Ends a verb whose backup is none that a pass phrase opens.
    pub fn must_be_none(&self) -> Result<(), Error> {
        match self.passphrase_file.is_empty() {
            true => Ok(()),
            false => Err(Error::OnlyForDumps { option: "--passphrase-file" }),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum HoldVerb {
    /// Keep a backup, whatever retention says
    Add(HoldAddArguments),
    /// Leave a backup to retention again
    Remove {
        /// The backup or dump, as `backstay list` shows its id
        #[arg(value_name = "BACKUP")]
        backup: String,
    },
}

#[derive(Debug, Args)]
pub struct HoldAddArguments {
    /// The backup or dump, as `backstay list` shows its id
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// Until then; until it is removed when no time is given
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Timestamp>,
    /// Why, for whoever reads it later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
