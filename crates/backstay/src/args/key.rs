//! What a person may say of the keys of a repository.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List the keys that open the repository
    List,
    /// Add a key: a new key file, or with --passphrase a pass phrase
    Add(KeyAddArguments),
    /// Remove a key; the last one stays
    Remove {
        /// The key's name, as `backstay key list` shows it
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Begin a new generation: what is written from now on is sealed with a new key
    Rotate(KeyRotateArguments),
    /// Write the recovery kit again, with the keys that open the repository now
    Kit {
        /// Where to: a directory that is new, empty, or a kit of this repository [default: where the configuration says]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct KeyRotateArguments {
    /// A key that stays and its file; the key of the configuration need not be named when it is the only one left
    #[arg(long, value_name = "NAME=FILE", value_parser = super::named_file)]
    pub key: Vec<(String, PathBuf)>,
    /// A pass phrase that stays, read from standard input
    #[arg(long, value_name = "NAME")]
    pub passphrase: Option<String>,
    /// A key that is given up: it opens nothing that is written from now on
    #[arg(long, value_name = "NAME")]
    pub drop: Vec<String>,
}

#[derive(Debug, Args)]
pub struct KeyAddArguments {
    /// The name of the new key
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where to write the new key file
    #[arg(long, value_name = "FILE", required_unless_present = "passphrase", conflicts_with = "passphrase")]
    pub file: Option<PathBuf>,
    /// Read a pass phrase from standard input instead
    #[arg(long)]
    pub passphrase: bool,
}
