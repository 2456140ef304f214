//! Dumps that were cut, in every layer and down to one byte: told as damaged wherever they
//! are met, and nothing is changed by the attempt to use them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{Postgres, require_programs};

use super::dumps::{dumping, shown, without_backstay};
use super::program::{Home, Ran, server};
use super::reloads::{restore, shop};
use super::unharmed::{state, unharmed};

/// Each layer that a dump of ours can end with.
const SHAPES: [&[&str]; 9] = [
    &["--compress", "none"],
    &["--compress", "inside"],
    &["--compress", "gzip"],
    &["--compress", "zstd"],
    &["--compress", "none", "--encrypt", "openssl"],
    &["--compress", "zstd", "--encrypt", "openpgp"],
    &["--format", "plain", "--compress", "none"],
    &["--format", "plain", "--compress", "gzip", "--encrypt", "openssl"],
    &["--format", "directory", "--compress", "none"],
];

/// The only dump of the shelf, without what stands beside it.
fn dump_of(home: &Home) -> PathBuf {
    let is_beside = |path: &Path| {
        let name = path.to_string_lossy().into_owned();
        [".meta.json", ".hmac"].iter().any(|suffix| name.ends_with(suffix))
    };
    let files = shown(&home.path("dumps/daily"));
    let mut dumps = files.into_iter().filter(|path| !is_beside(path));
    let dump = dumps.next().unwrap();
    assert_eq!(dumps.next(), None);
    dump
}

fn cut(path: &Path, length: usize, whole: &[u8]) {
    // Its other names are copies or links: they are cut with it, or are none here.
    std::fs::write(path, &whole[..length]).unwrap();
}

/// By one byte, inside of the last block, in the middle, inside of the first block.
fn lengths(whole: usize) -> [usize; 4] {
    [whole - 1, whole - 11, whole / 2, 60]
}

#[track_caller]
fn is_damaged(ran: Ran, what: &str) {
    assert_eq!(ran.code, 8, "{what}: {ran:#?}");
    ran.refused(8, &[]);
}

/// Gives a dump of each shape, alone on the shelf, its file and its bytes.
fn in_every_shape(look: impl Fn(&Postgres, &Home, &[&str], &Path, &[u8])) {
    let Some(server) = server() else { return };
    let home = shop(&server, &["--layout", "plain", "--compress", "none"]);
    let clear = || shown(&home.path("dumps")).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    for words in SHAPES {
        clear();
        home.run([&["dump", "orders", "--database", "shop"], words].concat()).good();
        let file = dump_of(&home);
        look(&server, &home, words, &file, &std::fs::read(&file).unwrap());
    }
}

#[test]
fn a_dump_that_was_cut_is_damaged_for_verify_and_for_every_restore() {
    in_every_shape(|server, home, words, file, whole| {
        for length in lengths(whole.len()) {
            let what = format!("{words:?} cut to {length} of {}", whole.len());
            cut(file, length, whole);
            let before = state(server, home);
            let seen = home.run(["verify", "orders", "--json"]);
            assert_eq!(seen.code, 20, "{what}: {seen:#?}");
            assert_eq!(seen.json()["dumps"][0]["state"], "damaged", "{what}");
            for report in shown(&home.path("dumps/verification")) {
                std::fs::remove_file(report).unwrap();
            }
            is_damaged(restore(home, &["--into-database", "copy"]), &what);
            unharmed(server, home, &before, &what);
        }
    });
}

#[test]
fn a_cut_that_no_sidecar_tells_of_is_noticed_in_the_layer_before_anything_is_swapped() {
    in_every_shape(|server, home, words, file, whole| {
        let sidecar = PathBuf::from(format!("{}.meta.json", file.display()));
        // As a file that was cut on its way here, and described only then.
        std::fs::remove_file(format!("{}.hmac", file.display())).ok();
        for length in lengths(whole.len()) {
            // The empty last line of statements is nobody's loss.
            if length == whole.len() - 1 && words == ["--format", "plain", "--compress", "none"] {
                continue;
            }
            let what = format!("{words:?} cut to {length} of {} unseen", whole.len());
            cut(file, length, whole);
            let mut record: Value = serde_json::from_slice(&std::fs::read(&sidecar).unwrap()).unwrap();
            record["stored_bytes"] = length.into();
            record["sha256"] = "".into();
            std::fs::write(&sidecar, serde_json::to_vec(&record).unwrap()).unwrap();
            let before = state(server, home);
            let swap = ["--swap", "shop", "--force", "--confirm", "shop"];
            for target in [&["--into-database", "copy"][..], &swap] {
                let ran = restore(home, target);
                is_damaged(ran, &format!("{what} {target:?}"));
                unharmed(server, home, &before, &what);
            }
        }
    });
}

#[test]
fn what_others_left_and_was_cut_is_not_taken_in() {
    if !require_programs(&["openssl", "gpg", "gpg-agent", "gzip", "zstd", "bzip2", "xz", "tar"]) {
        return;
    }
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    let table = "CREATE TABLE orders AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 2000) g";
    server.sql_in("shop", table).unwrap();
    std::fs::create_dir(home.path("gnupg")).unwrap();
    std::fs::create_dir(home.path("left")).unwrap();
    let openssl = "openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:phrase";
    let gpg = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --symmetric -o -";
    let script = format!(
        "pg_dump shop > left/plain.sql; pg_dump -Fc shop > left/inside.dump; pg_dump -Fc -Z0 shop > left/custom.dump
         pg_dump -Ft shop > left/tar.tar; pg_dump -Fd -f d shop; tar -cf left/directory.tar -C d .; rm -r d
         gzip -c left/plain.sql > left/gz.sql.gz; zstd -qc left/plain.sql > left/zst.sql.zst
         bzip2 -c left/plain.sql > left/bz2.sql.bz2; xz -c left/plain.sql > left/xz.sql.xz
         gzip -c left/plain.sql | {openssl} > left/gz.sql.gz.enc; {openssl} < left/custom.dump > left/custom.dump.enc
         gzip -c left/plain.sql | {gpg} > left/gz.sql.gz.gpg"
    );
    without_backstay(&server, &home, &script);
    let whole = shown(&home.path("left"));
    assert_eq!(whole.len(), 12, "{whole:#?}");
    for path in &whole {
        let bytes = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for (number, length) in lengths(bytes.len()).into_iter().take(3).enumerate() {
            // The empty last line of statements is nobody's loss.
            if (number, name) == (0, "plain.sql") {
                continue;
            }
            std::fs::write(path.with_file_name(format!("cut{number}_{name}")), &bytes[..length]).unwrap();
        }
    }
    let ran = home.run(["adopt", home.path("left").to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    let files = told["files"].as_array().unwrap();
    let mut missed = Vec::new();
    for file in files {
        let path = file["path"].as_str().unwrap();
        let expected = if path.starts_with("cut") { "damaged" } else { "adopted" };
        if file["fate"] != expected {
            missed.push(format!("{path}: {} ({})", file["fate"], file["reason"]));
        }
    }
    assert_eq!(missed, Vec::<String>::new());
    assert_eq!(files.len(), whole.len() * 4 - 1, "{told:#}");
    let sidecars = shown(&home.path("left"));
    let sidecars = sidecars.iter().filter(|path| path.to_string_lossy().ends_with(".meta.json"));
    assert_eq!(sidecars.count(), whole.len());
}
