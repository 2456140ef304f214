//! A log on a disk of its own (`initdb --waldir`): `pg_wal` is a link in the source, and
//! a directory in a restored copy. Who backs up is told before the disk is too small.

use std::process::Command;

use testkit::ownership::server_owner;
use testkit::{Postgres, StopMode};

use super::program::protected;

#[test]
fn a_log_behind_a_link_is_told_at_the_backup_and_becomes_a_directory() {
    let Some((mut server, home)) = protected("orders") else { return };
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    server.stop(StopMode::Fast).unwrap();
    let (log, elsewhere) = (server.data_directory().join("pg_wal"), home.path("log disk"));
    assert!(Command::new("mv").args([&log, &elsewhere]).status().unwrap().success());
    std::os::unix::fs::symlink(&elsewhere, &log).unwrap();
    server_owner().unwrap().take(&log).unwrap();
    server.start().unwrap();

    let told =
        format!("info: pg_wal: is a link to {}: a restore makes an ordinary directory", elsewhere.display());
    let taken = home.run(["backup"]).good();
    assert!(taken.out.contains(&told), "no {told:?} in {taken:#?}");
    let into = home.path("restored");
    home.run(["restore", "orders", "--start", "--into", into.to_str().unwrap()]).good();
    assert!(into.join("pg_wal").symlink_metadata().unwrap().is_dir());
    let copy = Postgres::start_on(server.installation(), &into).unwrap();
    assert_eq!(copy.query_value("SELECT sum(n) FROM t").unwrap(), "500500");
}
