//! Segments of other sizes than most clusters have: smaller than what is stored as one object,
//! and larger.

use testkit::postgres::StopMode;
use testkit::{PostgresOptions, PostgresVersion};

use super::Archived;

#[test]
fn segments_of_any_size_serve_every_target_and_are_the_same_when_they_are_pushed() {
    for (version, mebibytes) in [(PostgresVersion::V15, 64), (PostgresVersion::V17, 1)] {
        let options = PostgresOptions::default().wal_segment_mib(mebibytes).configure("wal_keep_size = 1GB");
        let Some(mut archived) = Archived::with(version, options) else { return };
        let first = archived.insert(1);
        // Over the end of an object, whatever the size of the segments.
        let bulk = "SELECT md5(random()::text) AS x FROM generate_series(1, 300000)";
        archived.server.sql(&format!("CREATE TABLE bulk AS {bulk}")).unwrap();
        let second = archived.insert(2);
        archived.server.sql("SELECT pg_create_restore_point('before deploy')").unwrap();
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        let segment = format!("SELECT pg_walfile_name('{}')", second.lsn);
        let segment = archived.server.query_value(&segment).unwrap();
        archived.insert(3);
        archived.stop_receiving();
        let lsn = format!("lsn:{}", second.lsn);
        for (words, rows) in [
            (&["--to", &first.time][..], "1"),
            (&["--to", &lsn], "1 2"),
            (&["--to", "name:before deploy"], "1 2"),
            (&[], "1 2 3"),
        ] {
            assert_eq!(archived.rows(words), rows, "{words:?} of segments of {mebibytes} MiB");
        }
        archived.server.stop(StopMode::Fast).unwrap();
        let before = archived.home.objects("/log/");
        let path = archived.server.data_directory().join("pg_wal").join(segment);
        archived.home.run(["wal", "push", path.to_str().unwrap()]).good();
        let after = archived.home.objects("/log/");
        assert!(before.iter().all(|object| after.contains(object)), "{before:?} {after:?}");
        archived.home.run(["verify", "orders", "--level", "digest"]).good();
        assert_eq!(archived.rows(&[]), "1 2 3", "of what was received and pushed");
    }
}
