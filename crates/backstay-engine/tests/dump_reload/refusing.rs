//! What a server lacks for a dump is listed before the first byte.

use backstay_engine::postgres::dump::{DumpOptions, globals};
use backstay_engine::postgres::reload::{DumpNeeds, ReloadInput, ReloadOptions, ReloadRun};
use backstay_model::dump::DumpFormat;
use backstay_model::error::{Classified, ErrorKind};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{
    address, archive, dump, on_each_version, on_each_version_with_sample, options, target, told,
};

#[test]
fn missing_roles_and_extensions_are_all_named_at_once() {
    on_each_version(|installation, server| {
        server
            .sql_in(
                "postgres",
                "CREATE ROLE owner_one; CREATE ROLE \"Reader two\"; CREATE ROLE maker; CREATE ROLE guest;
                 CREATE TABLE t (n int); ALTER TABLE t OWNER TO owner_one; GRANT SELECT ON t TO \"Reader two\";
                 ALTER DEFAULT PRIVILEGES FOR ROLE maker GRANT SELECT ON TABLES TO owner_one;
                 CREATE POLICY p ON t TO guest USING (true);
                 CREATE EXTENSION pg_trgm;
                 ALTER ROLE guest LOGIN PASSWORD 'pass;word'; ALTER ROLE maker SET work_mem = '7MB';
                 GRANT maker TO guest; GRANT pg_monitor TO maker; COMMENT ON ROLE maker IS 'it''s; one';",
            )
            .unwrap();
        let far = server.workspace().directory("far").unwrap();
        std::os::unix::fs::chown(&far, Some(owner_of(server.data_directory())), None).unwrap();
        server.sql(&format!("CREATE TABLESPACE \"far away\" LOCATION '{}'", far.display())).unwrap();
        let other = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
        drive::runtime().block_on(async {
            let dumped = dump(&address(&server, "postgres"), &options(installation)).await.unwrap();
            let archive = archive(&dumped.bytes);
            let target = target(installation, &other).await;
            let known = DumpNeeds {
                extensions: [
                    ("pg_trgm".to_owned(), Some("0.1".to_owned())),
                    ("of another database".to_owned(), Some("1".to_owned())),
                ]
                .into(),
                ..DumpNeeds::default()
            };
            let mut needs = known.clone().and_archive(&archive, &archive.entries, true, true);
            assert_eq!(needs.extensions.keys().collect::<Vec<_>>(), ["pg_trgm"]);
            needs.extensions.insert("nobody_has_it".to_owned(), Some("1.0".to_owned()));
            let found = target.preflight(None, &needs).await.unwrap();
            let messages: Vec<&str> = found.refusals.iter().map(|refusal| refusal.message.as_str()).collect();
            assert_eq!(
                messages,
                [
                    "role Reader two, which the dump names, is not there",
                    "role guest, which the dump names, is not there",
                    "role maker, which the dump names, is not there",
                    "role owner_one, which the dump names, is not there",
                    "extension nobody_has_it 1.0, which the dump makes, is not installed at the server",
                ]
            );
            assert!(found.refusals[0].hints[0].contains("`CREATE ROLE \"Reader two\"`"));
            assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
            assert!(found.findings[0].message.starts_with("is 0.1 in the dump and will be 1."));
            let none = known.and_archive(&archive, &archive.entries, false, false);
            let found = target.preflight(None, &none).await.unwrap();
            // A policy names its roles whoever owns it.
            assert_eq!(found.refusals, []);

            let cancel = CancellationToken::new();
            let (_, mut run) =
                globals(&address(&server, "postgres"), &options(installation), &cancel).await.unwrap();
            let mut script = Vec::new();
            while let Some(chunk) = run.next().await.unwrap() {
                script.extend_from_slice(&chunk);
            }
            let script = String::from_utf8(script).unwrap();
            other.sql("ALTER ROLE postgres SET work_mem = '9MB'").unwrap();
            let made = target.reload_globals(&script).await.unwrap();
            assert_eq!(made.made, ["role Reader two", "role guest", "role maker", "role owner_one"]);
            assert_eq!(made.left, ["role postgres"]);
            assert_eq!(made.findings.len(), 1, "{:?}", made.findings);
            assert_eq!(made.findings[0].subject, "tablespace far away");
            let of = "SELECT rolname, rolcanlogin, rolconfig, rolpassword IS NOT NULL FROM pg_authid a \
                      LEFT JOIN pg_db_role_setting ON false, LATERAL (SELECT rolconfig FROM pg_roles r \
                      WHERE r.oid = a.oid) c WHERE rolname IN ('guest', 'maker', 'owner_one') ORDER BY 1";
            assert_eq!(other.query_value(of).unwrap(), server.query_value(of).unwrap());
            let kept = "SELECT rolconfig FROM pg_roles WHERE rolname = 'postgres'";
            assert_eq!(other.query_value(kept).unwrap(), "{work_mem=9MB}");
            let member = "SELECT pg_has_role('guest', 'maker', 'MEMBER')";
            assert_eq!(other.query_value(member).unwrap(), "t");
            assert_eq!(target.preflight(None, &needs).await.unwrap().refusals.len(), 1, "the extension");
            let again = target.reload_globals(&script).await.unwrap();
            assert_eq!((again.made.len(), again.left.len()), (0, 5));
            other.sql("DROP ROLE owner_one, \"Reader two\", maker, guest").unwrap();

            // A role that is no superuser is told whom it cannot make owners.
            other
                .sql(
                    "CREATE ROLE owner_one; CREATE ROLE \"Reader two\"; CREATE ROLE maker; CREATE ROLE guest",
                )
                .unwrap();
            other.create_role("modest", "secret", "").unwrap();
            let modest = drive::settings_as(&other, "modest", "secret").address().unwrap();
            let modest = backstay_engine::postgres::reload::ReloadTarget::open(&modest, None).await.unwrap();
            needs.extensions.clear();
            let found = modest.preflight(None, &needs).await.unwrap();
            assert_eq!(found.refusals.len(), 1);
            assert_eq!(found.refusals[0].message, "role modest may not make databases");
            assert_eq!(modest.preflight(Some("postgres"), &needs).await.unwrap().refusals, []);
            let subjects: Vec<&str> = found.findings.iter().map(|finding| finding.subject.as_str()).collect();
            assert!(subjects.contains(&"role owner_one"), "{subjects:?}");
        });
    });
}

fn owner_of(path: &std::path::Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap())
}

#[test]
fn a_dump_of_a_newer_server_is_refused_by_an_older_one() {
    let (Some(old), Some(new)) =
        (require_postgres(PostgresVersion::V15), require_postgres(PostgresVersion::V17))
    else {
        return;
    };
    let older = Postgres::start_new(&old, &PostgresOptions::default()).unwrap();
    let newer = Postgres::start_new(&new, &PostgresOptions::default()).unwrap();
    for server in [&older, &newer] {
        server.sql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
    }
    drive::runtime().block_on(async {
        let refusals = async |dumped: &[u8], target: &backstay_engine::postgres::reload::ReloadTarget| {
            let archive = archive(dumped);
            let needs = DumpNeeds::default().and_archive(&archive, &archive.entries, true, true);
            target.preflight(None, &needs).await.unwrap().refusals
        };
        let (of_new, of_old) = (
            dump(&address(&newer, "postgres"), &options(&new)).await.unwrap().bytes,
            dump(&address(&older, "postgres"), &options(&old)).await.unwrap().bytes,
        );
        let (to_old, to_new) = (target(&old, &older).await, target(&new, &newer).await);
        let refused = refusals(&of_new, &to_old).await;
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].kind, ErrorKind::Unsupported);
        assert!(refused[0].message.contains("the dump is of PostgreSQL 17"), "{}", refused[0].message);
        assert_eq!(refusals(&of_old, &to_new).await, []);

        // Written by newer clients than the server's, which its own do not read.
        let options = options(&new);
        let by_new = dump(&address(&older, "postgres"), &options).await.unwrap().bytes;
        let refused = refusals(&by_new, &to_old).await;
        assert!(refused[0].message.contains("`pg_dump` 17 wrote the dump"), "{}", refused[0].message);

        // What is not asked first fails, and changes nothing.
        to_old.create_database("anyway", None).await.unwrap();
        let error =
            crate::sample::reload(&to_old, "anyway", &ReloadOptions::default(), &of_new).await.unwrap_err();
        assert!(told(&error).contains("version 1.16"), "{}", told(&error));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(to_old.is_empty("anyway").await.unwrap());
        // And the other way it works.
        to_new.create_database("up", None).await.unwrap();
        crate::sample::reload(&to_new, "up", &ReloadOptions::default(), &of_old).await.unwrap();
        assert_eq!(newer.query_value_in("up", "SELECT n FROM t").unwrap(), "1");
    });
}

#[test]
fn a_plain_dump_cannot_be_chosen_from() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let options = ReloadOptions {
                input: ReloadInput::Statements,
                entries: Some(vec![1]),
                ..ReloadOptions::default()
            };
            let started = ReloadRun::start(&target, "app", &options, &CancellationToken::new()).await;
            let Err(error) = started else { panic!("it started") };
            assert_eq!(error.kind(), ErrorKind::Invalid);
        });
        let options = DumpOptions {
            format: DumpFormat::Plain,
            inside: Some(backstay_engine::postgres::dump::Inside::default()),
            ..options(installation)
        };
        let error = drive::runtime().block_on(dump(&address(&server, "app"), &options)).unwrap_err();
        assert!(error.to_string().contains("`compression`"), "{error}");
    });
}
