//! What a server refuses, and what is wrong with what it sends.

use backstay_model::ErrorKind;

use super::rights::STATEMENT;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    #[error("{action}: the server says: {message}")]
    Refused {
        /// Verb and object: `ask for the replication stream`.
        action: &'static str,
        /// As it came, with the word in capitals that says what kind it is.
        message: String,
    },
    #[error("{product} {version} is not supported; Redis from 7.0 on and Valkey are")]
    UnsupportedVersion { product: &'static str, version: String },
    #[error("the server at {server} is a {mode}, which holds no data of its own")]
    NoDataThere { server: String, mode: String },
    #[error("the server closed the connection while it sent its snapshot, after {received} bytes")]
    SnapshotBroken { received: u64 },
}

/// The kinds of refusals, by the word that begins them.
fn kind_of(message: &str) -> ErrorKind {
    match message.split(' ').next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => ErrorKind::Denied,
        "LOADING" | "NOMASTERLINK" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" => {
            ErrorKind::Unavailable
        }
        // Redis says so of a command and of a subcommand that it does not have.
        "ERR" if message.contains("nknown command") || message.contains("nknown subcommand") => {
            ErrorKind::Unsupported
        }
        "ERR" if message.contains("max number of clients") => ErrorKind::Unavailable,
        // Of a server without users: a password was given, and none is set.
        "ERR" if message.contains("AUTH") => ErrorKind::Denied,
        // It has its reasons (`MISCONF`, `OOM`, a child that failed), and they pass.
        _ => ErrorKind::Unavailable,
    }
}

impl RedisError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            RedisError::Refused { message, .. } => kind_of(message),
            RedisError::UnsupportedVersion { .. } => ErrorKind::Unsupported,
            RedisError::NoDataThere { .. } => ErrorKind::Invalid,
            RedisError::SnapshotBroken { .. } => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn hints(&self) -> Vec<String> {
        let text = match self {
            RedisError::Refused { message, .. } => match message.split(' ').next().unwrap_or_default() {
                "NOAUTH" => "give the password as `password = { file = \"…\" }` of the instance",
                "WRONGPASS" => "correct `password` of the instance, or the user in its `url`",
                "NOPERM" => return vec![format!("run `{STATEMENT}` as an administrator")],
                "NOMASTERLINK" | "MASTERDOWN" => {
                    "this replica has lost its master: mend the link (`INFO replication`), or let `url` lead to another"
                }
                "LOADING" => {
                    "it is reading its data from the disk: try again when `INFO persistence` says `loading:0`"
                }
                _ => return Vec::new(),
            },
            RedisError::UnsupportedVersion { .. } => "upgrade the server",
            RedisError::NoDataThere { .. } => "let `url` lead to a server that holds data",
            RedisError::SnapshotBroken { .. } => {
                "see the log of the server: it says whether it was restarted, or gave the connection up because \
                 `client-output-buffer-limit replica` was passed"
            }
        };
        vec![text.to_owned()]
    }
}
