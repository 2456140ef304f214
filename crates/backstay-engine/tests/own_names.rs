//! Who owns a database may name functions and relations like those of the server; our
//! statements never find them, neither at the source nor in a copy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use backstay_engine::postgres::connect::{Session, column};
use backstay_engine::postgres::prove::{self, ProveOptions};
use backstay_engine::postgres::schema::Schemas;
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions};
use backstay_engine::postgres::{PostgresSettings, probe};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio_util::sync::CancellationToken;

/// Each leaves a trace that no rollback takes away.
const TRAPS: &str = "
    CREATE SEQUENCE public.ran;
    CREATE FUNCTION public.jsonb_build_array(text, oid, name, name, \"char\", \"char\", name) RETURNS jsonb
        LANGUAGE sql VOLATILE AS $$ SELECT to_jsonb(nextval('public.ran')) $$;
    CREATE FUNCTION public.jsonb_build_array(text, oid, name, oid, text) RETURNS jsonb
        LANGUAGE sql VOLATILE AS $$ SELECT to_jsonb(nextval('public.ran')) $$;
    CREATE FUNCTION public.md5(text) RETURNS text
        LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.ran')::text $$;
    CREATE FUNCTION public.current_setting(text) RETURNS text
        LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.ran')::text $$;
    CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean
        LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.ran') < 0 $$;
    CREATE FUNCTION public.pg_relation_size(oid) RETURNS bigint
        LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.ran') $$;
    CREATE FUNCTION public.bt_index_check(regclass) RETURNS void
        LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM nextval('public.ran'); END $$;
    CREATE FUNCTION public.more(oid, oid) RETURNS boolean
        LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.ran') > 0 $$;
    CREATE OPERATOR public.<= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.more);
    CREATE VIEW public.pg_extension AS
        SELECT *, nextval('public.ran') FROM pg_catalog.pg_extension;
    CREATE VIEW public.pg_namespace AS
        SELECT oid, nspname, nextval('public.ran') FROM pg_catalog.pg_namespace;
    CREATE TABLE public.t (n int PRIMARY KEY); INSERT INTO public.t SELECT generate_series(1, 5000)";

fn trapped(server: &Postgres) {
    server.sql("CREATE DATABASE other").unwrap();
    for database in ["postgres", "other"] {
        server.sql_in(database, TRAPS).unwrap();
        let path = format!("ALTER DATABASE {database} SET search_path = public, pg_catalog");
        server.sql_in(database, &path).unwrap();
    }
    server.sql("ALTER ROLE postgres SET search_path = public, pg_catalog").unwrap();
}

fn assert_untouched(server: &Postgres, after: &str) {
    for database in ["postgres", "other"] {
        let ran = server.query_value_in(database, "SELECT is_called FROM public.ran").unwrap();
        assert_eq!(ran, "f", "something ran in {database}: {after}");
    }
}

#[test]
fn nothing_that_a_database_owner_made_runs_in_a_backup_or_in_a_proof() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        trapped(&server);
        // What somebody wrote into the address for other programs is no way in either.
        let asked = format!("{}&options=-c%20search_path%3Dpublic,pg_catalog", server.socket_url());
        let runtime = drive::runtime();
        let settings = PostgresSettings { url: asked, ..drive::settings(&server) };
        let address = settings.address().unwrap();
        runtime.block_on(probe::probe(&settings)).unwrap();
        assert_untouched(&server, "probe");
        let schemas = runtime.block_on(Schemas::look(&address));
        let directory = server.workspace().path().join("restored");
        let (mut backup, outcome) = drive::begin(&runtime, &settings).unwrap();
        let mut stored = drive::finish(&mut backup, &outcome, &directory, Vec::new(), |_| {}).unwrap();
        let mut schemas = runtime.block_on(schemas.unchanged(&address));
        assert_untouched(&server, "backup");
        for database in &mut stored.facts.server.databases {
            assert!(database.extensions.contains_key("plpgsql"), "{database:?}");
            database.schema = schemas.remove(&database.name);
            assert!(database.schema.is_some(), "{database:?}");
        }
        runtime.block_on(async {
            let bin_directory = Some(installation.bin_directory().to_owned());
            let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
            let server = &stored.facts.server;
            let scratch =
                Scratch::start(&directory, server, &options, &CancellationToken::new()).await.unwrap();
            let proof = prove::prove(&scratch, &stored.facts, &ProveOptions::default()).await.unwrap();
            assert!(proof.is_sound(), "{proof:#?}");
            assert!(proof.checks.iter().any(|check| check.name == "index public.t_pkey in other"));
            for database in ["postgres", "other"] {
                let session = scratch.session(database).await.unwrap();
                let row = session.row("see", "SELECT is_called FROM public.ran", &[]).await.unwrap();
                assert!(!column::<bool>(&row, 0).unwrap(), "something ran in the copy of {database}");
            }
        });
    }
}

#[test]
fn amcheck_is_found_where_somebody_has_put_it() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        let setup = "CREATE SCHEMA \"Tools\"; CREATE EXTENSION amcheck SCHEMA \"Tools\"; \
                     CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5000)";
        server.sql(setup).unwrap();
        let directory = server.workspace().path().join("restored");
        let (stored, _) = drive::copy(&server, &directory, Vec::new()).unwrap();
        drive::runtime().block_on(async {
            let bin_directory = Some(installation.bin_directory().to_owned());
            let options = ScratchOptions { bin_directory, ..ScratchOptions::default() };
            let facts = &stored.facts.server;
            let scratch =
                Scratch::start(&directory, facts, &options, &CancellationToken::new()).await.unwrap();
            let proof = prove::prove(&scratch, &stored.facts, &ProveOptions::default()).await.unwrap();
            assert!(proof.is_sound(), "{proof:#?}");
            assert!(proof.checks.iter().any(|check| check.name == "index public.t_pkey in postgres"));
        });
    }
}

#[test]
fn each_session_has_the_servers_own_names_only() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        drive::runtime().block_on(async {
            let session = Session::open(&drive::settings(&server).address().unwrap()).await.unwrap();
            let asked = "SELECT setting, reset_val FROM pg_settings WHERE name = 'search_path'";
            let row = session.row("see", asked, &[]).await.unwrap();
            let (now, after_reset): (String, String) = (column(&row, 0).unwrap(), column(&row, 1).unwrap());
            assert_eq!((now.as_str(), after_reset.as_str()), ("pg_catalog", "pg_catalog"));
        });
    }
}
