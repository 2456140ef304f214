//! The server, a base of it, and the log that all contestants handle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::ownership::server_owner;
use testkit::postgres::SUPERUSER;
use testkit::{Installation, Postgres, PostgresOptions, Workspace};

use super::Options;
use crate::backstay::Backstay;
use crate::process::run_quietly;

pub const SEGMENT_BYTES: u64 = 16 << 20;
/// A slot that holds the log from its beginning; receivers use copies of it.
const FIRST_SLOT: &str = "first";
pub const SLOT: &str = "bench";
const SCALE: u32 = 30;

pub struct Source {
    pub server: Postgres,
    pub place: Workspace,
    pub backstay: Backstay,
    pub system_identifier: String,
    /// From the base on to the end of a segment.
    pub from: u64,
    pub to: u64,
}

impl Source {
    pub fn prepare(options: &Options, installation: &Installation, program: &Path) -> Result<Source> {
        let configured = PostgresOptions::default()
            .configure("fsync = on")
            .configure("shared_buffers = 256MB")
            .configure("max_wal_size = 2GB")
            .configure("checkpoint_timeout = 1h")
            .configure("autovacuum = off")
            .configure("wal_recycle = off")
            // It begins when somebody is named who archives.
            .configure("archive_mode = on")
            .configure("archive_command = ''");
        let server = Postgres::start_in(Workspace::below(&options.directory)?, installation, &configured)?;
        let place = Workspace::below(&options.directory)?;
        let backstay = configure(program, place.path(), &server)?;
        server.pgbench_init(SCALE)?;
        server.sql("VACUUM FREEZE; CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")?;
        server.sql(&format!("SELECT pg_create_physical_replication_slot('{FIRST_SLOT}', true)"))?;
        run_quietly(&mut backstay.command(&["backup", "bench", "--quiet"]))?;
        let slot_at =
            format!("SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = '{FIRST_SLOT}'");
        let from: u64 = server.query_value(&slot_at)?.parse()?;
        write_log(&server, from + (options.size << 20))?;
        let end = server
            .query_value("SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_current_wal_flush_lsn() - '0/0'")?;
        let end: u64 = end.lines().next_back().context("a position")?.parse()?;
        let system_identifier = server.query_value("SELECT system_identifier FROM pg_control_system()")?;
        let segment = |position: u64| position / SEGMENT_BYTES * SEGMENT_BYTES;
        let source =
            Source { server, place, backstay, system_identifier, from: segment(from), to: segment(end) };
        ensure!(source.log_bytes() > 0, "there is no log");
        source.give_away()?;
        Ok(source)
    }

    pub fn log_bytes(&self) -> u64 {
        self.to - self.from
    }

    pub fn segments(&self) -> usize {
        (self.log_bytes() / SEGMENT_BYTES) as usize
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The name of each whole segment.
    pub fn names(&self) -> Vec<String> {
        (self.from / SEGMENT_BYTES..self.to / SEGMENT_BYTES)
            .map(|number| format!("00000001{:08X}{:08X}", number / 256, number % 256))
            .collect()
    }

    /// A slot at the beginning of the log, which nobody has used.
    pub fn fresh_slot(&self) -> Result<()> {
        self.drop_slot()?;
        self.server.sql(&format!("SELECT pg_copy_physical_replication_slot('{FIRST_SLOT}', '{SLOT}')"))
    }

    pub fn drop_slot(&self) -> Result<()> {
        self.server.sql(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE slot_name = '{SLOT}' AND NOT active"
        ))
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The server archives and fetches as its own user.
    pub fn give_away(&self) -> Result<()> {
        let owner = server_owner()?;
        owner.take_all(&self.store())?;
        for name in ["backstay.toml", "caches", "spool"] {
            if self.path(name).exists() {
                owner.take_all(&self.path(name))?;
            }
        }
        for entry in fs::read_dir(self.place.path())?.flatten() {
            if entry.file_type()?.is_file() {
                owner.take(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A command of Backstay for a shell, with these words.
    pub fn line(&self, words: &str) -> String {
        format!(
            "XDG_CACHE_HOME={} {} --config {} {words}",
            self.path("caches").display(),
            self.backstay.program().display(),
            self.backstay.configuration().display()
        )
    }

    pub fn ours(&self, words: &[&str]) -> Command {
        let mut command = self.backstay.command(words);
        command.env("XDG_CACHE_HOME", self.path("caches"));
        command
    }

    /// The repository has the base and no log; the spool has nothing.
    pub fn forget_log(&self) -> Result<()> {
        let _ = fs::remove_dir_all(self.path("spool"));
        for directory in log_directories(&self.store())? {
            fs::remove_dir_all(directory)?;
        }
        Ok(())
    }

    pub fn stored_log_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for directory in log_directories(&self.store())? {
            sum += crate::bench::measure::bytes_below(&directory)?;
        }
        Ok(sum)
    }

    /// Leaves no work behind that the next measurement would pay for.
    pub fn settle(&self) {
        rustix::fs::sync();
    }
}

fn log_directories(below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below)?.flatten() {
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == "log" {
            found.push(entry.path());
        } else {
            found.extend(log_directories(&entry.path())?);
        }
    }
    Ok(found)
}

fn configure(program: &Path, place: &Path, server: &Postgres) -> Result<Backstay> {
    // Where the server's user may run it.
    let copy = place.join("backstay");
    fs::copy(program, &copy).context("copy the program")?;
    let backstay = Backstay::new(copy, place.join("backstay.toml"));
    run_quietly(&mut backstay.command(&["init", "--store", &format!("file://{}/store", place.display())]))?;
    let mut settings = fs::read_to_string(backstay.configuration())?;
    settings += &format!(
        "\n[instance.bench]\nengine = \"postgresql\"\nurl = \"{url}\"\nbin_directory = \"{bin}\"\n\n\
         [instance.bench.archive]\nslot = \"{SLOT}\"\nspool = \"{spool}\"\n",
        url = server.socket_url(),
        bin = server.installation().bin_directory().display(),
        spool = place.join("spool").display(),
    );
    fs::write(backstay.configuration(), settings)?;
    Ok(backstay)
}

/// Transactions of pgbench, with a checkpoint now and then, as in the days of a server.
fn write_log(server: &Postgres, to: u64) -> Result<()> {
    loop {
        let at: u64 = server.query_value("SELECT pg_current_wal_lsn() - '0/0'")?.parse()?;
        if at >= to {
            return Ok(());
        }
        let mut pgbench = server.tool("pgbench");
        pgbench.args(["--no-vacuum", "--client=4", "--jobs=2", "--transactions=12000"]);
        run_quietly(pgbench.env("PGOPTIONS", "-c synchronous_commit=off").env("PGUSER", SUPERUSER))?;
        server.sql("CHECKPOINT")?;
    }
}
