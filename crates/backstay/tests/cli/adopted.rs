//! What the scripts of others left, made with their own commands, taken in and restored.

use testkit::Postgres;

use super::dumps::{PHRASE, dumping, without_backstay};
use super::program::{Home, on_each_version, server};

const ROWS: &str = "SELECT concat_ws('|', count(*), min(x), max(x)) FROM readings";

/// A layout, and what its scripts ran: `$D` is the directory.
const SCRIPTS: [(&str, &str); 5] = [
    (
        "grill-stats",
        "mkdir -p $D/daily $D/weekly
         pg_dump -Fc shop > $D/daily/shop_20240106_010000.sql.gz
         cp $D/daily/shop_20240106_010000.sql.gz $D/weekly/shop_20240107_010000.sql.gz",
    ),
    (
        "grill-stats-backup",
        "mkdir -p $D/weekly t; pg_dump -Fd -f t/shop shop; tar -cf - -C t/shop . | gzip |
         openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:phrase > $D/postgresql_20240101_020000.tar.gz.enc
         rm -r t; ln -s postgresql_20240101_020000.tar.gz.enc $D/latest_backup.tar.gz.enc",
    ),
    (
        "modulo",
        "mkdir -p $D/full $D/logs; pg_dump shop | gzip > $D/full/modulo_full_20231201_020000.sql.gz
         echo '{\"file\": \"modulo_full\"}' > $D/full/modulo_full_20231201_020000.sql.gz.meta",
    ),
    ("auto-recovery", "mkdir -p $D; pg_dump shop | gzip > $D/backup_20250613_180002.sql.gz; echo x > $D/backup.log"),
    (
        "save-it-ai",
        "mkdir -p $D; pg_dump shop | gzip > backup.sql.gz
         gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --symmetric --cipher-algo AES256 \
             -o $D/backup-2024-01-24.sql.gz.gpg backup.sql.gz",
    ),
];

fn left_by(server: &Postgres, home: &Home, script: &str, directory: &str) {
    let script = script.replace("$D", &format!("'{}'", home.path(directory).display()));
    without_backstay(server, home, &script);
}

#[test]
fn the_directory_of_each_runbook_is_adopted_and_gives_its_database_back() {
    on_each_version(|server| {
        let home = dumping(server);
        server.sql("CREATE DATABASE shop").unwrap();
        let table =
            "CREATE TABLE readings AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 3000) g";
        server.sql_in("shop", table).unwrap();
        std::fs::create_dir(home.path("gnupg")).unwrap();
        let expected = server.query_value_in("shop", ROWS).unwrap();
        for (layout, script) in SCRIPTS {
            left_by(server, &home, script, layout);
            let at = home.path(layout);
            let to = format!("dump.to=file://{}", at.display());
            let ordered = format!("dump.layout={layout}");
            let with = |words: &[&str]| home.run([&["--set", &to, "--set", &ordered], words].concat());
            let before = super::dumps::shown(&at);
            let planned = with(&["adopt", at.to_str().unwrap(), "--dry-run"]).good();
            assert!(planned.out.contains("would be adopted"), "{layout}: {planned:#?}");
            assert_eq!(super::dumps::shown(&at), before, "{layout}");
            let told = with(&["adopt", at.to_str().unwrap(), "--json"]).good().json();
            let file = &told["files"][0];
            assert_eq!(file["fate"], "adopted", "{layout}: {told}");
            let record = &file["record"];
            let day = record["finished_at"].as_str().unwrap();
            assert!(
                before.iter().any(|path| path.to_string_lossy().contains(&day[..10].replace('-', "")))
                    || day.starts_with("2024-01-24"),
                "{layout}: {day}"
            );
            let again = with(&["adopt", at.to_str().unwrap(), "--json"]).good().json();
            assert_eq!(again["files"][0]["fate"], "known", "{layout}: {again}");

            let (id, copy) = (record["id"].as_str().unwrap(), format!("from_{}", layout.replace('-', "_")));
            with(&["restore", "orders", "--backup", id, "--into-database", &copy]).good();
            assert_eq!(server.query_value_in(&copy, ROWS).unwrap(), expected, "{layout}");
        }
        // One table, of an archive.
        let to = format!("dump.to=file://{}", home.path("grill-stats").display());
        let words =
            ["--set", &to, "--set", "dump.layout=grill-stats", "restore", "orders", "--database", "shop"];
        home.run([&words[..], &["--into-database", "one", "--table", "readings"]].concat()).good();
        assert_eq!(server.query_value_in("one", ROWS).unwrap(), expected);
    });
}

#[test]
fn what_is_damaged_closed_or_of_another_kind_is_told_and_gets_no_sidecar() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let script = "mkdir -p $D; pg_dump postgres | gzip > $D/good.sql.gz
                  head -c 300 $D/good.sql.gz > $D/cut.sql.gz; echo hello > $D/notes.txt
                  pg_dump postgres | head -n 12 | gzip > $D/died.sql.gz
                  cp $D/good.sql.gz $D/again.sql.gz; createdb other; psql -qX other -c 'CREATE TABLE t (n int)'
                  pg_dump -Fc --schema-only other > $D/part.dump
                  printf 'REDIS0011' > $D/dump.rdb; pg_dumpall > $D/all.sql
                  openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass pass:another < $D/good.sql.gz > $D/closed.enc";
    left_by(&server, &home, script, "left");
    let ran = home.run(["adopt", home.path("left").to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    let fate = |name: &str| {
        let files = told["files"].as_array().unwrap();
        files.iter().find(|file| file["path"] == name).map(|file| file["fate"].as_str().unwrap().to_owned())
    };
    for (name, expected) in [
        ("good.sql.gz", Some("adopted")),
        ("cut.sql.gz", Some("damaged")),
        ("died.sql.gz", Some("damaged")),
        ("again.sql.gz", Some("adopted")),
        ("part.dump", Some("adopted")),
        ("closed.enc", Some("closed")),
        ("all.sql", Some("adopted")),
        ("notes.txt", None),
    ] {
        assert_eq!(fate(name).as_deref(), expected, "{name}: {told}");
    }
    assert_eq!(fate("dump.rdb").as_deref(), Some("later"), "{told}");
    let sidecars = super::dumps::shown(&home.path("left"));
    let sidecars = sidecars.iter().filter(|path| path.to_string_lossy().ends_with(".meta.json")).count();
    assert_eq!((sidecars, &told["others"]), (4, &1.into()));
    let of = |name: &str| {
        let files = told["files"].as_array().unwrap();
        files.iter().find(|file| file["path"] == name).unwrap()["record"].clone()
    };
    // One dump under two names; nobody knows of which database; a part is no whole.
    assert_eq!(of("again.sql.gz")["id"], of("good.sql.gz")["id"], "{told}");
    assert_eq!(of("good.sql.gz")["guessed"], true, "{told}");
    assert_eq!(
        (&of("part.dump")["content"], &of("part.dump")["database"]),
        (&"parts".into(), &"other".into())
    );
    let to = format!("dump.to=file://{}", home.path("left").display());
    for name in ["all.sql", "all.sql.meta.json"] {
        std::fs::remove_file(home.path("left").join(name)).unwrap();
    }
    let restore = ["--set", &to, "restore", "orders", "--into-database", "guessed"];
    home.run(restore).refused(3, &["no dump of database postgres"]);
    let shown = home.run(["adopt", home.path("left").to_str().unwrap()]);
    assert!(
        shown.out.contains("DAMAGED") && shown.out.contains("CLOSED") && !shown.out.contains(PHRASE),
        "{shown:#?}"
    );
    std::fs::remove_dir_all(home.path("left")).unwrap();
    assert!(home.run(["adopt", home.path("left").to_str().unwrap()]).good().out.contains("0 dumps"));
}

#[test]
fn what_a_name_without_a_time_of_day_leaves_open_the_archive_or_the_file_says() {
    on_each_version(|server| {
        let home = dumping(server);
        server.sql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
        let script = "mkdir -p $D/manual
            dated() { pg_dump postgres | gzip > $D/$1; touch -d \"$2\" $D/$1; }
            dated backup-2024-01-24.sql.gz '2024-01-24 02:00:07 UTC'
            dated manual/backup-20240124.sql.gz '2024-01-24 15:30:00 UTC'
            dated backup-2024-01-23.sql.gz '2024-02-01 09:00:00 UTC'
            dated manual/backup-20240125_101112.sql.gz '2024-01-25 23:00:00 UTC'
            export TZ=UTC
            while :; do
                day=$(date +%F); pg_dump -Fc -f archive postgres
                test \"$(date +%F)\" = $day && break
            done
            mv archive $D/backup-$day.dump; touch -d '2044-01-01 UTC' $D/backup-$day.dump";
        left_by(server, &home, script, "left");
        let now = server.query_value("SELECT extract(epoch FROM now())::bigint").unwrap();
        let words =
            ["--set", "dump.layout=save-it-ai", "adopt", home.path("left").to_str().unwrap(), "--json"]
                .map(str::to_owned);
        let told = home.run(words).good().json();
        let files = told["files"].as_array().unwrap();
        let of = |path: &str| {
            let record = &files.iter().find(|file| file["path"] == path).unwrap()["record"];
            (record["finished_at"].as_str().unwrap().to_owned(), record["guessed"] == true)
        };
        for (path, time, is_guessed) in [
            ("backup-2024-01-24.sql.gz", "2024-01-24T02:00:07Z", false),
            // Whoever takes one by hand may take it of any database.
            ("manual/backup-20240124.sql.gz", "2024-01-24T15:30:00Z", true),
            // A copy of another day.
            ("backup-2024-01-23.sql.gz", "2024-01-23T00:00:00Z", false),
            ("manual/backup-20240125_101112.sql.gz", "2024-01-25T10:11:12Z", true),
        ] {
            assert_eq!(of(path), (time.to_owned(), is_guessed), "{path}: {told:#}");
        }
        let archive = files.iter().find(|file| file["path"].as_str().unwrap().ends_with(".dump")).unwrap();
        let time: jiff::Timestamp = archive["record"]["finished_at"].as_str().unwrap().parse().unwrap();
        let age_seconds = now.parse::<i64>().unwrap() - time.as_second();
        assert!((0..300).contains(&age_seconds), "{archive:#}");
    });
}
