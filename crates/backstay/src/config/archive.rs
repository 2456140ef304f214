//! `[instance.NAME.archive]`: how the log of a server is received.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backstay_model::{InstanceId, LagLimit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Size;

/// How the log of a server is received and kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSettings {
    /// The replication slot that holds the log for the archive, made when it is not there. Left out, `backstay_` and
    /// the name of the instance.
    #[serde(default)]
    pub slot: Option<String>,
    /// Where the log lies on this machine until the store has it, in a directory for each instance. Left out,
    /// `backstay/spool` in `$XDG_STATE_HOME` or `~/.local/state`, for root `/var/spool/backstay`.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// Acknowledge every piece as soon as it is durable in the spool, for a server whose `synchronous_standby_names`
    /// names `backstay`: then no commit that was confirmed is ever lost, and each waits for this machine's disk.
    #[serde(default)]
    pub synchronous: bool,
    /// How much log the server may hold for the archive on its own disk, such as `"10GiB"`; at least two segments count.
    /// More than half of it is a warning, all of it a fault, in `backstay archive` and in `backstay status`. Nobody
    /// looks at the server while neither runs: `max_slot_wal_keep_size` of the server holds then as well.
    #[serde(default)]
    pub max_lag: Option<Size>,
    /// What `backstay archive` does when the server holds that much. `"alert"` tells it. `"gap"` drops the slot, so that the
    /// server lets go, notes the hole in the repository, goes on behind it and takes a new base; log that the server
    /// let go of by itself is treated alike.
    #[serde(default)]
    pub on_max_lag: OnMaxLag,
    /// How many more segments one call of `backstay wal push` stores, of those that the server has ready behind the one
    /// that it names: three at once, up to 8 when not set, none with 0. Each is compared when the server comes to it.
    #[serde(default)]
    pub push_ahead: Option<u32>,
}

/// How the stream of a server without a log of its own is received and kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamArchiveSettings {
    /// Where the stream lies on this machine until the store has it, in a directory for each instance. Left out,
    /// `backstay/spool` in `$XDG_STATE_HOME` or `~/.local/state`, for root `/var/spool/backstay`.
    #[serde(default)]
    pub spool: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMaxLag {
    #[default]
    Alert,
    Gap,
}

impl ArchiveSettings {
    pub fn slot(&self, instance: &InstanceId) -> String {
        self.slot.clone().unwrap_or_else(|| format!("backstay_{}", instance.as_str().replace('-', "_")))
    }

    /// How much the server may hold.
    pub fn limit(&self) -> Option<LagLimit> {
        Some(LagLimit { max_bytes: self.max_lag?.0.0, on_max_lag: self.on_max_lag() })
    }

    pub fn on_max_lag(&self) -> backstay_model::OnMaxLag {
        match self.on_max_lag {
            OnMaxLag::Alert => backstay_model::OnMaxLag::Alert,
            OnMaxLag::Gap => backstay_model::OnMaxLag::Gap,
        }
    }
}

/// Where spools lie when nobody says: nowhere for a user without a home.
pub fn usual_spool(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match absolute("XDG_STATE_HOME") {
        Some(state) => Some(state.join("backstay/spool")),
        None if is_root => Some(Path::new("/var/spool/backstay").to_owned()),
        None => Some(absolute("HOME")?.join(".local/state/backstay/spool")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_a_name_that_the_server_takes() {
        let settings = ArchiveSettings::default();
        assert_eq!(settings.slot(&"orders-eu".parse().unwrap()), "backstay_orders_eu");
        // PostgreSQL takes 63 bytes, of small letters, digits and `_`.
        let long: InstanceId = "x".repeat(backstay_model::id::INSTANCE_NAME_MAX).parse().unwrap();
        assert!(settings.slot(&long).len() <= 63);
        let own = ArchiveSettings { slot: Some("mine".to_owned()), ..settings };
        assert_eq!(own.slot(&long), "mine");
    }

    #[test]
    fn a_spool_is_where_state_lies() {
        let of = |variables: &[(&str, &str)], is_root| {
            let find = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            usual_spool(find, is_root).map(|path| path.display().to_string())
        };
        assert_eq!(of(&[], true).as_deref(), Some("/var/spool/backstay"));
        assert_eq!(of(&[("HOME", "/home/a")], false).as_deref(), Some("/home/a/.local/state/backstay/spool"));
        assert_eq!(of(&[("XDG_STATE_HOME", "/s")], true).as_deref(), Some("/s/backstay/spool"));
        assert_eq!(of(&[("HOME", "relative")], false), None);
    }
}
