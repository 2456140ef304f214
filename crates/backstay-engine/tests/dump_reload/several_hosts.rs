//! An address that names several servers: one of them is dumped, and one is restored to.

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::postgres::reload::{ReloadOptions, ReloadTarget};
use backstay_model::Secret;
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};

use crate::drive;
use crate::sample::{dump, options, reload};

#[test]
fn all_connections_of_a_dump_and_of_a_restore_go_to_one_server() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let new = || Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    let (mut one, other) = (new(), new());
    for server in [&one, &other] {
        let table = "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) AS n";
        server.sql("CREATE DATABASE app").unwrap();
        server.sql_in("app", table).unwrap();
    }
    let ports = [&one, &other].map(|server| server.port().to_string()).join(",");
    let url = format!(
        "host=127.0.0.1,127.0.0.1 port={ports} user={} dbname=app load_balance_hosts=random \
         target_session_attrs=read-write",
        testkit::postgres::SUPERUSER
    );
    let password = Some(Secret::new(testkit::postgres::PASSWORD));
    let address = PostgresSettings { url, password, ..PostgresSettings::default() }.address().unwrap();
    drive::runtime().block_on(async {
        // By chance a dump went well half of the time.
        for number in 0..8 {
            let dumped = dump(&address, &options(&installation)).await.unwrap();
            let target = ReloadTarget::open(&address, Some(installation.bin_directory())).await.unwrap();
            let copy = format!("copy_{number}");
            target.create_database(&copy, None).await.unwrap();
            reload(&target, &copy, &ReloadOptions::default(), &dumped.bytes).await.unwrap();
            let rows = one.query_value_in(&copy, "SELECT count(*) FROM t").unwrap();
            assert_eq!(rows, "1000", "the first of the address is taken");
        }
        // One that does not answer is passed over.
        one.kill9().unwrap();
        let dumped = dump(&address, &options(&installation)).await.unwrap();
        assert!(!dumped.bytes.is_empty());
        drop(other);
        assert!(dump(&address, &options(&installation)).await.is_err());
    });
}
