//! Scratch servers on restored copies: sound ones are proven, others are not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::postgres::PostgresSettings;
use backstay_engine::postgres::connect::column;
use backstay_engine::postgres::facts::ServerFacts;
use backstay_engine::postgres::prove::{self, Check, ProveOptions};
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions};
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);

fn on_each_version(test: impl Fn(&Installation)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation);
        }
    }
}

struct Restored {
    server: Postgres,
    directory: PathBuf,
    stored: drive::Stored,
}

fn restored(installation: &Installation) -> Restored {
    let server = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(2).unwrap();
    server.sql("CREATE DATABASE \"my data\"").unwrap();
    server.sql_in("my data", "CREATE TABLE \"Odd name\" AS SELECT generate_series(1, 77) AS n").unwrap();
    let directory = server.workspace().path().join("restored");
    let (stored, _) = drive::copy(&server, &directory, Vec::new()).unwrap();
    Restored { server, directory, stored }
}

async fn start(installation: &Installation, directory: &Path, facts: &ServerFacts) -> Result<Scratch, Error> {
    let bin_directory = Some(installation.bin_directory().to_owned());
    let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
    Scratch::start(directory, facts, &options, &CancellationToken::new()).await
}

fn check<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name} in {checks:#?}"))
}

fn is_stopped(directory: &Path) -> bool {
    !directory.join("postmaster.pid").exists()
}

#[test]
fn a_sound_copy_is_proven_and_leaves_nothing_running() {
    on_each_version(|installation| {
        let copy = restored(installation);
        drive::runtime().block_on(async {
            let facts = &copy.stored.facts;
            let scratch = start(installation, &copy.directory, &facts.server).await.unwrap();
            let proof = prove::prove(&scratch, facts, &ProveOptions::default()).await.unwrap();
            assert!(proof.is_sound(), "{proof:#?}");
            let accounts = check(&proof.checks, "table public.pgbench_accounts in postgres");
            assert_eq!(accounts.found, "200000 rows");
            assert_eq!(check(&proof.checks, "table public.\"Odd name\" in my data").found, "77 rows");
            assert!(check(&proof.checks, "index public.pgbench_accounts_pkey in postgres").ok);
            assert!(check(&proof.checks, "extension plpgsql in postgres").ok);
            let stopped = scratch.stop().await.unwrap();
            assert!(is_stopped(&copy.directory));
            let pages = prove::prove_pages(&stopped, LIMIT, &CancellationToken::new()).await.unwrap();
            assert!(pages.ok && pages.found == "0 wrong pages", "{pages:?}");
        });
        drop(copy.server);
    });
}

#[test]
fn a_copy_with_a_broken_table_is_unsound() {
    on_each_version(|installation| {
        let copy = restored(installation);
        let path = copy.server.query_value("SELECT pg_relation_filepath('pgbench_accounts')").unwrap();
        let file = fs::OpenOptions::new().write(true).open(copy.directory.join(path)).unwrap();
        file.write_all_at(b"rot", 100 * 8192 + 4000).unwrap();
        drive::runtime().block_on(async {
            let facts = &copy.stored.facts;
            let scratch = start(installation, &copy.directory, &facts.server).await.unwrap();
            let proof = prove::prove(&scratch, facts, &ProveOptions::default()).await.unwrap();
            assert!(!proof.is_sound());
            let accounts = check(&proof.checks, "table public.pgbench_accounts in postgres");
            assert!(!accounts.ok && accounts.found.contains("invalid page"), "{accounts:?}");
            let stopped = scratch.stop().await.unwrap();
            let pages = prove::prove_pages(&stopped, LIMIT, &CancellationToken::new()).await.unwrap();
            assert!(!pages.ok && pages.found == "1 wrong pages", "{pages:?}");
        });
    });
}

fn is_looked_at(directory: &Path) -> bool {
    let directory = directory.as_os_str().as_encoded_bytes();
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == directory)
    })
}

#[test]
fn whoever_looks_at_pages_stops_on_request_and_when_its_time_is_over() {
    on_each_version(|installation| {
        let copy = restored(installation);
        drive::runtime().block_on(async {
            let scratch = start(installation, &copy.directory, &copy.stored.facts.server).await.unwrap();
            let stopped = scratch.stop().await.unwrap();
            let asked = CancellationToken::new();
            asked.cancel();
            let cancelled = prove::prove_pages(&stopped, LIMIT, &asked).await;
            assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
            let late = prove::prove_pages(&stopped, Duration::ZERO, &CancellationToken::new()).await;
            assert!(matches!(late, Err(Error::ProgramTimeout { .. })), "{late:?}");
        });
        testkit::wait_until(LIMIT, "the programs to be gone", || !is_looked_at(&copy.directory)).unwrap();
    });
}

/// A cluster without `postgres`, and with a subscription to itself that would run.
#[test]
fn a_copy_without_the_usual_database_is_entered_and_subscribes_to_nothing() {
    on_each_version(|installation| {
        let options = PostgresOptions::default().configure("wal_level = logical");
        let server = Postgres::start_new(installation, &options).unwrap();
        server.sql("CREATE DATABASE orders").unwrap();
        server.sql_in("orders", "CREATE TABLE t (n int)").unwrap();
        let subscribe = format!(
            "CREATE SUBSCRIPTION taken CONNECTION 'host={} port={} dbname=orders' PUBLICATION p \
             WITH (connect = false)",
            server.socket_directory().display(),
            server.port()
        );
        server.sql_in("orders", "CREATE PUBLICATION p FOR ALL TABLES").unwrap();
        server.sql_in("orders", &subscribe).unwrap();
        server.sql_in("orders", "ALTER SUBSCRIPTION taken ENABLE").unwrap();
        server.sql_in("orders", "DROP DATABASE postgres").unwrap();
        let directory = server.workspace().path().join("restored");
        let settings = PostgresSettings {
            url: server.socket_url().replace("@/postgres?", "@/orders?"),
            ..drive::settings(&server)
        };
        let runtime = drive::runtime();
        let (mut backup, outcome) = drive::begin(&runtime, &settings).unwrap();
        let stored = drive::finish(&mut backup, &outcome, &directory, Vec::new(), |_| {}).unwrap();
        assert_eq!(stored.facts.server.enabled_subscriptions, 1);
        runtime.block_on(async {
            let scratch = start(installation, &directory, &stored.facts.server).await.unwrap();
            let session = scratch.session("orders").await.unwrap();
            let statement = "SELECT count(*)::int FROM pg_stat_activity WHERE backend_type LIKE 'logical%'";
            let row = session.row("count the workers", statement, &[]).await.unwrap();
            assert_eq!(column::<i32>(&row, 0).unwrap(), 0);
            drop(session);
            let proof = prove::prove(&scratch, &stored.facts, &ProveOptions::default()).await.unwrap();
            assert!(proof.is_sound(), "{proof:#?}");
        });
    });
}

#[test]
fn a_server_whose_superuser_is_another_says_so_at_once() {
    on_each_version(|installation| {
        let copy = restored(installation);
        let facts = ServerFacts { superuser: "nobody".to_owned(), ..copy.stored.facts.server.clone() };
        let error = drive::runtime().block_on(start(installation, &copy.directory, &facts)).err().unwrap();
        assert!(matches!(error, Error::Login { .. }), "{error}");
    });
}

#[test]
fn a_server_of_which_a_process_dies_ends_and_its_log_says_how() {
    on_each_version(|installation| {
        let copy = restored(installation);
        drive::runtime().block_on(async {
            let mut scratch = start(installation, &copy.directory, &copy.stored.facts.server).await.unwrap();
            let session = scratch.session("postgres").await.unwrap();
            let row = session.row("ask who it is", "SELECT pg_backend_pid()", &[]).await.unwrap();
            let backend = rustix::process::Pid::from_raw(column::<i32>(&row, 0).unwrap()).unwrap();
            rustix::process::kill_process(backend, rustix::process::Signal::KILL).unwrap();
            let lost = session.row("ask again", "SELECT pg_sleep(600)", &[]).await.err().unwrap();
            assert!(matches!(lost, Error::ConnectionLost { .. }), "{lost:?}");
            let why = scratch.why_lost(lost).await;
            assert!(matches!(why, Error::Scratch { what: "answer to the end", .. }), "{why:?}");
            assert!(why.to_string().contains("was terminated by signal 9"), "{why}");
            let stopped = scratch.stop().await.map(drop).unwrap_err();
            assert!(matches!(stopped, Error::Scratch { what: "stop in good order", .. }), "{stopped:?}");
        });
    });
}

#[test]
fn a_server_that_somebody_ended_is_no_fault_of_the_copy() {
    on_each_version(|installation| {
        let copy = restored(installation);
        drive::runtime().block_on(async {
            // The killed one comes last: its processes may hold its memory for a while.
            for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
                let server = &copy.stored.facts.server;
                let mut scratch = start(installation, &copy.directory, server).await.unwrap();
                let session = scratch.session("postgres").await.unwrap();
                let locked = fs::read_to_string(copy.directory.join("postmaster.pid")).unwrap();
                let postmaster = locked.lines().next().unwrap().parse().unwrap();
                let postmaster = rustix::process::Pid::from_raw(postmaster).unwrap();
                rustix::process::kill_process(postmaster, signal).unwrap();
                let lost = session.row("ask", "SELECT 1 FROM pg_sleep(600)", &[]).await.err().unwrap();
                assert!(prove::broke_off(&lost), "{lost:?}");
                let why = scratch.why_lost(lost).await;
                assert!(matches!(why, Error::ScratchEnded { .. }), "{why:?}");
            }
        });
    });
}

#[test]
fn a_server_that_cannot_start_says_why_and_is_gone() {
    on_each_version(|installation| {
        let copy = restored(installation);
        fs::remove_file(copy.directory.join("global/pg_control")).unwrap();
        let server = &copy.stored.facts.server;
        let runtime = drive::runtime();
        let error = runtime.block_on(start(installation, &copy.directory, server)).err().unwrap();
        assert!(
            matches!(error, Error::Scratch { .. }) && error.to_string().contains("pg_control"),
            "{error}"
        );
    });
}

#[test]
fn a_dropped_scratch_server_is_stopped() {
    on_each_version(|installation| {
        let copy = restored(installation);
        let server = &copy.stored.facts.server;
        let scratch = drive::runtime().block_on(start(installation, &copy.directory, server)).unwrap();
        let pid = fs::read_to_string(copy.directory.join("postmaster.pid")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.lines().next().unwrap()));
        assert!(process.exists());
        drop(scratch);
        assert!(!process.exists());
    });
}

#[test]
fn a_version_that_is_not_installed_is_named() {
    on_each_version(|installation| {
        let copy = restored(installation);
        let mut facts = copy.stored.facts.server.clone();
        facts.version_number = 990_001;
        let runtime = drive::runtime();
        let error = runtime.block_on(start(installation, &copy.directory, &facts)).err().unwrap();
        assert_eq!(error.to_string(), "find the program `postgres` of PostgreSQL 99");
    });
}

const COPY: &str = "BACKSTAY_TEST_COPY";

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "it waits to be killed by another test"]
fn start_a_scratch_server_and_wait() {
    let Some(copy) = std::env::var_os(COPY).map(PathBuf::from) else { return };
    let facts: ServerFacts = serde_json::from_slice(&fs::read(copy.join("facts")).unwrap()).unwrap();
    let version = PostgresVersion::ALL.into_iter().find(|version| version.major() == facts.major()).unwrap();
    let installation = require_postgres(version).unwrap();
    drive::runtime().block_on(async {
        let scratch = start(&installation, &copy.join("restored"), &facts).await.unwrap();
        let socket = scratch.settings().url;
        fs::write(copy.join("ready.new"), socket).unwrap();
        fs::hard_link(copy.join("ready.new"), copy.join("ready")).unwrap();
        // Should the other test end first, so does this process.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    });
}

#[test]
fn a_scratch_server_does_not_outlive_a_process_that_is_killed() {
    on_each_version(|installation| {
        let copy = restored(installation);
        let place = copy.server.workspace().path();
        fs::write(place.join("facts"), serde_json::to_vec(&copy.stored.facts.server).unwrap()).unwrap();
        let mut ours = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "start_a_scratch_server_and_wait"])
            .env(COPY, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        testkit::wait_until(LIMIT, "the scratch server to be ready", || place.join("ready").exists())
            .unwrap();
        let url = fs::read_to_string(place.join("ready")).unwrap();
        let private = Path::new(url.split('\'').nth(1).unwrap()).to_owned();
        let pid = fs::read_to_string(copy.directory.join("postmaster.pid")).unwrap();
        let server = PathBuf::from(format!("/proc/{}", pid.lines().next().unwrap()));
        assert!(server.exists() && private.is_dir());
        ours.kill().unwrap();
        ours.wait().unwrap();
        testkit::wait_until(LIMIT, "the server to end", || !server.exists()).unwrap();
        testkit::wait_until(LIMIT, "its directory to go", || !private.exists()).unwrap();
    });
}
