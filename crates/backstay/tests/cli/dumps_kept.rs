//! Dumps that are kept, as a person sees them: listed, shown, verified and let go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use testkit::postgres::SUPERUSER;
use testkit::{Postgres, require_tampering, tampered};

use super::dumps::{dumping, dumping_daily, shown};
use super::lasting::Lasting;
use super::program::{Home, flip_a_bit, run, server};

/// The only dump of a database, and its file.
fn dump(home: &Home, words: &[&str]) -> (String, PathBuf) {
    let told = home.run([&["dump", "orders", "--json"], words].concat()).good().json();
    let dump = &told["dumps"][0];
    let path = home.path("dumps").join(dump["paths"][0]["path"].as_str().unwrap());
    (dump["id"].as_str().unwrap().to_owned(), path)
}

/// Gives a dump another day, with the name that it would have had then.
fn backdate(path: &Path, day: &str) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (database, rest) = name.split_once('_').unwrap();
    let ext = rest.split_once('.').unwrap().1;
    let renamed = format!("{database}_{}_020000.{ext}", day.replace('-', ""));
    let older = path.with_file_name(&renamed);
    for suffix in ["", ".hmac"] {
        let from = format!("{}{suffix}", path.display());
        if Path::new(&from).exists() {
            std::fs::copy(&from, format!("{}{suffix}", older.display())).unwrap();
        }
    }
    let sidecar = std::fs::read(format!("{}.meta.json", path.display())).unwrap();
    let mut record: Value = serde_json::from_slice(&sidecar).unwrap();
    record["file"] = renamed.into();
    record["id"] = format!("{}T020000Z-7q3f", day.replace('-', "")).into();
    for field in ["started_at", "finished_at"] {
        record[field] = format!("{day}T02:00:00Z").into();
    }
    std::fs::write(format!("{}.meta.json", older.display()), serde_json::to_vec(&record).unwrap()).unwrap();
    older
}

/// Without the times, sizes and paths of this run.
fn told(home: &Home, text: &str, file: &Path, id: &str) -> String {
    let name = file.file_name().unwrap().to_str().unwrap();
    text.replace(home.path("dumps").to_str().unwrap(), "DUMPS").replace(name, "FILE").replace(id, "ID")
}

#[test]
fn dumps_stand_among_the_backups_and_in_a_list_of_their_own() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    assert!(home.run(["list", "--type", "dump"]).good().out.contains("no dumps yet"));
    assert!(home.run(["list"]).good().out.contains("no backups yet"));
    let (id, _) = dump(&home, &["--database", "postgres", "--encrypt", "openssl"]);
    home.run(["backup", "orders"]).good();

    let all = home.run(["list", "--json"]).good().json();
    let types: Vec<_> = all.as_array().unwrap().iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["full", "dump"]);
    let (base, row) = (&all[0], &all[1]);
    for (field, value) in base.as_object().unwrap() {
        let own =
            ["sequence", "restore_amplification", "condemned", "condemned_at", "drill_sound", "wrong_pages"];
        assert!(
            own.contains(&field.as_str()) || !row[field].is_null() || is_nothing(field, value),
            "{field}: {row:#}"
        );
    }
    assert_eq!(
        (row["id"].as_str().unwrap(), &row["encrypted"], &row["database"]),
        (&*id, &true.into(), &"postgres".into())
    );
    assert_eq!(row["tiers"][0]["tier"], "daily");
    let text = home.run(["list"]).good().out;
    assert!(text.contains("custom, zstd, openssl") && text.contains("not verified"), "{text}");
    assert_eq!(home.run(["list", "--type", "base", "--json"]).good().json().as_array().unwrap().len(), 1);

    // Neither the repository nor the pass phrase is needed to see what lies there.
    std::fs::remove_file(home.path("phrase")).unwrap();
    std::fs::remove_dir_all(home.path("store")).unwrap();
    let alone = home.run(["list", "orders", "--type", "dump", "--json"]).good().json();
    assert_eq!((alone.as_array().unwrap().len(), &alone[0]["id"]), (1, &row["id"]));
    assert!(home.run(["show", &id]).good().out.contains("openssl enc -d"));
    home.run(["list", "--type", "dump", "--set", "dump.to=s3://bucket"]).refused(2, &["dump.to"]);
}

/// Dumps have none of these.
fn is_nothing(field: &str, base: &Value) -> bool {
    base.is_null() || ["parent", "timeline", "hold", "verified_at", "drilled_at"].contains(&field)
}

#[test]
fn nobody_who_has_set_no_place_for_dumps_is_told_of_them() {
    let Some((_server, home)) = super::program::protected("orders") else { return };
    home.run(["list", "--type", "dump"]).refused(2, &["nobody said where dumps go", "`dump.to`"]);
    home.run(["backup"]).good();
    for words in [&["list"][..], &["verify"], &["expire", "--dry-run"]] {
        let ran = home.run(words).good();
        assert!(!ran.out.contains("dump") && ran.err.is_empty(), "{ran:#?}");
    }
}

/// What `show` prints, with a person's choices, in a shell that has no Backstay.
fn opened_as_shown(server: &Postgres, home: &Home, id: &str, database: &str) -> String {
    let text = home.run(["show", id]).good().out;
    let (_, commands) = text.split_once("opened without Backstay by\n").unwrap();
    let commands: Vec<&str> = commands.lines().take_while(|line| line.starts_with("    ")).collect();
    let unpacked = home.path("unpacked");
    let script = commands
        .join("\n")
        .replace("PASSPHRASE", home.path("phrase").to_str().unwrap())
        .replace("=DATABASE", &format!("={database}"))
        .replace("createdb DATABASE", &format!("createdb {database}"))
        .replace("DIRECTORY", unpacked.to_str().unwrap());
    let path = std::env::join_paths(
        std::iter::once(server.installation().bin_directory().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    std::fs::create_dir_all(home.path("gnupg")).unwrap();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script]).env("PATH", path.unwrap()).stdin(Stdio::null());
    command.env("PGHOST", server.socket_directory()).env("PGPORT", server.port().to_string());
    command.env("PGUSER", SUPERUSER).env("GNUPGHOME", home.path("gnupg"));
    run(&mut command).good();
    let _ = std::fs::remove_dir_all(unpacked);
    server.query_value_in(database, "SELECT count(*) FROM t").unwrap()
}

#[test]
fn the_commands_that_show_prints_bring_a_database_back() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1234) AS n").unwrap();
    for (number, words) in [
        &["--compress", "inside"][..],
        &["--compress", "zstd"],
        &["--format", "plain", "--compress", "none"],
        &["--format", "plain", "--compress", "gzip", "--encrypt", "openssl"],
        &["--format", "custom", "--encrypt", "openpgp"],
        &["--format", "directory", "--compress", "gzip", "--encrypt", "openssl"],
        &["--format", "directory", "--compress", "none"],
    ]
    .iter()
    .enumerate()
    {
        // A place that a shell would take apart.
        let to = home.path(&format!("it's {number}"));
        let setting = format!("dump.to={}", to.display());
        let told =
            [&["dump", "orders", "--json", "--database", "postgres", "--set", &setting], *words].concat();
        let told = home.run(told).good().json();
        let id = told["dumps"][0]["id"].as_str().unwrap().to_owned();
        home.append(&format!("# {number}\n"));
        let text = std::fs::read_to_string(home.config()).unwrap();
        let line = text.lines().find(|line| line.starts_with("to = ")).unwrap().to_owned();
        std::fs::write(home.config(), text.replace(&line, &format!("to = \"file://{}\"", to.display())))
            .unwrap();
        assert_eq!(opened_as_shown(&server, &home, &id, &format!("back_{number}")), "1234", "{words:?}");
    }
}

#[test]
fn verify_names_the_damaged_dump_and_the_newest_good_one_and_leaves_a_report() {
    let Some(server) = server() else { return };
    let home = dumping_daily(&server);
    let (id, file) = dump(&home, &["--database", "postgres", "--encrypt", "openssl"]);
    let older = backdate(&file, "2026-01-02");
    let sound = home.run(["verify"]).good();
    assert!(sound.out.contains("all: sound") && sound.out.contains(" good "), "{sound:#?}");
    flip_a_bit(&file);
    let ran = home.run(["verify", "orders", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (20, ""), "{ran:#?}");
    let report = ran.json();
    assert_eq!((&report["sound"], &report["dumps"][0]["state"]), (&false.into(), &"damaged".into()));
    let finding =
        &report["findings"].as_array().unwrap().iter().find(|finding| finding["level"] == "error").unwrap();
    assert_eq!(finding["subject"], file.to_str().unwrap());
    assert!(finding["remedy"].as_str().unwrap().contains(older.to_str().unwrap()), "{finding}");
    let latest: Value = serde_json::from_slice(
        &std::fs::read(home.path("dumps/verification/latest_verification.json")).unwrap(),
    )
    .unwrap();
    assert_eq!((&latest["sound"], &latest["files"][0]["state"]), (&false.into(), &"damaged".into()));

    let listed = home.run(["list", "--type", "dump"]).good().out;
    assert!(listed.lines().nth(1).unwrap().contains("damaged, verified"), "{listed}");
    let one = home.run(["verify", &id]);
    assert_eq!(one.code, 20, "{one:#?}");
    assert!(one.out.contains("NOT sound") && one.out.contains("DAMAGED"), "{one:#?}");
    home.run(["verify", "20260102T020000Z-7q3f"]).good();
    home.run(["verify", "20260103T020000Z-7q3f"]).refused(3, &["20260103T020000Z-7q3f"]);

    // With another pass phrase nobody can say.
    std::fs::write(home.path("phrase"), "another one").unwrap();
    let unseen = home.run(["verify", "20260102T020000Z-7q3f"]);
    assert_eq!(unseen.code, 21, "{unseen:#?}");
    assert!(unseen.out.contains("pass phrase is not that of dump") && unseen.out.contains("dump.passphrase"));
    // And where the repository is away, the dumps are looked at all the same.
    std::fs::remove_dir_all(home.path("store")).unwrap();
    let ran = home.run(["verify", "--level", "existence"]);
    assert!(
        [20, 21].contains(&ran.code) && ran.out.contains(older.file_name().unwrap().to_str().unwrap()),
        "{ran:#?}"
    );
}

/// A home in which all dumps but the newest may go: three of them.
fn with_old_dumps(server: &Postgres) -> (Home, PathBuf, Vec<PathBuf>) {
    let home = dumping_daily(server);
    home.append("[dump.keep]\ndaily = { count = 1 }\nweekly = { count = 1 }\nmonthly = { count = 1 }\n");
    let (_, file) = dump(&home, &["--database", "postgres", "--encrypt", "openssl"]);
    let old = ["2026-01-06", "2026-01-07", "2026-01-08"].map(|day| backdate(&file, day));
    (home, file, old.to_vec())
}

#[test]
fn expire_shows_every_file_with_its_reasons_and_does_what_it_said() {
    let Some(server) = server() else { return };
    let (home, file, old) = with_old_dumps(&server);
    let foreign = home.path("dumps/daily/theirs_20200101_000000.sql.gz");
    std::fs::write(&foreign, "theirs").unwrap();
    let before = shown(&home.path("dumps"));
    let dry = home.run(["expire", "--dry-run"]).good().out;
    let reasons = "stays: daily 1 of 1, the last good one";
    assert!(dry.contains(reasons) && dry.contains("1 file of others there: never touched"), "{dry}");
    assert_eq!(dry.lines().filter(|line| line.trim_end().ends_with("goes")).count(), 3, "{dry}");
    let planned = home.run(["expire", "--dry-run", "--json"]).good().json();
    let paths = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|fate| fate["path"].as_str().unwrap().to_owned()).collect()
    };
    let goes = paths(&planned[0]["dumps"]["expire"]);
    assert_eq!((goes.len(), &planned[0]["instance"]), (3, &"orders".into()), "{planned:#}");
    assert_eq!(shown(&home.path("dumps")), before, "a dry run acted");
    let then = home.run(["expire", "--dry-run", "--as-of", "2026-01-07T00:00:00Z", "--json"]).good().json();
    assert_eq!(paths(&then[0]["dumps"]["expire"]), Vec::<String>::new(), "{then:#}");

    let done = home.run(["expire", "--json"]).good().json();
    assert_eq!(paths(&done[0]["dumps"]["expire"]), goes);
    let mut deleted: Vec<&str> =
        done[0]["dumps"]["deleted"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    deleted.reverse();
    assert_eq!(deleted, goes);
    let after = shown(&home.path("dumps"));
    assert!(old.iter().all(|old| !after.contains(old)) && after.contains(&file) && after.contains(&foreign));
    assert_eq!(before.len() - after.len(), 9, "{after:#?}");
    let ran = home.run(["expire"]).good();
    assert!(told(&home, &ran.out, &file, "-").contains("nothing goes"), "{ran:#?}");
}

#[test]
fn a_shelf_that_cannot_be_listed_to_its_end_lets_nothing_go() {
    let Some(server) = server() else { return };
    if !require_tampering() {
        return;
    }
    let (home, _, _) = with_old_dumps(&server);
    let closed = home.path("dumps/weekly");
    std::fs::create_dir_all(&closed).unwrap();
    let before = shown(&home.path("dumps"));
    let failing = |words: &[&str]| {
        let rule = ["getdents64:error=EIO"];
        run(&mut tampered(&home.command(words), "getdents64", &rule, Some(&closed), &home.path("calls")))
    };
    for words in [&["expire"][..], &["expire", "--dry-run"], &["list", "--type", "dump"]] {
        failing(words).refused(6, &["look after the dumps", "Input/output error", "`dump.to`"]);
    }
    assert_eq!(shown(&home.path("dumps")), before);
    let unseen = failing(&["verify", "orders"]);
    assert!(unseen.code == 21 && unseen.out.contains("could not be looked at"), "{unseen:#?}");
    // Nobody has asked for dumps alone: the backups are told of all the same.
    home.run(["backup", "orders"]).good();
    let ran = failing(&["list"]);
    assert!(ran.code == 0 && ran.out.contains("full") && ran.err.contains("Input/output error"), "{ran:#?}");
    home.run(["expire"]).good();
    assert!(shown(&home.path("dumps")).len() < before.len());
}

#[test]
fn expire_that_is_killed_before_any_of_its_calls_loses_nothing_and_is_ended_by_the_next() {
    let Some(server) = server() else { return };
    if !require_tampering() {
        return;
    }
    let days = ["20260106", "20260107", "20260108"];
    let name = |day: &str| format!("postgres_{day}_020000.dump.zst.enc");
    // As the calls name them: what is renamed by its name in its directory, what goes by its path.
    let marks = days.map(|day| ("renameat,renameat2", format!("{}.meta.json", name(day))));
    let removals = days.iter().flat_map(|day| {
        ["", ".hmac", ".meta.json"].map(|suffix| ("unlinkat", format!("daily/{}{suffix}", name(day))))
    });
    for (calls, about) in marks.into_iter().chain(removals) {
        let (home, file, old) = with_old_dumps(&server);
        let rule = format!("{calls} of {about}");
        let expiring = Lasting::at(&home, calls, Path::new(&about), &["expire", "orders"]);
        expiring.signal(Signal::KILL);
        drop(expiring);
        // In between nothing looks lost: what is there is whole, and all of it is known.
        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        let there = std::iter::once(&file).chain(&old).filter(|path| path.exists()).count();
        assert_eq!(listed.as_array().unwrap().len(), there, "{rule}: {:#?}", shown(&home.path("dumps")));
        let seen = home.run(["verify", "orders", "--json"]);
        assert_eq!(seen.json()["dumps"].as_array().unwrap().len(), there, "{rule}: {seen:#?}");
        assert_eq!(seen.code, 0, "{rule}: {seen:#?}");
        home.run(["expire", "orders"]).good();
        let daily = shown(&home.path("dumps/daily"));
        assert_eq!(daily.len(), 3, "{rule}: the newest, its sidecar and its authentication: {daily:#?}");
        assert!(daily.contains(&file));
    }
}

#[test]
fn an_archive_that_no_pg_restore_here_can_list_is_a_warning_and_its_bytes_are_looked_at() {
    let Some(server) = server() else { return };
    let home = dumping_daily(&server);
    let (_, file) = dump(&home, &["--database", "postgres"]);
    home.run(["verify", "orders"]).good();
    let sidecar = PathBuf::from(format!("{}.meta.json", file.display()));
    let text = std::fs::read_to_string(&sidecar).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    // Of a version that nobody has.
    record["tool_version"] = "99.1".into();
    std::fs::write(&sidecar, record.to_string()).unwrap();
    let ran = home.run(["verify", "orders", "--json"]);
    let report = ran.json();
    let findings = report["findings"].as_array().unwrap();
    let told =
        findings.iter().find(|found| found["message"].to_string().contains("contents were not listed"));
    let told = told.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!((&told["level"], ran.code), (&"warning".into(), 20), "{report:#}");
    assert_eq!(report["dumps"][0]["state"], "good", "{report:#}");
    assert!(told["remedy"].as_str().unwrap().contains("`postgresql-client"), "{told:#}");
}
