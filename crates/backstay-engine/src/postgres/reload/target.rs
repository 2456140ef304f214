//! A server that a dump is put back to, and its databases.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::client_programs::ClientPrograms;
use super::super::connect::{Session, column};
use super::super::facts::{self, quoted_identifier};
use super::super::settings::Address;
use super::archive::DatabaseShape;
use crate::{Error, Result};

/// The template is copied file by file.
const CREATE_LIMIT: Duration = Duration::from_secs(600);
const TAKE_BACK_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const STILL_MAKING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                            AND pid <> pg_backend_pid() AND query LIKE 'CREATE DATABASE%' \
                            AND position($1::text IN query) > 0";

/// A server.
pub struct ReloadTarget {
    address: Address,
    version_number: u32,
    version: String,
    pub(super) bin_directory: Option<std::path::PathBuf>,
}

impl ReloadTarget {
    pub async fn open(address: &Address, bin_directory: Option<&Path>) -> Result<ReloadTarget> {
        let address = &address.settled().await?;
        let session = Session::open(address).await?;
        let version_number = facts::version(&session).await?;
        let statement = "SELECT current_setting('server_version')";
        let version: String = column(&session.row("read the server's version", statement, &[]).await?, 0)?;
        Ok(ReloadTarget {
            address: address.clone(),
            version_number,
            version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            bin_directory: bin_directory.map(Path::to_owned),
        })
    }

    pub(super) fn version_number(&self) -> u32 {
        self.version_number
    }

    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }

    /// `17.11`.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    pub fn bin_directory(&self) -> Option<&Path> {
        self.bin_directory.as_deref()
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The clients that read what a `pg_dump` of this version wrote.
    pub(super) fn programs(&self, tool_major: Option<u32>) -> Result<ClientPrograms> {
        let major = tool_major.unwrap_or(0).max(self.major());
        ClientPrograms::find(major, self.bin_directory.as_deref())
    }

    /// In a database, or in the one of the address.
    pub(super) async fn session(&self, database: Option<&str>) -> Result<Session> {
        match database {
            Some(database) => Session::open(&self.address.with_database(database)).await,
            None => Session::open(&self.address).await,
        }
    }

    /// The number that `pg_control_system` gives, where our role may ask.
    pub async fn system_identifier(&self) -> Result<Option<u64>> {
        let statement = "SELECT CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') \
                                THEN (SELECT system_identifier FROM pg_control_system()) END";
        let session = self.session(None).await?;
        let row = session.row("read the server's identity", statement, &[]).await?;
        Ok(column::<Option<i64>>(&row, 0)?.map(|identifier| identifier as u64))
    }

    pub async fn has_database(&self, name: &str) -> Result<bool> {
        let statement = "SELECT count(*) FROM pg_database WHERE datname = $1";
        let row = self.session(None).await?.row("look for the database", statement, &[&name]).await?;
        Ok(column::<i64>(&row, 0)? > 0)
    }

    /// Whether nobody made anything in it: no relation, function or type, and no schema
    /// and no big object. What an extension made does not count.
    pub async fn is_empty(&self, database: &str) -> Result<bool> {
        let session = self.session(Some(database)).await?;
        let row = session.row("look what is in the database", WHAT_IS_THERE, &[]).await?;
        Ok(column::<i64>(&row, 0)? == 0)
    }

    /// A new database of this shape, or as the server makes them. Fails when it is there.
    pub async fn create_database(&self, name: &str, shape: Option<&DatabaseShape>) -> Result<()> {
        if self.has_database(name).await? {
            return Err(Error::DatabaseExists { name: name.to_owned() });
        }
        let statement = shape.cloned().unwrap_or_default().statement(name);
        let session = self.session(None).await?;
        session.query_within(CREATE_LIMIT, "create the database", &statement, &[]).await.map(drop)
    }

    /// Removes a database whose making was not answered, once the server is done with it:
    /// a server goes on with what nobody waits for. One that somebody uses is not ours.
    pub async fn take_back(&self, name: &str) -> Result<()> {
        let session = self.session(None).await?;
        let deadline = Instant::now() + TAKE_BACK_LIMIT;
        let action = "wait for the database that is being made";
        while column::<i64>(&session.row(action, STILL_MAKING, &[&name]).await?, 0)? > 0 {
            if Instant::now() >= deadline {
                return Err(Error::Timeout { action, seconds: TAKE_BACK_LIMIT.as_secs() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        match self.has_database(name).await? && self.is_empty(name).await? {
            true => self.drop_database(name).await,
            false => Ok(()),
        }
    }

    /// Gives a database the settings and grants that its archive has for it.
    pub async fn apply_settings(&self, name: &str, archive: &super::Archive) -> Result<()> {
        let session = self.session(Some(name)).await?;
        for statement in archive.database_settings(name) {
            session.execute("set what was set for the database", &statement).await?;
        }
        Ok(())
    }

    /// Removes a database with all that is in it and all its sessions.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted_identifier(name));
        let session = self.session(None).await?;
        session.query_within(CREATE_LIMIT, "drop the database", &statement, &[]).await.map(drop)
    }
}

const WHAT_IS_THERE: &str = "
    WITH own AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
    places AS (SELECT oid FROM pg_namespace
               WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_%')
    SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace IN (SELECT oid FROM places)
                AND NOT EXISTS (SELECT FROM own WHERE classid = 'pg_class'::regclass AND objid = c.oid)
                AND NOT EXISTS (SELECT FROM pg_index i, own WHERE i.indexrelid = c.oid
                                AND own.classid = 'pg_class'::regclass AND own.objid = i.indrelid)
                AND NOT EXISTS (SELECT FROM pg_depend d, own WHERE d.classid = 'pg_class'::regclass
                                AND d.objid = c.oid AND own.classid = 'pg_class'::regclass
                                AND own.objid = d.refobjid))
         + (SELECT count(*) FROM pg_proc p WHERE p.pronamespace IN (SELECT oid FROM places)
                AND NOT EXISTS (SELECT FROM own WHERE classid = 'pg_proc'::regclass AND objid = p.oid))
         + (SELECT count(*) FROM pg_type t WHERE t.typnamespace IN (SELECT oid FROM places) AND t.typrelid = 0
                AND t.typelem = 0
                AND NOT EXISTS (SELECT FROM own WHERE classid = 'pg_type'::regclass AND objid = t.oid))
         + (SELECT count(*) FROM pg_namespace n WHERE n.oid IN (SELECT oid FROM places) AND n.nspname <> 'public'
                AND NOT EXISTS (SELECT FROM own WHERE classid = 'pg_namespace'::regclass AND objid = n.oid))
         + (SELECT count(*) FROM pg_largeobject_metadata)";
