//! Tablespaces without a place of their own: directories inside of the data directory,
//! which PostgreSQL makes where `allow_in_place_tablespaces` is on. Its own backups of
//! them lack files or do not start, so ours are not begun.

use testkit::Postgres;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{PostgresOptions, PostgresVersion};

use super::during_backup::{Paused, filled};
use super::program::{Home, Ran, server_of};

const INSIDE: &str = "SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''";

#[track_caller]
fn is_refused(ran: Ran) {
    ran.refused(7, &["tablespace inside lies inside of the data directory", "SET TABLESPACE"]);
}

fn refused_until_it_is_gone(version: PostgresVersion, local: bool) {
    let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
    let home = Home::new();
    home.init();
    home.add("orders", &server, SUPERUSER, PASSWORD, local);
    server.sql(INSIDE).unwrap();
    server.sql("CREATE TABLE t TABLESPACE inside AS SELECT generate_series(1, 1000) AS n").unwrap();
    is_refused(home.run(["backup"]));
    assert_eq!(home.backups(), [""; 0]);

    server.sql("ALTER TABLE t SET TABLESPACE pg_default; CHECKPOINT; DROP TABLESPACE inside").unwrap();
    home.run(["backup"]).good();
    let into = home.path("restored");
    home.run(["restore", "orders", "--start", "--into", into.to_str().unwrap()]).good();
    let copy = Postgres::start_on(server.installation(), &into).unwrap();
    assert_eq!(copy.query_value("SELECT sum(n) FROM t").unwrap(), "500500");
}

#[test]
fn a_tablespace_inside_of_the_data_directory_is_refused_in_the_local_way() {
    PostgresVersion::ALL.into_iter().for_each(|version| refused_until_it_is_gone(version, true));
}

#[test]
fn a_tablespace_inside_of_the_data_directory_is_refused_in_the_remote_way() {
    PostgresVersion::ALL.into_iter().for_each(|version| refused_until_it_is_gone(version, false));
}

#[test]
fn one_that_is_made_while_the_backup_runs_is_refused_at_its_end() {
    let Some((server, home)) = filled() else { return };
    let backup = Paused::start(&home, &server);
    server.sql(INSIDE).unwrap();
    is_refused(backup.finish());
    assert_eq!(home.backups(), [""; 0]);
}
