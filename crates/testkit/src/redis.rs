//! One private Redis or Valkey server, real in every respect but that it is ours.
//!
//! Invariant: the server listens on 127.0.0.1 and on a socket in its own workspace only, and is
//! gone when the value is dropped. It saves nothing by itself: what is on its disk a test has put
//! there.

mod client;
mod installation;
mod replication;

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub use client::{Client, Reply};
pub use installation::{REDIS_LINKS, RedisInstallation, RedisVersion, find, require_redis};

use crate::port::free_port;
use crate::wait::{wait_for, wait_until};
use crate::workspace::Workspace;

/// Loading a large data set on a loaded machine is the longest start.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A server, and the settings that it is started with again.
#[derive(Debug)]
pub struct Redis {
    installation: RedisInstallation,
    data_directory: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    /// The file that a Sentinel keeps its state in; a server of data has none.
    sentinel_file: Option<PathBuf>,
    process: Option<Child>,
    workspace: Workspace,
}

impl Redis {
    /// An empty server. `settings` are those of `redis.conf`, and win over ours.
    ///
    /// # Errors
    /// When it does not start; the text holds its log.
    pub fn start_new(installation: &RedisInstallation, settings: &[(&str, &str)]) -> Result<Redis> {
        let workspace = Workspace::new()?;
        let data_directory = workspace.path().join("data");
        fs::create_dir(&data_directory)?;
        Redis::start_in(workspace, installation, data_directory, None, settings)
    }

    /// A server on a directory that exists already, such as a restored one.
    ///
    /// # Errors
    /// When it does not start; the text holds its log.
    pub fn start_on(
        installation: &RedisInstallation,
        data_directory: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Redis> {
        Redis::start_in(Workspace::new()?, installation, data_directory.to_owned(), None, settings)
    }

    fn start_in(
        workspace: Workspace,
        installation: &RedisInstallation,
        data_directory: PathBuf,
        sentinel_file: Option<PathBuf>,
        settings: &[(&str, &str)],
    ) -> Result<Redis> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut server = Redis {
            installation: installation.clone(),
            data_directory,
            port: free_port()?,
            settings: settings.collect(),
            sentinel_file,
            process: None,
            workspace,
        };
        const TRIES: u32 = 5;
        for _ in 1..TRIES {
            match server.start() {
                Err(_) if server.log_text().contains("bind: Address already in use") => {
                    server.port = free_port()?;
                }
                started => return started.map(|()| server),
            }
        }
        server.start().map(|()| server)
    }

    /// Starts the server again, on the same port.
    ///
    /// # Errors
    /// When it runs already or ends before it answers.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let limit = format!("{} in {} to answer", self.installation.version(), self.data_directory.display());
        let answer = wait_for(START_LIMIT, limit, || {
            if let Ok(Some(status)) = self.process.as_mut()?.try_wait() {
                return Some(Err(status));
            }
            let answer = self.client().and_then(|mut client| client.call(&["PING"]));
            // A password that a test has set is an answer as well.
            let answers = match answer {
                Ok(Reply::Error(why)) => !why.starts_with("LOADING"),
                answer => answer.is_ok(),
            };
            answers.then_some(Ok(()))
        });
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                self.process = None;
                bail!("start {}: it ended with {status}\n{}", self.installation.version(), self.log_text())
            }
            Err(late) => {
                let log = self.log_text();
                self.kill9()?;
                bail!("start {}: {late}\n{log}", self.installation.version())
            }
        }
    }

    /// Starts the process and does not wait until it answers.
    ///
    /// # Errors
    /// When it runs already.
    pub fn launch(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("start {}: it runs already", self.installation.version());
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = self.installation.server();
        if let Some(file) = &self.sentinel_file {
            command.arg(file).arg("--sentinel");
        }
        let own = [
            ("port", self.port.to_string()),
            ("bind", "127.0.0.1".to_owned()),
            ("unixsocket", self.socket().display().to_string()),
            ("dir", self.data_directory.display().to_string()),
            ("pidfile", self.workspace.path().join("redis.pid").display().to_string()),
            ("save", String::new()),
            // The watcher of the workspace knows it by its command line.
            ("set-proc-title", "no".to_owned()),
            ("daemonize", "no".to_owned()),
            ("repl-diskless-sync", "yes".to_owned()),
            ("repl-diskless-sync-delay", "0".to_owned()),
            ("enable-debug-command", "yes".to_owned()),
        ];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in own.into_iter().chain(given) {
            command.arg(format!("--{name}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log).current_dir("/");
        // A shell that runs the tests sends Ctrl-C to its whole foreground group.
        command.process_group(0);
        self.process = Some(command.spawn().context("start a server")?);
        Ok(())
    }

    /// A connection over the socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn client(&self) -> Result<Client> {
        Client::connect_socket(&self.socket())
    }

    /// One command of words without an answer that matters.
    ///
    /// # Errors
    /// When the server says no.
    pub fn run(&self, words: &[&str]) -> Result<Reply> {
        self.client()?.run(words)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Stops the server, without saving; nothing happens when it does not run.
    ///
    /// # Errors
    /// When it is still there after a minute.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if process.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&process), Signal::TERM).context("signal a server")?;
        let what = format!("{} in {} to stop", self.installation.version(), self.data_directory.display());
        let ended = wait_until(STOP_LIMIT, what, || matches!(process.try_wait(), Ok(Some(_)) | Err(_)));
        if ended.is_err() {
            self.process = Some(process);
            let log = self.log_text();
            self.kill9()?;
            bail!("stop {}: it had to be killed\n{log}", self.installation.version());
        }
        Ok(())
    }

    /// Stops it and starts it again; what it has in memory only is gone.
    ///
    /// # Errors
    /// As [`Redis::stop`] and [`Redis::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// As a power failure would, except that what the kernel holds is not lost.
    ///
    /// # Errors
    /// When the process survives.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if process.try_wait()?.is_none() {
            kill_process(Pid::from_child(&process), Signal::KILL).context("kill a server")?;
            process.wait()?;
        }
        Ok(())
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

    pub fn installation(&self) -> &RedisInstallation {
        &self.installation
    }

    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    pub fn socket(&self) -> PathBuf {
        self.workspace.path().join("redis.sock")
    }

    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Over TCP.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A program of this version with the address of this server.
    pub fn cli(&self) -> Command {
        let mut command = self.installation.tool("cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("{error:#}");
        }
    }
}
