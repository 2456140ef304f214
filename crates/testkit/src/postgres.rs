//! One private PostgreSQL server, real in every respect but that it is ours.
//!
//! Invariant: the server listens on 127.0.0.1 (SCRAM) and on a socket in its own
//! workspace (trust) only, and is gone when the value is dropped.

pub mod clock;
pub mod options;
pub mod pgbench;
pub mod query;
pub mod standby;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub use options::PostgresOptions;
pub use pgbench::{PgbenchLoad, PgbenchSums};

use crate::ownership::{Owner, check_reachable, server_owner};
use crate::port::free_port;
use crate::servers::Installation;
use crate::wait::{wait_for, wait_until};
use crate::workspace::Workspace;

/// The superuser of every test server, and his password over TCP.
pub const SUPERUSER: &str = "postgres";
pub const PASSWORD: &str = "test password/with ünusual@characters";

/// Recovery after a crash with much WAL on a loaded machine is the longest start.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// The three ways of `pg_ctl stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for the clients to leave.
    Smart,
    /// Rolls back, writes a checkpoint.
    Fast,
    /// Aborts; the next start recovers.
    Immediate,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        }
    }
}

#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    data_directory: PathBuf,
    socket_directory: PathBuf,
    port: u16,
    /// Settings that hold for this server and must not be found in a copy of its directory.
    command_line: Vec<String>,
    owner: Owner,
    process: Option<Child>,
    /// The file that says how far the clock is off, of a server that has its own.
    clock: Option<PathBuf>,
    workspace: Workspace,
}

impl Postgres {
    /// Makes a new cluster in a workspace of its own and starts it.
    ///
    /// # Errors
    /// When `initdb` or the server fails; the text holds what they said.
    pub fn start_new(installation: &Installation, options: &PostgresOptions) -> Result<Postgres> {
        Postgres::start_in(Workspace::new()?, installation, options)
    }

    /// [`Postgres::start_new`] in a workspace of choice.
    ///
    /// # Errors
    /// When `initdb` or the server fails; the text holds what they said.
    pub fn start_in(
        workspace: Workspace,
        installation: &Installation,
        options: &PostgresOptions,
    ) -> Result<Postgres> {
        let data_directory = workspace.directory("data")?;
        options::initialise(installation, options, &data_directory, workspace.path())?;
        let mut server = Postgres::prepare(workspace, installation, data_directory, server_owner()?)?;
        server.command_line.push("listen_addresses=127.0.0.1".to_owned());
        if options.has_own_clock {
            let clock = server.workspace.path().join("clock");
            clock::prepare_clock(&clock)?;
            server.clock = Some(clock);
        }
        server.start_first()?;
        Ok(server)
    }

    /// Starts a server on a directory that exists already, such as a restored one:
    /// no TCP, nothing archived, access for everybody who reaches the socket. Runs
    /// as the owner of the directory; one that belongs to root is given away first.
    ///
    /// # Errors
    /// When the server does not start; the text holds its log.
    pub fn start_on(installation: &Installation, data_directory: &Path) -> Result<Postgres> {
        Postgres::start_on_with(installation, data_directory, &[])
    }

    /// [`Postgres::start_on`] with settings that win over those of the directory.
    ///
    /// # Errors
    /// When the server does not start; the text holds its log.
    pub fn start_on_with(
        installation: &Installation,
        data_directory: &Path,
        settings: &[String],
    ) -> Result<Postgres> {
        let mut owner = Owner::of(data_directory)?;
        if owner.is_root() {
            owner = server_owner()?;
            owner.take_all(data_directory)?;
        }
        let workspace = Workspace::new()?;
        let access = workspace.path().join("pg_hba.conf");
        fs::write(&access, options::ACCESS_FOR_ALL)?;
        let mut server = Postgres::prepare(workspace, installation, data_directory.to_owned(), owner)?;
        server.command_line.extend([
            "listen_addresses=".to_owned(),
            "archive_mode=off".to_owned(),
            format!("hba_file={}", access.display()),
        ]);
        server.command_line.extend_from_slice(settings);
        server.start_first()?;
        Ok(server)
    }

    fn prepare(
        workspace: Workspace,
        installation: &Installation,
        data_directory: PathBuf,
        owner: Owner,
    ) -> Result<Postgres> {
        check_reachable(&data_directory, owner)?;
        let socket_directory = workspace.directory("s")?;
        owner.take(&socket_directory)?;
        fs::set_permissions(&socket_directory, fs::Permissions::from_mode(0o755))?;
        Ok(Postgres {
            installation: installation.clone(),
            data_directory,
            socket_directory,
            port: free_port()?,
            command_line: Vec::new(),
            owner,
            process: None,
            clock: None,
            workspace,
        })
    }

    /// The first start may find that another process took the port meanwhile.
    fn start_first(&mut self) -> Result<()> {
        const TRIES: u32 = 5;
        for _ in 1..TRIES {
            match self.start() {
                Err(_) if self.log_text().contains("could not bind") => self.port = free_port()?,
                other => return other,
            }
        }
        self.start()
    }

    /// Starts the server again, on the same port.
    ///
    /// # Errors
    /// When it runs already or ends before it accepts connections.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let limit = format!("PostgreSQL in {} to accept connections", self.data_directory.display());
        let answer = wait_for(START_LIMIT, limit, || {
            if let Ok(Some(status)) = self.process.as_mut()?.try_wait() {
                return Some(Err(status));
            }
            self.accepts_connections().then_some(Ok(()))
        });
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                self.process = None;
                bail!("start PostgreSQL: it ended with {status}\n{}", self.log_text())
            }
            Err(late) => {
                let log = self.log_text();
                self.kill9()?;
                bail!("start PostgreSQL: {late}\n{log}")
            }
        }
    }

    /// Starts the process and does not wait until it accepts connections.
    ///
    /// # Errors
    /// When it runs already.
    pub fn launch(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("start PostgreSQL: it runs already");
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o644).open(self.log_path())?;
        let mut command = self.installation.tool("postgres");
        command.arg("-D").arg(&self.data_directory);
        let settings = [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.socket_directory.display()),
            "logging_collector=off".to_owned(),
        ];
        for setting in settings.iter().chain(&self.command_line) {
            command.arg("-c").arg(setting);
        }
        self.owner.apply(&mut command);
        if let Some(clock) = &self.clock {
            clock::with_clock(&mut command, clock);
        }
        command.stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log).current_dir("/");
        // A shell that runs the tests sends Ctrl-C to its whole foreground group.
        command.process_group(0);
        self.process = Some(command.spawn().context("start PostgreSQL")?);
        Ok(())
    }

    fn accepts_connections(&self) -> bool {
        self.socket_directory.join(format!(".s.PGSQL.{}", self.port)).exists()
            && self.query_value("SELECT 1").is_ok_and(|one| one == "1")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Stops the server; nothing happens when it does not run.
    ///
    /// # Errors
    /// When it is still there after two minutes.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if process.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&process), mode.signal()).context("signal PostgreSQL")?;
        let what = format!("PostgreSQL in {} to stop", self.data_directory.display());
        let ended = wait_until(STOP_LIMIT, what, || matches!(process.try_wait(), Ok(Some(_)) | Err(_)));
        if ended.is_err() {
            self.process = Some(process);
            let log = self.log_text();
            self.kill9()?;
            bail!("stop PostgreSQL: it had to be killed\n{log}");
        }
        Ok(())
    }

    /// Stops the server in the fast way and starts it again.
    ///
    /// # Errors
    /// As [`Postgres::stop`] and [`Postgres::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop(StopMode::Fast)?;
        self.start()
    }

    /// Kills the server and all its backends, as a power failure would, except
    /// that what the kernel holds is not lost.
    ///
    /// # Errors
    /// When a process survives.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if process.try_wait()?.is_some() {
            return Ok(());
        }
        let server = Pid::from_child(&process);
        let backends = children_of(server);
        kill_process(server, Signal::KILL).context("kill PostgreSQL")?;
        process.wait()?;
        for backend in &backends {
            // It may have ended by itself.
            let _ = kill_process(*backend, Signal::KILL);
        }
        wait_until(STOP_LIMIT, "the backends of a killed PostgreSQL to end", || {
            backends.iter().all(|backend| parent_of(*backend).is_none())
        })
    }

    /// Makes the server read its configuration files again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reload(&self) -> Result<()> {
        self.sql("SELECT pg_reload_conf()")
    }

    /// Adds lines to `postgresql.conf`; they hold after [`Postgres::reload`] or a restart.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_configuration(&self, lines: &[&str]) -> Result<()> {
        let path = self.data_directory.join("postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(&path).context("open postgresql.conf")?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }

    /// Puts `lines` before all others of `pg_hba.conf` and reloads.
    ///
    /// # Errors
    /// When the file cannot be written or the server does not run.
    pub fn prepend_access_rules(&self, lines: &[&str]) -> Result<()> {
        let path = self.data_directory.join("pg_hba.conf");
        let rules = fs::read_to_string(&path)?;
        fs::write(&path, format!("{}\n{rules}", lines.join("\n")))?;
        self.reload()
    }

    /// Writes a file of the server's user below the data directory, such as a TLS key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_data_file(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.data_directory.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        self.owner.take(&path)?;
        Ok(path)
    }

    /// What the server wrote to its log so far, over all its starts.
    pub fn log_text(&self) -> String {
        fs::read(self.log_path()).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    fn log_path(&self) -> PathBuf {
        self.workspace.path().join("server.log")
    }

    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Room for what belongs to this server, such as tablespaces; gone with it.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Over TCP, as the superuser, without the password ([`PASSWORD`]).
    pub fn url(&self) -> String {
        self.url_as(SUPERUSER)
    }

    /// Over TCP, as any role, without a password.
    pub fn url_as(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/postgres", self.port)
    }

    /// Over the socket, where everybody is trusted.
    pub fn socket_url(&self) -> String {
        format!(
            "postgresql://{SUPERUSER}@/postgres?host={}&port={}",
            self.socket_directory.display(),
            self.port
        )
    }

    /// A program of this version, run as the server's user, with the connection in
    /// its environment.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = self.installation.tool(name);
        self.owner.apply(&mut command);
        command
            .env("PGHOST", &self.socket_directory)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", "postgres")
            .current_dir("/");
        command
    }

    /// Leaves the server running and its workspace in place.
    pub fn keep(mut self) -> PathBuf {
        // Dropping a `Child` lets it run.
        self.process = None;
        self.workspace.keep()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop(StopMode::Immediate) {
            eprintln!("{error:#}");
        }
    }
}

/// The children of a process, from the process table.
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

/// `None` when the process does not exist, or is dead and only waited for.
fn parent_of(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // The second field is the name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    Pid::from_raw(fields.next()?.parse().ok()?)
}
