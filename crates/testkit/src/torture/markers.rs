//! Commits that a client was told of, written down outside of the server.
//!
//! One session writes numbered rows, one after the other, so their order is that of their
//! commits. A number is in doubt from the moment it is sent until the server has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::postgres::{Postgres, SUPERUSER};
use crate::wait::wait_until;

pub const TABLE: &str = "CREATE TABLE markers (n bigint PRIMARY KEY)";

/// Between two attempts to reach a server that is away.
const AGAIN: Duration = Duration::from_millis(100);

/// What is known of one row.
#[derive(Debug, Clone)]
pub struct Marker {
    pub number: u64,
    pub xid: String,
    /// When the client was told.
    pub told_at: Instant,
    /// An instant behind the commit and before the next one, and where the log was then.
    pub behind: Option<Behind>,
}

#[derive(Debug, Clone)]
pub struct Behind {
    pub time: String,
    pub lsn: u64,
    pub timeline: u32,
}

#[derive(Debug, Default)]
pub struct Ledger {
    sent: u64,
    pub told: BTreeMap<u64, Marker>,
}

/// Where the server is now; nobody writes while it is `None`.
struct Server {
    psql: PathBuf,
    socket_directory: PathBuf,
    port: u16,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    server: Mutex<Option<Server>>,
    session: Mutex<Option<Child>>,
    /// Held by who writes, from before it looks for a server to the end of its session.
    writing: Mutex<()>,
    is_over: Mutex<bool>,
}

pub struct Markers {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Markers {
    /// Writes to no server yet.
    pub fn begin() -> Markers {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let writer = std::thread::spawn(move || {
            while !*locked(&own.is_over) {
                // An error is the end of a session: the server went away, as it was made to.
                let _ = own.write();
                let _ = wait_until(AGAIN, "", || *locked(&own.is_over));
            }
        });
        Markers { shared, writer: Some(writer) }
    }

    /// From now on to this server.
    pub fn write_to(&self, server: &Postgres) {
        *locked(&self.shared.server) = Some(Server {
            psql: server.installation().bin_directory().join("psql"),
            socket_directory: server.socket_directory().to_owned(),
            port: server.port(),
        });
    }

    /// Ends the session, and begins no other before it is told where. What was answered is in
    /// the ledger then.
    pub fn rest(&self) {
        *locked(&self.shared.server) = None;
        if let Some(session) = locked(&self.shared.session).as_mut() {
            let _ = session.kill();
        }
        drop(locked(&self.shared.writing));
    }

    pub fn count(&self) -> usize {
        locked(&self.shared.ledger).told.len()
    }

    pub fn told(&self) -> Vec<Marker> {
        locked(&self.shared.ledger).told.values().cloned().collect()
    }
}

impl Drop for Markers {
    fn drop(&mut self) {
        *locked(&self.shared.is_over) = true;
        self.rest();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn write(&self) -> Result<()> {
        let _writing = locked(&self.writing);
        let mut command = match &*locked(&self.server) {
            Some(server) => {
                let mut psql = Command::new(&server.psql);
                psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
                    .args(["--set=ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname=postgres"])
                    .arg("--host")
                    .arg(&server.socket_directory)
                    .args(["--port", &server.port.to_string()])
                    .env("PGAPPNAME", "markers");
                psql
            }
            None => return Ok(()),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut session = command.spawn().context("run psql")?;
        let (input, output) = (session.stdin.take(), session.stdout.take());
        *locked(&self.session) = Some(session);
        let (mut input, output) = (input.context("a pipe to psql")?, output.context("a pipe from psql")?);
        let outcome = self.rows(&mut input, &mut BufReader::new(output).lines());
        if let Some(mut session) = locked(&self.session).take() {
            let _ = session.kill();
            let _ = session.wait();
        }
        outcome
    }

    fn rows(
        &self,
        input: &mut impl Write,
        answers: &mut impl Iterator<Item = std::io::Result<String>>,
    ) -> Result<()> {
        let mut answer = || answers.next().context("the session ended")?.context("read an answer");
        while !*locked(&self.is_over) && locked(&self.server).is_some() {
            let number = {
                let mut ledger = locked(&self.ledger);
                ledger.sent += 1;
                ledger.sent
            };
            writeln!(input, "INSERT INTO markers VALUES ({number}) RETURNING pg_current_xact_id();")?;
            let xid = answer()?;
            let told = Marker { number, xid, told_at: Instant::now(), behind: None };
            locked(&self.ledger).told.insert(number, told);
            writeln!(
                input,
                "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                 pg_current_wal_lsn() - '0/0', substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
                 FROM pg_sleep(0.01);"
            )?;
            let behind = answer()?;
            let mut columns = behind.split('|').map(str::to_owned);
            let mut column = || columns.next().context("three columns");
            let (time, lsn, timeline) = (column()?, column()?.parse()?, u32::from_str_radix(&column()?, 16)?);
            if let Some(marker) = locked(&self.ledger).told.get_mut(&number) {
                marker.behind = Some(Behind { time, lsn, timeline });
            }
        }
        Ok(())
    }
}

/// Which rows a restored server must have, over the lives of a cluster.
#[derive(Debug, Default)]
pub struct Lives {
    /// Rows whose commits were left behind when a timeline began.
    left_behind: BTreeMap<u32, BTreeSet<u64>>,
}

impl Lives {
    /// On a new timeline the server has `present` of what was `told` before it.
    pub fn begin(&mut self, timeline: u32, told: &[Marker], present: &BTreeSet<u64>) -> usize {
        let before = told.iter().map(|marker| marker.number);
        let left: BTreeSet<u64> =
            before.filter(|number| !present.contains(number) && self.is_of(*number, timeline)).collect();
        let count = left.len();
        self.left_behind.entry(timeline).or_default().extend(left);
        count
    }

    /// Whether a row belongs to the way that leads onto this timeline.
    pub fn is_of(&self, number: u64, timeline: u32) -> bool {
        self.left_behind.range(..=timeline).all(|(_, left)| !left.contains(&number))
    }

    pub fn left_behind(&self) -> impl Iterator<Item = (u32, u64)> {
        self.left_behind.iter().flat_map(|(timeline, left)| left.iter().map(|number| (*timeline, *number)))
    }
}
