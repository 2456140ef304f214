//! Dumps that do not come to a good end.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::postgres::dump::{DumpOptions, DumpSource};
use backstay_model::dump::DumpFormat;
use backstay_model::error::{Classified, ErrorKind};
use testkit::Postgres;
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{address, dump, on_each_version, on_each_version_with_sample, options, told};

const LIMIT: Duration = Duration::from_secs(30);
/// Far more than the pipes between a server and us hold.
const LARGE: &str =
    "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 30) AS t FROM generate_series(1, 30000) n";

fn dumps_at(server: &Postgres) -> String {
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pg_dump', 'backstay')";
    server.query_value(asked).unwrap()
}

#[test]
fn a_role_without_rights_is_told_the_grant_before_anything_is_written() {
    on_each_version_with_sample(|installation, server| {
        server.create_role("modest", "secret", "").unwrap();
        let settings = drive::settings_as(&server, "modest", "secret");
        let modest = settings.address().unwrap().with_database("app");
        drive::runtime().block_on(async {
            let opened = DumpSource::open(&modest, &options(installation), &CancellationToken::new()).await;
            let Err(error) = opened else { panic!("it was opened") };
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(told(&error).contains("SELECT on public.customers"), "{}", told(&error));
            assert!(error.hints()[0].contains("`GRANT pg_read_all_data TO modest`"), "{:?}", error.hints());
            server.sql("GRANT pg_read_all_data TO modest").unwrap();
            let only = DumpOptions { schemas: vec!["Odd.Sch".into()], ..options(installation) };
            dump(&modest, &only).await.unwrap();
            server.sql_in("app", "ALTER TABLE audit ENABLE ROW LEVEL SECURITY").unwrap();
            let error = dump(&modest, &options(installation)).await.unwrap_err();
            assert!(error.hints()[0].contains("`ALTER ROLE modest BYPASSRLS`"), "{:?}", error.hints());
            server.sql("ALTER ROLE modest BYPASSRLS").unwrap();
            // A big object has an owner, and no role reads all of them before version 18.
            let error = dump(&modest, &options(installation)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
            assert!(told(&error).contains("large object 4711"), "{}", told(&error));
        });
    });
}

#[test]
fn a_server_that_dies_half_way_is_an_error() {
    on_each_version(|installation, mut server| {
        server.sql(LARGE).unwrap();
        drive::runtime().block_on(async {
            let address = address(&server, "postgres");
            let cancel = CancellationToken::new();
            let source = DumpSource::open(&address, &options(installation), &cancel).await.unwrap();
            let mut run = source.run().await.unwrap();
            assert!(run.next().await.unwrap().is_some());
            server.kill9().unwrap();
            let error = loop {
                match run.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended well"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(told(&error).contains("server closed the connection"), "{}", told(&error));
            assert!(run.next().await.is_err(), "it does not end well afterwards");
        });
    });
}

#[test]
fn a_child_that_is_killed_after_its_last_byte_is_an_error() {
    on_each_version(|installation, server| {
        let directory = server.workspace().directory("clients").unwrap();
        for name in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
            let real = installation.bin_directory().join(name);
            let script = format!("#!/bin/sh\n{} \"$@\"\nkill -9 $$\n", real.display());
            std::fs::write(directory.join(name), script).unwrap();
            std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let address = address(&server, "postgres");
        drive::runtime().block_on(async {
            let whole = dump(&address, &options(installation)).await.unwrap().bytes.len();
            let options = DumpOptions { bin_directory: Some(directory), ..DumpOptions::default() };
            let source = DumpSource::open(&address, &options, &CancellationToken::new()).await.unwrap();
            let mut run = source.run().await.unwrap();
            let mut bytes = 0;
            let error = loop {
                match run.next().await {
                    Ok(Some(chunk)) => bytes += chunk.len(),
                    Ok(None) => panic!("it ended well"),
                    Err(error) => break error,
                }
            };
            assert_eq!(bytes, whole, "all of it came");
            let Error::ClientProgram { ended, .. } = &error else { panic!("{error}") };
            assert_eq!(ended, "was ended by signal 9");
        });
    });
}

#[test]
fn a_child_that_somebody_kills_half_way_is_an_error() {
    on_each_version(|installation, server| {
        server.sql(LARGE).unwrap();
        drive::runtime().block_on(async {
            let address = address(&server, "postgres");
            let cancel = CancellationToken::new();
            let source = DumpSource::open(&address, &options(installation), &cancel).await.unwrap();
            let mut run = source.run().await.unwrap();
            assert!(run.next().await.unwrap().is_some());
            let child = dump_of(&server).expect("it runs");
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
            let error = loop {
                match run.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended well"),
                    Err(error) => break error,
                }
            };
            let Error::ClientProgram { ended, .. } = &error else { panic!("{error}") };
            assert_eq!(ended, "was ended by signal 9");
        });
    });
}

/// The one of our children, which are those of other tests as well, that dumps this server.
fn dump_of(server: &Postgres) -> Option<rustix::process::Pid> {
    let place = server.socket_directory().display().to_string();
    let children =
        |task: std::path::PathBuf| std::fs::read_to_string(task.join("children")).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let all: Vec<i32> = tasks
        .flat_map(|task| {
            let list = children(task.unwrap().path());
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
        })
        .collect();
    let is_called = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        command.contains("--snapshot=") && command.contains(&place)
    };
    rustix::process::Pid::from_raw(all.into_iter().find(is_called)?)
}

#[test]
fn a_dump_that_nobody_wants_any_more_leaves_nothing_at_the_server() {
    on_each_version(|installation, server| {
        server.sql(LARGE).unwrap();
        let spool = tempfile::tempdir().unwrap();
        let directory = DumpOptions {
            format: DumpFormat::Directory,
            jobs: 2,
            spool: Some(spool.path().to_owned()),
            ..options(installation)
        };
        let runtime = drive::runtime();
        for options in [options(installation), directory] {
            runtime.block_on(async {
                let address = address(&server, "postgres");
                let cancel = CancellationToken::new();
                let source = DumpSource::open(&address, &options, &cancel).await.unwrap();
                let mut run = source.run().await.unwrap();
                cancel.cancel();
                assert!(matches!(run.next().await, Err(Error::Cancelled)));
                let source = DumpSource::open(&address, &options, &CancellationToken::new()).await.unwrap();
                drop(source.run().await.unwrap());
            });
            testkit::wait_until(LIMIT, "both dumps to end at the server", || dumps_at(&server) == "0")
                .unwrap();
            assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
        }
    });
}

#[test]
fn a_lock_that_somebody_holds_is_not_waited_for_for_ever() {
    on_each_version(|installation, server| {
        server.sql("CREATE TABLE held (n int)").unwrap();
        drive::runtime().block_on(async {
            let address = address(&server, "postgres");
            let holder = backstay_engine::postgres::connect::Session::open(&address).await.unwrap();
            holder.execute("hold a table", "BEGIN; LOCK TABLE public.held").await.unwrap();
            let options = DumpOptions { lock_limit: Duration::from_millis(300), ..options(installation) };
            let error = dump(&address, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(told(&error).contains("LOCK TABLE public.held"), "{}", told(&error));
        });
    });
}
