//! Looks at schemas: what counts, what does not, and that a look is no burden.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use std::time::{Duration, Instant};

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::prove::{self, ProveOptions};
use backstay_engine::postgres::schema::{Schemas, look};
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions};
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
const TABLE: &str = "CREATE TABLE t (n int PRIMARY KEY); \
     CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
     CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";

fn on_each_version(test: impl Fn(&Installation, Postgres)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation, Postgres::start_new(&installation, &PostgresOptions::default()).unwrap());
        }
    }
}

/// Holds what every look needs.
async fn hold(session: &Session) {
    let lock = "BEGIN; LOCK TABLE pg_catalog.pg_trigger IN ACCESS EXCLUSIVE MODE";
    session.execute("hold the triggers", lock).await.unwrap();
}

fn running(server: &Postgres) -> String {
    let asked = "SELECT count(*) FROM pg_stat_activity \
                 WHERE state = 'active' AND query LIKE '%pg_trigger%' AND pid <> pg_backend_pid()";
    server.query_value(asked).unwrap()
}

#[test]
fn a_look_that_is_dropped_does_not_go_on_at_the_server() {
    on_each_version(|_, server| {
        let address = drive::settings(&server).address().unwrap();
        let runtime = drive::runtime();
        let holder = runtime.block_on(Session::open(&address)).unwrap();
        runtime.block_on(hold(&holder));
        #[allow(clippy::disallowed_methods, reason = "it is ended below")]
        let looking = runtime.spawn(async move { Schemas::look(&address).await });
        testkit::wait_until(LIMIT, "the look to wait", || running(&server) == "1").unwrap();
        looking.abort();
        // Sooner than the limit for locks, which would end it too.
        testkit::wait_until(Duration::from_secs(3), "the look to end", || running(&server) == "0").unwrap();
    });
}

#[test]
fn a_look_waits_for_no_lock_for_long_and_has_one_limit_for_all_databases() {
    on_each_version(|_, server| {
        for database in ["apples", "zebras"] {
            server.sql(&format!("CREATE DATABASE {database}")).unwrap();
        }
        let address = drive::settings(&server).address().unwrap();
        drive::runtime().block_on(async {
            let holder = Session::open(&address).await.unwrap();
            hold(&holder).await;
            let all = async |schemas: Schemas| -> Vec<String> {
                schemas.unchanged_for(&address, Duration::from_secs(2)).await.into_keys().collect()
            };
            // Nobody lets the lock go: the server ends the wait itself.
            let began = Instant::now();
            let schemas = Schemas::look(&address).await;
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
            assert_eq!(all(schemas).await, ["apples", "zebras"]);

            let began = Instant::now();
            let schemas = Schemas::look_for(&address, Duration::from_secs(2)).await;
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            assert_eq!(all(schemas).await, ["apples"], "the time was over at the second");
        });
        testkit::wait_until(Duration::from_secs(3), "the looks to end", || running(&server) == "0").unwrap();
    });
}

#[test]
fn what_was_changed_and_changed_back_was_not_unchanged() {
    on_each_version(|_, server| {
        server.sql(TABLE).unwrap();
        let address = drive::settings(&server).address().unwrap();
        drive::runtime().block_on(async {
            let unchanged_after = async |meanwhile: &[&str]| {
                let schemas = Schemas::look(&address).await;
                for statement in meanwhile {
                    server.sql(statement).unwrap();
                }
                schemas.unchanged(&address).await.contains_key("postgres")
            };
            assert!(
                !unchanged_after(&["ALTER TABLE t DISABLE TRIGGER g", "ALTER TABLE t ENABLE TRIGGER g"])
                    .await
            );
            assert!(!unchanged_after(&["ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t"]).await);
            let harmless = [
                "INSERT INTO t SELECT generate_series(1, 1000)",
                "ANALYZE",
                "VACUUM (FREEZE)",
                "VACUUM",
                "CREATE TABLE late (n int PRIMARY KEY); DROP TABLE late",
                "CREATE TABLE later (n int PRIMARY KEY)",
            ];
            for statement in harmless {
                assert!(unchanged_after(&[statement]).await, "{statement}");
            }
        });
    });
}

#[test]
fn what_a_session_has_for_itself_is_not_looked_at() {
    on_each_version(|_, server| {
        server.sql(TABLE).unwrap();
        let address = drive::settings(&server).address().unwrap();
        drive::runtime().block_on(async {
            let other = Session::open(&address).await.unwrap();
            let own = "CREATE TEMP TABLE mine (n int PRIMARY KEY CHECK (n > 0))";
            other.execute("make a temporary table", own).await.unwrap();
            // After it, so that the horizon is behind it.
            server.sql("CREATE TABLE last (n int)").unwrap();
            let session = Session::open(&address).await.unwrap();
            let before = look(&session, None).await.unwrap();
            other.execute("drop the temporary table", "DROP TABLE pg_temp.mine").await.unwrap();
            assert_eq!(look(&session, Some(before.horizon)).await.unwrap(), before);
        });
    });
}

#[test]
fn a_copy_whose_schema_cannot_be_looked_at_is_still_proven_in_all_else() {
    on_each_version(|installation, server| {
        server.sql(TABLE).unwrap();
        let directory = server.workspace().path().join("restored");
        let (mut stored, _) = drive::copy(&server, &directory, Vec::new()).unwrap();
        drive::runtime().block_on(async {
            let source = Session::open(&drive::settings(&server).address().unwrap()).await.unwrap();
            stored.facts.server.databases[0].schema = Some(look(&source, None).await.unwrap());
            let bin_directory = Some(installation.bin_directory().to_owned());
            let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
            let facts = &stored.facts.server;
            let scratch =
                Scratch::start(&directory, facts, &options, &CancellationToken::new()).await.unwrap();
            let prove = async |limit| {
                let options = ProveOptions { limit, ..ProveOptions::default() };
                let proof = prove::prove(&scratch, &stored.facts, &options).await.unwrap();
                assert!(proof.is_sound(), "{proof:#?}");
                assert!(!proof.checks.iter().any(|check| check.name == "schema in postgres"));
                let finding = proof.findings.iter().find(|finding| finding.subject == "schema in postgres");
                finding.unwrap().message.clone()
            };
            let told = prove(Duration::ZERO).await;
            assert!(told.contains("not compared"), "{told}");
            let rot = "SET allow_system_table_mods = on; ALTER TABLE pg_catalog.pg_trigger RENAME TO gone";
            let session = scratch.session("postgres").await.unwrap();
            session.execute("take the triggers away", rot).await.unwrap();
            let told = prove(LIMIT).await;
            assert!(told.contains("not compared") && told.contains("pg_trigger"), "{told}");
        });
    });
}
