//! The shelves of the configuration: where each instance's dumps lie, for whoever looks
//! at them, verifies them or lets them go.

use std::path::PathBuf;

use backstay_model::dump::{DumpKeep, DumpShape, Layout};
use backstay_model::{Fault, InstanceId};
use backstay_ops::dump::{DumpPolicy, KEEP_REPORTS};

use super::{DEFAULT_JOBS, DEFAULT_LAYOUT, Session};
use crate::config;
use crate::config::settings::InstanceSettings;

/// The dumps of one instance.
#[derive(Debug)]
pub struct Kept {
    pub instance: InstanceId,
    /// Without the pass phrase.
    pub policy: DumpPolicy,
    pub bin_directory: Option<PathBuf>,
}

impl Session {
    /// The instances whose dumps have a place; of these, or of all. What keeps one from
    /// being looked at stops no other.
    pub fn shelves(&self, names: &[String]) -> Vec<Result<Kept, Fault>> {
        let all = &self.config.settings.instance;
        let named =
            all.iter().filter(|(id, _)| names.is_empty() || names.iter().any(|name| name == id.as_str()));
        let mut shelves = Vec::new();
        for (id, settings) in named {
            let bin_directory = match settings {
                InstanceSettings::Postgresql(postgresql) => postgresql.bin_directory.as_ref(),
                InstanceSettings::Influxdb(_) | InstanceSettings::Redis(_) => None,
            };
            match self.policy_of_dumps(settings, None) {
                Ok(policy) if policy.to.is_none() => {}
                Ok(policy) => shelves.push(Ok(Kept {
                    instance: id.clone(),
                    policy,
                    bin_directory: bin_directory.map(|path| self.config.beside(path)),
                })),
                Err(fault) => shelves.push(Err(fault)),
            }
        }
        shelves
    }

    /// The same with the pass phrase of the dumps, for whoever reads them.
    pub fn opened(&self, kept: Kept) -> Result<Kept, Fault> {
        let (_, settings) = self.config.instance(kept.instance.as_str())?;
        let passphrase = self.passphrase_of_dumps(settings)?;
        Ok(Kept { policy: DumpPolicy { passphrase, ..kept.policy }, ..kept })
    }

    /// How dumps of an instance are made, which need not stand in the configuration any more.
    pub fn dump_policy_of_any(&self, name: &str) -> Result<DumpPolicy, Fault> {
        match self.config.settings.instance.iter().find(|(id, _)| id.as_str() == name) {
            Some((_, settings)) => {
                let policy = self.policy_of_dumps(settings, None)?;
                Ok(DumpPolicy { passphrase: self.passphrase_of_dumps(settings)?, ..policy })
            }
            None => Ok(DumpPolicy {
                to: None,
                layout: Layout::preset(DEFAULT_LAYOUT).map_err(Fault::new)?,
                database: None,
                shape: DumpShape::default(),
                level: None,
                passphrase: None,
                older_passphrases: Vec::new(),
                jobs: DEFAULT_JOBS,
                spool: None,
                keep: DumpKeep::default(),
                keep_reports: KEEP_REPORTS,
            }),
        }
    }

    /// Where dumps of an instance would lie, or an error that says what to set.
    pub fn shelves_of_one_or_all(&self, name: Option<&str>) -> config::Result<Vec<Result<Kept, Fault>>> {
        let names: Vec<String> = name.map(str::to_owned).into_iter().collect();
        self.config.instances(&names)?;
        Ok(self.shelves(&names))
    }
}
