//! What can go wrong in the program itself: files it writes, terminals it writes to.

use std::io;
use std::path::PathBuf;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("print the result")]
    Print(#[from] io::Error),
    #[error("start the program's threads")]
    Start {
        #[source]
        source: io::Error,
    },
    #[error("make {}: it exists already", .path.display())]
    Exists { path: PathBuf },
    #[error("write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store {store} cannot be written as the address of a directory")]
    Store { store: String },
    #[error("read the pass phrase from standard input")]
    Passphrase {
        #[source]
        source: io::Error,
    },
    #[error("the pass phrase has {length} characters; at least {least} are needed")]
    PassphraseShort { length: usize, least: usize },
    #[error("the key of the configuration may be any of {}", .names.join(", "))]
    KeysUnnamed { names: Vec<String> },
    #[error("this version makes no portable dumps, so it lists none")]
    NoDumps,
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Print(_) | Error::Start { .. } => ErrorKind::Unavailable,
            Error::Exists { .. } => ErrorKind::Conflict,
            Error::Write { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Error::NoDumps => ErrorKind::Unsupported,
            Error::Store { .. }
            | Error::Passphrase { .. }
            | Error::PassphraseShort { .. }
            | Error::KeysUnnamed { .. } => ErrorKind::Invalid,
        }
    }

    fn hints(&self) -> Vec<String> {
        let one = |text: String| vec![text];
        match self {
            Error::Print(_) | Error::Start { .. } => Vec::new(),
            Error::Exists { path } => one(format!(
                "`backstay init` never touches what exists: move {} away, or name another file with `--config`",
                path.display()
            )),
            Error::Write { .. } => one("run as a user who may write there, or name another file with `--config`".to_owned()),
            Error::Store { .. } => one("write it as `--store file:///var/lib/backstay`".to_owned()),
            Error::Passphrase { .. } | Error::PassphraseShort { .. } => {
                one("give it on one line: `backstay key add NAME --passphrase < FILE`".to_owned())
            }
            Error::KeysUnnamed { .. } => one(
                "name each that stays with its file: `backstay key rotate --key NAME=FILE`, and give up others with `--drop NAME`".to_owned(),
            ),
            Error::NoDumps => one("`backstay list --type base` lists base backups".to_owned()),
        }
    }
}
