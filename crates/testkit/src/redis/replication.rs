//! Replicas and Sentinels: servers that follow or watch another.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Redis, RedisInstallation};
use crate::wait::{wait_for, wait_until};
use crate::workspace::Workspace;

/// A replica asks once a second whether it may begin.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// A Sentinel waits for several answers of its servers after a failover.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

impl Redis {
    /// An empty server that becomes a replica of this one, and has everything when this returns.
    ///
    /// # Errors
    /// When it does not start, or does not follow.
    pub fn start_replica(&self, settings: &[(&str, &str)]) -> Result<Redis> {
        let master = format!("127.0.0.1 {}", self.port);
        let settings: Vec<_> =
            [("replicaof", master.as_str())].into_iter().chain(settings.iter().copied()).collect();
        let replica = Redis::start_new(&self.installation, &settings)?;
        replica.wait_for_link("up")?;
        Ok(replica)
    }

    /// Until the link of a replica to its master is `up` or `down`.
    ///
    /// # Errors
    /// When it does not become so.
    pub fn wait_for_link(&self, state: &str) -> Result<()> {
        wait_until(FOLLOW_LIMIT, format!("the link of a replica to be {state}"), || {
            self.info("master_link_status").is_ok_and(|found| found == state)
        })
    }

    /// One line of `INFO`.
    ///
    /// # Errors
    /// When the server does not answer, or has no such line.
    pub fn info(&self, name: &str) -> Result<String> {
        let text = self.run(&["INFO", "everything"])?.text();
        let mut pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        let found = pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned());
        found.with_context(|| format!("INFO does not say `{name}`"))
    }

    /// A Sentinel that watches one master alone, at this port and under this name.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_sentinel(
        installation: &RedisInstallation,
        name: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Redis> {
        let workspace = Workspace::new()?;
        let directory = workspace.path().join("data");
        fs::create_dir(&directory)?;
        let file = directory.join("sentinel.conf");
        // It writes what it learns into this file.
        fs::write(
            &file,
            format!(
                "sentinel monitor {name} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {name} 1000\n\
                 sentinel failover-timeout {name} 5000\n"
            ),
        )?;
        let sentinel = Redis::start_in(workspace, installation, directory, Some(file), settings)?;
        // Instead of every ten seconds; it is refused where a test has set a password.
        sentinel.client()?.call(&["SENTINEL", "DEBUG", "INFO-PERIOD", "500"])?;
        Ok(sentinel)
    }

    /// Until a Sentinel lists a replica at this port with these words among what it says of it.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for_listed(&self, name: &str, port: u16, words: &[&str]) -> Result<()> {
        let what = format!("a Sentinel to say {words:?} of the replica at {port}");
        wait_until(NOTICE_LIMIT, what, || {
            let listed = self.run(&["SENTINEL", "REPLICAS", name]);
            let super::Reply::Array(replicas) = listed.unwrap_or(super::Reply::Nothing) else { return false };
            let texts = replicas.iter().map(|replica| format!(" {} ", replica.text()));
            let mut here = texts.filter(|text| text.contains(&format!(" port {port} ")));
            here.any(|text| words.iter().all(|word| text.contains(&format!(" {word} "))))
        })
    }

    /// Makes a Sentinel promote another server; the port of that.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn fail_over(&self, name: &str, from: u16) -> Result<u16> {
        wait_for(NOTICE_LIMIT, "the Sentinel to name another master", || {
            let place = self.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).ok()?.text();
            let found = place.split(' ').nth(1)?.parse().ok().filter(|port| *port != from);
            if found.is_none() {
                // It declines while one is under way, and while it has not heard enough of the replicas.
                drop(self.run(&["SENTINEL", "FAILOVER", name]));
            }
            found
        })
    }
}
