//! What is said of one backup that is to be handed out, or to be kept.

use std::path::PathBuf;

use backstay_model::dump::{DumpCipher, DumpCompression};
use clap::Args;

use super::compression;

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The backup or dump, as `backstay list` shows its id
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// A directory, or the name of the file; nothing is written over
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
    /// zstd, gzip or none, with a level as in zstd:3; inside leaves an archive as `pg_dump` compressed it [default: dump.compression]
    #[arg(long, value_name = "HOW", value_parser = compression)]
    pub compress: Option<(DumpCompression, Option<i32>)>,
    /// openssl, openpgp or none [default: dump.encryption]
    #[arg(long, value_name = "HOW")]
    pub encrypt: Option<DumpCipher>,
}
