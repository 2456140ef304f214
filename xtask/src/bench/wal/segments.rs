//! Whole segments, pushed by the server's own archiver and fetched one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::ownership::server_owner;
use testkit::servers::find_program;
use testkit::wait_until;

use super::source::Source;
use super::{Findings, OURS, PGBACKREST, Phase, Sample, in_turn};
use crate::bench::measure::{Cost, bytes_below, measure, memory_of_called};
use crate::process::{quoted, run_quietly};

const LIMIT: Duration = Duration::from_secs(600);

pub fn measure_round(source: &Source, count: usize, is_turned: bool, findings: &mut Findings) -> Result<()> {
    let names: Vec<String> = source.names().into_iter().take(count).collect();
    let backrest = PgBackRest::prepare(source)?;
    for contestant in in_turn(vec![PGBACKREST, OURS], is_turned) {
        let is_ours = contestant == OURS;
        let push = if is_ours {
            source.forget_log()?;
            source.line("--quiet wal push %p --instance bench")
        } else {
            backrest.line("archive-push %p")
        };
        source.settle();
        let program = if is_ours { source.backstay.program() } else { &backrest.program };
        let cost = push_all(source, &push, program, &names)?;
        let stored_bytes =
            if is_ours { source.stored_log_bytes()? } else { bytes_below(&backrest.repository())? };
        let phase = Phase::Push;
        findings.add(Sample { contestant, phase, cost, segments: names.len(), stored_bytes });
        let fetch = if is_ours {
            source.line(&format!(
                "wal fetch $name $OUT/RECOVERYXLOG --instance bench --system-identifier {}",
                source.system_identifier
            ))
        } else {
            // Its processes have met each other in its spool (error 55, one call of 500).
            let line = backrest.line("archive-get $name $OUT/RECOVERYXLOG");
            format!("{line} || {line}")
        };
        // Where memory was given back to the machine below, whoever writes first pays for it: up to
        // three times what the fetching takes.
        fetch_all(source, &fetch, &names)?;
        source.settle();
        let cost = fetch_all(source, &fetch, &names)?;
        let phase = Phase::Fetch;
        findings.add(Sample { contestant, phase, cost, segments: names.len(), stored_bytes });
    }
    Ok(())
}

/// The archiver of the server finds segments that wait, and is told who takes them.
fn push_all(source: &Source, line: &str, program: &Path, names: &[String]) -> Result<Cost> {
    let server = &source.server;
    let status = server.data_directory().join("pg_wal/archive_status");
    for entry in fs::read_dir(&status)?.flatten() {
        fs::remove_file(entry.path())?;
    }
    for name in names {
        let ready = status.join(format!("{name}.ready"));
        fs::write(&ready, "")?;
        server_owner()?.take(&ready)?;
    }
    let begun = std::time::Instant::now();
    server.sql(&format!("ALTER SYSTEM SET archive_command = '{}'", line.replace('\'', "''")))?;
    server.reload()?;
    let last = names.last().context("a segment")?;
    let is_done = || names.iter().all(|name| status.join(format!("{name}.done")).exists());
    let (mut largest, mut sum) = (0, 0);
    wait_until(LIMIT, format!("{last} to be archived"), || {
        let (one, all) = memory_of_called(program);
        largest = largest.max(one);
        sum = sum.max(all);
        is_done()
    })?;
    let wall_seconds = begun.elapsed().as_secs_f64();
    server.sql("ALTER SYSTEM SET archive_command = ''")?;
    server.reload()?;
    Ok(Cost { wall_seconds, cpu_seconds: f64::NAN, largest_process_bytes: largest, sum_bytes: sum })
}

/// As a server does it: each under the same name, and then put where it belongs.
fn fetch_all(source: &Source, line: &str, names: &[String]) -> Result<Cost> {
    let out = source.path("fetched");
    fs::create_dir(&out)?;
    server_owner()?.take(&out)?;
    let mut script = Command::new("bash");
    script
        .args([
            "-euc",
            &format!("for name in {}; do {line}; mv $OUT/RECOVERYXLOG $OUT/$name; done", names.join(" ")),
        ])
        .env("OUT", &out)
        .current_dir("/");
    server_owner()?.apply(&mut script);
    let cost = measure(&mut script)?;
    for name in names {
        let kept = fs::read(source.server.data_directory().join("pg_wal").join(name))?;
        ensure!(fs::read(out.join(name))? == kept, "{name} came back with other bytes");
    }
    fs::remove_dir_all(&out)?;
    Ok(cost)
}

/// Two processes that work ahead, zstd, encrypted, since ours is.
struct PgBackRest {
    program: PathBuf,
    place: PathBuf,
}

impl PgBackRest {
    /// With an empty repository.
    fn prepare(source: &Source) -> Result<PgBackRest> {
        let program =
            find_program("trixie", "pgbackrest").context("find pgbackrest: run `cargo xtask servers`")?;
        let place = source.path("pgbackrest");
        let _ = fs::remove_dir_all(&place);
        let below = |name: &str| place.join(name).display().to_string();
        for name in ["repository", "log", "lock", "spool"] {
            fs::create_dir_all(place.join(name))?;
        }
        let settings = format!(
            "[global]\nrepo1-path={}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benchmark\n\
             compress-type=zst\ncompress-level=3\nprocess-max=2\narchive-async=y\n\
             log-level-console=warn\nlog-level-file=off\nlog-path={}\nlock-path={}\nspool-path={}\n\
             [bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
            below("repository"),
            below("log"),
            below("lock"),
            below("spool"),
            source.server.data_directory().display(),
            source.server.port(),
            source.server.socket_directory().display()
        );
        fs::write(place.join("pgbackrest.conf"), settings)?;
        server_owner()?.take_all(&place)?;
        let this = PgBackRest { program, place };
        let mut create = Command::new("bash");
        create.args(["-euc", &this.line("stanza-create")]).current_dir("/");
        server_owner()?.apply(&mut create);
        run_quietly(&mut create)?;
        Ok(this)
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository/archive")
    }

    fn line(&self, words: &str) -> String {
        format!(
            "{} --config={} --stanza=bench {words}",
            quoted(&self.program.display().to_string()),
            self.place.join("pgbackrest.conf").display()
        )
    }
}
