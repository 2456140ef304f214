//! What is tortured: the server and its writers, the program, and the way between them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::chance::Chance;
use super::super::chronicle::Chronicle;
use super::super::program::Program;
use super::RedisTorture;
use super::judge::Verdicts;
use super::witness::{Contents, Pause, Said, Witness, now};
use super::writers::Writers;
use crate::redis::Redis;
use crate::wait::wait_until;
use crate::way::Way;
use crate::workspace::Workspace;

/// A full synchronisation and a base on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(120);
/// What the server remembers of its stream, but for where that is what is tortured.
pub const BACKLOG: &str = "48mb";

/// In the order in which they may go: the clients, the program, the server.
pub struct Scene {
    pub chronicle: Chronicle,
    pub writers: Writers,
    pub program: Program,
    pub way: Way,
    pub server: Redis,
    /// Else it begins again with what it saved last.
    pub is_appending: bool,
    /// There is time for what takes a minute.
    pub is_patient: bool,
    /// Which stream each goes on with, and behind which of its bytes.
    pub before: BTreeMap<String, (String, u64)>,
    pub witnesses: Vec<Witness>,
    pub verdicts: Verdicts,
    pub place: Workspace,
}

impl Scene {
    /// A server under load, whose stream is archived.
    ///
    /// # Errors
    /// When any of it does not begin.
    pub fn set(torture: &RedisTorture, chance: &mut Chance) -> Result<Scene> {
        let is_appending = chance.is_heads();
        let appends = if is_appending { "yes" } else { "no" };
        let settings = [
            ("appendonly", appends),
            ("appendfsync", "everysec"),
            ("repl-backlog-size", BACKLOG),
            ("repl-timeout", "5"),
            ("repl-ping-replica-period", "1"),
        ];
        let server = Redis::start_new(&torture.installation, &settings)?;
        let place = Workspace::new()?;
        let way = Way::to(server.port())?;
        let text = format!(
            "engine = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\nbin_directory = \"{}\"\n",
            way.port,
            torture.installation.bin_directory().display()
        );
        let program = Program::prepare(&torture.program, place.path(), &text, "")?;
        let mut scene = Scene {
            chronicle: Chronicle::begin(),
            writers: Writers::begin(torture.seed),
            program,
            way,
            server,
            is_appending,
            is_patient: torture.duration > LIMIT,
            before: BTreeMap::new(),
            witnesses: Vec::new(),
            verdicts: Verdicts::default(),
            place,
        };
        if scene.program.disks().is_none() {
            scene.say("no small disks can be mounted here: none will be full");
        }
        scene.begin_load()?;
        scene.program.start_receiver()?;
        scene.wait_for_archive()?;
        let version = torture.installation.version();
        let kept = if is_appending { "appends" } else { "saves now and then" };
        scene.say(format_args!("{version}, which {kept}, is under load, and archived"));
        Ok(scene)
    }

    pub fn say(&self, what: impl Display) {
        self.chronicle.say(what);
    }

    /// On the server that there is now.
    pub fn begin_load(&mut self) -> Result<()> {
        let said = Said::of(&self.server)?;
        if let Some(before) = said.before {
            self.before.insert(said.replication_id, before);
        }
        self.writers.write_to(&self.server.socket());
        Ok(())
    }

    /// By itself the archive never ends.
    fn keep(&mut self) -> Result<()> {
        if let Some(status) = self.program.receiver_ended()? {
            bail!("the archive ended by itself: {status}");
        }
        Ok(())
    }

    pub fn wait(
        &mut self,
        limit: Duration,
        what: impl Display,
        mut holds: impl FnMut(&mut Scene) -> Result<bool>,
    ) -> Result<()> {
        let mut failed = None;
        wait_until(limit, what, || match self.keep().and_then(|()| holds(self)) {
            Ok(holds) => holds,
            Err(error) => {
                failed = Some(error);
                true
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    pub fn let_pass(&mut self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        self.wait(time + LIMIT, "time to pass", |_| Ok(begun.elapsed() >= time))
    }

    /// Until the archive has called durable all that is written now.
    pub fn wait_for_archive(&mut self) -> Result<()> {
        let end = Said::of(&self.server)?.offset;
        self.wait_for_offset(end)
    }

    fn wait_for_offset(&mut self, end: u64) -> Result<()> {
        self.wait(LIMIT, format!("the archive to have {end}"), |scene| {
            Ok(Said::of(&scene.server)?.received.is_some_and(|received| received >= end))
        })
    }

    /// Life goes on, and is received; what the server holds is written down.
    ///
    /// # Errors
    /// When it does not within a limit.
    pub fn calm(&mut self, chance: &mut Chance) -> Result<()> {
        const SOME: u64 = 100;
        let begun = Instant::now();
        let before = self.writers.count();
        self.wait(LIMIT, "writes", |scene| Ok(scene.writers.count() >= before + SOME))?;
        self.wait_for_archive()?;
        self.say(format_args!(
            "  received after {:.1} s; {} commands",
            begun.elapsed().as_secs_f64(),
            self.writers.count()
        ));
        self.witness()?;
        self.let_pass(chance.between(Duration::ZERO, Duration::from_millis(600)))
    }

    /// What the server holds now, wherever the archive is.
    pub fn glance(&mut self) -> Result<()> {
        let pause = Pause::begin(&self.server)?;
        self.note(false)?;
        pause.end()
    }

    /// What the server holds at an instant at which the archive has all of it.
    pub fn witness(&mut self) -> Result<()> {
        let pause = Pause::begin(&self.server)?;
        let offset = self.note(true)?;
        self.wait_for_offset(offset)?;
        let instant = now(&self.server)?;
        pause.end()?;
        self.wait_for_archive()?;
        if let Some(last) = self.witnesses.last_mut() {
            last.instant = Some(instant);
        }
        Ok(())
    }

    /// What the server holds, in which nothing may change meanwhile.
    pub fn note(&mut self, is_received: bool) -> Result<u64> {
        let said = Said::of(&self.server)?;
        self.witnesses.push(Witness {
            number: self.witnesses.len(),
            replication_id: said.replication_id,
            offset: said.offset,
            contents: Contents::of(&self.server)?,
            instant: None,
            is_received,
        });
        Ok(said.offset)
    }

    /// What a person would look at next.
    pub fn tell_the_end(&self) {
        self.say("what the archive said:");
        eprintln!("{}", self.program.said_since(0));
        self.say("the end of what the server said:");
        let log = self.server.log_text();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        if let Ok(status) = self.program.status() {
            self.say(format_args!("status: {status:#}"));
        }
    }
}
