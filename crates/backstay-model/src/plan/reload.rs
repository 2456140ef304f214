//! The plan of a reload: a dump put back into a database, and what must be confirmed
//! before it.
//!
//! Invariant: a plan that would change what somebody has, or carry data from one
//! environment into another, has a refusal until the name of what is changed was typed.

use serde::{Deserialize, Serialize};

use super::restore::Refusal;
use crate::dump::{DumpContent, DumpRecord};
use crate::error::ErrorKind;
use crate::finding::Finding;
use crate::id::{BackupId, InstanceId};

/// Where a dump goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "into")]
pub enum Destination {
    /// A database that is made, or one that is there.
    Database { name: String },
    /// In the place of a database, which is kept under another name.
    Swap { name: String, kept: String },
    /// A database that is made, looked at and dropped again.
    Test { name: String },
}

impl Destination {
    /// The name under which it can be found afterwards.
    pub fn name(&self) -> &str {
        match self {
            Destination::Database { name } | Destination::Swap { name, .. } | Destination::Test { name } => {
                name
            }
        }
    }
}

/// How much of a database was looked at after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadChecks {
    /// Those that the dump names.
    pub relations: u64,
    pub indexes: u64,
    pub constraints: u64,
    /// Materialised ones.
    pub views: u64,
    /// Those of columns.
    pub sequences: u64,
    pub tables_read: u64,
    pub rows_read: u64,
}

/// What was seen of the target, before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    /// `db:5432`, as a person is told.
    pub server: String,
    /// What the configuration says this server is for.
    pub environment: Option<String>,
    /// The server has the identity of the one that was dumped, as far as both are known.
    pub is_source: bool,
    pub is_there: bool,
    /// There, and somebody made something in it.
    pub is_used: bool,
}

/// What a person said beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consent {
    pub force: bool,
    /// The name that was typed.
    pub confirm: Option<String>,
    /// Several are restored at once, and no one name can be typed for all of them.
    pub is_of_several: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadPlan {
    pub instance: InstanceId,
    pub dump: BackupId,
    /// Below the shelf.
    pub file: String,
    #[serde(flatten)]
    pub content: DumpContent,
    pub server: String,
    pub destination: Destination,
    /// Chosen tables and schemas; everything when both are empty.
    pub tables: Vec<String>,
    pub schemas: Vec<String>,
    /// Whether the present state is dumped first.
    pub safety_dump: bool,
    pub raw_bytes: u64,
    pub steps: Vec<String>,
    pub refusals: Vec<Refusal>,
    pub findings: Vec<Finding>,
}

impl ReloadPlan {
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Takes over what an earlier plan of the same restore told, such as which newer dump was
    /// passed over for this one.
    pub fn told_before(&mut self, earlier: &[Finding]) {
        let own = std::mem::take(&mut self.findings);
        let new = own.into_iter().filter(|finding| !earlier.contains(finding));
        self.findings = earlier.iter().cloned().chain(new).collect();
    }
}

/// Why a name must be typed; empty when nothing is at stake. `instance` and `database` are
/// what the person spoke of.
pub fn at_stake(
    record: &DumpRecord,
    target: &TargetFacts,
    destination: &Destination,
    instance: &InstanceId,
    database: &str,
) -> Vec<String> {
    let mut reasons = Vec::new();
    // It is gone a moment later, and nobody saw it.
    if matches!(destination, Destination::Test { .. }) {
        return reasons;
    }
    if record.instance != *instance {
        reasons.push(format!("the dump is of {}, and not of {instance}", record.instance));
    }
    let replaces = matches!(destination, Destination::Swap { .. });
    if let Some(of) = record.content.database().filter(|of| replaces && *of != database) {
        reasons.push(format!("the dump is of database {of}, and not of {database}"));
    }
    if let Some(from) = &record.environment {
        match &target.environment {
            Some(to) if to == from => {}
            Some(to) => reasons.push(format!("the dump is of {from}, and the server is {to}")),
            None => reasons.push(format!(
                "the dump is of {from}, and nobody said what environment the server {} is",
                target.server
            )),
        }
    }
    if let (None, Some(to), false) = (&record.environment, &target.environment, target.is_source) {
        reasons.push(format!("nobody said what environment the dump is of, and the server is {to}"));
    }
    let name = destination.name();
    match destination {
        Destination::Swap { kept, .. } if target.is_there => {
            reasons.push(format!("database {name} is in use; it is kept as {kept}"));
        }
        Destination::Database { .. } if target.is_used => {
            reasons.push(format!("database {name} is not empty"));
        }
        _ => {}
    }
    if target.is_source && target.is_there && record.content.database() == Some(name) {
        reasons.push(format!("database {name} of this server is what was dumped"));
    }
    reasons
}

/// The refusal of whoever did not say what must be said.
pub fn refusal(reasons: &[String], destination: &Destination, consent: &Consent) -> Option<Refusal> {
    let name = destination.name();
    if reasons.is_empty() {
        return None;
    }
    let hint = match consent.is_of_several {
        false => format!("if that is meant, say so with `--force --confirm '{name}'`"),
        true => {
            format!(
                "if that is meant, restore this one by itself, and say so with `--force --confirm '{name}'`"
            )
        }
    };
    match &consent.confirm {
        Some(typed) if typed != name => Some(Refusal::new(
            ErrorKind::Conflict,
            format!("`--confirm` names {typed}, and the restore changes {name}"),
            vec![hint],
        )),
        Some(_) if consent.force => None,
        _ => Some(Refusal::new(ErrorKind::Conflict, reasons.join("; "), vec![hint])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{DumpShape, Tier};
    use crate::record::EngineKind;

    fn record(environment: Option<&str>) -> DumpRecord {
        let at = "2026-11-21T02:00:00Z".parse().unwrap();
        DumpRecord {
            id: BackupId::new(at, 1),
            instance: "orders".parse().unwrap(),
            environment: environment.map(str::to_owned),
            engine: EngineKind::Postgresql,
            content: DumpContent::Database { database: "shop".into() },
            set: None,
            file: "shop.dump".into(),
            tier: Tier::Daily,
            started_at: at,
            finished_at: at,
            duration_seconds: 1.0,
            shape: DumpShape::default(),
            raw_bytes: 2,
            stored_bytes: 1,
            compression_ratio: 2.0,
            sha256: String::new(),
            database_bytes: None,
            position: None,
            system_identifier: None,
            server_version: None,
            tool_version: None,
            backstay_version: String::new(),
            extensions: Default::default(),
            tables: Vec::new(),
            timescaledb: None,
            needs: Default::default(),
            members: Vec::new(),
            warnings: Vec::new(),
            adopted: false,
            safety: false,
            guessed: false,
        }
    }

    fn target(environment: Option<&str>) -> TargetFacts {
        TargetFacts {
            server: "db:5432".into(),
            environment: environment.map(str::to_owned),
            is_source: true,
            is_there: false,
            is_used: false,
        }
    }

    fn database(name: &str) -> Destination {
        Destination::Database { name: name.into() }
    }

    fn swap() -> Destination {
        Destination::Swap { name: "shop".into(), kept: "shop_before_1".into() }
    }

    #[test]
    fn a_new_database_beside_the_source_puts_nothing_at_stake() {
        for environment in [None, Some("production")] {
            let (record, target) = (record(environment), target(environment));
            let stake = at_stake(&record, &target, &database("shop_copy"), &record.instance, "shop");
            assert_eq!(stake, Vec::<String>::new());
        }
    }

    #[test]
    fn a_test_puts_nothing_at_stake_wherever_it_takes_place() {
        let stake = at_stake(
            &record(Some("production")),
            &target(Some("staging")),
            &Destination::Test { name: "shop_fills_1".into() },
            &"stock".parse().unwrap(),
            "stock",
        );
        assert_eq!(stake, Vec::<String>::new());
    }

    #[test]
    fn another_database_or_another_instance_than_the_one_spoken_of_is_named() {
        let (record, target) = (record(None), target(None));
        let stake = at_stake(&record, &target, &swap(), &record.instance, "stock");
        assert_eq!(stake, ["the dump is of database shop, and not of stock"]);
        let stake = at_stake(&record, &target, &database("copy"), &"stock".parse().unwrap(), "shop");
        assert_eq!(stake, ["the dump is of orders, and not of stock"]);
    }

    #[test]
    fn another_environment_a_used_database_and_the_source_itself_must_be_confirmed_by_name() {
        let used = TargetFacts { is_there: true, is_used: true, ..target(Some("production")) };
        for (dump, target, destination, word) in [
            (Some("production"), target(Some("staging")), database("shop_copy"), "the server is staging"),
            (Some("production"), target(None), database("shop_copy"), "nobody said"),
            (Some("production"), used.clone(), database("shop_copy"), "is not empty"),
            (Some("production"), used.clone(), database("shop"), "is what was dumped"),
            (None, used, swap(), "is kept as shop_before_1"),
        ] {
            let record = record(dump);
            let reasons = at_stake(&record, &target, &destination, &record.instance, "shop");
            assert!(reasons.iter().any(|reason| reason.contains(word)), "{word}: {reasons:?}");
            let consent = |force, confirm: Option<&str>| Consent {
                force,
                confirm: confirm.map(str::to_owned),
                ..Consent::default()
            };
            let name = destination.name();
            for (consent, is_refused) in [
                (consent(false, None), true),
                (consent(true, None), true),
                (consent(false, Some(name)), true),
                (consent(true, Some("another")), true),
                (consent(true, Some(name)), false),
            ] {
                let refused = refusal(&reasons, &destination, &consent);
                assert_eq!(refused.is_some(), is_refused, "{consent:?}: {refused:?}");
            }
        }
    }
}
