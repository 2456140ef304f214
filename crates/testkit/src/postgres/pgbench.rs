//! Data and load from `pgbench`, and the invariant that tells a whole copy from a torn one.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Postgres;
use super::query::run;

/// The sums that every `pgbench` transaction moves by the same amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgbenchSums {
    pub accounts: i64,
    pub tellers: i64,
    pub branches: i64,
    pub history: i64,
    /// Rows of the history: the number of transactions that were committed.
    pub transactions: i64,
}

impl PgbenchSums {
    /// Whether no transaction is there in part.
    pub fn agree(&self) -> bool {
        self.accounts == self.tellers && self.tellers == self.branches && self.branches == self.history
    }
}

/// A load that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct PgbenchLoad(Child);

impl PgbenchLoad {
    /// Ends the load; transactions under way are rolled back.
    pub fn stop(self) {}
}

impl Drop for PgbenchLoad {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

impl Postgres {
    /// Fills the database `postgres`: about 15 MiB per unit of scale.
    ///
    /// # Errors
    /// When `pgbench` fails.
    pub fn pgbench_init(&self, scale: u32) -> Result<()> {
        let mut command = self.tool("pgbench");
        command.args(["--initialize", "--quiet", "--scale", &scale.to_string()]);
        run(&mut command).context("fill the database").map(drop)
    }

    /// Runs a number of transactions, over two clients.
    ///
    /// # Errors
    /// When `pgbench` fails.
    pub fn pgbench_transactions(&self, count: u32) -> Result<()> {
        const CLIENTS: u32 = 2;
        let each = count.div_ceil(CLIENTS).to_string();
        self.pgbench(&["--transactions", &each])
    }

    /// Runs transactions for a while, over two clients.
    ///
    /// # Errors
    /// When `pgbench` fails.
    pub fn pgbench_run(&self, duration: Duration) -> Result<()> {
        self.pgbench(&["--time", &duration.as_secs().max(1).to_string()])
    }

    fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.tool("pgbench");
        command.args(["--no-vacuum", "--client=2"]).args(arguments);
        run(&mut command).context("run transactions").map(drop)
    }

    /// Starts a load and returns once its first transactions are committed.
    ///
    /// # Errors
    /// When `pgbench` does not start.
    pub fn pgbench_load(&self) -> Result<PgbenchLoad> {
        let before = self.query_value("SELECT count(*) FROM pgbench_history")?;
        let mut command = self.tool("pgbench");
        command.args(["--no-vacuum", "--client=2", "--time=86400"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let load = PgbenchLoad(command.spawn().context("start pgbench")?);
        crate::wait_until(Duration::from_secs(30), "the first transactions of pgbench", || {
            self.query_value("SELECT count(*) FROM pgbench_history").is_ok_and(|now| now != before)
        })?;
        Ok(load)
    }

    /// # Errors
    /// When the tables of `pgbench` are not there.
    pub fn pgbench_sums(&self) -> Result<PgbenchSums> {
        let line = self.query_value(
            "SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts), \
                    (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers), \
                    (SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches), \
                    (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
                    (SELECT count(*) FROM pgbench_history)",
        )?;
        let numbers: Vec<i64> = line.split('|').map(str::parse).collect::<Result<_, _>>()?;
        let [accounts, tellers, branches, history, transactions] = numbers[..] else {
            bail!("read the sums of pgbench: {line:?} has not five columns")
        };
        Ok(PgbenchSums { accounts, tellers, branches, history, transactions })
    }
}
