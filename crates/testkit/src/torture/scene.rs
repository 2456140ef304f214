//! What is tortured: the server and its load, the program, the way between them; and
//! every fault that they suffer.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Torture;
use super::chance::Chance;
use super::chronicle::Chronicle;
use super::judge::rows;
use super::markers::{self, Lives, Markers};
use super::program::{INSTANCE, Program, SLOT};
use crate::postgres::{PASSWORD, Postgres, PostgresOptions, SUPERUSER, StopMode};
use crate::wait::wait_until;
use crate::way::Way;
use crate::workspace::Workspace;

/// Recovery and a first connection on a machine that does much else.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// A server must not be held up by who receives its log: a checkpoint, and what is left to send.
const STOP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillServer,
    StopServerAtOnce,
    RestartServer,
    KillReceiver,
    RestartReceiver,
    KillBoth,
    Stall,
    Cut,
    StallAndKillServer,
    FullSpool,
    FullStore,
    FullStoreAndKillReceiver,
    SwitchOver,
    FailOver,
    FailOverBehind,
    Backup,
    Collect,
}

/// How a server ends whose standby takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    InOrder,
    Killed,
    /// When the standby has not heard of its last commits.
    KilledAhead,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::KillServer,
        Fault::StopServerAtOnce,
        Fault::RestartServer,
        Fault::KillReceiver,
        Fault::RestartReceiver,
        Fault::KillBoth,
        Fault::Stall,
        Fault::Cut,
        Fault::StallAndKillServer,
        Fault::FullSpool,
        Fault::FullStore,
        Fault::FullStoreAndKillReceiver,
        Fault::SwitchOver,
        Fault::FailOver,
        Fault::FailOverBehind,
        Fault::Backup,
        Fault::Collect,
    ];
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillServer => "kill -9 of the server",
            Fault::StopServerAtOnce => "immediate stop of the server",
            Fault::RestartServer => "fast restart of the server",
            Fault::KillReceiver => "kill -9 of the receiver",
            Fault::RestartReceiver => "restart of the receiver",
            Fault::KillBoth => "kill -9 of both",
            Fault::Stall => "the way hangs",
            Fault::Cut => "the way is cut",
            Fault::StallAndKillServer => "the way hangs, and kill -9 of the server",
            Fault::FullSpool => "the disk of the spool is full",
            Fault::FullStore => "the disk of the store is full",
            Fault::FullStoreAndKillReceiver => "the disk of the store is full, and kill -9 of the receiver",
            Fault::SwitchOver => "switchover: the server stops, its standby takes over",
            Fault::FailOver => "failover: kill -9 of the server, its standby takes over",
            Fault::FailOverBehind => "failover to a standby that lacks the last commits",
            Fault::Backup => "a base backup",
            Fault::Collect => "a collection",
        })
    }
}

/// The section of the instance, and what it says of its archive.
fn settings(place: &Path, server: &Postgres, port: u16, synchronous: bool) -> Result<(String, String)> {
    let password = place.join("password");
    fs::write(&password, PASSWORD)?;
    let settings = format!(
        "engine = \"postgresql\"\n\
         url = \"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres?connect_timeout=2\"\n\
         password = {{ file = \"{}\" }}\nbin_directory = \"{}\"\n",
        password.display(),
        server.installation().bin_directory().display(),
    );
    Ok((settings, format!("synchronous = {synchronous}\n")))
}

/// In the order in which they may go: the clients, the program, the servers.
pub struct Scene {
    pub(super) chronicle: Chronicle,
    pub(super) markers: Markers,
    load: Option<Child>,
    pub(super) program: Program,
    way: Way,
    pub(super) server: Postgres,
    pub(super) lives: Lives,
    pub(super) timeline: u32,
    pub(super) synchronous: bool,
    pub(super) place: Workspace,
}

impl Scene {
    /// A server under load, whose log is received, with a base of it.
    ///
    /// # Errors
    /// When any of it does not begin.
    pub fn set(torture: &Torture) -> Result<Scene> {
        let options = PostgresOptions::default()
            .configure("wal_sender_timeout = 5s")
            .configure("min_wal_size = 32MB")
            .configure("max_wal_size = 64MB")
            .configure("checkpoint_timeout = 30s")
            .configure("hot_standby = on");
        let server = Postgres::start_new(&torture.installation, &options)?;
        server.pgbench_init(1)?;
        server.sql(markers::TABLE)?;
        let place = Workspace::new()?;
        let way = Way::to(server.port())?;
        let (settings, of_archive) = settings(place.path(), &server, way.port, torture.synchronous)?;
        let program = Program::prepare(&torture.program, place.path(), &settings, &of_archive)?;
        let mut scene = Scene {
            chronicle: Chronicle::begin(),
            markers: Markers::begin(),
            load: None,
            program,
            way,
            server,
            lives: Lives::default(),
            timeline: 1,
            synchronous: torture.synchronous,
            place,
        };
        if scene.program.disks().is_none() {
            scene.say("no small disks can be mounted here: none will be full");
        }
        scene.program.start_receiver()?;
        scene.wait_for_receiver()?;
        scene.program.run(&["backup", INSTANCE, "--quiet"])?.good()?;
        if scene.synchronous {
            scene.server.append_configuration(&["synchronous_standby_names = 'backstay'"])?;
            scene.server.reload()?;
        }
        scene.begin_load()?;
        scene.say(format_args!("PostgreSQL {} is under load, and received", torture.installation.version));
        Ok(scene)
    }

    pub(super) fn say(&self, what: impl Display) {
        self.chronicle.say(what);
    }

    pub(super) fn begin_load(&mut self) -> Result<()> {
        self.end_load();
        let mut pgbench = self.server.tool("pgbench");
        pgbench.args(["--no-vacuum", "--client=4", "--rate=150", "--time=86400"]);
        pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.load = Some(pgbench.spawn().context("start pgbench")?);
        self.markers.write_to(&self.server);
        Ok(())
    }

    fn end_load(&mut self) {
        if let Some(mut load) = self.load.take() {
            // It may have ended with its server.
            let _ = kill_process(Pid::from_child(&load), Signal::INT);
            let _ = load.kill();
            let _ = load.wait();
        }
    }

    /// Nobody writes any more; what was acknowledged is written down.
    pub(super) fn rest_load(&mut self) {
        self.markers.rest();
        self.end_load();
    }

    /// By itself the receiver never ends.
    fn keep(&mut self) -> Result<()> {
        if let Some(status) = self.program.receiver_ended()? {
            bail!("the receiver ended by itself: {status}\n{}", self.program.said_since(0));
        }
        Ok(())
    }

    pub(super) fn wait(
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

    fn let_pass(&mut self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        self.wait(time + LIMIT, "time to pass", |_| Ok(begun.elapsed() >= time))
    }

    /// Until the receiver has all that is written now.
    pub(super) fn wait_for_receiver(&mut self) -> Result<()> {
        let end = self.server.query_value("SELECT pg_current_wal_flush_lsn()")?;
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = 'backstay' AND state = 'streaming' AND flush_lsn >= '{end}'"
        );
        self.wait(LIMIT, format!("the receiver to have {end}"), |scene| {
            Ok(scene.server.query_value(&question)? != "0")
        })
    }

    fn commits_go_on(&mut self) -> Result<()> {
        const SOME: usize = 5;
        let before = self.markers.count();
        self.wait(LIMIT, "commits", |scene| Ok(scene.markers.count() >= before + SOME))
    }

    /// Commits go on, and are received.
    ///
    /// # Errors
    /// When they do not within a limit.
    pub fn calm(&mut self, chance: &mut Chance) -> Result<()> {
        let begun = Instant::now();
        self.commits_go_on()?;
        let committing = begun.elapsed().as_secs_f64();
        self.wait_for_receiver()?;
        self.say(format_args!(
            "  commits go on after {committing:.1} s, received after {:.1} s; {} rows",
            begun.elapsed().as_secs_f64(),
            self.markers.count()
        ));
        let rest = chance.between(Duration::ZERO, Duration::from_millis(1500));
        self.let_pass(rest)
    }

    /// # Errors
    /// When the server or the program does not do what it must in spite of it.
    pub fn suffer(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        let is_about_disks = [Fault::FullSpool, Fault::FullStore, Fault::FullStoreAndKillReceiver];
        if self.program.disks().is_none() && is_about_disks.contains(&fault) {
            return Ok(());
        }
        self.say(fault);
        self.happen(fault, chance).with_context(|| format!("torture: {fault}"))
    }

    fn happen(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        let a_while = chance.between(Duration::from_millis(50), Duration::from_secs(3));
        let (spool, store) = (self.program.spool(), self.program.store());
        match fault {
            Fault::KillServer => {
                self.server.kill9()?;
                self.let_pass(a_while)?;
                self.start_server()
            }
            Fault::StopServerAtOnce => {
                self.server.stop(StopMode::Immediate)?;
                self.start_server()
            }
            Fault::RestartServer => {
                self.stop_server_in_time()?;
                self.let_pass(a_while)?;
                self.start_server()
            }
            Fault::KillReceiver => {
                self.program.kill_receiver()?;
                self.let_pass(a_while)?;
                self.program.start_receiver()
            }
            Fault::RestartReceiver => {
                self.program.stop_receiver()?;
                self.program.start_receiver()
            }
            Fault::KillBoth => {
                if chance.is_heads() {
                    self.program.kill_receiver()?;
                    self.server.kill9()?;
                } else {
                    self.server.kill9()?;
                    self.program.kill_receiver()?;
                }
                if chance.is_heads() {
                    self.program.start_receiver()?;
                    self.let_pass(a_while)?;
                    return self.start_server();
                }
                self.start_server()?;
                self.let_pass(a_while)?;
                self.program.start_receiver()
            }
            Fault::Stall => {
                self.way.stall();
                self.let_pass(a_while * 3)?;
                self.end_stall(chance);
                Ok(())
            }
            Fault::Cut => {
                self.way.cut();
                Ok(())
            }
            Fault::StallAndKillServer => {
                self.way.stall();
                self.server.kill9()?;
                self.start_server()?;
                self.let_pass(a_while)?;
                self.end_stall(chance);
                Ok(())
            }
            Fault::FullSpool => {
                self.fill(&spool)?;
                self.let_pass(a_while * 2)?;
                self.program.make_room(&spool)
            }
            Fault::FullStore => {
                self.fill(&store)?;
                self.let_pass(a_while * 2)?;
                self.program.make_room(&store)
            }
            Fault::FullStoreAndKillReceiver => {
                self.fill(&store)?;
                self.let_pass(a_while)?;
                self.program.kill_receiver()?;
                self.program.start_receiver()?;
                self.let_pass(a_while)?;
                self.program.make_room(&store)
            }
            Fault::SwitchOver => self.take_over(End::InOrder),
            Fault::FailOver => self.take_over(End::Killed),
            Fault::FailOverBehind => self.take_over(End::KilledAhead),
            Fault::Backup => self.program.run(&["backup", INSTANCE, "--quiet"])?.good().map(drop),
            Fault::Collect => self.program.run(&["collect", "--quiet"])?.good().map(drop),
        }
    }

    fn fill(&self, place: &std::path::Path) -> Result<()> {
        self.program.disks().map_or(Ok(()), |disks| disks.fill(place))
    }

    fn end_stall(&self, chance: &mut Chance) {
        match chance.below(3) {
            0 => {
                self.say("  and is cut");
                self.way.cut();
            }
            1 => {
                self.say("  and nothing of before ever comes");
                self.way.strand();
            }
            _ => {}
        }
        self.way.resume();
    }

    pub(super) fn stop_server_in_time(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.server.stop(StopMode::Fast)?;
        let took = begun.elapsed();
        ensure!(took < STOP_LIMIT, "the server was held up for {took:?} when it stopped");
        self.say(format_args!("  the server stopped within {:.1} s", took.as_secs_f64()));
        Ok(())
    }

    pub(super) fn start_server(&mut self) -> Result<()> {
        self.server.start()?;
        self.begin_load()
    }

    /// The standby of the server goes on in its place, on a timeline of its own.
    fn take_over(&mut self, end: End) -> Result<()> {
        let standby = self.server.standby()?;
        // As those do who move servers: a slot that waits for the receiver.
        standby.sql(&format!("SELECT pg_create_physical_replication_slot('{SLOT}', true)"))?;
        match end {
            End::InOrder => {
                // A server waits for standbys that are connected: this one has only just begun.
                let question = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
                self.wait(LIMIT, "the standby to stream", |_| Ok(standby.query_value(question)? == "1"))?;
                self.stop_server_in_time()?;
            }
            End::Killed => self.server.kill9()?,
            End::KilledAhead => {
                standby.sql("ALTER SYSTEM SET primary_conninfo = ''")?;
                standby.reload()?;
                let question = "SELECT count(*) FROM pg_stat_wal_receiver";
                self.wait(LIMIT, "the standby to be cut off", |_| Ok(standby.query_value(question)? == "0"))?;
                self.commits_go_on()?;
                self.wait_for_receiver()?;
                self.server.kill9()?;
            }
        }
        self.rest_load();
        standby.promote()?;
        self.way.lead_to(standby.port());
        self.way.cut();
        self.server = standby;
        let timeline =
            self.server.query_value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")?;
        self.timeline = u32::from_str_radix(&timeline, 16).context("a timeline")?;
        let left = self.lives.begin(self.timeline, &self.markers.told(), &rows(&self.server)?);
        self.say(format_args!(
            "  timeline {}; {left} acknowledged rows are on the old one alone",
            self.timeline
        ));
        let is_right = match end {
            End::InOrder => left == 0,
            End::Killed => true,
            End::KilledAhead => left > 0,
        };
        ensure!(is_right, "the standby lacks {left} rows ({end:?})");
        self.begin_load()
    }

    /// What a person would look at next.
    pub fn tell_the_end(&self) {
        self.say("what the receiver said:");
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

impl Drop for Scene {
    fn drop(&mut self) {
        self.rest_load();
    }
}
