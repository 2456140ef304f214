//! How scratch servers end: told to, killed, dropped, or with us.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::redis::RedisError;
use backstay_engine::redis::facts::ServerFacts;
use backstay_engine::redis::place::FileNames;
use backstay_engine::redis::prove::{self, ProveOptions, prove};
use backstay_engine::redis::scratch::{Form, ScratchOptions, ScratchServer};
use testkit::{RedisVersion, require_redis, wait_until};
use tokio_util::sync::CancellationToken;

use super::restored::{Source, block_on, on_both};
use super::{LIMIT, exact, private_of, process_of};

#[test]
fn a_server_that_is_busy_is_not_waited_for_and_what_was_left_out_is_said() {
    on_both(|installation| {
        let source = Source::filled(installation);
        block_on(async {
            let server = source.start(Form::AppendOnly).await.unwrap();
            let options = ProveOptions { limit: Duration::ZERO, ..ProveOptions::default() };
            let proof = prove(&server, &exact(&source), &options).await.unwrap();
            assert_eq!((proof.digest.as_ref(), proof.findings.len()), (None, 1), "{proof:#?}");
            assert!(proof.findings[0].message.contains("in the time there was"), "{proof:#?}");
            let process = PathBuf::from(format!("/proc/{}", process_of(&server).await));
            let mut busy = server.connection().await.unwrap();
            busy.send("keep it busy", &["DEBUG", "SLEEP", "600"]).await.unwrap();
            server.stop().await.unwrap();
            assert!(!process.exists());
        });
    });
}

#[test]
fn a_server_that_ends_is_told_from_one_that_somebody_ended() {
    on_both(|installation| {
        let source = Source::filled(installation);
        block_on(async {
            for (signal, is_fault) in [
                (rustix::process::Signal::TERM, false),
                (rustix::process::Signal::KILL, false),
                (rustix::process::Signal::SEGV, true),
            ] {
                let mut server = source.start(Form::AppendOnly).await.unwrap();
                let mut connection = server.connection().await.unwrap();
                let process = rustix::process::Pid::from_raw(process_of(&server).await).unwrap();
                rustix::process::kill_process(process, signal).unwrap();
                let lost = connection
                    .call("ask", &["XREAD", "BLOCK", "0", "STREAMS", "none", "$"])
                    .await
                    .err()
                    .unwrap();
                assert!(prove::broke_off(&lost), "{lost:?}");
                let why = server.why_lost(lost).await;
                let is_told = match &why {
                    Error::ScratchEnded { .. } => !is_fault,
                    Error::Redis(RedisError::Scratch { what: "answer to the end", .. }) => is_fault,
                    _ => false,
                };
                assert!(is_told, "{signal:?}: {why:?}");
            }
        });
    });
}

#[test]
fn a_dropped_scratch_server_is_stopped_and_a_cancelled_one_never_runs() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let (process, private) = block_on(async {
            let server = source.start(Form::AppendOnly).await.unwrap();
            let process = PathBuf::from(format!("/proc/{}", process_of(&server).await));
            assert!(process.exists());
            (process, private_of(&server))
        });
        assert!(!process.exists() && !private.exists());
        let cancel = CancellationToken::new();
        cancel.cancel();
        let bin_directory = Some(installation.bin_directory().to_owned());
        let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
        let starting =
            ScratchServer::start(&source.directory, &source.names, &source.facts, &options, &cancel);
        assert!(matches!(block_on(starting), Err(Error::Cancelled)));
    });
}

const COPY: &str = "BACKSTAY_TEST_REDIS_COPY";

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "it waits to be killed by another test"]
fn start_a_scratch_server_and_wait() {
    let Some(copy) = std::env::var_os(COPY).map(PathBuf::from) else { return };
    let facts: ServerFacts = serde_json::from_slice(&fs::read(copy.join("facts")).unwrap()).unwrap();
    let version =
        RedisVersion::ALL.into_iter().find(|version| version.prefix() == facts.product.name().to_lowercase());
    let installation = require_redis(version.unwrap()).unwrap();
    let bin_directory = Some(installation.bin_directory().to_owned());
    let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
    block_on(async {
        let (directory, names, cancel) =
            (copy.join("restored"), FileNames::default(), CancellationToken::new());
        let starting = ScratchServer::start(&directory, &names, &facts, &options, &cancel);
        let server = starting.await.unwrap();
        let told = format!("{}\n{}", process_of(&server).await, private_of(&server).display());
        fs::write(copy.join("ready.new"), told).unwrap();
        fs::hard_link(copy.join("ready.new"), copy.join("ready")).unwrap();
        // Should the other test end first, so does this process.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    });
}

#[test]
fn a_scratch_server_does_not_outlive_a_process_that_is_killed() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let place = source.server.workspace().path();
        fs::write(place.join("facts"), serde_json::to_vec(&source.facts).unwrap()).unwrap();
        let mut ours = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "life::start_a_scratch_server_and_wait"])
            .env(COPY, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(LIMIT, "the scratch server to be ready", || place.join("ready").exists()).unwrap();
        let ready = fs::read_to_string(place.join("ready")).unwrap();
        let (process, private) = ready.split_once('\n').unwrap();
        let (process, private) = (PathBuf::from(format!("/proc/{process}")), Path::new(private));
        assert!(process.exists() && private.is_dir());
        ours.kill().unwrap();
        ours.wait().unwrap();
        wait_until(LIMIT, "the server to end", || !process.exists()).unwrap();
        wait_until(LIMIT, "its directory to go", || !private.exists()).unwrap();
        assert!(source.directory.is_dir(), "what was restored is not what is cleared away");
    });
}
