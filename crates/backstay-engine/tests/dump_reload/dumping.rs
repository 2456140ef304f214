//! What comes out of a dump.

use backstay_engine::postgres::dump::{DumpOptions, DumpSource, Inside, RelationName, databases, globals};
use backstay_model::dump::DumpFormat;
use backstay_model::error::{Classified, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{address, dump, on_each_version, on_each_version_with_sample, options, through, told};

#[test]
fn a_dump_says_what_it_holds_and_where_it_was_taken() {
    on_each_version_with_sample(|installation, server| {
        let dumped =
            drive::runtime().block_on(dump(&address(&server, "app"), &options(installation))).unwrap();
        let facts = &dumped.facts;
        assert_eq!((facts.database.as_str(), facts.major()), ("app", installation.version.major()));
        let identifier = server.query_value("SELECT system_identifier FROM pg_control_system()").unwrap();
        assert_eq!(facts.system_identifier.unwrap().to_string(), identifier);
        assert!(facts.position.as_ref().is_some_and(|position| position.contains('/')));
        assert!(facts.database_bytes > Some(1 << 20));
        assert!(facts.extensions.contains_key("plpgsql"));
        assert_eq!(facts.tables_in_all, facts.tables.len() as u64);
        let orders = facts.tables.iter().find(|table| table.name == "orders").unwrap();
        assert_eq!((orders.schema.as_str(), orders.estimated_rows), ("public", Some(9000)));
        assert!(orders.bytes > 100_000, "{}", orders.bytes);
        let strange =
            facts.tables.iter().find(|table| table.schema == "Odd.Sch" && table.name != "a").unwrap();
        assert_eq!(strange.estimated_rows, None, "nobody analysed it");
        assert!(facts.tables.is_sorted_by_key(|table| std::cmp::Reverse(table.bytes)));
        assert_eq!(dumped.warnings, []);
        assert!(dumped.bytes.starts_with(b"PGDMP"));
        assert!(
            through(&server, "pg_restore", &["--list"], &dumped.bytes).contains("TABLE DATA public orders")
        );
    });
}

#[test]
fn a_dump_shows_the_moment_of_its_snapshot_whatever_happens_meanwhile() {
    on_each_version_with_sample(|installation, server| {
        let address = address(&server, "app");
        let options = DumpOptions {
            format: DumpFormat::Plain,
            tables: vec!["audit".parse().unwrap()],
            ..options(installation)
        };
        drive::runtime().block_on(async {
            let source = DumpSource::open(&address, &options, &CancellationToken::new()).await.unwrap();
            server.sql_in("app", "INSERT INTO audit VALUES ('too late for it')").unwrap();
            let mut run = source.run().await.unwrap();
            let mut text = Vec::new();
            while let Some(chunk) = run.next().await.unwrap() {
                text.extend_from_slice(&chunk);
            }
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("COPY public.audit") && !text.contains("too late for it"));
            // And the session does not linger.
            testkit::wait_until(std::time::Duration::from_secs(20), "the snapshot to be let go", || {
                let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backstay'";
                server.query_value(asked).unwrap() == "0"
            })
            .unwrap();
        });
    });
}

#[test]
fn a_directory_comes_as_one_archive_and_its_spool_is_gone() {
    on_each_version_with_sample(|installation, server| {
        let spool = tempfile::tempdir().unwrap();
        for inside in [None, Some(Inside { level: Some(1) })] {
            let options = DumpOptions {
                format: DumpFormat::Directory,
                jobs: 2,
                inside,
                spool: Some(spool.path().to_owned()),
                ..options(installation)
            };
            let dumped = drive::runtime().block_on(dump(&address(&server, "app"), &options)).unwrap();
            assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the spool is empty again");
            let unpacked = server.workspace().directory(&format!("unpacked-{}", inside.is_some())).unwrap();
            tar::Archive::new(dumped.bytes.as_slice()).unpack(&unpacked).unwrap();
            let listed = installation.tool("pg_restore").arg("--list").arg(&unpacked).output().unwrap();
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            assert!(listed.contains("TABLE DATA public orders"), "{listed}");
            let packed = std::fs::read_dir(&unpacked)
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_string_lossy().ends_with(".dat.gz"));
            assert_eq!(packed, inside.is_some());
        }
    });
}

#[test]
fn a_chosen_name_is_that_name_and_brings_its_partitions_along() {
    on_each_version_with_sample(|installation, server| {
        let text_of = |tables: &[RelationName], schemas: &[&str]| {
            let options = DumpOptions {
                format: DumpFormat::Plain,
                tables: tables.to_vec(),
                schemas: schemas.iter().map(|schema| (*schema).to_owned()).collect(),
                ..options(installation)
            };
            drive::runtime()
                .block_on(dump(&address(&server, "app"), &options))
                .map(|dumped| (String::from_utf8(dumped.bytes).unwrap(), dumped.facts))
        };
        let odd = RelationName::new("Odd.Sch", "a.b\"*?'; DROP");
        let (text, facts) = text_of(&[odd, "days".parse().unwrap()], &[]).unwrap();
        assert!(text.contains(r#"COPY "Odd.Sch"."a.b""*?'; DROP""#), "{text}");
        assert!(text.contains("COPY public.days_1") && text.contains("COPY public.days_2"), "{text}");
        assert!(!text.contains("orders") && !text.contains(r#""Odd.Sch".a "#), "{text}");
        assert_eq!(facts.tables_in_all, 3);

        let (text, facts) = text_of(&[], &["Odd.Sch"]).unwrap();
        assert!(text.contains(r#"CREATE SCHEMA "Odd.Sch""#) && !text.contains("public.orders"), "{text}");
        assert_eq!(facts.tables_in_all, 2);

        for (tables, schemas, kind, words) in [
            (vec!["Orders"], vec![], ErrorKind::NotFound, "no table is called Orders"),
            (vec!["ord*"], vec![], ErrorKind::NotFound, "no table is called ord*"),
            (vec!["nowhere.orders"], vec![], ErrorKind::NotFound, "no table is called nowhere.orders"),
            (vec![], vec!["odd.sch"], ErrorKind::NotFound, "no schema is called odd.sch"),
            (vec!["orders"], vec!["public"], ErrorKind::Invalid, "tables and schemas"),
        ] {
            let tables: Vec<RelationName> = tables.iter().map(|name| name.parse().unwrap()).collect();
            let error = text_of(&tables, &schemas).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(told(&error).contains(words), "{}", told(&error));
            assert!(!error.hints().is_empty());
        }
        let near = text_of(&["Orders".parse().unwrap()], &[]).unwrap_err().hints();
        assert!(near[0].contains("`--table 'public.orders'`"), "{near:?}");
        server.sql_in("app", "CREATE TABLE \"Odd.Sch\".orders (n int)").unwrap();
        let error = text_of(&["orders".parse().unwrap()], &[]).unwrap_err();
        assert!(error.to_string().contains("\"Odd.Sch\".orders, public.orders"), "{error}");
    });
}

#[test]
fn a_cluster_has_its_globals_and_each_database_that_lets_connections_in() {
    on_each_version(|installation, server| {
        server.sql("CREATE DATABASE \"odd = 'name'\"").unwrap();
        server.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false").unwrap();
        server.create_role("somebody", "secret", "CREATEDB").unwrap();
        server.create_role("modest", "secret", "").unwrap();
        drive::runtime().block_on(async {
            let found = databases(&address(&server, "postgres")).await.unwrap();
            assert_eq!(found, ["odd = 'name'", "postgres"]);
            dump(&address(&server, "odd = 'name'"), &options(installation)).await.unwrap();
            let all = async |address: &backstay_engine::postgres::settings::Address| {
                let cancel = CancellationToken::new();
                let (facts, mut run) = globals(address, &options(installation), &cancel).await.unwrap();
                let mut text = Vec::new();
                while let Some(chunk) = run.next().await.unwrap() {
                    text.extend_from_slice(&chunk);
                }
                assert_eq!(facts.tables, []);
                (String::from_utf8(text).unwrap(), run.warnings())
            };
            let (text, warnings) = all(&address(&server, "postgres")).await;
            assert!(text.contains("CREATE ROLE somebody") && text.contains("SCRAM-SHA-256"), "{text}");
            assert_eq!(warnings, []);
            let modest = drive::settings_as(&server, "modest", "secret").address().unwrap();
            let (text, warnings) = all(&modest).await;
            assert!(text.contains("CREATE ROLE somebody") && !text.contains("SCRAM-SHA-256"), "{text}");
            assert!(warnings[0].message.contains("without their passwords"), "{warnings:?}");
        });
    });
}

#[test]
fn a_standby_is_dumped_without_what_it_has_no_rows_of() {
    on_each_version_with_sample(|installation, server| {
        let standby = server.standby().unwrap();
        standby.wait_for_replay_of(&server).unwrap();
        let options = DumpOptions { format: DumpFormat::Plain, ..options(installation) };
        let dumped = drive::runtime().block_on(dump(&address(&standby, "app"), &options)).unwrap();
        assert!(dumped.facts.in_recovery && dumped.facts.position.is_some());
        let text = String::from_utf8(dumped.bytes).unwrap();
        assert!(
            text.contains("COPY public.orders") && text.contains("CREATE UNLOGGED TABLE public.fleeting")
        );
        assert!(!text.contains("COPY public.fleeting"));
    });
}

#[test]
fn a_password_and_the_certificate_of_the_server_are_the_childs_too() {
    on_each_version_with_sample(|installation, server| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        server.write_data_file("server.crt", made.cert.pem().as_bytes(), 0o644).unwrap();
        server.write_data_file("server.key", made.signing_key.serialize_pem().as_bytes(), 0o600).unwrap();
        let root = server.workspace().path().join("root.pem");
        std::fs::write(&root, made.cert.pem()).unwrap();
        server.append_configuration(&["ssl = on"]).unwrap();
        server.reload().unwrap();
        server.prepend_access_rules(&["hostnossl all all all reject"]).unwrap();
        let encrypted = |root: Option<&std::path::Path>, mode: &str| {
            let url = format!("postgresql://postgres@localhost:{}/app?sslmode={mode}", server.port());
            let mut settings = drive::superuser_over_tcp(&server);
            settings.url = url;
            settings.ssl_root_certificate = root.map(std::path::Path::to_owned);
            settings.address().unwrap()
        };
        drive::runtime().block_on(async {
            for mode in ["require", "verify-full"] {
                let address = encrypted(Some(&root), mode);
                assert!(dump(&address, &options(installation)).await.unwrap().bytes.len() > 100_000);
            }
        });
    });
}
