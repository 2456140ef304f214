//! Scratch servers on restored directories of Redis and Valkey: sound ones are proven, others are not,
//! and none is changed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "redis_scratch/life.rs"]
mod life;
#[path = "redis_scratch/restored.rs"]
mod restored;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstay_engine::Error;
use backstay_engine::address::Endpoint;
use backstay_engine::model::drill::Check;
use backstay_engine::model::error::{Classified, ErrorKind};
use backstay_engine::redis::RedisError;
use backstay_engine::redis::facts::ServerFacts;
use backstay_engine::redis::place::FileNames;
use backstay_engine::redis::prove::{Expected, ProveOptions, RedisProof, prove};
use backstay_engine::redis::scratch::{Form, ScratchOptions, ScratchServer};
use restored::{Source, block_on, contents, encoded, filled, on_both, start};
use testkit::{Redis, wait_until};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);

async fn asked(server: &ScratchServer, words: &[&str]) -> String {
    let mut connection = server.connection().await.unwrap();
    connection.call("ask", words).await.unwrap().text().unwrap_or_default()
}

fn refused(error: Option<Error>) -> String {
    match error {
        Some(Error::Redis(RedisError::Scratch { what: "start", log })) => log,
        other => panic!("{other:?}"),
    }
}

fn check<'a>(proof: &'a RedisProof, name: &str) -> &'a Check {
    proof.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name} in {proof:#?}"))
}

fn private_of(server: &ScratchServer) -> PathBuf {
    let Endpoint::Unix(socket) = server.address().endpoint else { panic!("a socket") };
    socket.parent().unwrap().to_owned()
}

async fn process_of(server: &ScratchServer) -> i32 {
    let info = asked(server, &["INFO", "server"]).await;
    info.lines().find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok()).unwrap()
}

fn exact(source: &Source) -> Expected {
    Expected {
        digest: Some(source.digest()),
        is_exact: true,
        databases: Some(source.facts.databases.clone()),
    }
}

#[test]
fn a_sound_copy_is_proven_in_both_forms() {
    on_both(|installation| {
        let source = Source::filled(installation);
        for form in [Form::AppendOnly, Form::Snapshot] {
            block_on(async {
                let server = source.start(form).await.unwrap();
                let proof = prove(&server, &exact(&source), &ProveOptions::default()).await.unwrap();
                assert!(proof.is_sound() && proof.findings.is_empty(), "{proof:#?}");
                assert_eq!(proof.digest.as_deref(), Some(source.digest().as_str()));
                assert_eq!(proof.functions, 2);
                assert_eq!(check(&proof, "keys in database 7").found, "2, 1 with an expiry");
                assert_eq!(check(&proof, "sum over all data").expected, source.digest());
                assert!(check(&proof, "sample of keys").found.starts_with("5 keys ("), "{proof:#?}");
                // Of one that was at work when it was counted, nobody knows how many there were.
                let about = Expected::of(&source.base_facts());
                let proof = prove(&server, &about, &ProveOptions::default()).await.unwrap();
                assert!(
                    proof.is_sound() && check(&proof, "keys").expected == "about 5, 1 with an expiry",
                    "{proof:#?}"
                );
                server.stop().await.unwrap();
            });
        }
    });
}

/// `redis.md`, the rule of expiry: a key whose time had come when the copy was loaded, and to which the log says
/// that it stays.
#[test]
fn a_key_that_the_log_keeps_has_its_value_although_its_time_in_the_snapshot_is_past() {
    on_both(|installation| {
        const SHORT: Duration = Duration::from_secs(3);
        let server = filled(installation, &[]);
        let begun = Instant::now();
        for key in ["stays", "goes"] {
            server.run(&["SET", key, "x", "PX", &SHORT.as_millis().to_string()]).unwrap();
        }
        let source = Source::restored(server, FileNames::default());
        source.goes_on(&[&["PERSIST", "stays"], &["APPEND", "stays", "y"]]);
        wait_until(LIMIT, "its time to come", || begun.elapsed() > SHORT).unwrap();
        block_on(async {
            let server = source.start(Form::AppendOnly).await.unwrap();
            assert_eq!(asked(&server, &["GET", "stays"]).await, "xy");
            assert_eq!(asked(&server, &["GET", "goes"]).await, "", "nobody sees it");
            let expected = Expected { databases: None, ..exact(&source) };
            let proof = prove(&server, &expected, &ProveOptions::default()).await.unwrap();
            assert!(proof.is_sound(), "{proof:#?}");
            assert_eq!((proof.databases[&0].keys, proof.databases[&0].expires), (5, 1), "and it is there");
            assert!(check(&proof, "sample of keys").found.contains("keys ("), "{proof:#?}");
            server.stop().await.unwrap();
        });
    });
}

#[test]
fn nothing_in_the_directory_changes_whatever_lies_there() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let old = "appendonly.aof.1.incr.aof";
        fs::write(source.append_only(old), "what a server deletes when it starts").unwrap();
        let base = source.base_line();
        let with_history = format!("{base}file {old} seq 1 type h\n");
        let log = || source.set_log(&encoded(&["SET", "a", "b"]));
        // A base alone, history beside it, and a log.
        let states: [&dyn Fn(); 3] = [&|| (), &|| source.set_manifest(&with_history), &log];
        for (form, state) in
            states.into_iter().map(|state| (Form::AppendOnly, state)).chain([(Form::Snapshot, &log as _)])
        {
            state();
            let before = contents(&source.directory);
            block_on(async {
                let server = source.start(form).await.unwrap();
                let expected = Expected::default();
                assert!(prove(&server, &expected, &ProveOptions::default()).await.unwrap().is_sound());
                server.stop().await.unwrap();
                assert!(contents(&source.directory) == before, "{form:?}");
                // Nor by one that is killed.
                drop(source.start(form).await.unwrap());
                assert!(contents(&source.directory) == before, "{form:?}");
            });
        }
    });
}

#[test]
fn a_log_that_was_cut_is_an_error_and_nothing_is_passed_over() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let set = encoded(&["SET", "a", "b"]);
        let unfinished = [encoded(&["MULTI"]), set.clone()].concat();
        for log in [&set[..set.len() - 3], &[&set[..], b"*2\r\n"].concat(), &unfinished] {
            source.set_log(log);
            let error = block_on(source.start(Form::AppendOnly)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.hints()[0].contains("`backstay verify`"), "{:?}", error.hints());
            let words = "Unexpected end of file reading the append only file";
            assert!(refused(Some(error)).contains(words));
            assert_eq!(
                fs::read(source.append_only("appendonly.aof.1.incr.aof")).unwrap(),
                log,
                "it is as it was"
            );
        }
        source.set_log(&[&set[..], b"nonsense\r\n"].concat());
        let error = block_on(source.start(Form::AppendOnly)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    });
}

#[test]
fn a_damaged_or_a_missing_base_is_told_in_the_servers_words() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let (as_base, as_snapshot) = (source.append_only(&source.base()), source.directory.join("dump.rdb"));
        let whole = fs::read(&as_base).unwrap();
        let value = b"found in the file";
        let at = whole.windows(value.len()).position(|window| window == value).unwrap();
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for bytes in [flipped, whole[..whole.len() - 20].to_vec()] {
            // Both are names of one file.
            fs::write(&as_base, &bytes).unwrap();
            assert!(fs::read(&as_snapshot).unwrap() == bytes);
            for form in [Form::AppendOnly, Form::Snapshot] {
                let error = block_on(source.start(form)).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let log = refused(Some(error));
                let words = ["Wrong RDB checksum", "Short read or OOM loading DB"];
                assert!(words.iter().any(|words| log.contains(words)), "{log}");
            }
        }
        fs::remove_file(&as_base).unwrap();
        let error = block_on(source.start(Form::AppendOnly)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(refused(Some(error)).contains(&source.base()));
        // A server would start empty without these.
        fs::remove_file(&as_snapshot).unwrap();
        assert!(matches!(block_on(source.start(Form::Snapshot)), Err(Error::Read { .. })));
        source.set_manifest("");
        assert!(matches!(block_on(source.start(Form::AppendOnly)), Err(Error::Malformed { .. })));
    });
}

#[test]
fn a_copy_that_is_empty_or_another_is_unsound_unless_it_was_so() {
    on_both(|installation| {
        let server = Redis::start_new(installation, &[]).unwrap();
        let source = Source::restored(server, FileNames::default());
        block_on(async {
            let server = source.start(Form::AppendOnly).await.unwrap();
            let options = ProveOptions::default();
            assert!(prove(&server, &exact(&source), &options).await.unwrap().is_sound());
            let none = Expected { databases: Some(BTreeMap::new()), ..Expected::default() };
            assert!(prove(&server, &none, &options).await.unwrap().is_sound());
            let proof = prove(&server, &Expected::default(), &options).await.unwrap();
            assert!(!proof.is_sound() && !check(&proof, "keys").ok, "{proof:#?}");
            let other = Expected { digest: Some("ab".repeat(20)), ..none };
            let proof = prove(&server, &other, &options).await.unwrap();
            let sum = check(&proof, "sum over all data");
            assert_eq!(
                (sum.ok, sum.expected.as_str(), sum.found.as_str()),
                (false, &*"ab".repeat(20), &*"0".repeat(40))
            );
            server.stop().await.unwrap();
        });
    });
}

#[test]
fn a_scratch_server_hears_nobody_else_and_takes_no_writes() {
    on_both(|installation| {
        let source = Source::filled(installation);
        block_on(async {
            let server = source.start(Form::AppendOnly).await.unwrap();
            let private = private_of(&server);
            assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::metadata(private.join("redis.sock")).unwrap().permissions().mode() & 0o777, 0o700);
            let process = process_of(&server).await;
            // Its own sockets are in its table of open files; those that listen over TCP are in the kernel's.
            let own: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
                .unwrap()
                .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
                .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
                .collect();
            assert!(!own.is_empty());
            for table in ["tcp", "tcp6"] {
                let table = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
                let listening = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
                let mut numbers = listening.filter_map(|line| line.split_whitespace().nth(9));
                assert!(!numbers.any(|number| own.iter().any(|one| one == number)), "{table}");
            }
            let mut connection = server.connection().await.unwrap();
            let written = connection.call("write", &["SET", "a", "b"]).await.err().unwrap();
            assert!(written.to_string().contains("READONLY"), "{written}");
            let info = asked(&server, &["INFO", "replication"]).await;
            assert!(info.contains("master_link_status:down") && info.contains("master_port:0"), "{info}");
            server.stop().await.unwrap();
        });
    });
}

#[test]
fn names_and_databases_of_the_source_are_those_of_the_copy() {
    on_both(|installation| {
        let server = filled(installation, &[("databases", "3000")]);
        let mut client = server.client().unwrap();
        client.run(&["SELECT", "2999"]).unwrap();
        client.run(&["SET", "last", "1"]).unwrap();
        // The source may choose names that would be settings on a command line.
        let names = FileNames {
            snapshot: "--loadmodule".to_owned(),
            append_only_directory: "my files".to_owned(),
            append_only: "--port \"1".to_owned(),
            ..FileNames::default()
        };
        let mut source = Source::restored(server, names);
        // A name with a blank stands in quotation marks.
        source.set_manifest("file \"--port \\\"1.1.base.rdb\" seq 1 type b\n");
        let known = source.facts.databases.clone();
        // What it was counted at need not hold the highest: what lies beside the snapshot says how many there are.
        source.facts.databases.clear();
        fs::create_dir(source.directory.join("beside")).unwrap();
        fs::write(source.directory.join("beside/settings.json"), r#"{"databases":"3000"}"#).unwrap();
        for form in [Form::AppendOnly, Form::Snapshot] {
            block_on(async {
                let server = source.start(form).await.unwrap();
                let expected = Expected { databases: Some(known.clone()), ..exact(&source) };
                let proof = prove(&server, &expected, &ProveOptions::default()).await.unwrap();
                assert!(proof.is_sound() && check(&proof, "keys in database 2999").ok, "{proof:#?}");
                server.stop().await.unwrap();
            });
        }
    });
}

#[test]
fn a_snapshot_that_is_asked_for_holds_what_the_log_had_made() {
    on_both(|installation| {
        let mut source = Source::filled(installation);
        source.goes_on(&[&["APPEND", "text", "!"], &["DEL", "list"], &["SET", "new", "1"]]);
        let base = fs::read(source.append_only(&source.base())).unwrap();
        block_on(async {
            let mut server = source.start(Form::AppendOnly).await.unwrap();
            server.write_snapshot(LIMIT).await.unwrap();
            server.stop().await.unwrap();
        });
        let snapshot = source.directory.join("dump.rdb");
        assert_eq!(fs::metadata(&snapshot).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            fs::read(source.append_only(&source.base())).unwrap() == base,
            "the base is another file now"
        );
        let names: Vec<_> = contents(&source.directory).into_keys().collect();
        assert_eq!(names.len(), 5, "nothing else is there: {names:?}");
        let digest = source.digest();
        for form in [Form::AppendOnly, Form::Snapshot] {
            block_on(async {
                let server = source.start(form).await.unwrap();
                assert_eq!(asked(&server, &["DEBUG", "DIGEST"]).await, digest, "{form:?}");
                server.stop().await.unwrap();
            });
        }
        // A server of a person, which is told nothing.
        source.server.stop().unwrap();
        let plain = Redis::start_on(installation, &source.directory, &[]).unwrap();
        assert_eq!(plain.run(&["DEBUG", "DIGEST"]).unwrap().text(), digest);
    });
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_everything_as_it_was() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let snapshot = source.directory.join("dump.rdb");
        fs::remove_file(&snapshot).unwrap();
        // Nothing can take its place.
        fs::create_dir_all(snapshot.join("in the way")).unwrap();
        let files = || contents(&source.directory).into_keys().collect::<Vec<_>>();
        let before = files();
        block_on(async {
            let mut server = source.start(Form::AppendOnly).await.unwrap();
            let error = server.write_snapshot(LIMIT).await.unwrap_err();
            assert!(matches!(error, Error::Redis(RedisError::Refused { .. })), "{error:?}");
            server.stop().await.unwrap();
            assert_eq!(files(), before);
            // So long for every key, in millionths of a second, that the save does not end.
            let slow = ["CONFIG", "SET", "rdb-key-save-delay", "10000000"];
            let mut server = source.start(Form::AppendOnly).await.unwrap();
            asked(&server, &slow).await;
            let error = server.write_snapshot(Duration::from_millis(300)).await.unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
            assert_eq!(files(), before);
            // Nobody waits for this one any more while it is at work.
            let mut server = source.start(Form::AppendOnly).await.unwrap();
            asked(&server, &slow).await;
            let (directory, count) = (source.directory.clone(), before.len());
            let begun = tokio::task::spawn_blocking(move || {
                wait_until(LIMIT, "a save to begin", || contents(&directory).len() > count)
            });
            tokio::select! {
                written = server.write_snapshot(LIMIT) => panic!("{written:?}"),
                begun = begun => begun.unwrap().unwrap(),
            }
            drop(server);
            assert_eq!(files(), before);
        });
    });
}

#[test]
fn a_program_that_is_missing_or_older_is_named() {
    on_both(|installation| {
        let source = Source::filled(installation);
        let prefix = installation.version().prefix();
        let empty = tempfile::tempdir().unwrap();
        let options =
            ScratchOptions { bin_directory: Some(empty.path().to_owned()), ..ScratchOptions::default() };
        let cancel = CancellationToken::new();
        let starting =
            ScratchServer::start(&source.directory, &source.names, &source.facts, &options, &cancel);
        let error = block_on(starting).err().unwrap();
        assert!(error.to_string().starts_with(&format!("find the program `{prefix}-server` of ")), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let hint = format!("install the package `{prefix}-server`");
        assert!(error.hints()[0].starts_with(&hint), "{:?}", error.hints());
        let newer = ServerFacts { version: "99.1.2".to_owned(), ..source.facts.clone() };
        let starting = start(&source.server, &source.directory, &source.names, &newer, Form::AppendOnly);
        let error = block_on(starting).err().unwrap();
        assert!(matches!(error, Error::Redis(RedisError::ProgramTooOld { .. })), "{error}");
    });
}
