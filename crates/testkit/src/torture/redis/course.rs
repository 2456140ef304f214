//! How each fault happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::chance::Chance;
use super::super::program::INSTANCE;
use super::fault::Fault;
use super::scene::{BACKLOG, LIMIT, Scene};
use super::witness::Said;
use super::writers::flood;
use crate::redis::{Redis, Reply};
use crate::wait::wait_until;

/// What a small memory of the server is overrun with.
const OVERRUN_BYTES: usize = 3 << 20;
/// More than the sockets on the way hold.
const OVERFLOW_BYTES: usize = 24 << 20;
const SMALL: &str = "16kb";
const BUFFER: &str = "client-output-buffer-limit";

impl Scene {
    /// # Errors
    /// When the server or the program does not do what it must in spite of it.
    pub fn suffer(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        if self.program.disks().is_none() && fault.is_about_disks() {
            return Ok(());
        }
        self.say(fault);
        self.verdicts.suffered(fault);
        self.happen(fault, chance).with_context(|| format!("torture: {fault}"))
    }

    fn happen(&mut self, fault: Fault, chance: &mut Chance) -> Result<()> {
        let a_while = chance.between(Duration::from_millis(50), Duration::from_secs(2));
        let (spool, store) = (self.program.spool(), self.program.store());
        match fault {
            Fault::KillServer => {
                self.glance()?;
                self.server.kill9()?;
                self.let_pass(a_while)?;
                self.start_server()
            }
            Fault::RestartServer => {
                self.glance()?;
                self.stop_server()?;
                self.let_pass(a_while)?;
                self.start_server()
            }
            Fault::KillArchive => {
                self.program.kill_receiver()?;
                self.glance()?;
                self.let_pass(a_while)?;
                self.program.start_receiver()
            }
            Fault::RestartArchive => {
                self.program.stop_receiver()?;
                self.glance()?;
                self.program.start_receiver()
            }
            Fault::KillBoth => self.kill_both(a_while, chance),
            Fault::Stall => {
                self.way.stall();
                self.let_pass(a_while * 3)?;
                self.glance()?;
                self.end_stall(chance);
                Ok(())
            }
            Fault::Cut => {
                self.way.cut();
                Ok(())
            }
            Fault::KillClient => self.server.run(&["CLIENT", "KILL", "TYPE", "replica"]).map(drop),
            Fault::FullSpool => {
                self.fill(&spool)?;
                self.let_pass(a_while * 2)?;
                self.glance()?;
                self.program.make_room(&spool)
            }
            Fault::FullStore => {
                self.fill(&store)?;
                self.let_pass(a_while * 2)?;
                self.program.make_room(&store)
            }
            Fault::FullStoreAndKillArchive => {
                self.fill(&store)?;
                self.let_pass(a_while)?;
                self.program.kill_receiver()?;
                self.program.start_receiver()?;
                self.let_pass(a_while)?;
                self.program.make_room(&store)
            }
            Fault::Overrun => {
                self.configure("repl-backlog-size", SMALL)?;
                self.program.stop_receiver()?;
                self.glance()?;
                flood(&mut self.server.client()?, chance, OVERRUN_BYTES)?;
                self.glance()?;
                self.program.start_receiver()?;
                self.configure("repl-backlog-size", BACKLOG)
            }
            Fault::OverrunOfBuffer => {
                self.configure("repl-backlog-size", SMALL)?;
                self.configure(BUFFER, "replica 1mb 0 0")?;
                self.way.stall();
                flood(&mut self.server.client()?, chance, OVERFLOW_BYTES)?;
                self.glance()?;
                self.end_stall(chance);
                self.let_pass(a_while)?;
                self.configure(BUFFER, "replica 256mb 64mb 60")?;
                self.configure("repl-backlog-size", BACKLOG)
            }
            Fault::NewStream => self.begin_new_stream(),
            Fault::NewStreamAndKillArchive => {
                let before = self.program.said_bytes();
                self.begin_new_stream()?;
                let begun = "taking a base";
                self.wait(LIMIT, "the archive to take a base", |scene| {
                    Ok(scene.program.said_since(before).contains(begun))
                })?;
                self.let_pass(chance.between(Duration::ZERO, Duration::from_millis(60)))?;
                self.program.kill_receiver()?;
                self.program.start_receiver()
            }
            Fault::Flood => {
                let bytes = (17 << 20) + chance.below(4 << 20);
                flood(&mut self.server.client()?, chance, bytes)?;
                self.glance()
            }
            Fault::Snapshot => self.save(chance),
            Fault::SwitchOver => self.take_over(true),
            Fault::FailOver => self.take_over(false),
            Fault::Backup => self.program.run(&["backup", INSTANCE, "--quiet"])?.good().map(drop),
            Fault::Collect => self.program.run(&["collect", "--quiet"])?.good().map(drop),
        }
    }

    fn kill_both(&mut self, a_while: Duration, chance: &mut Chance) -> Result<()> {
        self.glance()?;
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

    fn fill(&self, place: &std::path::Path) -> Result<()> {
        self.program.disks().map_or(Ok(()), |disks| disks.fill(place))
    }

    fn end_stall(&mut self, chance: &mut Chance) {
        match chance.below(5) {
            0 | 1 => {
                self.say("  and is cut");
                self.way.cut();
            }
            // A minute is over before the archive believes it.
            2 if self.is_patient => {
                self.say("  and nothing of before ever comes");
                self.way.strand();
            }
            _ => {}
        }
        self.way.resume();
    }

    fn configure(&self, name: &str, value: &str) -> Result<()> {
        self.server.run(&["CONFIG", "SET", name, value]).map(drop)
    }

    /// As after a failover to a server that knows nothing of the stream: all goes on, and nothing
    /// can be continued.
    fn begin_new_stream(&mut self) -> Result<()> {
        self.server.run(&["DEBUG", "CHANGE-REPL-ID"])?;
        self.server.run(&["CLIENT", "KILL", "TYPE", "replica"])?;
        Ok(())
    }

    fn save(&mut self, chance: &mut Chance) -> Result<()> {
        let words = if chance.is_heads() { "BGSAVE" } else { "BGREWRITEAOF" };
        let mut client = self.server.client()?;
        // Another child of the server may be at work.
        let reply = client.call(&[words])?;
        self.say(format_args!("  {words}: {}", reply.text()));
        Ok(())
    }

    /// One that appends nothing saves what it has, and knows its stream again when it starts.
    fn stop_server(&mut self) -> Result<()> {
        if !self.is_appending {
            let mut client = self.server.client()?;
            if let Ok(Reply::Error(why)) = client.call(&["SHUTDOWN", "SAVE"]) {
                self.say(format_args!("  it does not stop by itself: {why}"));
            }
            wait_until(LIMIT, "the server to stop", || !self.server.is_running())?;
        }
        self.server.stop()
    }

    fn start_server(&mut self) -> Result<()> {
        self.writers.rest();
        self.server.start()?;
        self.begin_load()?;
        self.verdicts.restarted(self.before.contains_key(&Said::of(&self.server)?.replication_id));
        Ok(())
    }

    /// A replica of the server goes on in its place.
    fn take_over(&mut self, is_in_order: bool) -> Result<()> {
        let appends = if self.is_appending { "yes" } else { "no" };
        let settings = [
            ("appendonly", appends),
            ("repl-backlog-size", BACKLOG),
            ("repl-timeout", "5"),
            ("repl-ping-replica-period", "1"),
        ];
        let replica = Redis::start_new(self.server.installation(), &settings)?;
        replica.run(&["REPLICAOF", "127.0.0.1", &self.server.port().to_string()])?;
        self.wait(LIMIT, "the replica to follow", |_| {
            Ok(replica.run(&["INFO", "replication"])?.text().contains("master_link_status:up"))
        })?;
        if is_in_order {
            self.writers.rest();
            let end = Said::of(&self.server)?.offset;
            self.wait(LIMIT, "the replica to have all", |_| Ok(Said::of(&replica)?.offset >= end))?;
            self.glance()?;
            self.stop_server()?;
        } else {
            self.glance()?;
            self.server.kill9()?;
            self.writers.rest();
        }
        replica.run(&["REPLICAOF", "NO", "ONE"])?;
        self.way.lead_to(replica.port());
        self.way.cut();
        self.server = replica;
        self.begin_load()?;
        ensure!(!self.before.is_empty(), "a replica that took over does not say from whom");
        Ok(())
    }
}
