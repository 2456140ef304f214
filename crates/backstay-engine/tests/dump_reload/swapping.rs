//! One database in the place of another, or everything as it was.

use backstay_engine::Error;
use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::reload::swap::swap;
use backstay_engine::postgres::reload::{SwapStep, kept_name};
use backstay_model::error::{Classified, ErrorKind};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};

use crate::drive;
use crate::sample::{address, on_each_version, target};

const KEPT: &str = "Orders_before_20261121T020000Z";

fn prepare(server: &Postgres) {
    server
        .sql(
            "CREATE DATABASE \"Orders\"; CREATE DATABASE \"new one\"; CREATE ROLE app; CREATE ROLE keeper;
             ALTER DATABASE \"Orders\" OWNER TO keeper; ALTER DATABASE \"Orders\" CONNECTION LIMIT 40;
             ALTER DATABASE \"Orders\" SET search_path = a, \"B c\";
             ALTER DATABASE \"Orders\" SET work_mem = '7MB';
             ALTER ROLE app IN DATABASE \"Orders\" SET application_name = 'it''s';
             REVOKE ALL ON DATABASE \"Orders\" FROM PUBLIC;
             GRANT CONNECT ON DATABASE \"Orders\" TO app WITH GRANT OPTION;",
        )
        .unwrap();
    server.sql_in("Orders", "CREATE TABLE public.which AS SELECT 'old' AS x").unwrap();
    server.sql_in("new one", "CREATE TABLE public.which AS SELECT 'new' AS x").unwrap();
}

/// All databases with everything that a swap may touch, but their numbers.
fn state(server: &Postgres) -> String {
    server
        .query_value(
            "SELECT datname, datallowconn, datconnlimit, datdba::regrole, datacl, \
             (SELECT string_agg(setrole::regrole || setconfig::text, ' ' ORDER BY setrole) \
              FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d ORDER BY 1",
        )
        .unwrap()
}

fn which(server: &Postgres, database: &str) -> String {
    server.query_value_in(database, "SELECT x FROM public.which").unwrap()
}

#[test]
fn the_new_database_takes_the_place_of_the_old_with_all_that_was_set_for_it() {
    on_each_version(|installation, server| {
        prepare(&server);
        let before = state(&server);
        let old_line = before.lines().find(|line| line.starts_with("Orders|")).unwrap().to_owned();
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let session = Session::open(&address(&server, "Orders")).await.unwrap();
            let mut steps = Vec::new();
            let mut watch = |step| {
                steps.push(step);
                Ok(())
            };
            let kept = kept_name("Orders", "20261121T020000Z");
            let swapped = swap(&target, "Orders", "new one", &kept, &mut watch).await.unwrap();
            assert_eq!((swapped.kept.as_deref(), swapped.sessions_ended), (Some(KEPT), 1));
            assert_eq!(steps, SwapStep::ALL);
            assert!(session.query("look", "SELECT 1", &[]).await.is_err(), "its session was ended");
            assert_eq!((which(&server, "Orders"), which(&server, KEPT)), ("new".into(), "old".into()));
            let after = state(&server);
            assert!(after.lines().any(|line| line == old_line), "{old_line}\n{after}");
            assert!(!after.contains("new one"), "{after}");

            // One that does not exist yet is only named.
            server.sql("CREATE DATABASE another").unwrap();
            let swapped = swap(&target, "first", "another", "unused", &mut |_| Ok(())).await.unwrap();
            assert_eq!((swapped.kept, swapped.sessions_ended, swapped.findings), (None, 0, Vec::new()));
            assert!(
                target.has_database("first").await.unwrap() && !target.has_database("another").await.unwrap()
            );
        });
    });
}

#[test]
fn whatever_step_fails_everything_is_as_it_was() {
    on_each_version(|installation, server| {
        prepare(&server);
        let before = state(&server);
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            for failing in SwapStep::ALL {
                let mut refuse = |step| match step == failing {
                    true => Err(Error::Cancelled),
                    false => Ok(()),
                };
                let error = swap(&target, "Orders", "new one", KEPT, &mut refuse).await.unwrap_err();
                assert!(matches!(error, Error::Cancelled), "{failing:?}: {error}");
                assert_eq!(state(&server), before, "{failing:?} refused");

                // The connection is lost just before the step.
                let mut lose = |step| {
                    if step == failing {
                        let ours = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                                    WHERE application_name = 'backstay' AND datname = 'postgres'";
                        server.sql(ours).unwrap();
                    }
                    Ok(())
                };
                match swap(&target, "Orders", "new one", KEPT, &mut lose).await {
                    // There is no connection yet that could be lost.
                    Ok(_) if failing == SwapStep::Check => {
                        swap(&target, "Orders", KEPT, "new one", &mut |_| Ok(())).await.unwrap();
                        assert_eq!(which(&server, "Orders"), "old");
                    }
                    Ok(_) => panic!("{failing:?}: it was done without a connection"),
                    Err(error) => assert!(error.kind().is_retryable(), "{failing:?}: {error}"),
                }
                assert_eq!(
                    (which(&server, "Orders"), which(&server, "new one")),
                    ("old".into(), "new".into())
                );
                if failing != SwapStep::Check {
                    assert_eq!(state(&server), before, "connection lost before {failing:?}");
                    continue;
                }
                // Swapped there and back, the new one has what the old one has.
                assert_eq!(state(&server).lines().filter(|line| line.contains("|keeper|")).count(), 2);
                server.sql("DROP DATABASE \"Orders\"; DROP DATABASE \"new one\"").unwrap();
                server.sql("DROP ROLE app; DROP ROLE keeper").unwrap();
                prepare(&server);
                assert_eq!(state(&server), before);
            }
            // A rename that the server itself refuses: the name came meanwhile.
            let mut take = |step| {
                if step == SwapStep::RenameOld {
                    server.sql(&format!("CREATE DATABASE \"{KEPT}\"")).unwrap();
                }
                Ok(())
            };
            let error = swap(&target, "Orders", "new one", KEPT, &mut take).await.unwrap_err();
            assert!(matches!(error, Error::Server { .. }), "{error}");
            server.sql(&format!("DROP DATABASE \"{KEPT}\"")).unwrap();
            assert_eq!(state(&server), before);
        });
    });
}

#[test]
fn what_holds_a_database_is_named_and_nothing_is_touched() {
    let options = PostgresOptions::default()
        .configure("wal_level = logical")
        .configure("max_prepared_transactions = 5");
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let server = Postgres::start_new(&installation, &options).unwrap();
        prepare(&server);
        let before = state(&server);
        drive::runtime().block_on(async {
            let target = target(&installation, &server).await;
            let attempt = async |name: &str, temporary: &str, kept: &str| {
                let error = swap(&target, name, temporary, kept, &mut |_| Ok(())).await.unwrap_err();
                assert_eq!(state(&server), before);
                error
            };
            let error = attempt("Orders", "new one", "postgres").await;
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let error = attempt("Orders", "nothing", KEPT).await;
            assert_eq!(error.to_string(), "no database is called nothing");
            for (database, make, unmake, named) in [
                (
                    "Orders",
                    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
                    "SELECT pg_drop_replication_slot('s')",
                    "replication slot s",
                ),
                (
                    "Orders",
                    "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)",
                    "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
                    "subscription sub",
                ),
                (
                    "new one",
                    "BEGIN; INSERT INTO public.which VALUES ('x'); PREPARE TRANSACTION 'held'",
                    "ROLLBACK PREPARED 'held'",
                    "prepared transaction held",
                ),
            ] {
                server.sql_in(database, make).unwrap();
                let error = attempt("Orders", "new one", KEPT).await;
                assert_eq!(error.to_string(), format!("database {database} cannot be renamed: {named}"));
                server.sql_in(database, unmake).unwrap();
            }
        });
    }
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_a_word_on_how_to_go_on() {
    on_each_version(|installation, mut server| {
        prepare(&server);
        let before = state(&server);
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let mut die = |step| {
                if step == SwapStep::Commit {
                    server.kill9().unwrap();
                }
                Ok(())
            };
            let error = swap(&target, "Orders", "new one", KEPT, &mut die).await.unwrap_err();
            assert!(matches!(error, Error::SwapHalfDone { .. }), "{error}");
            assert_eq!(
                error.hints(),
                ["run `ALTER DATABASE \"Orders\" ALLOW_CONNECTIONS true` as a superuser"]
            );
            server.start().unwrap();
            assert_ne!(state(&server), before);
            for name in ["Orders", "new one"] {
                server.sql(&format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true")).unwrap();
            }
            assert_eq!(state(&server), before);
        });
    });
}
