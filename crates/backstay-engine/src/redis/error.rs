//! What a server refuses, and what is wrong with what it sends.

use std::path::PathBuf;

use backstay_model::ErrorKind;

use super::facts::Product;
use super::rights::{SAVE_STATEMENT, STATEMENT};
use super::saving;
use super::source::SourceError;

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
    #[error("the server closed the connection over which it sent its stream, at offset {offset}")]
    StreamEnded {
        offset: u64,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{} is not the directory of the server, which is {}", named.display(), own.display())]
    DirectoryOfOther { named: PathBuf, own: PathBuf },
    #[error("the server could not save its snapshot: {reason}")]
    SaveFailed { reason: &'static str },
    #[error("the server has saved its snapshot, and {} is not what it wrote", path.display())]
    FileOfOther { path: PathBuf },
    #[error("{} is at work in {}: process {process}", shown(program), directory.display())]
    Served { directory: PathBuf, process: u32, program: String },
    #[error("whether {} works in {} cannot be seen: it is of another user (process {process})", shown(program), directory.display())]
    MayBeServed { directory: PathBuf, process: u32, program: String },
    #[error("the server at {server} answers, and has {} as its directory", directory.display())]
    Answers { server: String, directory: PathBuf },
    #[error("{} is no directory of a server: none of {} is there", directory.display(), names.join(", "))]
    NothingToSetAside { directory: PathBuf, names: Vec<String> },
    #[error("an earlier restore has left {}, or another one works there now", path.display())]
    RestoreLeft { path: PathBuf },
    #[error("the file system of {} cannot let two names change places", directory.display())]
    NoExchange { directory: PathBuf },
    #[error(
        "find the program `{}` of {} {}.{} or newer{}", program_of(*product), product.name(), release.0, release.1,
        directory.as_ref().map(|directory| format!(" in {}", directory.display())).unwrap_or_default()
    )]
    ProgramMissing {
        product: Product,
        release: (u32, u32),
        /// The one that was set.
        directory: Option<PathBuf>,
    },
    #[error(
        "`{}` is of {}, and does not read what {} {version} wrote", program.display(), known(found), expected.name()
    )]
    ProgramOfOther {
        program: PathBuf,
        found: String,
        expected: Product,
        /// Of the server that wrote the data.
        version: String,
    },
    #[error("`{}` is of {} {found}, older than the {needed} that wrote the data", program.display(), product.name())]
    ProgramTooOld { program: PathBuf, product: Product, found: String, needed: String },
    #[error("the scratch server did not {what}; its log ends with: {log}")]
    Scratch { what: &'static str, log: String },
    #[error("the server at {server} ended the connection when TLS was agreed on")]
    TlsEnded {
        server: String,
        /// Whether one was shown to it.
        has_certificate: bool,
        /// Whether it said that this is why.
        is_certain: bool,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Source(#[from] SourceError),
}

fn program_of(product: Product) -> &'static str {
    match product {
        Product::Redis => "redis-server",
        Product::Valkey => "valkey-server",
    }
}

fn shown(program: &str) -> &str {
    if program.is_empty() { "a program" } else { program }
}

fn known(found: &str) -> &str {
    if found.is_empty() { "nobody knows whom" } else { found }
}

/// What a log says that ends where a server could not load what it found.
const DAMAGE: [&str; 7] = [
    "Unexpected end of file reading the append only file",
    "Bad file format reading the append only file",
    "FATAL AOF MANIFEST FILE ERROR",
    "Unable to obtain the AOF file",
    "Wrong RDB checksum",
    "Internal error in RDB",
    "RDB ERROR DETECTED",
];

/// The words with which a server refuses what is whole, and the way round it.
const NOT_FOR_IT: [(&str, &str); 4] = [
    (
        "Can't handle RDB format version",
        "install a newer server, and name its directory with `bin_directory` of the instance",
    ),
    ("module data", OF_A_MODULE),
    ("Unknown command '", OF_A_MODULE),
    (
        "configured to handle more than",
        "`CONFIG GET databases` at the source says how many it has: take a new backup with `backstay backup`",
    ),
];

const OF_A_MODULE: &str =
    "`MODULE LIST` at the source names the modules that its data need, which a scratch server does not load";

fn of_log(log: &str) -> (ErrorKind, &'static str) {
    if let Some((_, hint)) = NOT_FOR_IT.iter().find(|(words, _)| log.contains(words)) {
        return (ErrorKind::Unsupported, hint);
    }
    if DAMAGE.iter().any(|words| log.contains(words)) {
        return (ErrorKind::Corrupt, "`backstay verify` says whether what is stored is whole");
    }
    (
        ErrorKind::Unavailable,
        "mend what the end of the log names; `journalctl -k` says whether the kernel ended it where memory was short",
    )
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
    /// Of a server that is too old for it, or on which it was renamed.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, RedisError::Refused { message, .. } if kind_of(message) == ErrorKind::Unsupported)
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            RedisError::Refused { message, .. } => kind_of(message),
            RedisError::UnsupportedVersion { .. } => ErrorKind::Unsupported,
            RedisError::NoDataThere { .. } => ErrorKind::Invalid,
            RedisError::SnapshotBroken { .. }
            | RedisError::StreamEnded { .. }
            | RedisError::SaveFailed { .. } => ErrorKind::Unavailable,
            RedisError::DirectoryOfOther { .. } | RedisError::FileOfOther { .. } => ErrorKind::Invalid,
            RedisError::Served { .. }
            | RedisError::MayBeServed { .. }
            | RedisError::Answers { .. }
            | RedisError::NothingToSetAside { .. }
            | RedisError::RestoreLeft { .. } => ErrorKind::Conflict,
            RedisError::NoExchange { .. } => ErrorKind::Unsupported,
            RedisError::ProgramMissing { .. }
            | RedisError::ProgramOfOther { .. }
            | RedisError::ProgramTooOld { .. } => ErrorKind::Unsupported,
            RedisError::Scratch { log, .. } => of_log(log).0,
            RedisError::TlsEnded { is_certain: true, .. } => ErrorKind::Denied,
            RedisError::TlsEnded { .. } => ErrorKind::Unavailable,
            RedisError::Source(error) => error.kind(),
        }
    }

    pub(crate) fn hints(&self) -> Vec<String> {
        let text = match self {
            RedisError::Refused { action: saving::ACTION, message } if message.starts_with("NOPERM ") => {
                return vec![format!("run `{SAVE_STATEMENT}` as an administrator")];
            }
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
                _ if self.is_unknown_command() => {
                    "see whether `rename-command` stands in the settings of the server: without this command it cannot be \
                     backed up"
                }
                _ => return Vec::new(),
            },
            RedisError::UnsupportedVersion { .. } => "install a newer version of the package `redis-server`",
            RedisError::NoDataThere { .. } => "let `url` lead to a server that holds data",
            RedisError::SnapshotBroken { .. } => {
                "see the log of the server: it says whether it was restarted, or gave the connection up because \
                 `client-output-buffer-limit replica` was passed"
            }
            // It tells nobody else: of the connection only the end comes.
            RedisError::StreamEnded { .. } => {
                "see the log of the server: it says whether it was stopped, or gave the connection up because \
                 `client-output-buffer-limit replica` or `repl-timeout` was passed"
            }
            RedisError::DirectoryOfOther { .. } | RedisError::FileOfOther { .. } => {
                "correct `data_directory` of the instance: `CONFIG GET dir` says what it is at the server; without \
                 it bases come over the network"
            }
            RedisError::Served { process, .. } => {
                return vec![format!(
                    "stop it, and what starts it again: `ps -p {process} -o args` says what it is"
                )];
            }
            RedisError::MayBeServed { .. } => {
                "run as root or as the user of that server; into an empty directory `--into` alone restores as anybody"
            }
            RedisError::Answers { .. } => {
                "stop the server, and what starts it again; if it is one of another machine, move what is in the \
                 directory away and leave `--set-aside` out"
            }
            RedisError::NothingToSetAside { .. } => {
                "choose the directory of the server with `--into`: `dir`, `dbfilename` and `appenddirname` of its \
                 settings say what lies where"
            }
            RedisError::RestoreLeft { path } => {
                return vec![format!(
                    "nothing of the server lies in it: `rm -r {}` when no other restore works there",
                    path.display()
                )];
            }
            RedisError::NoExchange { .. } => {
                "move what is in the directory away, and restore into it with `--into` alone"
            }
            RedisError::SaveFailed { .. } => {
                "see the log of the server, and `INFO persistence`; without `data_directory` of the instance bases \
                 come over the network"
            }
            RedisError::ProgramMissing { product, .. } => {
                let package = program_of(*product);
                return vec![format!(
                    "install the package `{package}`, or name the directory with `bin_directory` of the instance"
                )];
            }
            RedisError::ProgramOfOther { expected, version, .. } => {
                let package = program_of(*expected);
                return vec![format!(
                    "install the package `{package}` in {version} or newer, or name the directory of one with \
                     `bin_directory` of the instance"
                )];
            }
            RedisError::ProgramTooOld { product, needed, .. } => {
                let package = program_of(*product);
                return vec![format!(
                    "install the package `{package}` in {needed} or newer, or name the directory of one with \
                     `bin_directory` of the instance"
                )];
            }
            RedisError::Scratch { log, .. } => of_log(log).1,
            RedisError::TlsEnded { has_certificate: false, .. } => {
                "name a certificate with `ssl_certificate` and `ssl_key`: a server with `tls-auth-clients yes`, which is \
                 the default, wants one of its clients"
            }
            RedisError::TlsEnded { .. } => {
                "let `ssl_certificate` name one that is signed by an authority in `tls-ca-cert-file` of the server"
            }
            RedisError::Source(error) => return error.hints(),
        };
        vec![text.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(log: &str) -> RedisError {
        RedisError::Scratch { what: "start", log: log.to_owned() }
    }

    #[test]
    fn what_the_server_could_not_load_decides_what_a_person_does() {
        for (log, kind, word) in [
            (
                "# Wrong RDB checksum expected: (1) but got (2). Aborting now.",
                ErrorKind::Corrupt,
                "backstay verify",
            ),
            (
                "# Can't handle RDB format version 80\n# Internal error in RDB",
                ErrorKind::Unsupported,
                "bin_directory",
            ),
            (
                "# Unknown command 'TS.ADD' reading the append only file x",
                ErrorKind::Unsupported,
                "MODULE LIST",
            ),
            ("# Out Of Memory allocating 17 bytes!", ErrorKind::Unavailable, "journalctl -k"),
        ] {
            let error = ended(log);
            assert_eq!(error.kind(), kind, "{log}");
            assert!(error.hints()[0].contains(word), "{log}: {:?}", error.hints());
        }
    }

    #[test]
    fn every_refusal_that_a_person_can_mend_says_how() {
        let refused = |message: &str| RedisError::Refused { action: "look", message: message.to_owned() };
        let ended = |has_certificate, is_certain| RedisError::TlsEnded {
            server: "one:1".into(),
            has_certificate,
            is_certain,
            source: "it ended".into(),
        };
        for error in [
            refused("NOAUTH Authentication required"),
            refused("WRONGPASS invalid"),
            refused("NOPERM this user"),
            refused("ERR unknown command 'PSYNC', with args"),
            refused("NOMASTERLINK Can't SYNC"),
            refused("LOADING Redis is loading"),
            RedisError::UnsupportedVersion { product: "Redis", version: "6.2.1".into() },
            RedisError::NoDataThere { server: "one:1".into(), mode: "sentinel".into() },
            RedisError::SnapshotBroken { received: 1 },
            RedisError::StreamEnded { offset: 1, source: "it ended".into() },
            ended(false, true),
            ended(true, false),
        ] {
            let hints = error.hints();
            assert!(!hints.is_empty() && !error.to_string().ends_with('.'), "{error}");
            for hint in hints {
                assert!(hint.contains('`') && !hint.ends_with('.') && !hint.contains("  "), "{hint:?}");
            }
        }
    }

    #[test]
    fn every_error_about_a_server_that_is_ours_to_mend_says_how_it_is_mended() {
        let product = Product::Valkey;
        for error in [
            ended("x"),
            RedisError::DirectoryOfOther { named: "/x".into(), own: "/y".into() },
            RedisError::FileOfOther { path: "/x".into() },
            RedisError::SaveFailed { reason: "x" },
            RedisError::Served { directory: "/x".into(), process: 1, program: String::new() },
            RedisError::MayBeServed { directory: "/x".into(), process: 1, program: "y".into() },
            RedisError::Answers { server: "x".into(), directory: "/x".into() },
            RedisError::NothingToSetAside { directory: "/x".into(), names: vec!["a".into()] },
            RedisError::RestoreLeft { path: "/x".into() },
            RedisError::NoExchange { directory: "/x".into() },
            RedisError::Refused { action: saving::ACTION, message: "NOPERM x".to_owned() },
            RedisError::ProgramMissing { product, release: (8, 1), directory: None },
            RedisError::ProgramOfOther {
                program: "/x".into(),
                found: String::new(),
                expected: product,
                version: "8.1.0".into(),
            },
            RedisError::ProgramTooOld {
                program: "/x".into(),
                product,
                found: "8.0.1".into(),
                needed: "8.1.0".into(),
            },
        ] {
            let hints = error.hints();
            assert!(!hints.is_empty() && !error.to_string().ends_with('.'), "{error}");
            for hint in hints {
                assert!(hint.contains('`') && !hint.ends_with('.') && !hint.contains("  "), "{hint:?}");
            }
        }
    }
}
