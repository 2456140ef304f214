//! What a server lacks for a dump, all of it, before the first byte is written.
//!
//! An archive names its roles and extensions itself; for statements the dump's record
//! has to do, which knows what they named when they passed, and versions of extensions.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::dump::{DumpRecord, StatementNeeds};
use backstay_model::plan::restore::Refusal;
use backstay_model::{ErrorKind, Finding};

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::archive::{Archive, Entry, major};
use super::target::ReloadTarget;
use crate::Result;

/// What a dump needs of the server it is put back to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpNeeds {
    /// Of the server that it was taken of: `17.11`.
    pub server_version: Option<String>,
    /// Of `pg_dump`.
    pub tool_version: Option<String>,
    pub roles: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
    /// With their versions, where these are known.
    pub extensions: BTreeMap<String, Option<String>>,
    /// Nothing can be left out of it: it is in statements.
    pub is_all_or_nothing: bool,
    /// The command that makes the roles of the dump's server, where a dump of them is known.
    pub globals: Option<String>,
}

impl DumpNeeds {
    /// What the record knows, which no archive does: the versions of the extensions.
    pub fn of_record(record: &DumpRecord) -> DumpNeeds {
        let known = record.extensions.iter();
        DumpNeeds {
            server_version: record.server_version.clone(),
            tool_version: record.tool_version.clone(),
            roles: BTreeSet::new(),
            tablespaces: BTreeSet::new(),
            extensions: known.map(|(name, version)| (name.clone(), Some(version.clone()))).collect(),
            is_all_or_nothing: false,
            globals: None,
        }
    }

    /// And what statements name. Where that is not known, the server says it itself.
    pub fn and_statements(mut self, named: Option<&StatementNeeds>) -> DumpNeeds {
        self.is_all_or_nothing = true;
        let Some(named) = named else { return self };
        self.roles.extend(named.roles.iter().cloned());
        self.tablespaces.extend(named.tablespaces.iter().cloned());
        let versions = named.versions.iter().map(|(name, version)| (name.clone(), Some(version.clone())));
        self.extensions.extend(versions);
        self.and_extensions(named.extensions.iter().map(String::as_str).collect())
    }

    /// And what the entries that are restored need, with or without their owners and grants.
    pub fn and_archive<'a>(
        mut self,
        archive: &'a Archive,
        entries: impl IntoIterator<Item = &'a Entry> + Clone,
        owners: bool,
        privileges: bool,
    ) -> DumpNeeds {
        self.server_version = Some(archive.server_version.clone());
        self.tool_version = Some(archive.tool_version.clone());
        if owners {
            self.roles.extend(archive.owners(entries.clone()));
        }
        if privileges {
            self.roles.extend(archive.grantees(entries.clone()));
        }
        self.tablespaces.extend(entries.clone().into_iter().filter_map(|entry| entry.tablespace.clone()));
        let named: BTreeSet<&str> = entries
            .into_iter()
            .filter(|entry| entry.kind == "EXTENSION")
            .map(|entry| entry.name.as_str())
            .collect();
        self.and_extensions(named)
    }

    fn and_extensions(mut self, named: BTreeSet<&str>) -> DumpNeeds {
        self.extensions.retain(|name, _| named.contains(name.as_str()));
        for name in named {
            self.extensions.entry(name.to_owned()).or_default();
        }
        self
    }
}

/// What was found out about a server before it is written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Each of them makes the reload fail.
    pub refusals: Vec<Refusal>,
    /// None of these does.
    pub findings: Vec<Finding>,
}

/// The extension whose catalogue is dumped with the database: rows of one version mean
/// nothing to another.
const SAME_VERSION: &str = "timescaledb";

impl ReloadTarget {
    /// Looks at the server, and into the database; without one, a new one will be made.
    pub async fn preflight(&self, database: Option<&str>, needs: &DumpNeeds) -> Result<Preflight> {
        let mut found = Preflight::default();
        self.versions(needs, &mut found);
        let session = self.session(database).await?;
        if database.is_none() {
            may_create(&session, &mut found).await?;
        }
        self.roles(&session, needs, &mut found).await?;
        self.extensions(&session, needs, &mut found).await?;
        missing_tablespaces(&session, needs, &mut found).await?;
        Ok(found)
    }

    fn versions(&self, needs: &DumpNeeds, found: &mut Preflight) {
        let target = self.major();
        let of = needs.server_version.as_deref().and_then(major);
        if let (Some(of), Some(version)) = (of, &needs.server_version)
            && of > target
        {
            found.refusals.push(Refusal::new(
                ErrorKind::Unsupported,
                format!("the dump is of PostgreSQL {version}, and the server is {}", self.server_version()),
                vec![format!("name a server of PostgreSQL {of} or newer with `--to-server`")],
            ));
            return;
        }
        let tool = needs.tool_version.as_deref().and_then(major);
        // From this version on, its statements set what an older server does not know.
        const SETS_MORE: u32 = 17;
        if let Some(tool) = tool.filter(|tool| *tool > target && *tool >= SETS_MORE) {
            found.refusals.push(Refusal::new(
                ErrorKind::Unsupported,
                format!("`pg_dump` {tool} wrote the dump, and the server is {}", self.server_version()),
                vec![format!(
                    "name a server of PostgreSQL {tool} or newer with `--to-server`, or dump again with the package \
                     `postgresql-client-{target}`"
                )],
            ));
        }
    }

    async fn roles(&self, session: &Session, needs: &DumpNeeds, found: &mut Preflight) -> Result<()> {
        let statement = "SELECT w.name, r.oid IS NOT NULL, \
                                coalesce(pg_has_role(current_user, r.oid, 'MEMBER'), false), current_user::text \
                         FROM unnest($1::text[]) AS w(name) LEFT JOIN pg_roles r ON r.rolname = w.name ORDER BY 1";
        let names: Vec<&String> = needs.roles.iter().collect();
        for row in &session.query("look for the roles of the dump", statement, &[&names]).await? {
            let name: String = column(row, 0)?;
            let (there, member): (bool, bool) = (column(row, 1)?, column(row, 2)?);
            if there && member {
                continue;
            }
            let quoted = quoted_identifier(&name);
            if !there {
                let mut hint = format!("run `CREATE ROLE {quoted}`");
                if let Some(command) = &needs.globals {
                    hint +=
                        &format!(", or `{command}`, which makes the roles of its server that are missing");
                }
                if !needs.is_all_or_nothing {
                    hint += "; `--no-owner --no-privileges` leaves owners and grants out";
                }
                found.refusals.push(Refusal::new(
                    ErrorKind::NotFound,
                    format!("role {name}, which the dump names, is not there"),
                    vec![hint],
                ));
            } else {
                let us: String = column(row, 3)?;
                let mut remedy = format!("`GRANT {quoted} TO {}`", quoted_identifier(&us));
                if !needs.is_all_or_nothing {
                    remedy += ", or `--no-owner`";
                }
                found.findings.push(Finding::warning(
                    format!("role {name}"),
                    format!("is one that role {us} is no member of: nothing can be made its own"),
                    remedy,
                ));
            }
        }
        Ok(())
    }

    async fn extensions(&self, session: &Session, needs: &DumpNeeds, found: &mut Preflight) -> Result<()> {
        let statement = "SELECT w.name, a.default_version, a.installed_version, \
                                array(SELECT v.version FROM pg_available_extension_versions v WHERE v.name = w.name) \
                         FROM unnest($1::text[]) AS w(name) LEFT JOIN pg_available_extensions a ON a.name = w.name \
                         ORDER BY 1";
        let names: Vec<&String> = needs.extensions.keys().collect();
        for row in &session.query("look for the extensions of the dump", statement, &[&names]).await? {
            let name: String = column(row, 0)?;
            let (default, installed): (Option<String>, Option<String>) = (column(row, 1)?, column(row, 2)?);
            let versions: Vec<String> = column(row, 3)?;
            let wanted = needs.extensions.get(&name).cloned().flatten();
            let Some(default) = default else {
                let version = wanted.map(|version| format!(" {version}")).unwrap_or_default();
                found.refusals.push(Refusal::new(
                    ErrorKind::Unsupported,
                    format!("extension {name}{version}, which the dump makes, is not installed at the server"),
                    vec![format!(
                        "install its package there; `SELECT * FROM pg_available_extensions WHERE name = '{name}'` \
                         shows it then"
                    )],
                ));
                continue;
            };
            let Some(wanted) = wanted else {
                if name == SAME_VERSION {
                    found.findings.push(Finding::warning(
                        format!("extension {name}"),
                        format!("of which version of {name} the dump is, it does not say"),
                        format!(
                            "if its source had another one than {default}, install that at the server first"
                        ),
                    ));
                }
                continue;
            };
            let here = installed.unwrap_or_else(|| default.clone());
            if name == SAME_VERSION {
                if !versions.contains(&wanted) || (here != wanted && here != default) {
                    found.refusals.push(Refusal::new(
                        ErrorKind::Unsupported,
                        format!("the dump is of {name} {wanted}, and the server has {here}"),
                        vec![format!(
                            "install {name} {wanted} at the server; `ALTER EXTENSION {name} UPDATE` comes after the \
                             restore"
                        )],
                    ));
                }
            } else if here != wanted {
                found.findings.push(Finding::warning(
                    format!("extension {name}"),
                    format!("is {wanted} in the dump and will be {here}"),
                    format!("`ALTER EXTENSION {} UPDATE TO '{wanted}'` afterwards", quoted_identifier(&name)),
                ));
            }
        }
        if needs.extensions.contains_key(SAME_VERSION) {
            self.is_preloaded(session, found).await?;
        }
        Ok(())
    }

    async fn is_preloaded(&self, session: &Session, found: &mut Preflight) -> Result<()> {
        // Seen by members of pg_read_all_settings only; who may not is told by the server.
        let statement = "SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'";
        let rows = session.query("look at the libraries of the server", statement, &[]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let list: String = column(row, 0)?;
        if !list.split(',').any(|name| name.trim().trim_matches('"').ends_with(SAME_VERSION)) {
            found.refusals.push(Refusal::new(
                ErrorKind::Unsupported,
                format!("the server does not load {SAME_VERSION}, without which its tables cannot be made"),
                vec![format!("set `shared_preload_libraries = '{SAME_VERSION}'` and restart the server")],
            ));
        }
        Ok(())
    }
}

async fn missing_tablespaces(session: &Session, needs: &DumpNeeds, found: &mut Preflight) -> Result<()> {
    let statement = "SELECT w.name FROM unnest($1::text[]) AS w(name) \
                     WHERE w.name NOT IN (SELECT spcname FROM pg_tablespace) ORDER BY 1";
    let names: Vec<&String> = needs.tablespaces.iter().collect();
    for row in &session.query("look for the tablespaces of the dump", statement, &[&names]).await? {
        let name: String = column(row, 0)?;
        found.refusals.push(Refusal::new(
            ErrorKind::NotFound,
            format!("tablespace {name}, which the dump names, is not there"),
            vec![format!(
                "run `CREATE TABLESPACE {} LOCATION '…'` as a superuser, with an empty directory of the server's user",
                quoted_identifier(&name)
            )],
        ));
    }
    Ok(())
}

async fn may_create(session: &Session, found: &mut Preflight) -> Result<()> {
    let statement =
        "SELECT rolsuper OR rolcreatedb, rolname::text FROM pg_roles WHERE rolname = current_user";
    let row = session.row("look at the rights of the role", statement, &[]).await?;
    if !column::<bool>(&row, 0)? {
        let role: String = column(&row, 1)?;
        found.refusals.push(Refusal::new(
            ErrorKind::Denied,
            format!("role {role} may not make databases"),
            vec![format!("run `ALTER ROLE {} CREATEDB` as a superuser", quoted_identifier(&role))],
        ));
    }
    Ok(())
}
