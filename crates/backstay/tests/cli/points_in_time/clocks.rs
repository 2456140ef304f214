//! A server whose clock was set, back and forth, while its log was archived: a restore is what the
//! server makes of a time, is told beforehand, and is never another one than was told.

use testkit::{PostgresOptions, PostgresVersion, require_settable_clock};

use super::{Archived, Marker};

const DOUBT: &str = "the clock of orders";

/// With a backup between rows 2 and 3, or with a span of the log for each of the first two.
fn with_clock_set(version: PostgresVersion, has_second_base: bool) -> Option<(Archived, Vec<Marker>)> {
    let mut archived = Archived::with(version, PostgresOptions::default().with_settable_clock())?;
    let mut markers = vec![archived.insert(1)];
    if !has_second_base {
        archived.wait_until_stored();
    }
    for (number, hours) in (2..).zip([-2, -2, 3, 0]) {
        archived.server.set_clock(hours).unwrap();
        if number == 3 && has_second_base {
            archived.home.run(["backup", "orders", "--quiet"]).good();
        }
        markers.push(archived.insert(number));
        if number == 2 && !has_second_base {
            archived.wait_until_stored();
        }
    }
    archived.stop_receiving();
    Some((archived, markers))
}

#[test]
fn a_time_that_comes_twice_is_told_and_the_restore_is_what_was_told() {
    if !require_settable_clock() {
        return;
    }
    for (version, has_second_base, why) in [
        (PostgresVersion::V15, false, "the times in the log go back from"),
        (PostgresVersion::V17, true, "behind that of this program"),
    ] {
        let Some((mut archived, markers)) = with_clock_set(version, has_second_base) else { return };
        let time = |number: usize| markers[number - 1].time.clone();
        // The fourth is the first that ended later than any of these.
        for words in [
            &["--to", &time(1)][..],
            &["--to", &time(5)],
            &["--to", &time(5), "--exclusive"],
            &["--to", &time(4), "--exclusive"],
        ] {
            let (ran, into) = archived.restore(words);
            assert_eq!(ran.code, 0, "{words:?}: {ran:#?}");
            assert!(ran.err.contains(DOUBT) && ran.err.contains(why), "{words:?}: {ran:#?}");
            assert_eq!(archived.rows_in(&into), "1 2 3", "{words:?} on {version:?}");
        }
        // Before everything, by what the server says; behind everything that it says.
        for target in [time(2), time(3), time(4)] {
            let (ran, into) = archived.restore(&["--to", &target]);
            assert_eq!(ran.code, 9, "{target}: {ran:#?}");
            assert!(!into.exists() && ran.err.contains("cannot be reached"), "{target}: {ran:#?}");
        }
        // Positions and transactions are in the order in which things happened.
        for (number, rows) in [(2, "1 2"), (3, "1 2 3"), (4, "1 2 3 4")] {
            let marker = &markers[number - 1];
            if number > 2 || !has_second_base {
                let xid = format!("xid:{}", marker.xid);
                assert_eq!(archived.rows(&["--to", &xid]), rows, "{xid}");
            }
            let lsn = format!("lsn:{}", marker.lsn);
            assert_eq!(archived.rows(&["--to", &lsn]), rows, "{lsn}");
        }
        assert_eq!(archived.rows(&[]), "1 2 3 4 5");
        for _ in 0..3 {
            archived.home.run(["drill", "orders"]).good();
        }
    }
}
