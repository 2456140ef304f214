//! One run of the program: the configuration, and what an operation needs of it.
//!
//! Settings become the types of `ops` here and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::redis::RedisSettings;
use backstay_model::dump::{DumpShape, Layout, NameTemplate};
use backstay_model::policy::RetentionPolicy;
use backstay_model::status::Objectives;
use backstay_model::{Fault, InstanceId, OnMaxLag, Progress, Secret};
use backstay_ops::archive::{ArchiveOptions, DEFAULT_RPO};
use backstay_ops::dump::{DumpPolicy, KEEP_REPORTS};
use backstay_ops::instance::{DEFAULT_GRACE, EngineSettings};
use backstay_ops::reload::{Hooks, Server};
use backstay_ops::status::ArchiveExpected;
use backstay_ops::wal::{DEFAULT_AHEAD, FetchProgram};
use backstay_ops::{Clock, Context, Instance, Policy, Run, SystemClock};
use backstay_repo::key::{KeySecret, read_key_file};
use backstay_repo::store::limit::Limits;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::args::{GlobalOptions, PassphraseArguments};
use crate::config::archive::{ArchiveSettings, StreamArchiveSettings, usual_spool};
use crate::config::catalogue::{CataloguePlace, usual_place};
use crate::config::dump::{DumpKeepSettings, Pointer};
use crate::config::secret::SecretSource;
use crate::config::settings::{
    HookSettings, InstanceSettings, KeepSettings, PolicySettings, PostgresqlSettings,
};
use crate::config::{self, Config, Overlays};
use crate::error::Error;
use crate::render::Output;
use crate::render::progress::Bar;

mod shelves;

pub use shelves::Kept;

pub struct Session {
    pub output: Output,
    pub config: Config,
    pub cancel: CancellationToken,
    pub progress: Arc<Progress>,
    pub clock: Arc<dyn Clock>,
    /// What the flags lay over the configuration.
    assignments: Vec<(String, String)>,
}

impl Session {
    pub fn start(global: &GlobalOptions, output: Output, cancel: CancellationToken) -> config::Result<Self> {
        let path = config::find(global.config.as_deref())?;
        let config = Config::load(&path, &overlays(global))?;
        Ok(Self { assignments: global.set.clone(), ..Self::with(config, output, cancel) })
    }

    pub fn with(config: Config, output: Output, cancel: CancellationToken) -> Self {
        Self {
            output,
            config,
            cancel,
            progress: Arc::new(Progress::new()),
            clock: Arc::new(SystemClock),
            assignments: Vec::new(),
        }
    }

    /// What opens the repository; nothing when the configuration names no key.
    pub fn key(&self) -> Result<Option<KeySecret>, Fault> {
        let repository = &self.config.settings.repository;
        let directory = self.config.directory();
        match (&repository.key, &repository.passphrase) {
            (Some(SecretSource::File(path)), _) => {
                let (secret, exposed) = read_key_file(&self.config.beside(path))?;
                if let Some(finding) = exposed {
                    self.output.note(&format!(
                        "warning: {}: {}; {}",
                        finding.subject, finding.message, finding.remedy
                    ));
                }
                Ok(Some(secret))
            }
            (Some(source), _) => Ok(Some(KeySecret::from_text(&source.read("repository.key", directory)?))),
            (None, Some(source)) => {
                Ok(Some(KeySecret::Passphrase(source.read("repository.passphrase", directory)?)))
            }
            (None, None) => Ok(None),
        }
    }

    fn catalogue(&self) -> Option<PathBuf> {
        match &self.config.settings.repository.catalogue {
            Some(CataloguePlace::Directory(directory)) => Some(self.config.beside(directory)),
            Some(CataloguePlace::Nowhere) => None,
            None => usual_place(|name| std::env::var_os(name), rustix::process::geteuid().is_root()),
        }
    }

    /// The repository, opened, with everything an operation needs beside it.
    pub async fn context(&self) -> Result<Context, Fault> {
        self.context_until(&self.cancel).await
    }

    /// As [`Session::context`], with a repository that goes on when somebody asks to stop: for
    /// work that has something to bring to its end, and limits the time for that itself.
    pub async fn parting_context(&self) -> Result<Context, Fault> {
        self.context_until(&CancellationToken::new()).await
    }

    async fn context_until(&self, store_ends: &CancellationToken) -> Result<Context, Fault> {
        let settings = &self.config.settings.repository;
        let store = settings.store.as_str();
        let (key, catalogue) = (self.key()?, self.catalogue());
        let limits = Limits {
            upload: settings.max_upload_rate.map(|rate| rate.0),
            download: settings.max_download_rate.map(|rate| rate.0),
        };
        let (key, catalogue) = (key.as_ref(), catalogue.as_deref());
        let repository =
            backstay_ops::open::repository_limited(store, key, catalogue, limits, store_ends).await?;
        Ok(Context::new(repository, Arc::clone(&self.clock), self.cancel.clone(), Arc::clone(&self.progress)))
    }

    /// The named instances of the configuration, or all: each with what keeps this
    /// version from working on it, so that one stops no other.
    pub fn instances(&self, names: &[String]) -> config::Result<Vec<(InstanceId, config::Result<Instance>)>> {
        let named = self.config.instances(names)?;
        Ok(named.into_iter().map(|(id, settings)| (id.clone(), self.resolve(id, settings))).collect())
    }

    /// The instance to restore: it need not stand in the configuration, since the
    /// machine that had it may be lost. A name that looks mistyped is refused.
    pub fn instance_to_restore(&self, name: &str) -> Result<Instance, Fault> {
        match self.config.instance(name) {
            Ok((id, settings)) => Ok(self.resolve(id, settings)?),
            Err(config::Error::NoSuchInstance { nearest: None, .. }) => Ok(Instance {
                id: name.parse()?,
                engine: EngineSettings::Postgresql(PostgresSettings::default()),
                policy: self.policy(&self.config.settings.policy),
                environment: None,
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn resolve(&self, id: &InstanceId, settings: &InstanceSettings) -> config::Result<Instance> {
        let engine = match settings {
            InstanceSettings::Postgresql(postgresql) => {
                EngineSettings::Postgresql(self.server(id, postgresql)?)
            }
            InstanceSettings::Influxdb(_) => EngineSettings::Influxdb,
            InstanceSettings::Redis(redis) => EngineSettings::Redis(self.redis(id, redis)?),
        };
        Ok(Instance {
            id: id.clone(),
            engine,
            policy: self.policy(&self.config.policy(settings)),
            environment: settings.environment().map(str::to_owned),
        })
    }

    /// What an operation needs that opens no repository.
    pub fn run(&self) -> Run {
        Run::new(Arc::clone(&self.clock), self.cancel.clone(), Arc::clone(&self.progress))
    }

    /// How an instance's dumps are made; `layout` is what the arguments say of it.
    pub fn dump_policy(&self, name: &str, layout: Option<&str>) -> Result<(DumpPolicy, Instance), Fault> {
        let (id, settings) = self.config.instance(name)?;
        let mut policy = self.policy_of_dumps(settings, layout)?;
        policy.passphrase = self.passphrase_of_dumps(settings)?;
        Ok((policy, self.resolve(id, settings)?))
    }

    /// The same without the pass phrase, which not everybody may read who may look.
    fn policy_of_dumps(
        &self,
        settings: &InstanceSettings,
        layout: Option<&str>,
    ) -> Result<DumpPolicy, Fault> {
        let dump = self.config.dump(settings);
        let preset = layout.or(dump.layout.as_deref()).unwrap_or(DEFAULT_LAYOUT);
        let mut layout = Layout::preset_of_engine(preset, settings.engine()).map_err(Fault::new)?;
        if let Some(name) = &dump.name {
            rename(&mut layout, name);
        }
        match &dump.pointer {
            Some(Pointer::Named(name)) => layout.pointer = Some(name.clone()),
            Some(Pointer::None) => layout.pointer = None,
            None => {}
        }
        let keep = dump.keep.as_ref().map_or(layout.keep, DumpKeepSettings::rules);
        // What all instances share is said of `pg_dump`.
        let format = match settings {
            InstanceSettings::Redis(redis) => redis.dump.format,
            InstanceSettings::Postgresql(_) | InstanceSettings::Influxdb(_) => dump.format,
        };
        let shape = DumpShape {
            format: format.unwrap_or(layout.shape.format),
            compression: dump.compression.unwrap_or(layout.shape.compression),
            cipher: dump.encryption.unwrap_or(layout.shape.cipher),
        };
        Ok(DumpPolicy {
            to: dump.to.as_ref().map(|to| to.as_str().to_owned()),
            layout,
            database: own_database(settings),
            shape,
            level: dump.compression_level,
            passphrase: None,
            older_passphrases: Vec::new(),
            jobs: dump.jobs.unwrap_or(DEFAULT_JOBS),
            spool: dump.spool.as_ref().map(|spool| self.config.beside(spool)),
            keep,
            keep_reports: dump
                .keep_reports
                .map_or(KEEP_REPORTS, |age| SignedDuration::try_from(age.0).unwrap_or(SignedDuration::MAX)),
        })
    }

    fn passphrase_of_dumps(&self, settings: &InstanceSettings) -> Result<Option<Secret>, Fault> {
        match self.config.dump(settings).passphrase {
            Some(source) => Ok(Some(source.read("dump.passphrase", self.config.directory())?)),
            None => Ok(None),
        }
    }

    /// What the arguments say may open older dumps. A file lies where the person is who
    /// names it.
    pub fn older_passphrases(&self, arguments: &PassphraseArguments) -> Result<Vec<Secret>, Fault> {
        let read = |file: &PathBuf| {
            let source = SecretSource::File(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
            Ok(source.read("--passphrase-file", self.config.directory())?)
        };
        arguments.passphrase_file.iter().map(read).collect()
    }

    fn server(&self, id: &InstanceId, settings: &PostgresqlSettings) -> config::Result<PostgresSettings> {
        let password = match &settings.password {
            Some(source) => Some(source.read(&format!("instance.{id}.password"), self.config.directory())?),
            None => None,
        };
        let beside = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| self.config.beside(path));
        Ok(PostgresSettings {
            url: settings.url.as_str().to_owned(),
            password,
            data_directory: beside(&settings.data_directory),
            ssl_root_certificate: beside(&settings.ssl_root_certificate),
            bin_directory: beside(&settings.bin_directory),
            max_rate: settings.max_rate.map(|rate| rate.0),
        })
    }

    fn redis(
        &self,
        id: &InstanceId,
        settings: &config::settings::RedisSettings,
    ) -> config::Result<RedisSettings> {
        let secret = |source: &Option<SecretSource>, setting: &str| match source {
            Some(source) => {
                source.read(&format!("instance.{id}.{setting}"), self.config.directory()).map(Some)
            }
            None => Ok(None),
        };
        let beside = |path: &Option<PathBuf>| path.as_ref().map(|path| self.config.beside(path));
        Ok(RedisSettings {
            url: settings.url.as_ref().map(|url| url.as_str().to_owned()).unwrap_or_default(),
            password: secret(&settings.password, "password")?,
            replica: settings.replica.as_ref().map(|replica| replica.as_str().to_owned()),
            sentinel_user: settings.sentinel_user.clone(),
            sentinel_password: secret(&settings.sentinel_password, "sentinel_password")?,
            ssl_root_certificate: beside(&settings.ssl_root_certificate),
            ssl_certificate: beside(&settings.ssl_certificate),
            ssl_key: beside(&settings.ssl_key),
            data_directory: beside(&settings.data_directory),
            bin_directory: beside(&settings.bin_directory),
            ..RedisSettings::default()
        })
    }

    fn policy(&self, settings: &PolicySettings) -> Policy {
        Policy {
            keep: settings.keep.as_ref().map(retention).unwrap_or_default(),
            objectives: Objectives { rpo: settings.rpo.map(|rpo| rpo.0), rto: settings.rto.map(|rto| rto.0) },
            grace: settings.grace.map_or(DEFAULT_GRACE, |grace| grace.0),
        }
    }

    /// How the log of an instance is received.
    pub fn archive_options(&self, id: &InstanceId, accept_gap: bool) -> Result<ArchiveOptions, Fault> {
        let (_, settings) = self.config.instance(id.as_str())?;
        let policy = settings.policy().over(&self.config.settings.policy);
        let spool = match settings {
            InstanceSettings::Postgresql(settings) => settings.archive.spool.as_ref(),
            InstanceSettings::Redis(settings) => settings.archive.spool.as_ref(),
            InstanceSettings::Influxdb(_) => return Err(Error::NoLog { instance: id.to_string() }.into()),
        };
        let spool = self.spool(id, spool).ok_or_else(|| Error::NoSpool { instance: id.to_string() })?;
        let repository = &self.config.settings.repository;
        let of_a_stream = ArchiveOptions {
            slot: String::new(),
            spool,
            rpo: policy.rpo.map_or(DEFAULT_RPO, |rpo| rpo.0),
            synchronous: false,
            compression_level: repository.level(),
            log_level: repository.log_level(),
            max_lag: None,
            on_max_lag: OnMaxLag::Alert,
            accept_gap,
        };
        let InstanceSettings::Postgresql(settings) = settings else { return Ok(of_a_stream) };
        if settings.archive.synchronous && settings.archive.on_max_lag() == OnMaxLag::Gap {
            // A gap would confirm commits that nobody has.
            return Err(Error::SynchronousGap { instance: id.to_string() }.into());
        }
        Ok(ArchiveOptions {
            slot: settings.archive.slot(id),
            synchronous: settings.archive.synchronous,
            max_lag: settings.archive.limit(),
            on_max_lag: settings.archive.on_max_lag(),
            ..of_a_stream
        })
    }

    /// Nothing for a user without a home where nobody said it.
    fn spool(&self, id: &InstanceId, named: Option<&PathBuf>) -> Option<PathBuf> {
        let usual = || usual_spool(|name| std::env::var_os(name), rustix::process::geteuid().is_root());
        let spool = named.map(|spool| self.config.beside(spool)).or_else(usual)?;
        Some(spool.join(id.as_str()))
    }

    /// How many segments go ahead of the one that the server gives away.
    pub fn push_ahead(&self, id: &InstanceId) -> u32 {
        match self.config.instance(id.as_str()) {
            Ok((_, InstanceSettings::Postgresql(settings))) => {
                settings.archive.push_ahead.unwrap_or(DEFAULT_AHEAD)
            }
            _ => 0,
        }
    }

    /// What a status should find of the archive of an instance; nothing for engines without one.
    pub fn archive_expected(&self, id: &InstanceId) -> Option<ArchiveExpected> {
        let settings = match self.config.instance(id.as_str()).ok()?.1 {
            InstanceSettings::Postgresql(settings) => settings,
            InstanceSettings::Redis(settings) => {
                let is_configured = settings.archive != StreamArchiveSettings::default();
                let spool = self.spool(id, settings.archive.spool.as_ref());
                return Some(ArchiveExpected { slot: String::new(), is_configured, max_lag: None, spool });
            }
            InstanceSettings::Influxdb(_) => return None,
        };
        let is_configured = *settings.archive != ArchiveSettings::default();
        Some(ArchiveExpected {
            slot: settings.archive.slot(id),
            is_configured,
            max_lag: settings.archive.limit(),
            spool: None,
        })
    }

    /// The commands around a restore of a dump.
    pub fn hooks(&self, name: &str, to_server: Option<&str>) -> Result<Hooks, Fault> {
        let settings = match to_server {
            None => self.config.instance(name)?.1,
            // The application of the server that is changed; of an address nobody said any.
            Some(other) => match self.config.instance(other) {
                Ok((_, settings)) => settings,
                Err(_) => return Ok(Hooks::default()),
            },
        };
        let InstanceSettings::Postgresql(settings) = settings else { return Ok(Hooks::default()) };
        let HookSettings { before_restore, after_restore, limit } = settings.hooks.clone();
        Ok(Hooks { before: before_restore, after: after_restore, limit: limit.map(|limit| limit.0) })
    }

    /// A server that a dump goes to: an instance of the configuration, or an address.
    pub fn other_server(&self, name: &str, password_file: Option<&Path>) -> Result<Server, Fault> {
        if let Ok((id, settings)) = self.config.instance(name) {
            let instance = self.resolve(id, settings)?;
            let settings = instance.server()?.clone();
            return Ok(Server::Other { settings: Box::new(settings), environment: instance.environment });
        }
        if !name.contains("://") && !name.contains('=') {
            // A name that is none of ours: the error names those that are.
            self.config.instance(name)?;
        }
        let password = match password_file {
            Some(file) => {
                let source =
                    SecretSource::File(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
                Some(source.read("--password-file", self.config.directory())?)
            }
            None => None,
        };
        let settings = PostgresSettings { url: name.to_owned(), password, ..PostgresSettings::default() };
        Ok(Server::Other { settings: Box::new(settings), environment: None })
    }

    /// How a server calls this program for its log: with the configuration of this run.
    /// Nothing where this program cannot see where it lies itself.
    pub fn fetch_program(&self) -> Option<FetchProgram> {
        let program = std::env::current_exe().ok()?;
        let config = std::path::absolute(&self.config.path).unwrap_or_else(|_| self.config.path.clone());
        Some(FetchProgram { program, config, assignments: self.assignments.clone() })
    }

    /// A bar until it is dropped.
    pub fn bar(&self, title: &str) -> Bar {
        Bar::show(self.output.shows_progress(), title, Arc::clone(&self.progress))
    }
}

/// Where nobody chose one.
const DEFAULT_LAYOUT: &str = "plain";
/// Two read faster than one, and hold few connections.
const DEFAULT_JOBS: u32 = 2;

/// A name of one's own stands for all tiers, when it tells them apart.
fn rename(layout: &mut Layout, name: &NameTemplate) {
    let tells_tiers_apart = name.to_string().contains("{tier}");
    layout.daily = name.clone();
    layout.by_hand = Vec::new();
    layout.weekly = tells_tiers_apart.then(|| name.clone());
    layout.monthly = tells_tiers_apart.then(|| name.clone());
}

/// What the environment and the flags lay over the file.
pub fn overlays(global: &GlobalOptions) -> Overlays {
    let text = |word: std::ffi::OsString| word.into_string().ok();
    Overlays {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
            .collect(),
        assignments: global.set.clone(),
    }
}

/// The database of the address, where that is one.
fn own_database(settings: &InstanceSettings) -> Option<String> {
    let InstanceSettings::Postgresql(settings) = settings else { return None };
    let url = settings.url.as_str().to_owned();
    let address = PostgresSettings { url, ..PostgresSettings::default() }.address().ok()?;
    Some(address.database().to_owned())
}

fn retention(keep: &KeepSettings) -> RetentionPolicy {
    let number = |count: Option<u32>| count.unwrap_or(0);
    RetentionPolicy {
        last: number(keep.last),
        hourly: number(keep.hourly),
        daily: number(keep.daily),
        weekly: number(keep.weekly),
        monthly: number(keep.monthly),
        yearly: number(keep.yearly),
        within_days: number(keep.within_days),
        minimum: number(keep.minimum),
    }
}
