//! The program under torture: its configuration, its store and spool, and its receiver,
//! which is started again when it ends, as a supervisor of services would.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::disks::Disks;
use crate::wait::wait_until;

pub const INSTANCE: &str = "tortured";
pub const SLOT: &str = "backstay_tortured";
/// So old may what the store does not have be.
pub const RPO: Duration = Duration::from_secs(1);
const SPOOL_BYTES: u64 = 256 << 20;
const STORE_BYTES: u64 = 4 << 30;
const STOP_LIMIT: Duration = Duration::from_secs(60);

pub struct Program {
    program: PathBuf,
    place: PathBuf,
    disks: Option<Disks>,
    receiver: Option<Child>,
}

/// How one run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Program {
    /// A repository on disks of its own where that is allowed. `settings` are the section of the
    /// instance, without those of its archive: these come last, and `of_archive` is added to them.
    ///
    /// # Errors
    /// When the repository cannot be made.
    pub fn prepare(program: &Path, place: &Path, settings: &str, of_archive: &str) -> Result<Program> {
        let (spool, store) = (place.join("spool"), place.join("store"));
        for directory in [&spool, &store] {
            fs::create_dir(directory)?;
        }
        let disks = Disks::mount(&[(&spool, SPOOL_BYTES), (&store, STORE_BYTES)])?;
        let program = Program { program: program.to_owned(), place: place.to_owned(), disks, receiver: None };
        program.run(&["init", "--store", &format!("file://{}", store.join("all").display())])?.good()?;
        let section = format!(
            "\n[instance.{INSTANCE}]\n{settings}policy = {{ rpo = \"{}ms\" }}\n\n\
             [instance.{INSTANCE}.archive]\nspool = \"{}\"\n{of_archive}",
            RPO.as_millis(),
            spool.display(),
        );
        let mut text = fs::read_to_string(program.configuration())?;
        text += &section;
        fs::write(program.configuration(), text)?;
        Ok(program)
    }

    fn configuration(&self) -> PathBuf {
        self.place.join("backstay.toml")
    }

    pub fn spool(&self) -> PathBuf {
        self.place.join("spool")
    }

    pub fn store(&self) -> PathBuf {
        self.place.join("store")
    }

    /// The disks that can be filled.
    pub fn disks(&self) -> Option<&Disks> {
        self.disks.as_ref()
    }

    /// The disk of a place has room again.
    ///
    /// # Errors
    /// When it cannot be changed.
    pub fn make_room(&self, place: &Path) -> Result<()> {
        let bytes = if place == self.spool() { SPOOL_BYTES } else { STORE_BYTES };
        self.disks.as_ref().map_or(Ok(()), |disks| disks.resize(place, bytes))
    }

    /// A path of store or spool, as we reach it.
    pub fn seen(&self, path: &Path) -> PathBuf {
        self.disks.as_ref().map_or_else(|| path.to_owned(), |disks| disks.seen(path))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match &self.disks {
            Some(disks) => disks.command(&self.program),
            None => Command::new(&self.program),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BACKSTAY_") {
                command.env_remove(name);
            }
        }
        command.env_remove("PGPASSWORD").env("NO_COLOR", "1").stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", self.place.join("caches"));
        command.arg("--config").arg(self.configuration()).args(words);
        command
    }

    /// # Errors
    /// When it cannot be run; how it ended is told.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        let output = self.command(words).output().with_context(|| format!("run backstay {words:?}"))?;
        Ok(Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// What `status` says of the instance.
    ///
    /// # Errors
    /// When it says nothing that can be read.
    pub fn status(&self) -> Result<Value> {
        let ran = self.run(&["status", INSTANCE, "--json"])?;
        let told: Value = serde_json::from_str(&ran.out).with_context(|| format!("read {ran:#?}"))?;
        told.get(0).cloned().with_context(|| format!("an instance in {told}"))
    }

    /// How far the store has each timeline.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn stored(&self) -> Result<BTreeMap<u32, u64>> {
        let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
        let mut directories = vec![self.seen(&self.store())];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                    continue;
                }
                let (path, name) = (entry.path(), entry.file_name());
                if !path.components().any(|part| part.as_os_str() == "log") {
                    continue;
                }
                let timeline =
                    directory.file_name().and_then(|name| u32::from_str_radix(name.to_str()?, 16).ok());
                let end =
                    name.to_str().and_then(|name| u64::from_str_radix(name.split_once('-')?.1, 16).ok());
                if let Some((timeline, end)) = timeline.zip(end) {
                    let known = ends.entry(timeline).or_default();
                    *known = (*known).max(end);
                }
            }
        }
        Ok(ends)
    }

    fn receiver_log(&self) -> PathBuf {
        self.place.join("receiver.log")
    }

    /// What the receivers said, from a place in it on.
    pub fn said_since(&self, offset: usize) -> String {
        let text = fs::read_to_string(self.receiver_log()).unwrap_or_default();
        text.get(offset..).unwrap_or_default().to_owned()
    }

    pub fn said_bytes(&self) -> usize {
        self.said_since(0).len()
    }

    /// # Errors
    /// When it cannot be run.
    pub fn start_receiver(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.receiver_log())?;
        let mut command = self.command(&["archive", INSTANCE]);
        command.stdout(File::try_clone(&log)?).stderr(log);
        self.receiver = Some(command.spawn().context("run backstay archive")?);
        Ok(())
    }

    pub fn has_receiver(&self) -> bool {
        self.receiver.is_some()
    }

    /// How the receiver ended, if it did by itself.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn receiver_ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(receiver) = &mut self.receiver else { return Ok(None) };
        let ended = receiver.try_wait()?;
        if ended.is_some() {
            self.receiver = None;
        }
        Ok(ended)
    }

    /// # Errors
    /// When it does not end.
    pub fn kill_receiver(&mut self) -> Result<()> {
        if let Some(mut receiver) = self.receiver.take() {
            receiver.kill()?;
            receiver.wait()?;
        }
        Ok(())
    }

    /// Asks the receiver to end, as a supervisor does.
    ///
    /// # Errors
    /// When it does not end within a minute, or not well.
    pub fn stop_receiver(&mut self) -> Result<()> {
        let Some(mut receiver) = self.receiver.take() else { return Ok(()) };
        kill_process(Pid::from_child(&receiver), Signal::TERM)?;
        let mut ended = None;
        let in_time = wait_until(STOP_LIMIT, "the receiver to stop", || {
            ended = receiver.try_wait().ok().flatten();
            ended.is_some()
        });
        if in_time.is_err() {
            receiver.kill()?;
            receiver.wait()?;
        }
        in_time?;
        ensure!(ended.is_some_and(|ended| ended.success()), "the receiver was asked to stop: {ended:?}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.kill_receiver();
    }
}

impl Ran {
    /// # Errors
    /// When it did not end well.
    pub fn good(self) -> Result<Ran> {
        if self.code != Some(0) {
            bail!("backstay ended with {:?}\n{}{}", self.code, self.out, self.err);
        }
        Ok(self)
    }
}
