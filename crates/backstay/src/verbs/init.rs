//! `backstay init`: backstay.toml, the repository, its key, the recovery kit.
//!
//! The server is asked first and everything that must not exist is looked for
//! before anything is made, so that a refusal leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::redis::RedisSettings;
use backstay_model::{Fault, InstanceId, Secret};
use backstay_ops::instance::EngineSettings;
use backstay_ops::{Instance, Policy, SystemClock};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::DONE;
use crate::args::{GlobalOptions, InitArguments};
use crate::config::secret::SecretSource;
use crate::config::values::Address;
use crate::config::{USUAL_PLACES, usual_recovery_kit};
use crate::error::{Error, Result};
use crate::render::{Output, init as render};

mod file;

/// What `init` made.
#[derive(Debug, Serialize)]
pub struct Made {
    pub config: PathBuf,
    #[serde(flatten)]
    pub report: backstay_ops::init::InitReport,
    pub recovery_kit: PathBuf,
    pub instance: Option<String>,
    /// What the server said of itself, when one was named.
    pub server: Option<String>,
}

/// The server that `--postgresql` or `--redis` names.
struct Server {
    engine: Engine,
    name: InstanceId,
    url: Address,
    password: Option<NewPassword>,
    data_directory: Option<PathBuf>,
}

/// A password and where it is going to be kept.
enum NewPassword {
    InFile(PathBuf, Secret),
    InVariable(Secret),
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgresql,
    Redis,
}

impl Engine {
    fn option(self) -> &'static str {
        match self {
            Engine::Postgresql => "--postgresql",
            Engine::Redis => "--redis",
        }
    }

    /// What the server's own programs read.
    fn password_variable(self) -> &'static str {
        match self {
            Engine::Postgresql => "PGPASSWORD",
            Engine::Redis => "REDISCLI_AUTH",
        }
    }
}

pub async fn run(
    global: &GlobalOptions,
    arguments: &InitArguments,
    output: Output,
    cancel: CancellationToken,
) -> Result<u8, Fault> {
    let config = global.config.clone().unwrap_or_else(|| PathBuf::from(USUAL_PLACES[0]));
    let config = std::path::absolute(&config).unwrap_or(config);
    let store = store_address(&arguments.store)?;
    let key = config.with_extension("key");
    let kit = match &arguments.kit {
        Some(kit) => std::path::absolute(kit).unwrap_or_else(|_| kit.clone()),
        None => usual_recovery_kit(&config),
    };
    let named = match (&arguments.postgresql, &arguments.redis) {
        (Some(url), _) => Some((Engine::Postgresql, url)),
        (None, Some(url)) => Some((Engine::Redis, url)),
        (None, None) => None,
    };
    let server = named.map(|(engine, url)| server(arguments, engine, url, &config)).transpose()?;
    let mut new_files = vec![config.as_path()];
    if !arguments.no_encryption {
        new_files.push(key.as_path());
    }
    let password = server.as_ref().and_then(Server::new_file);
    new_files.extend(password.map(|(path, _)| path));
    // An empty directory is as good as none for the kit.
    if std::fs::read_dir(&kit).is_ok_and(|mut entries| entries.next().is_some()) {
        new_files.push(kit.as_path());
    }
    if let Some(path) = new_files.into_iter().find(|path| path.exists()) {
        return Err(Error::Exists { path: path.to_owned() }.into());
    }
    let described = match &server {
        Some(server) => Some(ask(server).await?),
        None => None,
    };
    let text = file::text(&file::NewFile {
        store: &store,
        key: (!arguments.no_encryption).then_some(key.as_path()),
        recovery_kit: (kit != usual_recovery_kit(&config)).then_some(kit.as_path()),
        instance: server.as_ref().map(Server::section),
    });

    let mut written = Written::default();
    if let Some((path, password)) = password {
        written.file(path, &format!("{}\n", password.reveal()), 0o600)?;
    }
    written.file(&config, &text, 0o644)?;
    let options = backstay_ops::init::InitOptions {
        store: store.as_str().to_owned(),
        key_file: (!arguments.no_encryption).then(|| key.clone()),
        kit: Some(kit.clone()),
    };
    let report = backstay_ops::init::run(&options, &SystemClock, &cancel).await?;
    written.stays();

    let made = Made {
        config,
        report,
        recovery_kit: kit,
        instance: server.map(|server| server.name.to_string()),
        server: described,
    };
    output.result(&made, |output| render::made(output, &made)).map_err(Error::Print)?;
    Ok(DONE)
}

/// A directory is as good as its address.
fn store_address(store: &Address) -> Result<Address> {
    if store.as_str().contains(':') {
        return Ok(store.clone());
    }
    let path = std::path::absolute(store.as_str()).ok();
    match path.as_deref().and_then(Path::to_str) {
        Some(path) => Ok(Address::new(format!("file://{path}"))),
        None => Err(Error::Store { store: store.to_string() }),
    }
}

fn server(arguments: &InitArguments, engine: Engine, url: &Address, config: &Path) -> Result<Server, Fault> {
    let (url, password) = url.split_password();
    let name: InstanceId = match &arguments.name {
        Some(name) => name.parse()?,
        None => default_name(engine, &url).parse()?,
    };
    let password = match (password, std::env::var(engine.password_variable())) {
        (Some(password), _) => {
            let path = config.with_file_name(format!("{name}.password"));
            Some(NewPassword::InFile(path, Secret::new(password)))
        }
        (None, Ok(password)) if !password.is_empty() => Some(NewPassword::InVariable(Secret::new(password))),
        _ => None,
    };
    let data_directory = arguments
        .data_directory
        .as_ref()
        .map(|directory| std::path::absolute(directory).unwrap_or_else(|_| directory.clone()));
    Ok(Server { engine, name, url, password, data_directory })
}

/// The database of the address, which is what people call a server by, unless it says nothing; of
/// Sentinels, what they call it.
fn default_name(engine: Engine, url: &Address) -> &str {
    const FALLBACK: &str = "main";
    let Some((scheme, rest)) = url.as_str().split_once("://") else { return FALLBACK };
    // Those of Redis have numbers, and the path of a socket is no name.
    if engine == Engine::Redis && !scheme.starts_with("sentinel") {
        return FALLBACK;
    }
    let path = rest.split_once('/').map(|(_, path)| path);
    let database = path.and_then(|path| path.split('?').next()).unwrap_or_default();
    if database != "postgres" && database.parse::<InstanceId>().is_ok() { database } else { FALLBACK }
}

impl Server {
    /// The file that its password is going to be written to.
    fn new_file(&self) -> Option<(&Path, &Secret)> {
        match &self.password {
            Some(NewPassword::InFile(path, secret)) => Some((path, secret)),
            _ => None,
        }
    }

    fn section(&self) -> file::NewInstance<'_> {
        file::NewInstance {
            engine: self.engine,
            name: self.name.as_str(),
            url: &self.url,
            password: self.password.as_ref().map(|password| match password {
                NewPassword::InFile(path, _) => SecretSource::File(path.clone()),
                NewPassword::InVariable(_) => SecretSource::Env(self.engine.password_variable().to_owned()),
            }),
            data_directory: self.data_directory.as_deref(),
        }
    }

    fn instance(&self) -> Instance {
        let password = self.password.as_ref().map(|password| match password {
            NewPassword::InFile(_, secret) | NewPassword::InVariable(secret) => secret.clone(),
        });
        let (url, data_directory) = (self.url.as_str().to_owned(), self.data_directory.clone());
        let engine = match self.engine {
            Engine::Postgresql => {
                let usual = PostgresSettings::default();
                EngineSettings::Postgresql(PostgresSettings { url, password, data_directory, ..usual })
            }
            Engine::Redis => {
                let usual = RedisSettings::default();
                EngineSettings::Redis(RedisSettings { url, password, data_directory, ..usual })
            }
        };
        Instance { id: self.name.clone(), engine, policy: Policy::default(), environment: None }
    }
}

/// Whether the server can be backed up, before anything is made for it.
async fn ask(server: &Server) -> Result<String, Fault> {
    let instance = server.instance();
    let described = match &instance.engine {
        EngineSettings::Redis(settings) => backstay_ops::check::redis(settings).await,
        _ => backstay_ops::check::run(&instance).await.map(|checked| checked.describe()),
    };
    Ok(described.map_err(|source| Error::Server { option: server.engine.option(), source: source.into() })?)
}

/// Files of this run, taken away again when it fails.
#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Written {
    fn file(&mut self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
            _ => Error::Write { path: path.to_owned(), source },
        };
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
        self.0.push(path.to_owned());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    fn stays(mut self) {
        self.0.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            // The error that brings us here is the one to tell.
            let _: io::Result<()> = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_after_its_database_unless_that_says_nothing() {
        for (url, name) in [
            ("postgresql://b@db/orders?sslmode=require", "orders"),
            ("postgresql://b@db/postgres", "main"),
            ("postgresql://b@db", "main"),
            ("postgresql://b@db/Not%20A%20Name", "main"),
            ("host=db user=b", "main"),
        ] {
            assert_eq!(default_name(Engine::Postgresql, &Address::new(url)), name, "{url}");
        }
        for (url, name) in [
            ("redis://b@cache:6379/3", "main"),
            ("redis://cache", "main"),
            ("unix:///run/redis/redis.sock", "main"),
            ("sentinel://b@one:26379,two:26379/sessions", "sessions"),
        ] {
            assert_eq!(default_name(Engine::Redis, &Address::new(url)), name, "{url}");
        }
    }

    #[test]
    fn a_directory_becomes_an_address() {
        assert_eq!(store_address(&Address::new("/srv/x")).unwrap().as_str(), "file:///srv/x");
        assert_eq!(store_address(&Address::new("s3://b/p")).unwrap().as_str(), "s3://b/p");
        assert!(store_address(&Address::new("x")).unwrap().as_str().starts_with("file:///"));
    }

    #[test]
    fn files_of_a_failed_run_go_and_those_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
        std::fs::write(&theirs, "kept").unwrap();
        let mut written = Written::default();
        written.file(&ours, "text", 0o600).unwrap();
        assert!(matches!(written.file(&theirs, "text", 0o600), Err(Error::Exists { .. })));
        drop(written);
        assert!(!ours.exists());
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "kept");
    }
}
