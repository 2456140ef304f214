//! Dumps and swaps whose process is killed, or asked twice to leave.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Postgres, wait_until};

use super::dumps::dumping;
use super::program::{Home, server};
use super::reloads::{rows, shop};

const LIMIT: Duration = Duration::from_secs(60);
const SWAP: [&str; 6] = ["restore", "orders", "--swap", "shop", "--force", "--confirm"];

/// Somebody who holds the name of a database, so that it cannot be renamed.
fn hold(server: &Postgres) -> Child {
    let held = "BEGIN; COMMENT ON DATABASE shop IS 'x'; SELECT pg_sleep(600)";
    let mut command = server.tool("psql");
    command.args(["--no-psqlrc", "--dbname=postgres", "--command", held]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let holds =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; COMMENT%' AND wait_event = 'PgSleep'";
    wait_until(LIMIT, "the name to be held", || server.query_value(holds).is_ok_and(|n| n == "1")).unwrap();
    child
}

fn let_go(server: &Postgres, mut holder: Child) {
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; COMMENT%'";
    server.query_value(ended).unwrap();
    let _ = holder.wait();
}

/// A swap that stands where the old database lets nobody in and has its name still.
fn in_the_middle(server: &Postgres, home: &Home) -> Child {
    let child = home.start([&SWAP[..], &["shop"]].concat());
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%RENAME%' \
                 AND wait_event_type = 'Lock'";
    wait_until(LIMIT, "the rename", || server.query_value(waits).is_ok_and(|n| n == "1")).unwrap();
    assert_eq!(server.query_value(IS_OPEN).unwrap(), "f");
    child
}

const IS_OPEN: &str = "SELECT datallowconn FROM pg_database WHERE datname = 'shop'";

#[test]
fn a_swap_that_is_asked_twice_to_stop_lets_everybody_in_before_it_leaves() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    let before = rows(&server, "shop");
    server.sql_in("shop", "DELETE FROM orders").unwrap();
    let holder = hold(&server);
    let mut child = in_the_middle(&server, &home);
    let mut errors = child.stderr.take().unwrap();
    let process = Pid::from_child(&child);
    let mut said = String::new();
    let mut hear = |word: &str| {
        let mut byte = [0];
        while !said.contains(word) {
            assert_ne!(errors.read(&mut byte).unwrap(), 0, "it ended: {said}");
            said.push_str(&String::from_utf8_lossy(&byte));
        }
    };
    kill_process(process, Signal::INT).unwrap();
    hear("press Ctrl-C again");
    kill_process(process, Signal::INT).unwrap();
    hear("databases are being swapped");
    assert!(child.try_wait().unwrap().is_none());
    let_go(&server, holder);
    // The swap is done then, and whoever is first says so: its report, or the second Ctrl-C.
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
    assert_eq!(server.query_value(IS_OPEN).unwrap(), "t");
    assert_eq!(rows(&server, "shop"), before);
}

#[test]
fn what_a_killed_swap_has_left_is_named_with_the_statements_that_help() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    let before = rows(&server, "shop");
    let holder = hold(&server);
    let mut child = in_the_middle(&server, &home);
    // As long as it runs, nothing is left: nobody is told to drop what it fills.
    let running = home.run(["status", "orders"]);
    assert!(running.out.contains("(postgresql): ok"), "{running:#?}");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let_go(&server, holder);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backstay'";
    wait_until(LIMIT, "its session to end", || server.query_value(ours).is_ok_and(|n| n == "0")).unwrap();
    assert_eq!(server.query_value(IS_OPEN).unwrap(), "f");
    let temporary = "SELECT datname FROM pg_database WHERE datname LIKE 'shop_fills_%'";
    let temporary = server.query_value(temporary).unwrap();
    let open = "ALTER DATABASE shop ALLOW_CONNECTIONS true";
    let words = [&SWAP[..], &["shop"]].concat();
    home.run(&words).refused(4, &["database shop lets no connections in", open, &temporary]);
    let into = ["restore", "orders", "--database", "shop", "--into-database", "shop"];
    home.run(into).refused(4, &[open]);
    let status = |told: &str| {
        let ran = home.run(["status", "orders"]);
        assert!(ran.out.contains("degraded") && ran.out.contains(told), "{ran:#?}");
    };
    status("database shop: a restore that was killed has left it shut");
    server.sql(open).unwrap();
    assert_eq!(rows(&server, "shop"), before);
    status(&format!("database {temporary}: a restore that was killed has left this database"));
    let drop = format!("DROP DATABASE \"{temporary}\"");
    let planned = home.run([&words[..], &["--dry-run"]].concat()).good();
    assert!(planned.out.contains(&drop), "{planned:#?}");
    server.sql(&drop).unwrap();
    let ran = home.run(&words).good();
    assert!(!ran.err.contains("_fills_"), "{ran:#?}");
}

#[test]
fn what_a_killed_dump_left_in_the_spool_goes_and_what_a_living_one_holds_stays() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let slow = home.path("slow");
    std::fs::create_dir(&slow).unwrap();
    for name in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
        let real = server.installation().bin_directory().join(name);
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) exec {} \"$@\" ;; esac\nexec sleep 600\n",
            real.display()
        );
        std::fs::write(slow.join(name), script).unwrap();
        std::fs::set_permissions(slow.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let spools = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(home.path("dumps")).into_iter().flatten().flatten();
        let named =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".backstay-spool-"));
        named.map(|entry| entry.path()).collect()
    };
    let setting = format!("instance.orders.bin_directory={}", slow.display());
    let words = ["--set", &setting, "dump", "orders", "--database", "postgres", "--format", "directory"];
    let start = |known: &[PathBuf]| {
        let child = home.start(words);
        let mut new = None;
        let made = wait_until(LIMIT, "its spool", || {
            new = spools().into_iter().find(|path| !known.contains(path) && path.join("lock").exists());
            new.is_some()
        });
        made.unwrap();
        (child, new.unwrap())
    };
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let (killed, first) = start(&[]);
    kill(killed);
    assert_eq!(spools(), std::slice::from_ref(&first));
    let (living, second) = start(std::slice::from_ref(&first));
    assert_eq!(spools(), std::slice::from_ref(&second), "what the dead left is gone");
    let (killed, third) = start(&[first, second.clone()]);
    assert!(second.exists(), "the living one's was taken");
    kill(killed);
    home.run(["dump", "orders", "--database", "postgres", "--format", "directory"]).good();
    assert!(second.join("lock").exists() && !third.exists());
    kill(living);
    // Within the second of the one before, its name would be taken.
    let dumps = || home.run(["dump", "orders", "--database", "postgres", "--format", "directory"]).code == 0;
    wait_until(LIMIT, "a dump", dumps).unwrap();
    assert_eq!(spools(), Vec::<PathBuf>::new());
}
