//! Portable dumps as a person takes them, opened without Backstay.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use testkit::postgres::{PASSWORD, SUPERUSER, StopMode};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_tampering};

use super::lasting::Lasting;
use super::program::{Home, run, server, server_of};
use super::space::on_small_file_system;

pub const PHRASE: &str = "correct horse, battery's staple";

/// A server, and a home whose dumps go to `dumps`.
pub fn dumping(server: &Postgres) -> Home {
    let home = Home::new();
    home.init();
    home.add("orders", server, SUPERUSER, PASSWORD, false);
    std::fs::write(home.path("phrase"), PHRASE).unwrap();
    home.append(&format!(
        "environment = \"production\"\n\n[dump]\nto = \"file://{}\"\nlayout = \"tiers\"\n\
         passphrase = {{ file = \"phrase\" }}\n",
        home.path("dumps").display()
    ));
    home
}

/// As [`dumping`], with one file of each dump also on Sundays and on the first of a month.
pub fn dumping_daily(server: &Postgres) -> Home {
    let home = dumping(server);
    home.append("name = \"daily/{database}_{time:%Y%m%d_%H%M%S}.{ext}\"\n");
    home
}

/// Every file below a directory that a listing shows, in order.
pub fn shown(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            match () {
                () if is_hidden => {}
                () if path.is_dir() => directories.push(path),
                () => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// A script in the place of a person who has no Backstay, with the server's programs.
pub fn without_backstay(server: &Postgres, home: &Home, script: &str) -> String {
    let path = std::env::join_paths(
        std::iter::once(server.installation().bin_directory().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(home.path(".")).env("PATH", path.unwrap());
    command.env("PGHOST", server.socket_directory()).env("PGPORT", server.port().to_string());
    command.env("PGUSER", SUPERUSER).env("GNUPGHOME", home.path("gnupg")).stdin(Stdio::null());
    run(&mut command).good().out
}

#[test]
fn a_dump_in_every_form_comes_back_with_the_programs_of_others() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = dumping(&server);
        server.sql("CREATE DATABASE \"Käufe 2026\"").unwrap();
        let table = "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 20000) g";
        server.sql_in("Käufe 2026", table).unwrap();
        std::fs::create_dir(home.path("gnupg")).unwrap();
        let openssl = "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:phrase";
        let gpg = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --decrypt";
        for (number, (words, way)) in [
            (&["--compress", "inside"][..], "pg_restore -d back FILE".to_owned()),
            (&["--compress", "zstd:1"], "zstd -dc FILE | pg_restore -d back".to_owned()),
            (&["--format", "plain", "--compress", "gzip:6"], "gunzip -c FILE | psql -qX back".to_owned()),
            (&["--encrypt", "openssl"], format!("{openssl} -in FILE | zstd -dc | pg_restore -d back")),
            (
                &["--format", "plain", "--encrypt", "openpgp"],
                format!("{gpg} FILE | zstd -dc | psql -qX back"),
            ),
            (
                &["--format", "directory", "--jobs", "2", "--compress", "gzip"],
                "mkdir unpacked; tar -xzf FILE -C unpacked; pg_restore -j2 -Fd -d back unpacked; rm -r unpacked"
                    .to_owned(),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let to = home.path(&format!("dumps-{number}"));
            let mut command = vec!["dump", "orders", "--json", "--database", "Käufe 2026"];
            command.extend(["--to", to.to_str().unwrap()]);
            command.extend(words);
            let told = home.run(command).good().json();
            let dump = &told["dumps"][0];
            assert_eq!((&dump["database"], &dump["environment"]), (&"Käufe 2026".into(), &"production".into()));
            let file = to.join(dump["paths"][0]["path"].as_str().unwrap());
            let stored = std::fs::metadata(&file).unwrap().len();
            assert_eq!(dump["stored_bytes"], stored, "{told}");
            let script = format!(
                "createdb back; {way}; psql -AtX back -c \"SELECT count(*), min(x), max(x) FROM t\"; dropdb back
                 sha256sum FILE"
            )
            .replace("FILE", &format!("'{}'", file.display()));
            let out = without_backstay(&server, &home, &script);
            let question = "SELECT concat_ws('|', count(*), min(x), max(x)) FROM t";
            let expected = server.query_value_in("Käufe 2026", question).unwrap();
            assert!(out.lines().any(|line| line == expected), "{words:?}: {out}");
            assert!(out.contains(dump["sha256"].as_str().unwrap()), "{words:?}: {out}");
            let sidecar = std::fs::read_to_string(format!("{}.meta.json", file.display())).unwrap();
            assert!(sidecar.contains("\"estimated_rows\"") && !sidecar.contains(PHRASE), "{sidecar}");
        }
    }
}

#[test]
fn a_whole_server_is_dumped_with_its_roles_and_nothing_secret_is_told() {
    let Some(server) = server() else { return };
    let home = dumping_daily(&server);
    server.sql("CREATE ROLE clerk LOGIN PASSWORD 'hunter2'").unwrap();
    server.sql("CREATE DATABASE stock").unwrap();
    let ran = home.run(["dump", "orders"]).good();
    for word in ["roles and tablespaces", "of postgres in", "of stock in", "zstd -d | pg_restore"] {
        assert!(ran.out.contains(word), "no {word:?} in {ran:#?}");
    }
    let files = shown(&home.path("dumps"));
    let named = |part: &str| files.iter().filter(|file| file.to_string_lossy().contains(part)).count();
    // A sidecar beside each, and a pointer to each.
    assert_eq!((named("globals_"), named("stock_"), named("latest_")), (2, 2, 3), "{files:#?}");
    let script = "zstd -dc dumps/daily/globals_*.zst | grep -c 'CREATE ROLE clerk'; readlink dumps/latest_stock.dump.zst";
    let out = without_backstay(&server, &home, script);
    assert!(out.starts_with("1\ndaily/stock_"), "{out}");
    let sealed = ["--json", "-vv", "dump", "orders", "--database", "stock", "--encrypt", "openssl"];
    let ran = home.run(sealed).good();
    for secret in [PHRASE, PASSWORD] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:#?}");
    }
}

#[test]
fn what_cannot_be_dumped_is_refused_before_the_first_file() {
    let Some(mut server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE TABLE orders (n int)").unwrap();
    server.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'").unwrap();
    home.add("guest", &server, "guest", "guest", false);
    home.add("gone", &server, SUPERUSER, PASSWORD, false);
    let refused = |words: &[&str], code: i32, told: &[&str]| {
        let ran = home.run([&["dump"], words].concat());
        ran.refused(code, told);
        assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new(), "{words:?}");
    };
    refused(&["orders", "--database", "stock"], 3, &["stock"]);
    refused(&["orders", "--table", "order"], 3, &["order", "orders"]);
    refused(&["orders", "--schema", "sales"], 3, &["sales"]);
    refused(&["orders", "--database", "a", "--database", "b", "--table", "t"], 2, &["--database"]);
    refused(&["orders", "--format", "plain", "--compress", "inside"], 2, &["archives", "dump.compression"]);
    refused(&["orders", "--compress", "zstd:99"], 2, &["99"]);
    refused(&["orders", "--compress", "inside:12"], 2, &["1 to 9"]);
    refused(&["orders", "--layout", "auto-recovery"], 2, &["would both be called", "{database}"]);
    refused(&["orders", "--to", "s3://bucket"], 2, &["dump.to"]);
    refused(&["guest", "--database", "postgres"], 5, &["orders", "GRANT"]);
    // Also where the first files of a set could be taken: its roles, and a database that has nothing.
    server.sql("CREATE DATABASE empty").unwrap();
    refused(&["guest"], 5, &["orders", "GRANT"]);
    server.stop(StopMode::Immediate).unwrap();
    refused(&["gone"], 6, &["connect"]);
    let no_phrase = format!("dump.passphrase.file={}", home.path("no such file").display());
    refused(&["orders", "--set", &no_phrase], 2, &["dump.passphrase", "no such file"]);
}

#[test]
fn a_name_that_is_taken_is_left_to_whom_it_belongs() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    // One dump a day, by its name, and none by hand.
    let name = "dump.name=backup-{time:%Y-%m-%d}.{ext}";
    let words = ["--set", name, "dump", "orders", "--database", "postgres"];
    home.run(words).good();
    let before = shown(&home.path("dumps"));
    let bytes = std::fs::read(&before[0]).unwrap();
    home.run(words).refused(4, &["backup-", "is there already", "dump.name"]);
    assert_eq!((shown(&home.path("dumps")), std::fs::read(&before[0]).unwrap()), (before, bytes));
}

#[test]
fn the_sidecar_says_what_the_dump_is_of_and_holds_no_secret() {
    let Some(server) = server() else { return };
    let home = dumping_daily(&server);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n; ANALYZE t").unwrap();
    home.run(["dump", "orders", "--database", "postgres", "--encrypt", "openssl"]).good();
    let files = shown(&home.path("dumps/daily"));
    let sidecar = files.iter().find(|file| file.to_string_lossy().ends_with(".meta.json")).unwrap();
    let text = std::fs::read_to_string(sidecar).unwrap();
    assert!(!text.contains(PHRASE) && !text.contains(PASSWORD), "{text}");
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let file = sidecar.with_file_name(record["file"].as_str().unwrap());
    assert_eq!(record["stored_bytes"], std::fs::metadata(&file).unwrap().len());
    let sum = without_backstay(&server, &home, &format!("sha256sum < {}", file.display()));
    assert_eq!(record["sha256"].as_str(), sum.split_whitespace().next());
    let system = server.query_value("SELECT system_identifier FROM pg_control_system()").unwrap();
    let version = server.query_value("SHOW server_version").unwrap();
    for (field, expected) in [
        ("instance", "orders"),
        ("environment", "production"),
        ("engine", "postgresql"),
        ("content", "database"),
        ("database", "postgres"),
        ("tier", "daily"),
        ("format", "custom"),
        ("cipher", "openssl"),
        ("system_identifier", &system),
    ] {
        assert_eq!(record[field], expected, "{field}: {record:#}");
    }
    assert!(version.starts_with(record["server_version"].as_str().unwrap()), "{version}: {record:#}");
    assert!(record["position"].as_str().unwrap().contains('/'), "{record:#}");
    for field in ["raw_bytes", "database_bytes", "duration_seconds", "compression_ratio"] {
        assert!(record[field].as_f64().unwrap() > 0.0, "{field}: {record:#}");
    }
    assert_eq!(record["tables"][0]["name"], "t", "{record:#}");
    assert_eq!(record["tables"][0]["estimated_rows"], 1000, "{record:#}");
}

#[test]
fn without_the_programs_of_postgresql_the_package_is_named() {
    let Some(server) = server() else { return };
    let home = dumping_daily(&server);
    let nowhere = home.path("nowhere");
    std::fs::create_dir(&nowhere).unwrap();
    let setting = format!("instance.orders.bin_directory={}", nowhere.display());
    let mut command = home.command(["dump", "orders", "--database", "postgres", "--set", &setting]);
    command.env("PATH", &nowhere);
    let ran = super::program::run(&mut command);
    ran.refused(7, &["pg_dump", "postgresql-client"]);
    assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new());
}

#[test]
fn dumps_that_follow_each_other_within_a_second_wait_for_names_of_their_own() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    for _ in 0..4 {
        home.run(["dump", "orders", "--database", "postgres", "--layout", "plain"]).good();
    }
    let files = shown(&home.path("dumps"));
    assert_eq!(files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "zst")).count(), 4);
}

#[test]
fn a_dump_that_is_killed_or_loses_its_server_leaves_nothing_that_looks_like_one() {
    let Some(server) = server() else { return };
    if !require_tampering() {
        return;
    }
    // As many writes as make one thread come to the one that lasts, however many share them: at
    // the end of the dump it would be that of the sidecar.
    server.pgbench_init(20).unwrap();
    let home = dumping(&server);
    let words = ["dump", "orders", "--database", "postgres", "--compress", "none"];
    let dump = Lasting::from_call(8, &home, "pwrite64", &words);
    assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new());
    dump.signal(Signal::KILL);
    drop(dump);
    assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new());

    let mut child = home.start(words);
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.pgbench_accounts%'";
    let limit = std::time::Duration::from_secs(30);
    testkit::wait_until(limit, "pg_dump to copy", || {
        server.query_value(busy).is_ok_and(|count| count != "0") || child.try_wait().unwrap().is_some()
    })
    .unwrap();
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE query LIKE 'COPY public.pgbench_accounts%'";
    if server.query_value(ended).unwrap() != "0" {
        let ran = super::program::Ran::from(&child.wait_with_output().unwrap());
        ran.refused(6, &["pg_dump", "pgbench_accounts"]);
        assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new());
    }
    home.run(words).good();
}

#[test]
fn a_shelf_that_fills_up_half_way_gets_no_dump_and_keeps_those_it_has() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let noise = "CREATE TABLE noise AS SELECT string_agg(md5(random()::text), '') AS t \
                 FROM generate_series(1, 1000000) g GROUP BY g % 10000";
    server.sql("CREATE DATABASE small").unwrap();
    server.sql("CREATE DATABASE large").unwrap();
    server.sql_in("large", noise).unwrap();
    let place = home.path("dumps");
    let script = format!(
        "b() {{ \"$BACKSTAY\" --config '{config}' dump orders \"$@\"; }}
         b --database small >/dev/null || exit 101
         b --database large; echo \"code=$?\"
         ls '{place}/daily'",
        config = home.config().display(),
        place = place.display(),
    );
    let Some(ran) = on_small_file_system(&place, 8, &script) else { return };
    assert!(ran.out.contains("code=6"), "{ran:#?}");
    assert!(ran.out.contains("small_") && !ran.out.contains("large_"), "{ran:#?}");
    assert!(ran.err.contains("No space left") && ran.err.contains("hint: "), "{ran:#?}");
}
