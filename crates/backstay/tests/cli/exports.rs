//! Dumps handed out as plain files, opened with the programs of others.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::ownership::server_owner;
use testkit::postgres::{PASSWORD, SUPERUSER, StopMode};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::dumps::{PHRASE, dumping, without_backstay};
use super::program::{Home, Ran, flip_a_bit, protected, server, server_of};
use super::space::on_small_file_system;

const OPENSSL: &str = "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:phrase";
const GPG: &str = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --decrypt";
const ROWS: &str = "SELECT concat_ws('|', count(*), min(x), max(x)) FROM t";

/// Everything below a directory, hidden or not.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.path().is_dir() {
            found.extend(all_below(&entry.path()));
        }
    }
    found.sort();
    found
}

/// When a file got its name.
fn named(path: &Path) -> (i64, i64) {
    let seen = std::fs::metadata(path).unwrap();
    (seen.ctime(), seen.ctime_nsec())
}

fn shop(server: &Postgres) -> String {
    server.sql("CREATE DATABASE shop").unwrap();
    let table = "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 20000) g";
    server.sql_in("shop", table).unwrap();
    server.query_value_in("shop", ROWS).unwrap()
}

/// Takes a dump of it; its id and its file.
fn dumped(home: &Home, words: &[&str]) -> (String, PathBuf) {
    let told = home.run([&["dump", "orders", "--json", "--database", "shop"], words].concat()).good().json();
    let dump = &told["dumps"][0];
    let path = home.path("dumps").join(dump["paths"][0]["path"].as_str().unwrap());
    (dump["id"].as_str().unwrap().to_owned(), path)
}

fn export(home: &Home, id: &str, to: &Path, words: &[&str]) -> Ran {
    home.run([&["export", id, "--to", to.to_str().unwrap()], words].concat())
}

#[test]
fn a_dump_is_handed_out_in_every_form_and_opens_with_the_programs_of_others() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let expected = shop(&server);
    std::fs::create_dir(home.path("gnupg")).unwrap();
    let (sealed, _) = dumped(&home, &["--encrypt", "openssl", "--layout", "plain"]);
    let (bare, _) = dumped(&home, &["--compress", "inside", "--layout", "tiers"]);
    let (plain, _) = dumped(&home, &["--format", "plain", "--layout", "plain", "--compress", "gzip"]);
    let restored = "pg_restore -d back".to_owned();
    for (number, (id, words, extension, way)) in [
        (&sealed, &[][..], "dump.zst", format!("zstd -dc FILE | {restored}")),
        (
            &sealed,
            &["--compress", "gzip:1", "--encrypt", "none"],
            "dump.gz",
            format!("gunzip -c FILE | {restored}"),
        ),
        (
            &sealed,
            &["--compress", "none", "--encrypt", "openpgp"],
            "dump.gpg",
            format!("{GPG} FILE | {restored}"),
        ),
        (&bare, &["--encrypt", "openssl"], "dump.enc", format!("{OPENSSL} -in FILE | {restored}")),
        (&bare, &["--compress", "inside"], "dump", format!("{restored} FILE")),
        (&plain, &["--compress", "none"], "sql", "psql -qX back -f FILE".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let to = home.path(&format!("out-{number}/of the day"));
        std::fs::create_dir_all(&to).unwrap();
        let told = export(&home, id, &to, &[words, &["--json"]].concat()).good().json();
        let file = PathBuf::from(told["files"][0]["path"].as_str().unwrap());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("shop"), "{name}");
        assert!(name.ends_with(&format!(".{extension}")) && !name.contains(".dump.dump"), "{name}");
        let metadata = std::fs::metadata(&file).unwrap();
        assert_eq!(
            (metadata.permissions().mode() & 0o777, &told["stored_bytes"]),
            (0o600, &metadata.len().into())
        );
        let is_sealed = name.ends_with(".enc") || name.ends_with(".gpg");
        assert_eq!(all_below(&to).len(), if is_sealed { 2 } else { 1 }, "{:?}", all_below(&to));
        assert_eq!(told["files"][0]["authentication"].is_string(), is_sealed, "{told}");
        if let Some(authentication) = told["files"][0]["authentication"].as_str() {
            assert!(named(&file) >= named(Path::new(authentication)), "{told}");
        }
        let script =
            format!("createdb back; {way}; psql -AtX back -c \"{ROWS}\"; dropdb back; sha256sum FILE")
                .replace("FILE", &format!("'{}'", file.display()));
        let out = without_backstay(&server, &home, &script);
        assert!(out.lines().any(|line| line == expected), "{words:?}: {out}");
        assert!(out.contains(told["sha256"].as_str().unwrap()), "{words:?}: {out}");
    }
    let ran = export(&home, &sealed, &home.path("mine.bin"), &["--encrypt", "openssl"]).good();
    for word in [
        "database shop",
        "mine.bin",
        "zstd, encrypted for openssl",
        "openssl enc -d",
        "mine.bin.hmac",
        "info:",
    ] {
        assert!(ran.out.contains(word) && !ran.out.contains(PHRASE), "no {word:?} in {ran:#?}");
    }
    // What was handed out is taken in again like that of anybody else.
    let adopted = home.run(["adopt", home.path("out-3").to_str().unwrap(), "--json"]).good().json();
    assert_eq!(adopted["files"][0]["fate"], "adopted", "{adopted}");
}

#[test]
fn an_adopted_dump_is_handed_out_like_one_of_ours() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let expected = shop(&server);
    std::fs::create_dir_all(home.path("dumps")).unwrap();
    without_backstay(&server, &home, "pg_dump -Ft shop | bzip2 > dumps/shop_20240106_010000.sql.gz");
    let told = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--json"]).good().json();
    let id = told["files"][0]["record"]["id"].as_str().unwrap();
    let told = export(&home, id, &home.path("out/"), &["--compress", "gzip", "--json"]).good().json();
    assert_eq!(told["opened_with"], "gunzip | pg_restore", "{told}");
    let file = told["files"][0]["path"].as_str().unwrap();
    assert!(file.ends_with("/out/shop_20240106_010000.tar.gz"), "{file}");
    let script =
        format!("createdb back; gunzip -c '{file}' | pg_restore -d back; psql -AtX back -c \"{ROWS}\"");
    assert!(without_backstay(&server, &home, &script).lines().any(|line| line == expected));
}

#[test]
fn what_cannot_be_handed_out_is_one_error_and_leaves_nothing() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    shop(&server);
    let (sealed, _) = dumped(&home, &["--encrypt", "openssl", "--layout", "plain"]);
    let (damaged, damaged_file) = dumped(&home, &["--layout", "tiers"]);
    flip_a_bit(&damaged_file);
    let out = home.path("out");
    let refused = |id: &str, to: &Path, words: &[&str], code: i32, told: &[&str]| {
        let before = all_below(&out);
        let ran = export(&home, id, to, words);
        assert!(!ran.err.contains(PHRASE), "{ran:#?}");
        ran.refused(code, told);
        assert_eq!(all_below(&out), before, "{words:?}");
    };
    refused(&damaged, &out.join("new/"), &[], 8, &["damaged"]);
    assert!(!out.exists());
    std::fs::create_dir(&out).unwrap();
    refused(&damaged, &out, &[], 8, &["damaged"]);
    refused("20200101T000000Z-7q3f", &out, &[], 3, &["20200101T000000Z-7q3f", "backstay list"]);
    std::fs::write(home.path("wrong"), "wrong").unwrap();
    refused(&sealed, &out, &["--set", "dump.passphrase.file=wrong"], 5, &["pass phrase"]);
    refused(&sealed, &out, &["--compress", "inside"], 2, &["--compress"]);
    refused(&sealed, &out, &["--compress", "zstd:99"], 2, &["99"]);
    refused(&sealed, &out.join(".hidden"), &[], 2, &[".hidden", "--to"]);
    std::fs::write(out.join("taken.dump"), "mine").unwrap();
    refused(&sealed, &out.join("taken.dump"), &[], 4, &["taken.dump", "--to"]);
    refused(&sealed, &out.join("taken.dump/below"), &[], 2, &["taken.dump", "--to"]);
    std::os::unix::fs::symlink("nowhere", out.join("dangling")).unwrap();
    refused(&sealed, &out.join("dangling"), &[], 4, &["dangling"]);
    // Its authentication would be written over.
    std::fs::write(out.join("a.dump.zst.enc.hmac"), "mine").unwrap();
    refused(&sealed, &out.join("a.dump.zst.enc"), &["--encrypt", "openssl"], 4, &["a.dump.zst.enc.hmac"]);
    assert_eq!(std::fs::read_to_string(out.join("taken.dump")).unwrap(), "mine");
    // A dump that was cut between two of its members is whole to zstd itself.
    let (cut, cut_file) = dumped(&home, &["--layout", "modulo"]);
    let sidecar_of = |file: &Path| PathBuf::from(format!("{}.meta", file.display()));
    let text = std::fs::read_to_string(sidecar_of(&cut_file)).unwrap();
    let digits = text.split("\"sha256\": \"").nth(1).unwrap()[..64].to_owned();
    std::fs::write(sidecar_of(&cut_file), text.replace(&digits, &digits.chars().rev().collect::<String>()))
        .unwrap();
    refused(&cut, &out, &["--set", "dump.layout=modulo"], 8, &["SHA-256"]);
    std::fs::remove_file(&cut_file).unwrap();
    refused(&cut, &out, &["--set", "dump.layout=modulo"], 8, &["gone", "backstay verify"]);
}

#[test]
fn a_disk_that_fills_up_half_way_gets_nothing_of_an_export() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    let noise = "CREATE TABLE noise AS SELECT string_agg(md5(random()::text), '') AS t \
                 FROM generate_series(1, 1000000) g GROUP BY g % 10000";
    server.sql_in("shop", noise).unwrap();
    let (id, _) = dumped(&home, &[]);
    let place = home.path("stick");
    let script = format!(
        "\"$BACKSTAY\" --config '{config}' export {id} --to '{place}/'; echo \"code=$?\"; ls -A '{place}'",
        config = home.config().display(),
        place = place.display(),
    );
    let Some(ran) = on_small_file_system(&place, 8, &script) else { return };
    assert_eq!(ran.out, "code=6\n", "{ran:#?}");
    assert!(ran.err.contains("No space left") && ran.err.contains("hint: "), "{ran:#?}");
    assert!(ran.err.contains("df -h"), "{ran:#?}");
}

/// Backs up a server with a tablespace twice; the ids, the newest first.
fn backed_up(server: &Postgres, home: &Home) -> Vec<String> {
    let space = home.path("space");
    std::fs::create_dir(&space).unwrap();
    server_owner().unwrap().take(&space).unwrap();
    server.sql(&format!("CREATE TABLESPACE apart LOCATION '{}'", space.display())).unwrap();
    let rows = "SELECT n, repeat('r', 200) AS filler FROM generate_series(1, 5000) AS n";
    server.sql(&format!("CREATE TABLE apart TABLESPACE apart AS {rows}")).unwrap();
    server.sql(&format!("CREATE TABLE here AS {rows}")).unwrap();
    home.run(["backup", "--full"]).good();
    server.sql("UPDATE here SET filler = 'changed' WHERE n % 500 = 0").unwrap();
    server.sql("UPDATE apart SET filler = 'changed' WHERE n % 500 = 0").unwrap();
    home.run(["backup"]).good();
    home.backups()
}

const ANSWER: &str = "SELECT concat_ws('|', (SELECT md5(string_agg(t::text, ',' ORDER BY n)) FROM here t), \
                      (SELECT md5(string_agg(t::text, ',' ORDER BY n)) FROM apart t))";

fn untar(archive: &Path, options: &str, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    let script = format!("cat '{1}' | {0} | tar -x -C '{2}'", options, archive.display(), into.display());
    super::program::run(std::process::Command::new("bash").args(["-euo", "pipefail", "-c", &script])).good();
}

#[test]
fn a_base_backup_is_handed_out_and_starts_from_what_tar_unpacks() {
    for version in PostgresVersion::ALL {
        let Some(mut server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, true);
        let ids = backed_up(&server, &home);
        let expected = server.query_value(ANSWER).unwrap();
        let out = home.path("out");
        // A name that is neither a directory's nor an archive's.
        export(&home, &ids[0], &out, &[]).refused(2, &["no directory of that name", "--to"]);
        let slashed = home.path("out/");
        let told = export(&home, &ids[0], &slashed, &["--compress", "gzip", "--json"]).good().json();
        let warned = &told["findings"][0];
        let warning = warned["message"].as_str().unwrap();
        assert!(
            warned["level"] == "warning"
                && warning.contains("tablespace apart")
                && warning.contains(home.path("space").to_str().unwrap()),
            "{told}"
        );
        assert_eq!(
            (&told["type"], &told["opened_with"]),
            (&"base".into(), &"gunzip | tar -x".into()),
            "{told}"
        );
        let files = all_below(&out);
        assert_eq!(files.len(), 2, "{files:?}");
        let space = files.iter().find(|file| !file.ends_with("base.tar.gz")).unwrap();
        assert!(
            named(&out.join("base.tar.gz")) >= named(space),
            "whoever sees the data directory does not see all"
        );
        let refused = export(&home, &ids[0], &home.path("one.tar"), &[]);
        refused.refused(2, &["tablespaces", "--to"]);
        export(&home, &ids[0], &out, &["--compress", "gzip"]).refused(4, &["base.tar.gz", "--to"]);

        server.stop(StopMode::Immediate).unwrap();
        let moved = Command::new("mv").arg(home.path("space")).arg(home.path("space of the source")).status();
        assert!(moved.unwrap().success());
        untar(space, "gunzip", &home.path("space"));
        let unpacked = home.path("unpacked");
        untar(&out.join("base.tar.gz"), "gunzip", &unpacked);
        let owner = server_owner().unwrap();
        owner.take(&unpacked).unwrap();
        owner.take(&home.path("space")).unwrap();
        std::fs::set_permissions(&unpacked, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut verify = server.installation().tool_as_server("pg_verifybackup").unwrap();
        // The log stands for itself, and the map of tablespaces is not a link yet.
        verify.arg("--no-parse-wal").arg("--ignore=pg_tblspc").arg(&unpacked);
        let verified = super::program::run(&mut verify);
        assert!(
            !verified.err.contains("checksum mismatch") && !verified.err.contains("manifest checksum"),
            "{verified:#?}"
        );
        let copy = Postgres::start_on(server.installation(), &unpacked).unwrap();
        assert_eq!(copy.query_value(ANSWER).unwrap(), expected, "{version:?}");
    }
}

#[test]
fn what_a_killed_export_has_left_in_plain_text_goes_with_the_next() {
    let Some((server, home)) = protected("orders") else { return };
    let noise = "CREATE TABLE noise AS SELECT md5(random()::text) FROM generate_series(1, 200000) g";
    server.sql(noise).unwrap();
    home.run(["backup"]).good();
    let id = home.backups().remove(0);
    let out = home.path("out");
    let words = ["export", &id, "--to", home.path("out/").to_str().unwrap(), "--compress", "gzip:9"]
        .map(str::to_owned);
    // Where it packs: the rows lie there as they are, and half of the archive as well.
    let is_packing =
        || all_below(&out).iter().any(|path| path.to_string_lossy().contains(".unfinished/tmp-"));
    let kill = || {
        let mut child = home.start(&words);
        let packs = wait_until(Duration::from_secs(60), "the packing", is_packing);
        child.kill().unwrap();
        child.wait().unwrap();
        packs.unwrap();
        assert!(
            all_below(&out).iter().any(|path| path.ends_with("data/PG_VERSION")),
            "{:?}",
            all_below(&out)
        );
    };
    kill();
    home.run(&words).good();
    assert_eq!(all_below(&out), [out.join("base.tar.gz")]);
    // What a living one holds is not taken away from it.
    std::fs::remove_file(out.join("base.tar.gz")).unwrap();
    let mut living = home.start(&words);
    wait_until(Duration::from_secs(60), "the packing", is_packing).unwrap();
    let other = home.path("out/other.tar");
    home.run(["export", &id, "--to", other.to_str().unwrap()]).good();
    assert!(living.wait().unwrap().success());
    assert_eq!(all_below(&out), [out.join("base.tar.gz"), other]);
}

#[test]
fn a_base_backup_without_tablespaces_is_one_stream_and_a_damaged_one_leaves_nothing() {
    let Some((server, home)) = protected("orders") else { return };
    server.sql("CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 3000) g").unwrap();
    home.run(["backup"]).good();
    let id = home.backups().remove(0);
    std::fs::write(home.path("phrase"), PHRASE).unwrap();
    home.append("\n[dump]\npassphrase = { file = \"phrase\" }\n");
    let file = home.path("all.tar.zst.enc");
    export(&home, &id, &file, &["--compress", "gzip"]).refused(2, &["name of the file", "--to"]);
    let ran = export(&home, &id, &file, &[]).good();
    assert!(ran.out.contains("encrypted for openssl") && ran.out.contains("| tar -x"), "{ran:#?}");
    let unpacked = home.path("unpacked");
    untar(
        &file,
        &format!(
            "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass 'pass:{}' | zstd -dc",
            PHRASE.replace('\'', "'\\''")
        ),
        &unpacked,
    );
    server_owner().unwrap().take(&unpacked).unwrap();
    std::fs::set_permissions(&unpacked, std::fs::Permissions::from_mode(0o700)).unwrap();
    let copy = Postgres::start_on(server.installation(), &unpacked).unwrap();
    assert_eq!(copy.query_value("SELECT count(*) FROM t").unwrap(), "3000");

    flip_a_bit(&home.objects("/packs/")[0]);
    export(&home, &id, &home.path("bad/"), &[]).refused(8, &["damaged"]);
    assert!(!home.path("bad").exists());
}
