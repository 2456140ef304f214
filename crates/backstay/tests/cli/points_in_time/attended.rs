//! A server that is started by hand and fetches its log itself, through the attendant that its
//! first call leaves behind.

use testkit::ownership::server_owner;
use testkit::{Postgres, PostgresVersion, wait_until};

use super::super::attendants::{attendants_in, kill};
use super::standby::wait_for_rows;
use super::{Archived, LIMIT, stored_to};

#[test]
fn a_standby_whose_attendant_is_killed_misses_nothing() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let write = |archived: &Archived, rows: std::ops::RangeInclusive<u32>| {
            for row in rows {
                archived.insert(row);
                archived.server.sql("SELECT pg_switch_wal()").unwrap();
            }
            let end = archived.end_of_log();
            wait_until(LIMIT, format!("the log to {end}"), || stored_to(&archived.home) >= end.0).unwrap();
            server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
        };
        write(&archived, 1..=4);
        let into = archived.place();
        archived.home.run(["restore", "orders", "--standby", "--into", into.to_str().unwrap()]).good();
        let standby = Postgres::start_on(archived.server.installation(), &into).unwrap();
        wait_for_rows(&archived, &standby, "1 2 3 4");
        let [first] = attendants_in(&into)[..] else { panic!("{:?}", attendants_in(&into)) };
        kill(first);
        // Its socket lies there, and nobody answers.
        write(&archived, 5..=8);
        wait_for_rows(&archived, &standby, "1 2 3 4 5 6 7 8");
        // One that met a file which was not readable yet has gone by itself.
        let second = attendants_in(&into);
        assert!(second.len() <= 1 && !second.contains(&first), "{first:?}, {second:?}");
        assert!(!standby.log_text().contains("error: "), "{}", standby.log_text());
    }
}
