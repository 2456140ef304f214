//! After a restore the planner knows of every table, also beside one that cannot be analysed.

use std::time::Duration;

use backstay_engine::Error;
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{on_each_version, target};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn several_sessions_analyse_what_one_would_and_a_table_that_fails_keeps_none_from_it() {
    on_each_version(|installation, server| {
        // The index was made; only while it is analysed does its function fail.
        let made = "
            CREATE FUNCTION moody(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
            BEGIN
                IF current_query() LIKE 'ANALYZE%' THEN RAISE EXCEPTION 'not today'; END IF;
                RETURN $1;
            END $$;
            CREATE TABLE \"Odd, name\" AS SELECT g FROM generate_series(1, 1000) g;
            CREATE INDEX ON \"Odd, name\" (moody(g));
            CREATE TABLE plain AS SELECT g FROM generate_series(1, 5000) g;
            CREATE MATERIALIZED VIEW seen AS SELECT g FROM plain;
            CREATE TABLE years (at int) PARTITION BY RANGE (at);
            CREATE TABLE early PARTITION OF years FOR VALUES FROM (0) TO (500);
            CREATE TABLE late PARTITION OF years FOR VALUES FROM (500) TO (5000);
            INSERT INTO years SELECT g FROM generate_series(1, 999) g";
        let known = "SELECT string_agg(DISTINCT tablename, ' ' ORDER BY tablename) FROM pg_stats \
                     WHERE schemaname = 'public'";
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let never = CancellationToken::new();
            for jobs in [1, 3, 64] {
                let name = format!("analysed {jobs}");
                target.create_database(&name, None).await.unwrap();
                server.sql_in(&name, made).unwrap();
                let findings = target.analyze(&name, jobs, LIMIT, &never).await.unwrap();
                let found: Vec<String> = findings.iter().map(|finding| format!("{finding:?}")).collect();
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].contains("not today"), "{found:?}");
                if jobs > 1 {
                    assert!(found[0].contains("table public.\\\"Odd, name\\\""), "{found:?}");
                    assert_eq!(server.query_value_in(&name, known).unwrap(), "early late plain seen years");
                }
                assert!(matches!(
                    target
                        .analyze(&name, jobs, LIMIT, &{
                            let stopped = CancellationToken::new();
                            stopped.cancel();
                            stopped
                        })
                        .await,
                    Err(Error::Cancelled)
                ));
            }
        });
    });
}
