//! What can go wrong in the program itself: files it writes, terminals it writes to.

use std::io;
use std::path::PathBuf;

use backstay_model::error::Classified;
use backstay_model::{ErrorKind, Fault};

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
    #[error("several instances stand in the configuration, and none was named")]
    NameOneInstance,
    #[error("the log of {instance} is archived by a later version: it is not of PostgreSQL")]
    NoLog { instance: String },
    #[error("nobody said where the log of {instance} may lie on this machine")]
    NoSpool { instance: String },
    #[error("the archive of {instance} cannot be waited for by commits and give up log as well")]
    SynchronousGap { instance: String },
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
    /// What `init` is told has no place in a file yet.
    #[error("the server that {option} names cannot be used")]
    Server {
        /// Of `init`: `--postgresql` or `--redis`.
        option: &'static str,
        source: Box<backstay_ops::Error>,
    },
    #[error("read the pass phrase from standard input")]
    Passphrase {
        #[source]
        source: io::Error,
    },
    #[error("the pass phrase has {length} characters; at least {least} are needed")]
    PassphraseShort { length: usize, least: usize },
    #[error("the key of the configuration may be any of {}", .names.join(", "))]
    KeysUnnamed { names: Vec<String> },
    #[error("nobody said whose dumps these are")]
    WhoseDumps { known: Vec<String> },
    #[error("nobody said where to restore to")]
    NoDestination,
    #[error("`{option}` is for base backups, and {instance} has none")]
    NotForDumps { option: &'static str, instance: String },
    #[error("`{option}` is for dumps, and this is a base backup")]
    OnlyForDumps { option: &'static str },
    #[error("`{option}` is for dumps, and none is to be looked at")]
    NoDumpsMeant { option: &'static str },
    #[error("`{option}` is for one database, and several are to be restored")]
    ForOneDatabase { option: &'static str },
    #[error("`--into-database` has {{database}} in it, and no `--database` says which that is")]
    WhichDatabase,
    #[error("database {database} was not restored; before it {} were", done.join(", "))]
    SeveralStopped {
        database: String,
        /// The databases that are there now.
        done: Vec<String>,
        #[source]
        source: Fault,
    },
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Print(_) | Error::Start { .. } => ErrorKind::Unavailable,
            Error::Exists { .. } => ErrorKind::Conflict,
            Error::Server { source, .. } => source.kind(),
            Error::SeveralStopped { source, .. } => source.kind(),
            Error::Write { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Error::NoLog { .. } => ErrorKind::Unsupported,
            Error::NoDestination
            | Error::NameOneInstance
            | Error::NoSpool { .. }
            | Error::SynchronousGap { .. }
            | Error::NotForDumps { .. }
            | Error::OnlyForDumps { .. }
            | Error::NoDumpsMeant { .. }
            | Error::ForOneDatabase { .. }
            | Error::WhichDatabase
            | Error::WhoseDumps { .. }
            | Error::Store { .. }
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
            Error::Server { option, source } => server(option, source),
            Error::Store { .. } => one("write it as `--store file:///var/lib/backstay`".to_owned()),
            Error::Passphrase { .. } | Error::PassphraseShort { .. } => {
                one("give it on one line: `backstay key add NAME --passphrase < FILE`".to_owned())
            }
            Error::KeysUnnamed { .. } => one(
                "name each that stays with its file: `backstay key rotate --key NAME=FILE`, and give up others with `--drop NAME`".to_owned(),
            ),
            Error::WhoseDumps { known } => {
                one(format!("name the instance with `--instance`: one of {}", known.join(", ")))
            }
            Error::NotForDumps { option, .. } => one(format!("leave `{option}` out to restore a dump")),
            Error::OnlyForDumps { option } | Error::NoDumpsMeant { option } => {
                one(format!("leave `{option}` out"))
            }
            Error::ForOneDatabase { .. } => one(
                "several go with `--into-database` of a name that has {database} in it, or with `--test`; restore this one \
                 by itself"
                    .to_owned(),
            ),
            Error::WhichDatabase => one("name it with `--database`, once for each".to_owned()),
            Error::SeveralStopped { source, .. } => source.hints(),
            Error::NameOneInstance => one("name it with `--instance`".to_owned()),
            Error::NoSpool { instance } => {
                one(format!("set `spool` in the section `[instance.{instance}.archive]` to a directory"))
            }
            Error::SynchronousGap { instance } => one(format!(
                "take `synchronous = true` or `on_max_lag = \"gap\"` out of `[instance.{instance}.archive]`"
            )),
            Error::NoLog { .. } => one("`backstay archive NAME` takes the names of instances of PostgreSQL".to_owned()),
            Error::NoDestination => {
                one("say `--into DIR`, or for a dump `--into-database NAME`, `--swap NAME` or `--test`; only `--backup ID` of a \
                     dump of roles and tablespaces goes without".to_owned())
            }
        }
    }
}

/// The hints of the engine name settings of a file that `init` has not written yet.
fn server(option: &str, error: &backstay_ops::Error) -> Vec<String> {
    use backstay_engine::Error as Engine;
    use backstay_engine::redis::error::RedisError;
    let backstay_ops::Error::Engine(engine) = error else { return error.hints() };
    let is_redis = option == "--redis";
    let hint = match engine {
        Engine::Setting { setting: "url", .. } if is_redis => {
            "write the address as `--redis redis://backstay@cache.example:6379`, as `--redis \
             unix:///run/redis/redis.sock`, or with Sentinels as `--redis sentinel://one:26379,two:26379/mymaster`"
        }
        Engine::Setting { setting: "url", .. } => {
            "write the address as `--postgresql 'postgresql://backstay@db.example:5432/postgres'`, or \
             `--postgresql 'host=/var/run/postgresql user=postgres'` for a socket of this machine"
        }
        Engine::Connect { .. } | Engine::ConnectTimeout { .. } if is_redis => {
            "check host and port in `--redis`, and that the server listens there (`bind`)"
        }
        Engine::Connect { .. } | Engine::ConnectTimeout { .. } => {
            "check host and port in `--postgresql`, and that the server listens there (`listen_addresses`)"
        }
        Engine::Login { source, .. } if source.code == "28P01" => {
            "give the password in `--postgresql` (`postgresql://ROLE:PASSWORD@…`, a blank is `%20`) or in the \
             variable `PGPASSWORD`"
        }
        Engine::Login { source, .. } if source.code == "3D000" => {
            "name an existing database in `--postgresql`"
        }
        Engine::Redis(RedisError::Refused { message, .. })
            if message.starts_with("NOAUTH") || message.starts_with("WRONGPASS") =>
        {
            "give user and password in `--redis` (`redis://USER:PASSWORD@…`, a blank is `%20`), or the password in \
             the variable `REDISCLI_AUTH`"
        }
        _ => return error.hints(),
    };
    vec![hint.to_owned()]
}
