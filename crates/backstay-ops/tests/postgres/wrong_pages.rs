//! Pages that the server's own disk spoilt: told by every backup that holds them.

use std::os::unix::fs::FileExt as _;

use backstay_model::{BackupSummary, FindingLevel};
use backstay_ops::backup;
use backstay_ops::backup::BackupOptions;
use testkit::{PostgresVersion, StopMode};

use crate::house::House;

fn wrong_pages<'a>(backup: &'a BackupSummary, path: &str) -> Vec<&'a str> {
    let errors = backup.findings.iter().filter(|finding| finding.level == FindingLevel::Error);
    errors.filter(|finding| finding.subject.ends_with(path)).map(|finding| finding.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_does_not_take_wrong_pages_over_as_if_they_were_good() {
    let Some(mut house) = House::build(PostgresVersion::V17).await else { return };
    house.settings().data_directory = None;
    house.server.append_configuration(&["summarize_wal = on", "autovacuum = off"]).unwrap();
    house.server.reload().unwrap();
    house
        .server
        .sql("CREATE TABLE orders AS SELECT n, md5(n::text) FROM generate_series(1, 9000) n; CHECKPOINT")
        .unwrap();
    let options = BackupOptions::default();
    let whole = backup::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(whole.findings, []);

    let path = house.server.query_value("SELECT pg_relation_filepath('orders')").unwrap();
    house.server.stop(StopMode::Fast).unwrap();
    let file = house.server.data_directory().join(&path);
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8192 + 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], 8192 + 5000).unwrap();
    house.server.start().unwrap();

    let full = BackupOptions { full: true, ..options };
    let parent = backup::run(&house.context, &house.instance, &full).await.unwrap();
    assert_eq!(wrong_pages(&parent, &path).len(), 1, "{parent:?}");

    house.server.sql("CREATE TABLE more AS SELECT 1 AS n; CHECKPOINT").unwrap();
    let next = backup::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(next.parent, Some(parent.id.clone()), "blocks that are the same are still stored once");
    assert_eq!(wrong_pages(&next, &path), wrong_pages(&parent, &path));
    let told = next.findings.iter().find(|finding| finding.subject == parent.id.as_str());
    assert_eq!(told.map(|finding| finding.level), Some(FindingLevel::Info), "{next:?}");
}
