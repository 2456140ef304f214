//! Two lives of one cluster: what each of them wrote can be restored, by its timeline.

use testkit::postgres::StopMode;
use testkit::{Postgres, PostgresVersion};

use super::Archived;

#[test]
fn both_lives_behind_a_promotion_can_be_restored() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        archived.insert(1);
        let second = archived.insert(2);
        let third = archived.insert(3);
        archived.insert(4);
        archived.stop_receiving();
        // A copy of the state after the second row lives on, and pushes its log.
        let (ran, into) = archived.restore(&["--to", &second.time]);
        ran.good();
        let mut copy = Postgres::start_on(archived.server.installation(), &into).unwrap();
        copy.sql("INSERT INTO t VALUES (20)").unwrap();
        let time =
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let between = copy.query_value(time).unwrap();
        copy.sql("INSERT INTO t VALUES (21)").unwrap();
        let segment = copy.query_value("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        copy.stop(StopMode::Immediate).unwrap();
        for name in ["00000002.history", &segment] {
            let file = into.join("pg_wal").join(name);
            archived.home.run(["wal", "push", file.to_str().unwrap()]).good();
            if name != segment {
                // Nothing of the new life is there yet, and more of the old one than it came from.
                assert_eq!(archived.rows(&[]), "1 2");
                assert_eq!(archived.rows(&["--target-timeline", "1"]), "1 2 3 4");
            }
        }
        drop(copy);
        assert_eq!(archived.rows(&[]), "1 2 20 21");
        assert_eq!(archived.rows(&["--to", &between]), "1 2 20");
        assert_eq!(archived.rows(&["--target-timeline", "1"]), "1 2 3 4");
        assert_eq!(archived.rows(&["--target-timeline", "current"]), "1 2 3 4");
        assert_eq!(archived.rows(&["--to", &third.time, "--target-timeline", "1"]), "1 2 3");
        // Before they parted, both are one.
        for timeline in ["1", "2", "latest"] {
            let xid = format!("xid:{}", second.xid);
            assert_eq!(archived.rows(&["--to", &xid, "--target-timeline", timeline]), "1 2", "{timeline}");
        }
        // A drill that may choose finds its way to either.
        for _ in 0..3 {
            archived.home.run(["drill", "orders"]).good();
        }
        let words = ["restore", "orders", "--dry-run", "--json", "--into", "nowhere"];
        let plan = archived.home.run(words).good().json();
        let timelines: Vec<_> =
            plan["log"].as_array().unwrap().iter().map(|range| &range["timeline"]).collect();
        assert_eq!(timelines, [1, 2]);
    }
}
