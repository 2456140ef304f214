//! Targets that cannot be reached: refused before anything is written, with what can be.

use std::fs;

use backstay_model::Lsn;
use testkit::PostgresVersion;

use super::{Archived, stored_to};
use crate::program::Ran;

impl Archived {
    /// A restore that is refused, and leaves no trace.
    #[track_caller]
    fn refused(&mut self, words: &[&str], code: i32, said: &[&str]) -> Ran {
        let (ran, into) = self.restore(words);
        assert!(!into.exists(), "{words:?}: something was written");
        ran.refused(code, said)
    }
}

#[test]
fn a_target_that_the_log_does_not_hold_is_refused_with_what_it_holds() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let before = archived.server.query_value("SELECT now() - interval '3 hours'").unwrap();
        let first = archived.insert(1);
        archived.server.sql("SELECT pg_create_restore_point('deploy')").unwrap();
        let second = archived.insert(2);
        archived.server.sql("SELECT pg_create_restore_point('deploy')").unwrap();
        let rolled_back = archived
            .server
            .query_value("BEGIN; INSERT INTO t VALUES (3); SELECT pg_current_xact_id(); ROLLBACK")
            .unwrap();
        let rolled_back = rolled_back.lines().find(|line| line.parse::<u64>().is_ok()).unwrap().to_owned();
        let third = archived.insert(4);
        archived.stop_receiving();
        let end = archived.server.query_value("SELECT pg_current_wal_lsn()").unwrap();
        for (target, code, said) in [
            ("2050-01-01T00:00:00Z", 9, &["the log ends at 1@", "the nearest is", "--to latest"][..]),
            (&third.time, 9, &["the log ends at", "--to latest"]),
            (&format!("lsn:{end}"), 9, &["the log ends at"]),
            ("lsn:1/0", 9, &["the log ends at"]),
            ("lsn:0/100", 9, &["before the end of the first backup", "--to immediate"]),
            (&before.replace(' ', "T"), 9, &["before the end of the first backup", "--to immediate"]),
            ("xid:3000000", 9, &["no such transaction"]),
            ("name:nowhere", 9, &["no such point"]),
            ("name:deploy", 2, &["more than once", "--exclusive"]),
            (&format!("xid:{rolled_back}"), 9, &["never committed", "--exclusive"]),
            ("2026-05-03 14:30:00", 2, &["no offset"]),
        ] {
            archived.refused(&["--to", target], code, said);
        }
        archived.refused(&["--target-action", "pause"], 2, &["pauses at a point within the log"]);
        archived.refused(&["--to", &first.time, "--target-timeline", "7"], 9, &["no timeline 7"]);
        // What the hints offer is what they say.
        let ran = archived.refused(&["--to", "name:deploy"], 2, &[]);
        let hint = ran.err.lines().find(|line| line.contains("the second")).unwrap();
        let position = hint.split_whitespace().find(|word| word.starts_with("lsn:")).unwrap();
        assert_eq!(archived.rows(&["--to", position, "--exclusive"]), "1 2");
        assert_eq!(archived.rows(&["--to", &second.time]), "1 2");
    }
}

#[test]
fn a_recovery_that_ends_before_its_target_is_told_as_that() {
    let Some(mut archived) = Archived::new(PostgresVersion::V15) else { return };
    archived.insert(1);
    archived.stop_receiving();
    // Within the last record: the position is in the log, and no record begins behind it.
    let inside = Lsn(stored_to(&archived.home) - 8);
    let target = format!("lsn:{inside}");
    let (ran, _) = archived.restore(&["--to", &target]);
    let said = format!("the recovery of orders ended before {target}");
    ran.refused(9, &[&said, "recovery ended before configured recovery target", "--to latest"]);
}

#[test]
fn no_restore_crosses_a_hole_and_both_sides_of_it_are_named() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        let second = archived.insert(2);
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        let third = archived.insert(3);
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        let fourth = archived.insert(4);
        archived.insert(5);
        archived.stop_receiving();
        archived.lose(&third.lsn);
        for target in
            [&third.time, &fourth.time, &format!("lsn:{}", third.lsn), &format!("xid:{}", fourth.xid)]
        {
            let ran = archived.refused(&["--to", target], 9, &["has a hole on timeline 1", "the nearest is"]);
            assert!(ran.err.contains(&format!("--to xid:{}", second.xid)), "{ran:#?}");
        }
        archived.refused(&[], 9, &["has a hole"]);
        assert_eq!(archived.rows(&["--to", &first.time]), "1");
        assert_eq!(archived.rows(&["--to", &format!("xid:{}", second.xid)]), "1 2");
        // Behind the hole life goes on with the next base.
        archived.receive();
        archived.home.run(["backup", "orders", "--quiet"]).good();
        archived.insert(6);
        archived.stop_receiving();
        let ran = archived.refused(&["--to", &fourth.time], 9, &["has a hole", "the nearest are"]);
        let base = &archived.home.backups()[0];
        assert!(ran.err.contains(&format!("--backup {base} --to immediate")), "{ran:#?}");
        assert_eq!(archived.rows(&[]), "1 2 3 4 5 6");
        let oldest = archived.home.backups()[1].clone();
        archived.refused(&["--backup", &oldest], 9, &["has a hole"]);
    }
}

#[test]
fn the_base_is_the_newest_that_ended_before_the_target() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        archived.home.run(["backup", "orders", "--quiet"]).good();
        let second = archived.insert(2);
        archived.insert(3);
        archived.stop_receiving();
        let [newer, older] = archived.home.backups().try_into().unwrap();
        for (target, base, rows) in [
            (&first.time, &older, "1"),
            (&format!("xid:{}", first.xid), &older, "1"),
            (&format!("lsn:{}", first.lsn), &older, "1"),
            (&second.time, &newer, "1 2"),
        ] {
            let words = ["restore", "orders", "--dry-run", "--json", "--into", "nowhere", "--to", target];
            let plan = archived.home.run(words).good().json();
            assert_eq!(plan["base"], **base, "{target}: {plan:#}");
            assert!(!plan["log"].as_array().unwrap().is_empty(), "{plan:#}");
            assert_eq!(archived.rows(&["--to", target]), rows, "{target}");
        }
        archived.refused(&["--to", &first.time, "--backup", &newer], 9, &["before the end"]);
    }
}

impl Archived {
    /// Removes every object that holds something of the segment of this position.
    fn lose(&self, lsn: &str) {
        const SEGMENT: u64 = 16 << 20;
        let at = lsn.parse::<Lsn>().unwrap().0 / SEGMENT * SEGMENT;
        let mut lost = 0;
        for object in self.home.objects("/log/") {
            let name = object.file_name().unwrap().to_str().unwrap();
            let Some((from, to)) = name.split_once('-') else { continue };
            let position = |digits| u64::from_str_radix(digits, 16).unwrap();
            if position(from) < at + SEGMENT && at < position(to) {
                fs::remove_file(&object).unwrap();
                lost += 1;
            }
        }
        assert!(lost > 0, "nothing of {lsn} is stored");
    }
}
