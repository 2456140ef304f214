//! Tablespaces that come and go while a backup runs, in both ways. Recovery learns of
//! them from the log, and must find or make what it then needs.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, ownership, wait_until};

use super::during_backup::Paused;
use super::program::{Home, Ran, server_of};

const LIMIT: Duration = Duration::from_secs(60);
/// What every restored copy must say: its rows, and which tablespaces it has.
const ANSWER: &str = "SELECT (SELECT count(*) FROM stays), (SELECT count(*) FROM comes), \
                      to_regclass('goes') IS NULL, (SELECT string_agg(spcname, ' ' ORDER BY spcname) \
                      FROM pg_tablespace WHERE spcname NOT LIKE 'pg_%')";

struct House {
    home: Home,
    server: Postgres,
}

impl House {
    /// Large enough that copying takes a while: what is sent takes longer than what is read.
    fn build(version: PostgresVersion, local: bool) -> Option<House> {
        let server = server_of(version, &PostgresOptions::default())?;
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, local);
        server.pgbench_init(if local { 10 } else { 4 }).unwrap();
        let house = House { home, server };
        house.make("stays");
        house.make("goes");
        Some(house)
    }

    /// A tablespace and a table in it, both of this name.
    fn make(&self, name: &str) {
        let place = self.place(name);
        std::fs::create_dir(&place).unwrap();
        ownership::server_owner().unwrap().take(&place).unwrap();
        self.server.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display())).unwrap();
        let rows = "AS SELECT n, repeat('r', 200) AS filler FROM generate_series(1, 5000) AS n";
        self.server.sql(&format!("CREATE TABLE {name} TABLESPACE {name} {rows}")).unwrap();
    }

    fn place(&self, name: &str) -> PathBuf {
        self.home.path(&format!("space-{name}"))
    }

    fn come_and_go(&self) {
        self.make("comes");
        self.server.sql("DROP TABLE goes; CHECKPOINT; DROP TABLESPACE goes").unwrap();
        self.server.sql("INSERT INTO comes SELECT n, 'more' FROM generate_series(1, 100) AS n").unwrap();
    }

    /// The restore that a person does on a machine that never saw the source.
    fn restores_elsewhere(self) {
        let House { home, server } = self;
        let shown = home.run(["show", &home.backups()[0]]).good().out;
        assert!(shown.contains("comes") && shown.contains("was made while the backup ran"), "{shown}");
        let installation = server.installation().clone();
        drop(server);
        let places = ["stays", "goes", "comes"].map(|name| home.path(&format!("space-{name}")));
        for place in &places {
            std::fs::remove_dir_all(place).unwrap();
        }
        let into = home.path("restored");
        let mut words = vec!["restore".to_owned(), "orders".to_owned(), "--start".to_owned()];
        words.extend(["--into".to_owned(), into.display().to_string()]);
        for moved in &places[..2] {
            let name = moved.file_name().unwrap().to_str().unwrap();
            let new = home.path(&format!("moved-{name}"));
            words.extend(["--tablespace".to_owned(), format!("{}={}", moved.display(), new.display())]);
        }
        let restored = home.run(words).good().out;
        assert!(restored.contains("was made while the backup ran"), "{restored}");
        let copy = Postgres::start_on(&installation, &into).unwrap();
        assert_eq!(copy.query_value(ANSWER).unwrap(), "5000|5100|t|comes stays");
        let place = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'stays'";
        assert!(copy.query_value(place).unwrap().ends_with("moved-space-stays"));
    }
}

#[test]
fn tablespaces_that_come_and_go_during_a_local_backup_are_as_at_its_end() {
    let Some(house) = House::build(PostgresVersion::V15, true) else { return };
    let backup = Paused::start(&house.home, &house.server);
    house.come_and_go();
    let taken = backup.finish().good();
    assert!(taken.out.contains("full backup"), "{taken:#?}");
    house.restores_elsewhere();
}

#[test]
fn tablespaces_that_come_and_go_during_a_remote_backup_are_as_at_its_end() {
    for version in PostgresVersion::ALL {
        let Some(house) = House::build(version, false) else { continue };
        let backup = stopped_while_it_is_sent(&house);
        house.come_and_go();
        kill_process(Pid::from_child(&backup), Signal::CONT).unwrap();
        Ran::from(&backup.wait_with_output().unwrap()).good();
        house.restores_elsewhere();
    }
}

fn stopped_while_it_is_sent(house: &House) -> Child {
    let backup = house.home.start(["backup", "orders", "--full"]);
    let sending = "SELECT count(*) FROM pg_stat_progress_basebackup \
                   WHERE phase = 'streaming database files' AND backup_streamed > 0";
    let begun = || house.server.query_value(sending).is_ok_and(|n| n != "0");
    wait_until(LIMIT, "the server to send", begun).unwrap();
    kill_process(Pid::from_child(&backup), Signal::STOP).unwrap();
    // More than the queues between the two hold is still to come.
    assert!(begun(), "it was all sent");
    backup
}
