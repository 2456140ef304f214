//! Servers and connections that are lost in the middle of a dump, a restore and each step
//! of a swap: one error, and what cannot be undone because nobody answers is named with the
//! statement that undoes it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::Postgres;
use testkit::postgres::StopMode;

use super::program::{Home, Ran, server};
use super::proxy::{Break, Proxy, between};
use super::reloads::shop;
use super::unharmed::{no_sessions, state, unharmed};

const LIMIT: Duration = Duration::from_secs(60);
const SWAP: [&str; 8] =
    ["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop", "--no-safety-backup"];
const INTO: [&str; 6] = ["restore", "orders", "--database", "shop", "--into-database", "copy"];

/// What makes all of a swap true.
const SWAPPED: &str = "RENAME TO shop\0 … COMMIT";

/// The statements of a restore and a swap, in the order in which they come.
const STEPS: [&str; 10] = [
    "CREATE DATABASE",
    "COPY public.orders",
    "CREATE INDEX orders_x_idx",
    "COPY public.orders … COMMIT",
    "ANALYZE",
    "ALLOW_CONNECTIONS false",
    "pg_terminate_backend(pid)",
    "RENAME TO \"shop_before",
    "RENAME TO shop\0",
    SWAPPED,
];

fn shop_behind_a_proxy(server: &Postgres, words: &[&str]) -> (Home, Proxy) {
    let home = shop(server, &[&["--layout", "plain"], words].concat());
    let proxy = between(server, &home);
    (home, proxy)
}

/// Runs up to the words, does what is to be done then, and waits for the end.
fn run_to(home: &Home, proxy: &Proxy, words: &[&str], at: &str, meanwhile: impl FnOnce()) -> Ran {
    proxy.break_at(at, Break::Hold);
    let child = home.start(words);
    assert!(proxy.is_broken_within(LIMIT), "nobody said {at:?}");
    meanwhile();
    Ran::from(&child.wait_with_output().unwrap())
}

#[test]
fn a_connection_that_is_cut_at_any_statement_of_a_swap_changes_nothing() {
    let Some(server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    for step in STEPS {
        proxy.break_at(step, Break::Before);
        let ran = home.run(SWAP);
        assert!(proxy.is_broken_within(Duration::ZERO), "nobody said {step:?}: {ran:#?}");
        // The rows are there by then, and a planner that knows nothing of them is only slow.
        if step == "ANALYZE" {
            let ran = ran.good();
            assert!(ran.out.contains("ANALYZE") || ran.err.contains("ANALYZE"), "{ran:#?}");
            back_again(&server);
            unharmed(&server, &home, &before, step);
            continue;
        }
        assert_eq!(ran.code, 6, "{step}: {ran:#?}");
        ran.refused(6, &[]);
        unharmed(&server, &home, &before, step);
    }
}

/// Drops what a swap has put in its place, and gives the old one its name again.
fn back_again(server: &Postgres) {
    let kept =
        server.query_value("SELECT datname FROM pg_database WHERE datname LIKE 'shop_before_%'").unwrap();
    server.sql("DROP DATABASE shop").unwrap();
    server.sql(&format!("ALTER DATABASE \"{kept}\" RENAME TO shop")).unwrap();
}

#[test]
fn an_answer_that_is_lost_leaves_no_doubt_about_what_was_done() {
    let Some(server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    for step in STEPS {
        proxy.break_at(step, Break::After);
        let ran = home.run(SWAP);
        assert!(proxy.is_broken_within(Duration::ZERO), "nobody said {step:?}: {ran:#?}");
        if [SWAPPED, "ANALYZE"].contains(&step) {
            ran.good();
            back_again(&server);
        } else {
            assert_eq!(ran.code, 6, "{step}: {ran:#?}");
            ran.refused(6, &[]);
        }
        unharmed(&server, &home, &before, step);
    }
}

/// Of the session that runs in this database, or of all of ours.
fn backends(server: &Postgres) -> Vec<Pid> {
    let ours = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'backstay'";
    let pids = server.query_value(ours).unwrap();
    pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

#[test]
fn a_session_that_somebody_ends_or_that_crashes_leaves_nothing_of_a_restore() {
    let Some(server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    for words in [&INTO[..], &SWAP] {
        for step in ["COPY public.orders", "CREATE INDEX orders_x_idx"] {
            let what = format!("{words:?} {step}");
            let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                         WHERE application_name = 'backstay'";
            let ran = run_to(&home, &proxy, words, step, || server.sql(ended).unwrap());
            assert_eq!(ran.code, 6, "{what}: {ran:#?}");
            // What the client reads of the server's last words depends on when it looks.
            let last_words = ["terminating connection", "server closed the connection"];
            assert!(last_words.iter().any(|words| ran.err.contains(words)), "{what}: {ran:#?}");
            unharmed(&server, &home, &before, &what);

            // The server ends all sessions, recovers, and takes new ones a moment later.
            let crash =
                || backends(&server).into_iter().for_each(|pid| kill_process(pid, Signal::KILL).unwrap());
            let ran = run_to(&home, &proxy, words, step, crash);
            assert_eq!(ran.code, 6, "{what}: {ran:#?}");
            ran.refused(6, &[]);
            testkit::wait_until(LIMIT, "the server to recover", || server.query_value("SELECT 1").is_ok())
                .unwrap();
            unharmed(&server, &home, &before, &format!("{what}, crashed"));
        }
    }
}

/// What the hints say is to be run as a superuser, once the server is there again.
fn told_statements(ran: &Ran) -> Vec<String> {
    let hints = ran.err.lines().filter(|line| line.trim_start().starts_with("hint:"));
    let quoted =
        hints.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    quoted.filter(|text| text.starts_with("DROP DATABASE") || text.starts_with("ALTER DATABASE")).collect()
}

#[test]
fn a_server_that_dies_for_good_leaves_only_what_is_named_with_what_undoes_it() {
    let Some(mut server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    for (words, step, mode) in [
        (&INTO[..], "COPY public.orders", None),
        (&INTO, "CREATE INDEX orders_x_idx", Some(StopMode::Immediate)),
        (&SWAP, "COPY public.orders", Some(StopMode::Immediate)),
        (&SWAP, "pg_terminate_backend(pid)", None),
        (&SWAP, SWAPPED, Some(StopMode::Immediate)),
    ] {
        let what = format!("{words:?} {step} {mode:?}");
        let ran = run_to(&home, &proxy, words, step, || match mode {
            Some(mode) => server.stop(mode).unwrap(),
            None => server.kill9().unwrap(),
        });
        assert_eq!(ran.code, 6, "{what}: {ran:#?}");
        let statements = told_statements(&ran);
        ran.refused(6, &[]);
        server.start().unwrap();
        for statement in &statements {
            server.sql(statement).unwrap();
        }
        assert!(!statements.is_empty(), "{what}");
        unharmed(&server, &home, &before, &what);
    }
}

#[test]
fn a_dump_that_loses_its_server_or_its_connection_leaves_nothing() {
    let Some(mut server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    home.append(&format!("spool = \"{}\"\n", home.path("spool").display()));
    let before = state(&server, &home);
    for format in ["custom", "directory", "plain"] {
        let words = ["dump", "orders", "--database", "shop", "--format", format, "--jobs", "2"];
        for how in [Break::Before, Break::After] {
            for step in ["pg_export_snapshot", "SET TRANSACTION SNAPSHOT", "COPY public.orders"] {
                proxy.break_at(step, how);
                let ran = home.run(words);
                assert!(proxy.is_broken_within(Duration::ZERO), "nobody said {step:?}");
                assert_eq!(ran.code, 6, "{format} {step} {how:?}: {ran:#?}");
                ran.refused(6, &[]);
                unharmed(&server, &home, &before, step);
            }
        }
        for mode in [None, Some(StopMode::Immediate)] {
            let ran = run_to(&home, &proxy, &words, "COPY public.orders", || match mode {
                Some(mode) => server.stop(mode).unwrap(),
                None => server.kill9().unwrap(),
            });
            assert_eq!(ran.code, 6, "{format} {mode:?}: {ran:#?}");
            ran.refused(6, &[]);
            server.start().unwrap();
            unharmed(&server, &home, &before, format);
        }
    }
    no_sessions(&server, "dumps");
    home.run(["dump", "orders", "--database", "shop"]).good();
}

#[test]
fn a_way_to_the_server_that_hangs_ends_a_dump() {
    let Some(server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    proxy.break_at("COPY public.orders", Break::Stall);
    let ran = home.run(["dump", "orders", "--database", "shop"]);
    assert!(proxy.is_broken_within(Duration::ZERO), "{ran:#?}");
    assert_eq!(ran.code, 6, "{ran:#?}");
    ran.refused(6, &["no answer within", "`url`"]);
    drop(proxy);
    unharmed(&server, &home, &before, "a dump that hung");
}

#[test]
fn a_way_to_the_server_that_hangs_ends_a_restore_and_what_is_left_is_named() {
    let Some(server) = server() else { return };
    let (home, proxy) = shop_behind_a_proxy(&server, &[]);
    let before = state(&server, &home);
    proxy.break_at("COPY public.orders", Break::Stall);
    let ran = home.run(SWAP);
    assert!(proxy.is_broken_within(Duration::ZERO), "{ran:#?}");
    assert_eq!(ran.code, 6, "{ran:#?}");
    let statements = told_statements(&ran);
    ran.refused(6, &["half of a restore is left in database shop_fills_", "no answer within"]);
    drop(proxy);
    for statement in &statements {
        server.sql(statement).unwrap();
    }
    unharmed(&server, &home, &before, "a swap that hung");
}
