//! TimescaleDB: hypertables come back with their chunks and their jobs.

use std::time::Duration;

use backstay_engine::postgres::dump::DumpOptions;
use backstay_engine::postgres::reload::swap::swap;
use backstay_engine::postgres::reload::{
    DumpNeeds, ReloadInput, ReloadOptions, ReloadRun, ReloadTarget, Selection, TimescaleJob, TimescaleReload,
};
use backstay_model::dump::DumpFormat;
use backstay_model::error::{Classified, ErrorKind};
use testkit::{Installation, Postgres, PostgresOptions, require_timescaledb};
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{address, archive, dump, look, options, reload, target};

const SAMPLE: &str = "
    CREATE EXTENSION timescaledb;
    CREATE TABLE measured (at timestamptz NOT NULL, value float NOT NULL, place text);
    SELECT create_hypertable('measured', 'at', chunk_time_interval => interval '1 day');
    CREATE INDEX ON measured (place, at DESC);
    INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '10 minutes', n, 'place ' || n % 7
        FROM generate_series(1, 3000) AS n;
    CREATE TABLE places (name text PRIMARY KEY);
    INSERT INTO places SELECT DISTINCT place FROM measured;
    CREATE PROCEDURE nothing(job_id int, config jsonb) LANGUAGE sql AS '';
    INSERT INTO _timescaledb_config.bgw_job (application_name, schedule_interval, max_runtime, max_retries,
        retry_period, proc_schema, proc_name, fixed_schedule)
    VALUES ('a test''s', '1 hour', '1 minute', -1, '1 second', 'public', 'nothing', false);";

const CHUNKS: &str = "
    SELECT chunk_name, range_start, range_end, is_compressed FROM timescaledb_information.chunks ORDER BY 1;
    SELECT place, count(*), sum(value), time_bucket('1 day', at) AS day FROM measured GROUP BY 1, 4 ORDER BY 1, 4;
    SELECT hypertable_name, num_dimensions, num_chunks, compression_enabled
        FROM timescaledb_information.hypertables ORDER BY 1;";

fn start(installation: &Installation) -> Postgres {
    let options = PostgresOptions::default()
        .configure("shared_preload_libraries = timescaledb")
        .configure("timescaledb.telemetry_level = off");
    Postgres::start_new(installation, &options).unwrap()
}

fn with_timescaledb() -> Option<(Installation, Postgres)> {
    let installation = require_timescaledb()?;
    let server = start(&installation);
    server.sql("CREATE DATABASE app").unwrap();
    server.sql_in("app", SAMPLE).unwrap();
    Some((installation, server))
}

/// Debian's build has neither; what could not be looked at is said.
fn with_what_the_build_has(server: &Postgres) -> (bool, bool) {
    let compressed = server.sql_in(
        "app",
        "ALTER TABLE measured SET (timescaledb.compress);
         SELECT compress_chunk(c) FROM show_chunks('measured', older_than => '2026-01-10'::timestamptz) AS c;",
    );
    let aggregated = server.sql_in(
        "app",
        "CREATE MATERIALIZED VIEW daily WITH (timescaledb.continuous) AS
             SELECT time_bucket('1 day', at) AS day, place, avg(value) FROM measured GROUP BY 1, 2;",
    );
    for (what, done) in [("compressed chunks", &compressed), ("continuous aggregates", &aggregated)] {
        if let Err(error) = done {
            eprintln!("NOT LOOKED AT: {what}, for this build has none: {error:#}");
        }
    }
    (compressed.is_ok(), aggregated.is_ok())
}

#[test]
fn hypertables_come_back_equal_with_their_chunks_and_jobs() {
    let Some((installation, server)) = with_timescaledb() else { return };
    let (_, aggregated) = with_what_the_build_has(&server);
    let chunks = |database: &str| {
        let aggregate = if aggregated { "SELECT * FROM daily ORDER BY 1, 2;" } else { "" };
        server.query_value_in(database, &format!("{CHUNKS}{aggregate}")).unwrap()
    };
    let (before, rows) = (chunks("app"), look(&server, "app"));
    assert!(before.contains("_hyper_1_21_chunk"), "{before}");
    drive::runtime().block_on(async {
        let jobs = TimescaleJob::list(&address(&server, "app")).await.unwrap();
        assert_eq!(jobs[0].procedure, "public.nothing");
        let target = target(&installation, &server).await;
        for format in [DumpFormat::Custom, DumpFormat::Plain] {
            let options = DumpOptions { format, ..options(&installation) };
            let dumped = dump(&address(&server, "app"), &options).await.unwrap();
            assert!(dumped.warnings.len() >= 3, "{:?}", dumped.warnings);
            for warning in &dumped.warnings {
                assert!(warning.harmless.is_some(), "{warning:?}");
            }
            let version = dumped.facts.extensions.get("timescaledb").unwrap();
            let name = format!("back_{format}");
            target.create_database(&name, None).await.unwrap();
            let timescale = TimescaleReload::begin(&target, &name, Some(version)).await.unwrap();
            assert!(target.is_empty(&name).await.unwrap(), "what an extension made does not count");
            let input = match format {
                DumpFormat::Plain => ReloadInput::Statements,
                _ => ReloadInput::Archive,
            };
            let options = ReloadOptions { input, ..ReloadOptions::default() };
            reload(&target, &name, &options, &dumped.bytes).await.unwrap();
            assert_eq!(timescale.finish(&target, true).await.unwrap(), []);
            let analysed = target.analyze(&name, 1, Duration::from_secs(60), &CancellationToken::new()).await;
            assert_eq!(analysed.unwrap(), []);
            assert_eq!(chunks(&name), before, "{format}");
            assert_eq!(look(&server, &name), rows, "{format}");
            assert_eq!(TimescaleJob::list(&address(&server, &name)).await.unwrap(), jobs, "{format}");
            // It is a hypertable again: new rows make new chunks.
            server.sql_in(&name, "INSERT INTO measured VALUES ('2027-01-01', 1, 'new')").unwrap();
            let count = "SELECT count(*) FROM show_chunks('measured')";
            assert_eq!(server.query_value_in(&name, count).unwrap(), "22");
        }
        // In the place of the old one, its jobs still run.
        swap(&target, "app", "back_custom", "app_before", &mut |_| Ok(())).await.unwrap();
        for database in ["app", "app_before"] {
            let scheduler = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
                 AND backend_type ILIKE '%timescaledb%scheduler%'"
            );
            testkit::wait_until(Duration::from_secs(30), format!("the scheduler of {database}"), || {
                server.query_value(&scheduler).unwrap() == "1"
            })
            .unwrap();
        }
    });
}

#[test]
fn a_hypertable_alone_is_refused_for_its_rows_would_be_missing() {
    let Some((installation, server)) = with_timescaledb() else { return };
    drive::runtime().block_on(async {
        let app = address(&server, "app");
        for options in [
            DumpOptions { tables: vec!["measured".parse().unwrap()], ..options(&installation) },
            DumpOptions { schemas: vec!["public".into()], ..options(&installation) },
        ] {
            let error = dump(&app, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("public.measured lie in chunks"), "{error}");
        }
        let whole = archive(&dump(&app, &options(&installation)).await.unwrap().bytes);
        for (tables, schemas) in
            [(vec!["measured".parse().unwrap()], vec![]), (vec![], vec!["public".to_owned()])]
        {
            let error = whole.select(&tables, &schemas, Selection::RowsOnly).unwrap_err();
            assert!(error.to_string().contains("the rows of public.measured lie in chunks"), "{error}");
        }
        assert_eq!(whole.select(&["places".parse().unwrap()], &[], Selection::RowsOnly).unwrap().len(), 1);
        let places = DumpOptions { tables: vec!["places".parse().unwrap()], ..options(&installation) };
        assert_eq!(dump(&app, &places).await.unwrap().facts.tables_in_all, 1);
    });
}

#[test]
fn a_server_that_lacks_timescaledb_or_has_another_version_is_refused() {
    let Some((installation, server)) = with_timescaledb() else { return };
    let without = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    drive::runtime().block_on(async {
        let dumped = dump(&address(&server, "app"), &options(&installation)).await.unwrap();
        let archive = archive(&dumped.bytes);
        let version = dumped.facts.extensions.get("timescaledb").unwrap().clone();
        let refusals = async |target: &ReloadTarget, version: &str| -> Vec<String> {
            let known = DumpNeeds {
                extensions: [("timescaledb".to_owned(), Some(version.to_owned()))].into(),
                ..DumpNeeds::default()
            };
            let needs = known.and_archive(&archive, &archive.entries, true, true);
            let found = target.preflight(None, &needs).await.unwrap();
            found.refusals.into_iter().map(|refusal| refusal.message).collect()
        };
        let same = target(&installation, &server).await;
        assert_eq!(refusals(&same, &version).await, [""; 0]);
        assert_eq!(
            refusals(&same, "2.1.0").await,
            [format!("the dump is of timescaledb 2.1.0, and the server has {version}")]
        );
        let other = target(&installation, &without).await;
        let refused = refusals(&other, &version).await;
        assert_eq!(
            refused,
            ["the server does not load timescaledb, without which its tables cannot be made"]
        );

        let directory = server.workspace().directory("lying").unwrap();
        let path = directory.join("app.dump");
        std::fs::write(&path, &dumped.bytes).unwrap();
        let options =
            ReloadOptions { input: ReloadInput::Lying { path, jobs: 2 }, ..ReloadOptions::default() };
        let started = ReloadRun::start(&same, "app", &options, &CancellationToken::new()).await;
        let Err(error) = started else { panic!("it started") };
        assert!(error.to_string().contains("by one session"), "{error}");
    });
}
