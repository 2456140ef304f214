//! A wrong pass phrase and a damaged file are two things, whoever wrote the file and
//! whichever verb meets it.

use std::path::{Path, PathBuf};

use testkit::{Postgres, require_programs};

use super::dumps::{PHRASE, dumping, shown, without_backstay};
use super::program::{Home, flip_a_bit, server};
use super::reloads::databases;

const SWAP: [&str; 6] = ["restore", "--swap", "shop", "--force", "--confirm", "shop"];

struct Case {
    name: &'static str,
    /// On the shelf, with a sidecar.
    file: PathBuf,
    id: String,
    home: Home,
}

fn dump_below(directory: &Path) -> PathBuf {
    let is_dump = |path: &PathBuf| {
        let name = path.to_string_lossy().into_owned();
        !path.is_symlink() && [".enc", ".gpg"].iter().any(|ext| name.ends_with(ext))
    };
    shown(directory).into_iter().find(is_dump).unwrap()
}

fn ours(server: &Postgres, name: &'static str, cipher: &str) -> Case {
    let home = dumping(server);
    let words = ["dump", "orders", "--database", "shop", "--json", "--layout", "plain", "--encrypt", cipher];
    let told = home.run(words).good().json();
    let id = told["dumps"][0]["id"].as_str().unwrap().to_owned();
    Case { name, file: dump_below(&home.path("dumps")), id, home }
}

fn theirs(server: &Postgres, name: &'static str, script: &str) -> Case {
    let home = dumping(server);
    std::fs::create_dir(home.path("gnupg")).unwrap();
    std::fs::create_dir(home.path("dumps")).unwrap();
    without_backstay(server, &home, script);
    let told = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--json"]).good().json();
    let id = told["files"][0]["record"]["id"].as_str().unwrap().to_owned();
    Case { name, file: dump_below(&home.path("dumps")), id, home }
}

fn cases(server: &Postgres) -> Vec<Case> {
    let openssl = "openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:phrase";
    let gpg = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --symmetric --cipher-algo AES256";
    vec![
        ours(server, "our openssl", "openssl"),
        ours(server, "our openpgp", "openpgp"),
        theirs(server, "their openssl", &format!("pg_dump shop | gzip | {openssl} > dumps/shop.sql.gz.enc")),
        theirs(server, "their openssl, bare", &format!("pg_dump -Fc shop | {openssl} > dumps/shop.dump.enc")),
        theirs(server, "their openpgp", &format!("pg_dump shop | gzip | {gpg} -o dumps/shop.sql.gz.gpg")),
        theirs(
            server,
            "their openpgp, bare",
            &format!("pg_dump -Fc shop | {gpg} -z 0 -o dumps/shop.dump.gpg"),
        ),
    ]
}

impl Case {
    fn restores(&self) -> [Vec<&str>; 2] {
        let into = vec!["restore", "orders", "--backup", &self.id, "--into-database", "copy"];
        let mut swap = SWAP.to_vec();
        swap.splice(1..1, ["orders", "--backup", &self.id]);
        [into, swap]
    }

    /// `adopt` of a copy without a sidecar: what became of it, and why.
    fn adopted(&self) -> (String, String) {
        let left = self.home.path("left");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::copy(&self.file, left.join(self.file.file_name().unwrap())).unwrap();
        let told = self.home.run(["adopt", left.to_str().unwrap(), "--json"]).json();
        let beside = shown(&left).len() - 1;
        std::fs::remove_dir_all(&left).unwrap();
        let file = &told["files"][0];
        assert_eq!(beside, usize::from(file["fate"] == "adopted"), "{told:#}");
        let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
        (text("fate"), text("reason"))
    }
}

#[test]
fn a_wrong_pass_phrase_is_told_as_that_and_a_damaged_file_as_that() {
    if !require_programs(&["openssl", "gpg", "gpg-agent", "gzip"]) {
        return;
    }
    let Some(server) = server() else { return };
    server.sql("CREATE DATABASE shop").unwrap();
    let table = "CREATE TABLE orders AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 3000) g";
    server.sql_in("shop", table).unwrap();
    for case in cases(&server) {
        let (name, home) = (case.name, &case.home);
        let phrase = |text: &str| std::fs::write(home.path("phrase"), text).unwrap();
        home.run(["verify", "orders"]).good();
        assert_eq!(case.adopted().0, "adopted", "{name}");

        phrase("another phrase");
        let seen = home.run(["verify", "orders"]);
        assert_eq!(seen.code, 21, "{name}: {seen:#?}");
        assert!(
            seen.out.contains("pass phrase is not that of") && seen.out.contains("dump.passphrase"),
            "{name}: {seen:#?}"
        );
        for words in case.restores() {
            let ran = home.run(&words);
            assert_eq!(ran.code, 5, "{name}: {ran:#?}");
            ran.refused(5, &["pass phrase is not that of", "dump.passphrase"]);
        }
        let (fate, reason) = case.adopted();
        assert_eq!(fate, "closed", "{name}: {reason}");
        assert!(reason.contains("pass phrase is not that of"), "{name}: {reason}");

        // None at all.
        let text = std::fs::read_to_string(home.config()).unwrap();
        let line = text.lines().find(|line| line.starts_with("passphrase = ")).unwrap();
        std::fs::write(home.config(), text.replace(line, "")).unwrap();
        for words in case.restores() {
            home.run(&words).refused(5, &["no pass phrase was given", "dump.passphrase"]);
        }
        assert_eq!(case.adopted().0, "closed", "{name}");
        assert_eq!(home.run(["verify", "orders"]).code, 21, "{name}");
        std::fs::write(home.config(), text).unwrap();

        phrase(PHRASE);
        home.run(["verify", "orders"]).good();
        flip_a_bit(&case.file);
        let (fate, reason) = case.adopted();
        // CBC has no sum of its own, and an archive without compression none inside.
        if name != "their openssl, bare" && name != "our openssl" {
            assert_eq!(fate, "damaged", "{name}: {reason}");
        }
        // With the right one and with the wrong one.
        for (text, codes) in [(PHRASE, (20, 8)), ("another phrase", (21, 5))] {
            phrase(text);
            for words in case.restores() {
                let ran = home.run(&words);
                assert_eq!(ran.code, codes.1, "{name}, damaged, {text}: {ran:#?}");
                ran.refused(codes.1, &[]);
            }
        }
        phrase(PHRASE);
        assert_eq!(home.run(["verify", "orders"]).code, 20, "{name}");
        assert_eq!(databases(&server), ["postgres", "shop"], "{name}");
    }
}

#[test]
fn damage_in_the_first_bytes_of_ours_is_no_wrong_pass_phrase() {
    let Some(server) = server() else { return };
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE orders AS SELECT 1 AS id, 'a' AS x").unwrap();
    for cipher in ["openssl", "openpgp"] {
        let case = ours(&server, "ours", cipher);
        let whole = std::fs::read(&case.file).unwrap();
        for at in [0, 3, 9, 17, 40] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&case.file, bytes).unwrap();
            for words in case.restores() {
                let ran = case.home.run(&words);
                assert_eq!(ran.code, 8, "{cipher}, byte {at}: {ran:#?}");
                ran.refused(8, &[]);
            }
            let seen = case.home.run(["verify", "orders"]);
            assert_eq!(seen.code, 20, "{cipher}, byte {at}: {seen:#?}");
            for report in shown(&case.home.path("dumps/verification")) {
                std::fs::remove_file(report).unwrap();
            }
        }
        assert_eq!(databases(&server), ["postgres", "shop"]);
    }
}

#[test]
fn dumps_of_before_a_change_of_the_pass_phrase_open_with_the_files_that_are_named() {
    if !require_programs(&["openssl", "gpg", "gpg-agent", "gzip"]) {
        return;
    }
    let Some(server) = server() else { return };
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 300) g").unwrap();
    let home = dumping(&server);
    std::fs::create_dir(home.path("gnupg")).unwrap();
    without_backstay(
        &server,
        &home,
        "mkdir dumps; echo first > first; echo second > second; echo third > third
         openssl='openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000'
         pg_dump -Fc shop | $openssl -pass file:first > dumps/shop_1.dump.enc
         pg_dump shop | gzip | gpg --batch --quiet --pinentry-mode loopback --passphrase-file second --symmetric \
             -o dumps/shop_2.sql.gz.gpg
         pg_dump -Fc shop | $openssl -pass file:phrase > dumps/shop_3.dump.enc",
    );
    let dumps = home.path("dumps");
    let adopt = |others: &[&str]| {
        let words = [&["adopt", dumps.to_str().unwrap(), "--json", "--dry-run"], others].concat();
        let ran = home.run(words);
        assert!(![&ran.out, &ran.err].iter().any(|text| text.contains(PHRASE)), "{ran:#?}");
        let told = ran.json();
        let fates = told["files"].as_array().unwrap().iter();
        let fates: Vec<_> = fates.map(|file| file["fate"].as_str().unwrap().to_owned()).collect();
        (ran.code, fates, told["files"][0]["reason"].as_str().unwrap_or_default().to_owned())
    };
    let of = |fates: [&str; 3]| fates.map(str::to_owned).to_vec();
    let (code, fates, reason) = adopt(&[]);
    assert_eq!((code, fates), (20, of(["closed", "closed", "adopted"])));
    assert!(reason.contains("the pass phrase is not that of"), "{reason}");
    // The same one twice is one.
    let (code, fates, reason) =
        adopt(&["--passphrase-file", "third", "--passphrase-file", "second", "--passphrase-file", "phrase"]);
    assert_eq!((code, fates), (20, of(["closed", "adopted", "adopted"])));
    assert!(reason.contains("none of the 3 pass phrases that were tried is that of"), "{reason}");
    let both = ["--passphrase-file", "first", "--passphrase-file", "second"];
    let words = [&["adopt", dumps.to_str().unwrap(), "--json"], &both[..]].concat();
    let told = home.run(words).good().json();
    let id = |at: usize| told["files"][at]["record"]["id"].as_str().unwrap().to_owned();

    assert_eq!(home.run(["verify", "orders"]).code, 21);
    home.run([&["verify", "orders"], &both[..]].concat()).good();
    for (at, only) in [(0, "first"), (1, "second")] {
        let (id, copy) = (id(at), format!("copy_{at}"));
        let words = ["restore", "orders", "--backup", &id, "--into-database", &copy];
        home.run(words).refused(5, &["the pass phrase is not that of", "--passphrase-file"]);
        let wrong = home.run([&words[..], &["--passphrase-file", "third"]].concat());
        wrong.refused(5, &["none of the 2 pass phrases that were tried is that of"]);
        home.run([&words[..], &["--passphrase-file", "third", "--passphrase-file", only]].concat()).good();
        assert_eq!(server.query_value_in(&copy, "SELECT count(*) FROM orders").unwrap(), "300");

        // What comes out is encrypted with the present one.
        let to = home.path(&format!("out_{at}.enc"));
        let words = ["export", &id, "--to", to.to_str().unwrap(), "--encrypt", "openssl"];
        home.run(words).refused(5, &["the pass phrase is not that of"]);
        home.run([&words[..], &["--passphrase-file", only]].concat()).good();
        let way =
            format!("openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:phrase -in {to:?} | wc -c");
        assert_ne!(without_backstay(&server, &home, &way).trim(), "0");
    }
    home.run(["verify", "orders", "--passphrase-file", "none"]).refused(2, &["--passphrase-file"]);
    let into = home.path("restored");
    home.run(["restore", "orders", "--into", into.to_str().unwrap(), "--passphrase-file", "first"])
        .refused(2, &["`--passphrase-file` is for dumps"]);
}

#[test]
fn a_pass_phrase_for_a_verification_without_dumps_is_refused() {
    let home = Home::new();
    home.init();
    std::fs::write(home.path("phrase"), PHRASE).unwrap();
    let file = home.path("phrase");
    home.run(["verify"]).good();
    let words = ["verify", "--passphrase-file", file.to_str().unwrap()];
    home.run(words).refused(2, &["`--passphrase-file` is for dumps", "leave"]);
}
