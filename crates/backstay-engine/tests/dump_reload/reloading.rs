//! What was dumped comes back, and what broke off does not.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::postgres::dump::DumpOptions;
use backstay_engine::postgres::reload::{
    DirectoryUnpack, ReloadInput, ReloadOptions, ReloadRun, ReloadTarget, RowOffsets,
};
use backstay_model::dump::DumpFormat;
use backstay_model::error::{Classified, ErrorKind};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{
    address, archive, dump, look, on_each_version, on_each_version_with_sample, options, reload, target,
    through, told,
};

#[test]
fn a_database_comes_back_equal_in_every_format() {
    on_each_version_with_sample(|installation, server| {
        let spool = tempfile::tempdir().unwrap();
        let before = look(&server, "app");
        assert!(before.contains("object 4711") && before.contains("orders_customer_fkey"), "{before}");
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            for format in [DumpFormat::Custom, DumpFormat::Plain, DumpFormat::Directory] {
                let options = DumpOptions {
                    format,
                    spool: Some(spool.path().to_owned()),
                    jobs: 2,
                    ..options(installation)
                };
                let dumped = dump(&address(&server, "app"), &options).await.unwrap();
                let name = format!("back {format}");
                let shape =
                    (format == DumpFormat::Custom).then(|| archive(&dumped.bytes).database_shape().unwrap());
                target.create_database(&name, shape.as_ref()).await.unwrap();
                assert!(target.is_empty(&name).await.unwrap());
                match format {
                    DumpFormat::Custom => {
                        reload(&target, &name, &ReloadOptions::default(), &dumped.bytes).await.unwrap();
                    }
                    DumpFormat::Plain => {
                        let input = ReloadInput::Statements;
                        let options = ReloadOptions { input, ..ReloadOptions::default() };
                        reload(&target, &name, &options, &dumped.bytes).await.unwrap();
                    }
                    DumpFormat::Directory => {
                        let size = dumped.bytes.len() as u64;
                        let mut unpack = DirectoryUnpack::begin(spool.path(), size).unwrap();
                        for piece in dumped.bytes.chunks(77_777) {
                            unpack.write(Bytes::copy_from_slice(piece)).await.unwrap();
                        }
                        let path = unpack.finish().await.unwrap();
                        let input = ReloadInput::Lying { path, jobs: 2 };
                        let options = ReloadOptions { input, ..ReloadOptions::default() };
                        reload(&target, &name, &options, &[]).await.unwrap();
                    }
                    DumpFormat::Rdb | DumpFormat::Influxdb | DumpFormat::AppendOnly => {
                        panic!("{format} is of another engine")
                    }
                }
                assert!(!target.is_empty(&name).await.unwrap());
                let analysed =
                    target.analyze(&name, 2, Duration::from_secs(60), &CancellationToken::new()).await;
                assert_eq!(analysed.unwrap(), []);
                assert_eq!(look(&server, &name), before, "{format}");
                let findings = target
                    .check_foreign_keys(&name, &[], Duration::from_secs(60), &CancellationToken::new())
                    .await
                    .unwrap();
                assert_eq!(findings, []);
            }
            assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
        });
    });
}

#[test]
fn the_rows_are_found_where_pg_dump_says_when_it_writes_a_file() {
    on_each_version_with_sample(|_, server| {
        let place = tempfile::tempdir().unwrap();
        // The programs of the server run as its owner.
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = place.path().join("app.dump");
        for compress in ["--compress=0", "--compress=6"] {
            let dump = || {
                let mut command = server.tool("pg_dump");
                command.args(["--format=custom", compress, "--dbname=app"]);
                command
            };
            assert!(dump().arg("--file").arg(&path).status().unwrap().success());
            let into_file = std::fs::read(&path).unwrap();
            let mut piped = dump().output().unwrap().stdout;
            let unknown = piped.clone();
            let mut offsets = RowOffsets::of(&archive(&piped));
            piped.chunks(10_007).for_each(|piece| offsets.push(piece));
            let patches = offsets.finish();
            assert!(patches.len() > 8, "{patches:?}");
            for patch in &patches {
                let at = patch.at as usize..patch.at as usize + patch.bytes.len();
                piped[at.clone()].copy_from_slice(&patch.bytes);
                assert_eq!(piped[at.clone()], into_file[at], "{compress}");
            }
            // The second in which a dump began is in its head, and nothing else differs.
            let differ = |a: &[u8], b: &[u8]| a.iter().zip(b).skip(64).filter(|(a, b)| a != b).count();
            assert_eq!((piped.len(), differ(&piped, &into_file)), (into_file.len(), 0), "{compress}");
            assert!(differ(&unknown, &into_file) > patches.len());
        }
    });
}

#[test]
fn the_contents_that_are_read_are_those_that_pg_restore_lists() {
    on_each_version_with_sample(|installation, server| {
        server.sql_in("app", "CREATE ROLE reader; GRANT SELECT ON orders TO reader").unwrap();
        let dumped =
            drive::runtime().block_on(dump(&address(&server, "app"), &options(installation))).unwrap();
        let archive = archive(&dumped.bytes);
        let listed = through(&server, "pg_restore", &["--list"], &dumped.bytes);
        let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with(';')).collect();
        assert!(listed.len() > 30, "{listed:?}");
        for line in &listed {
            let (id, rest) = line.split_once("; ").unwrap();
            let entry = archive.entries.iter().find(|entry| entry.id.to_string() == id).unwrap();
            let shown =
                [entry.schema.as_deref().unwrap_or("-"), &entry.name, entry.owner.as_deref().unwrap_or("")];
            let end = format!("{} {}", entry.kind, shown.join(" "));
            assert!(rest.ends_with(&end), "{rest:?} and {end:?}");
        }
        assert_eq!(archive.server_version, dumped.facts.server_version);
        assert_eq!(archive.tool_version, dumped.facts.tool_version);
        assert_eq!(archive.grantees(&archive.entries).into_iter().collect::<Vec<_>>(), ["reader"]);
        let owners: Vec<String> = archive.owners(&archive.entries).into_iter().collect();
        assert!(owners.contains(&"postgres".to_owned()), "{owners:?}");
    });
}

#[test]
fn settings_and_locale_of_a_database_come_back_under_another_name() {
    on_each_version(|installation, server| {
        server
            .sql(
                "CREATE DATABASE \"Old one\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
                 CREATE ROLE app;
                 ALTER DATABASE \"Old one\" SET search_path = a, \"B c\";
                 ALTER ROLE app IN DATABASE \"Old one\" SET work_mem = '7MB';
                 REVOKE ALL ON DATABASE \"Old one\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"Old one\" TO app;",
            )
            .unwrap();
        server.sql_in("Old one", "CREATE TABLE public.t AS SELECT U&'\\00fc' AS x").unwrap();
        let of = |name: &str| {
            server
                .query_value(&format!(
                    "SELECT pg_encoding_to_char(encoding), datcollate, datacl, \
                     (SELECT string_agg(setrole::regrole || setconfig::text, ' ' ORDER BY 1) \
                      FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '{name}'"
                ))
                .unwrap()
        };
        drive::runtime().block_on(async {
            let dumped = dump(&address(&server, "Old one"), &options(installation)).await.unwrap();
            let target = target(installation, &server).await;
            let archive = archive(&dumped.bytes);
            target.create_database("new", archive.database_shape().as_ref()).await.unwrap();
            reload(&target, "new", &ReloadOptions::default(), &dumped.bytes).await.unwrap();
            target.apply_settings("new", &archive).await.unwrap();
            assert_eq!(of("new"), of("Old one"));
            assert!(of("new").starts_with("LATIN1|C|") && of("new").contains("B c"), "{}", of("new"));
            assert_eq!(server.query_value_in("new", "SELECT x = U&'\\00fc' FROM public.t").unwrap(), "t");
            let error = target.create_database("new", None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            target.drop_database("new").await.unwrap();
            assert!(!target.has_database("new").await.unwrap());
        });
    });
}

#[test]
fn what_is_cut_off_leaves_nothing_behind() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            for (format, input) in
                [(DumpFormat::Custom, ReloadInput::Archive), (DumpFormat::Plain, ReloadInput::Statements)]
            {
                let options = DumpOptions { format, ..options(installation) };
                let dumped = dump(&address(&server, "app"), &options).await.unwrap();
                let name = format!("cut_{format}");
                target.create_database(&name, None).await.unwrap();
                let options = ReloadOptions { input, ..ReloadOptions::default() };
                // In the middle of a table's rows, and just before the end.
                for end in [dumped.bytes.len() / 2, dumped.bytes.len() - 200] {
                    let error = reload(&target, &name, &options, &dumped.bytes[..end]).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{format} cut at {end}: {}", told(&error));
                    assert!(target.is_empty(&name).await.unwrap(), "{format} cut at {end}");
                }
                // Whoever does not finish, nor closes the input, has not ended a dump either.
                let cancel = CancellationToken::new();
                let mut run = ReloadRun::start(&target, &name, &options, &cancel).await.unwrap();
                run.write(&Bytes::copy_from_slice(&dumped.bytes[..dumped.bytes.len() / 2])).await.unwrap();
                drop(run);
                let mut run = ReloadRun::start(&target, &name, &options, &cancel).await.unwrap();
                cancel.cancel();
                let written = run.write(&Bytes::from(dumped.bytes.clone())).await;
                assert!(matches!(written, Err(Error::Cancelled)));
                drop(run);
                testkit::wait_until(Duration::from_secs(20), "the sessions to end", || {
                    let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
                    server.query_value(&asked).unwrap() == "0"
                })
                .unwrap();
                assert!(target.is_empty(&name).await.unwrap());
            }
            let error = reload(&target, "cut_custom", &ReloadOptions::default(), b"nothing like it").await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
        });
    });
}

#[test]
fn what_is_there_already_is_named_and_stays_as_it_is() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let before = look(&server, "app");
            for (format, input) in
                [(DumpFormat::Custom, ReloadInput::Archive), (DumpFormat::Plain, ReloadInput::Statements)]
            {
                let options = DumpOptions { format, ..options(installation) };
                let dumped = dump(&address(&server, "app"), &options).await.unwrap();
                let options = ReloadOptions { input, ..ReloadOptions::default() };
                let error = reload(&target, "app", &options, &dumped.bytes).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert!(told(&error).contains("already exists"), "{}", told(&error));
                assert_eq!(look(&server, "app"), before);
            }
        });
    });
}

#[test]
fn a_server_that_dies_under_a_reload_is_an_error() {
    on_each_version_with_sample(|installation, mut server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let dumped = dump(&address(&server, "app"), &options(installation)).await.unwrap();
            target.create_database("back", None).await.unwrap();
            let cancel = CancellationToken::new();
            let options = ReloadOptions::default();
            let mut run = ReloadRun::start(&target, "back", &options, &cancel).await.unwrap();
            let (first, second) = dumped.bytes.split_at(dumped.bytes.len() / 2);
            run.write(&Bytes::copy_from_slice(first)).await.unwrap();
            server.kill9().unwrap();
            let error = match run.write(&Bytes::copy_from_slice(second)).await {
                Err(error) => error,
                Ok(()) => run.finish().await.unwrap_err(),
            };
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
            // Killed while it made an unlogged table, PostgreSQL 17 may end its recovery with "could not
            // create file … File exists"; the next one clears that away.
            if server.start().is_err() {
                server.start().unwrap();
            }
            assert!(target.is_empty("back").await.unwrap());
        });
    });
}

#[test]
fn a_role_that_is_no_superuser_restores_what_it_may_own() {
    on_each_version_with_sample(|installation, server| {
        server.create_role("modest", "secret", "CREATEDB").unwrap();
        let settings = drive::settings_as(&server, "modest", "secret");
        let modest = settings.address().unwrap();
        drive::runtime().block_on(async {
            let dumped = dump(&address(&server, "app"), &options(installation)).await.unwrap();
            let target = ReloadTarget::open(&modest, Some(installation.bin_directory())).await.unwrap();
            target.create_database("own", None).await.unwrap();
            let without = ReloadOptions { owners: false, privileges: false, ..ReloadOptions::default() };
            let triggers_off = ReloadOptions { triggers_off: true, ..without.clone() };
            let error = reload(&target, "own", &triggers_off, &dumped.bytes).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
            assert!(error.hints()[0].contains("`GRANT SET ON PARAMETER"), "{:?}", error.hints());
            let error = reload(&target, "own", &ReloadOptions::default(), &dumped.bytes).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{}", told(&error));
            assert!(target.is_empty("own").await.unwrap());
            reload(&target, "own", &without, &dumped.bytes).await.unwrap();
            assert_eq!(look(&server, "own"), look(&server, "app"));
            let owners =
                "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'Odd.Sch')";
            assert_eq!(server.query_value_in("own", owners).unwrap(), "modest");
        });
    });
}
