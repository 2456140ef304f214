//! Statements through `psql`, so that a test needs no driver to look at a server.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Postgres;

impl Postgres {
    /// Runs statements in the database `postgres`, each in its own transaction.
    ///
    /// # Errors
    /// At the first one that fails, with what the server said.
    pub fn sql(&self, statements: &str) -> Result<()> {
        self.psql("postgres", statements).map(drop)
    }

    /// Runs statements in a database of choice.
    ///
    /// # Errors
    /// At the first one that fails, with what the server said.
    pub fn sql_in(&self, database: &str, statements: &str) -> Result<()> {
        self.psql(database, statements).map(drop)
    }

    /// The result as text: one line per row, `|` between the columns, nothing for null.
    ///
    /// # Errors
    /// When the statement fails, with what the server said.
    pub fn query_value(&self, statement: &str) -> Result<String> {
        self.psql("postgres", statement)
    }

    /// [`Postgres::query_value`] in a database of choice.
    ///
    /// # Errors
    /// When the statement fails, with what the server said.
    pub fn query_value_in(&self, database: &str, statement: &str) -> Result<String> {
        self.psql(database, statement)
    }

    /// Makes a role that may log in; `attributes` as in `CREATE ROLE`, such as `REPLICATION`.
    ///
    /// # Errors
    /// When it exists.
    pub fn create_role(&self, name: &str, password: &str, attributes: &str) -> Result<()> {
        let password = password.replace('\'', "''");
        self.sql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' {attributes}"))
    }

    fn psql(&self, database: &str, statements: &str) -> Result<String> {
        let mut psql = self.tool("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"])
            .args(["--dbname", database, "--file=-"])
            .env("PGCONNECT_TIMEOUT", "10");
        let output = run_with_input(&mut psql, statements)?;
        Ok(output.trim_end_matches('\n').to_owned())
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it fails, with all it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write;

    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {name}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that failed early leaves a broken pipe; its own words say more.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("run {name}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
