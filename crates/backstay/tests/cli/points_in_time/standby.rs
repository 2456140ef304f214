//! A standby that is fed by the archive, and by its primary where that is named.

use std::path::Path;

use rustix::fs::{CWD, renameat};
use testkit::ownership::server_owner;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Workspace, wait_until};

use super::super::program::Home;
use super::super::takeovers::{Moving, SLOT};
use super::{Archived, LIMIT, ROWS, stored_to};

/// What the archive writes from now on is to be readable for the server's user.
pub(super) fn wait_for_rows(archived: &Archived, standby: &Postgres, rows: &str) {
    wait_for_rows_of(&archived.home, standby, rows);
}

fn wait_for_rows_of(home: &Home, standby: &Postgres, rows: &str) {
    wait_until(LIMIT, format!("the rows {rows} on the standby"), || {
        // What the archive removes meanwhile need not be given away.
        let _ = server_owner().unwrap().take_all(&home.path("store"));
        standby.query_value(ROWS).is_ok_and(|found| found == rows)
    })
    .unwrap_or_else(|error| panic!("{error}: {}", standby.log_text()));
}

/// For a moment: it need not outlive a crash.
pub(super) fn move_away(from: &Path, to: &Path) {
    renameat(CWD, from, CWD, to).unwrap();
}

fn is_in_recovery(server: &Postgres) -> bool {
    server.query_value("SELECT pg_is_in_recovery()").unwrap() == "t"
}

#[test]
fn a_standby_follows_the_archive_outlives_its_absence_and_is_promoted() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        archived.insert(1);
        let end = archived.end_of_log();
        wait_until(LIMIT, format!("the log to {end}"), || stored_to(&archived.home) >= end.0).unwrap();
        server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
        let into = archived.place();
        let words = ["restore", "orders", "--standby", "--into", into.to_str().unwrap()];
        let plan = archived.home.run([&words[..], &["--dry-run"]].concat()).good();
        assert!(plan.out.contains("as a standby") && !into.exists(), "{plan:#?}");
        archived.home.run(words).good();
        let mut standby = Postgres::start_on(archived.server.installation(), &into).unwrap();
        wait_for_rows(&archived, &standby, "1");
        assert!(is_in_recovery(&standby));
        archived.insert(2);
        wait_for_rows(&archived, &standby, "1 2");
        // The store goes away: the standby says why it gets nothing, and lives.
        let (store, away) = (archived.home.path("store"), archived.home.path("away"));
        move_away(&store, &away);
        wait_until(LIMIT, "the standby to miss the store", || {
            standby.log_text().lines().any(|line| line.starts_with("error: "))
        })
        .unwrap();
        archived.insert(3);
        assert!(standby.is_running() && is_in_recovery(&standby));
        move_away(&away, &store);
        wait_for_rows(&archived, &standby, "1 2 3");
        archived.stop_receiving();
        standby.promote().unwrap();
        standby.sql("INSERT INTO t VALUES (20)").unwrap();
        assert_eq!(standby.query_value(ROWS).unwrap(), "1 2 3 20");
        assert_eq!(standby.query_value("SHOW archive_mode").unwrap(), "off");
    }
}

#[test]
fn a_standby_streams_from_the_server_that_is_named() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::without_log(version) else { return };
        archived.home.run(["backup", "orders", "--quiet"]).good();
        let into = archived.place();
        let words = ["restore", "orders", "--standby", "--into", into.to_str().unwrap()];
        // Nothing that it could follow.
        let refused = archived.home.run(words);
        assert_eq!(refused.code, 9, "{refused:#?}");
        assert!(refused.err.contains("--primary-conninfo") && !into.exists(), "{refused:#?}");
        let port = archived.server.port();
        let primary = format!("host=127.0.0.1 port={port} user={SUPERUSER} password='{PASSWORD}'");
        let ran = archived.home.run([&words[..], &["--primary-conninfo", &primary]].concat()).good();
        assert!(!format!("{ran:?}").contains("password="), "{ran:#?}");
        server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
        archived.insert(1);
        let standby = Postgres::start_on(archived.server.installation(), &into).unwrap();
        wait_for_rows(&archived, &standby, "1");
        archived.insert(2);
        wait_for_rows(&archived, &standby, "1 2");
        assert_eq!(standby.query_value("SELECT count(*) FROM pg_stat_wal_receiver").unwrap(), "1");
        assert!(is_in_recovery(&standby));
    }
}

#[test]
fn a_standby_of_the_archive_follows_the_server_that_took_over() {
    for version in PostgresVersion::ALL {
        let Some(mut moving) = Moving::new(version, &PostgresOptions::default(), "") else { return };
        moving.row(1);
        moving.wait_for_store();
        server_owner().unwrap().take_all(&moving.home.path("")).unwrap();
        let place = Workspace::new().unwrap();
        let into = place.path().join("standby");
        let words = ["restore", "orders", "--standby", "--into", into.to_str().unwrap()];
        moving.home.run(words).good();
        let follower = Postgres::start_on(moving.server.installation(), &into).unwrap();
        wait_for_rows_of(&moving.home, &follower, "1");
        for row in [2, 4] {
            let other = moving.server.standby().unwrap();
            other.sql(SLOT).unwrap();
            moving.row(row);
            moving.wait_for_store();
            other.wait_for_replay_of(&moving.server).unwrap();
            moving.server.kill9().unwrap();
            moving.take_over(other);
            moving.row(row + 1);
            let rows = if row == 2 { "1 2 3" } else { "1 2 3 4 5" };
            wait_for_rows_of(&moving.home, &follower, rows);
            assert!(is_in_recovery(&follower));
        }
    }
}
