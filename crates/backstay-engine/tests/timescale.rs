//! TimescaleDB: a copy has every chunk, and nothing acts in it while it is looked at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test ends where something is not as it should be, and says what it did not look at"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use std::time::{Duration, Instant};

use backstay_engine::postgres::connect::{Session, column};
use backstay_engine::postgres::prove::{self, ProveOptions};
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions};
use testkit::{Postgres, PostgresOptions, StopMode, require_timescaledb};
use tokio_util::sync::CancellationToken;

/// Rows of every chunk, sums over the hypertable, and what is compressed.
const CONTENTS: &str =
    "SELECT count(*) || ' ' || sum(value) || ' ' || min(at) || ' ' || max(at) FROM public.measured";
const CHUNKS: &str = "SELECT count(*) || ' ' || count(*) FILTER (WHERE is_compressed) \
                      FROM timescaledb_information.chunks";
const STATISTICS: &str = "SELECT coalesce(string_agg(s::text, chr(10) ORDER BY s.job_id), '') \
                          FROM _timescaledb_internal.bgw_job_stat s";
/// A job that is due every second. It is written into the table, for Debian's build
/// has the function that does so left out; what it would do matters less than that
/// the scheduler tries, which its statistics show.
const JOB: &str = "
    INSERT INTO _timescaledb_config.bgw_job (application_name, schedule_interval, max_runtime, max_retries,
        retry_period, proc_schema, proc_name, fixed_schedule)
    VALUES ('a test''s', '1 second', '1 minute', -1, '1 second', 'public', 'nothing', false);
    SELECT _timescaledb_functions.restart_background_workers();";
const IS_DUE: &str = "SELECT bool_or(next_start < clock_timestamp())::text \
                      FROM _timescaledb_internal.bgw_job_stat WHERE job_id >= 1000";

/// Long enough for a scheduler to start and to look at its jobs.
const STARTED_BEFORE: &str =
    "SELECT (clock_timestamp() > pg_postmaster_start_time() + interval '5 seconds')::text";

async fn value(session: &Session, statement: &str) -> String {
    column(&session.row("look at a copy", statement, &[]).await.unwrap(), 0).unwrap()
}

/// Old chunks are compressed where the build can: Debian's leaves that part out.
fn compress(server: &Postgres) -> bool {
    let compressed = server.sql(
        "ALTER TABLE measured SET (timescaledb.compress);
         SELECT compress_chunk(c) FROM show_chunks('measured', older_than => '2026-01-10'::timestamptz) AS c;",
    );
    if let Err(error) = &compressed {
        eprintln!("NOT LOOKED AT: compressed chunks, for this build has none: {error:#}");
    }
    compressed.is_ok()
}

#[test]
fn a_copy_has_every_chunk_and_its_jobs_rest() {
    let Some(installation) = require_timescaledb() else { return };
    let options = PostgresOptions::default()
        .configure("shared_preload_libraries = timescaledb")
        .configure("timescaledb.telemetry_level = off");
    let mut server = Postgres::start_new(&installation, &options).unwrap();
    server
        .sql(
            "CREATE EXTENSION timescaledb;
             CREATE TABLE measured (at timestamptz NOT NULL, value float NOT NULL);
             SELECT create_hypertable('measured', 'at', chunk_time_interval => interval '1 day');
             INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '10 minutes', n
                 FROM generate_series(1, 3000) AS n;",
        )
        .unwrap();
    let compressed = compress(&server);
    server.sql("CREATE PROCEDURE nothing(job_id int, config jsonb) LANGUAGE sql AS ''").unwrap();
    server.sql(JOB).unwrap();
    // It does run at the source, so that its rest in the copy means something.
    let runs = "SELECT total_runs > 0 FROM _timescaledb_internal.bgw_job_stat WHERE job_id >= 1000";
    testkit::wait_until(Duration::from_secs(60), "the scheduler to try the job", || {
        server.query_value(runs).is_ok_and(|answer| answer == "t")
    })
    .unwrap();
    let directory = server.workspace().path().join("restored");
    let (stored, outcome) = drive::copy(&server, &directory, Vec::new()).unwrap();
    assert_eq!(outcome.findings(), []);
    let (contents, chunks) = (server.query_value(CONTENTS).unwrap(), server.query_value(CHUNKS).unwrap());
    assert!(chunks.starts_with("21 "), "{chunks}");
    assert_eq!(chunks.ends_with(" 0"), !compressed, "{chunks}");
    assert!(
        stored.facts.server.databases.iter().any(|database| database.extensions.contains_key("timescaledb"))
    );
    server.stop(StopMode::Fast).unwrap();

    drive::runtime().block_on(async {
        let bin_directory = Some(installation.bin_directory().to_owned());
        let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
        let cancel = CancellationToken::new();
        let scratch = Scratch::start(&directory, &stored.facts.server, &options, &cancel).await.unwrap();
        let session = scratch.session("postgres").await.unwrap();
        let statistics = value(&session, STATISTICS).await;
        assert_eq!(value(&session, CONTENTS).await, contents);
        assert_eq!(value(&session, CHUNKS).await, chunks);
        let proof = prove::prove(&scratch, &stored.facts, &ProveOptions::default()).await.unwrap();
        assert!(proof.is_sound(), "{proof:#?}");
        let limit = Instant::now() + Duration::from_secs(120);
        while value(&session, IS_DUE).await != "true" || value(&session, STARTED_BEFORE).await != "true" {
            assert!(Instant::now() < limit, "the job is never due: {statistics}");
            session.query("let time pass", "SELECT pg_sleep(0.1)", &[]).await.unwrap();
        }
        assert_eq!(value(&session, STATISTICS).await, statistics);
        let workers = "SELECT coalesce(string_agg(backend_type, ', '), '') FROM pg_stat_activity \
                       WHERE backend_type ILIKE '%timescaledb%' OR application_name ILIKE '%[%]%'";
        assert_eq!(value(&session, workers).await, "");
        scratch.stop().await.unwrap();
    });
}
