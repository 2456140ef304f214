//! What belongs to no database: the list of databases itself, roles and tablespaces.

use std::process::Stdio;

use backstay_model::dump::DumpWarning;
use tokio_util::sync::CancellationToken;

use super::super::client_programs::{Child, ClientPrograms};
use super::super::connect::{Session, column};
use super::super::facts;
use super::super::settings::Address;
use super::chosen::Chosen;
use super::{DumpFacts, DumpOptions, DumpRun, look};
use crate::{Error, Result};

const PROGRAM: &str = "pg_dumpall";

/// All that can be dumped: whoever does not let connections in has a reason to, one that was
/// being dropped when the server failed is none any more, and one that a restore fills is none yet.
pub async fn databases(address: &Address) -> Result<Vec<String>> {
    let session = Session::open(&address.settled().await?).await?;
    let statement = "SELECT datname::text FROM pg_database WHERE datallowconn AND datconnlimit <> -2 \
                     AND datname NOT IN ('template0', 'template1') \
                     AND datname !~ '_fills_[0-9]{8}T[0-9]{6}Z$' ORDER BY datname";
    let rows = session.query("list the databases", statement, &[]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// Starts `pg_dumpall --globals-only`. A role that may not read passwords gets the rest,
/// and a warning.
pub async fn globals(
    address: &Address,
    options: &DumpOptions,
    cancel: &CancellationToken,
) -> Result<(DumpFacts, DumpRun)> {
    let begun = async {
        let address = &address.settled().await?;
        let session = Session::open(address).await?;
        let version_number = facts::version(&session).await?;
        let programs = ClientPrograms::find(version_number / 10_000, options.bin_directory.as_deref())?;
        let statement = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT'), current_user::text";
        let row = session.row("look for the right to read passwords", statement, &[]).await?;
        let (may_read, role): (bool, String) = (column(&row, 0)?, column(&row, 1)?);
        session.execute("begin to look", "BEGIN READ ONLY").await?;
        // No table is dumped, so none is named.
        let nothing = Chosen::nothing();
        let found = look::look(&session, address.database(), version_number, &programs, &nothing).await?;
        let mut command = programs.connected(PROGRAM, address, None)?;
        command.arg("--globals-only").arg(format!("--database={}", address.database()));
        let mut warnings = Vec::new();
        if !may_read {
            command.arg("--no-role-passwords");
            let message =
                format!("the roles are without their passwords, for role {role} may not read pg_authid");
            warnings.push(DumpWarning { message, harmless: None });
        }
        command.stdout(Stdio::piped());
        let child = Child::spawn(PROGRAM, command)?;
        Ok((found, DumpRun::of(child, None, warnings, None, address.clone(), cancel.clone())))
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        begun = begun => begun,
    }
}
