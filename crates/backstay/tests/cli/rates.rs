//! Rates and the codec, measured from outside: how long the program takes for how much.

use std::time::{Duration, Instant};

use testkit::postgres::{PASSWORD, SUPERUSER};

use super::program::{Home, server};

/// Slower than any machine reads a new cluster by itself, fast enough to wait for.
const RATE: &str = "16MiB";
const RATE_BYTES: f64 = (16 << 20) as f64;
/// Slower than what is compressed is stored.
const STORE_RATE: &str = "2MiB";
const STORE_RATE_BYTES: f64 = (2 << 20) as f64;

/// What a rate cannot be better than: the burst at the beginning is a quarter of a second.
#[track_caller]
fn kept(took: Duration, bytes: u64, rate: f64, what: &str) {
    let least = (bytes as f64 / rate - 0.25) * 0.98;
    assert!(least > 0.5, "{what}: {bytes} bytes are too few to say anything");
    assert!(took.as_secs_f64() >= least, "{what}: {bytes} bytes in {took:?}, not in {least} s");
}

#[test]
fn a_backup_keeps_to_the_rate_of_its_instance_in_both_ways() {
    let Some(server) = server() else { return };
    let home = Home::new();
    home.init();
    for (name, local) in [("here", true), ("there", false)] {
        home.add(name, &server, SUPERUSER, PASSWORD, local);
        home.append(&format!("max_rate = \"{RATE}\"\n"));
        let begun = Instant::now();
        let taken = home.run(["backup", name, "--json"]).good().json();
        let bytes = taken[0]["read_bytes"].as_u64().unwrap();
        kept(begun.elapsed(), bytes, RATE_BYTES, name);
    }
    home.run(["verify"]).good();
}

#[test]
fn the_store_is_written_and_read_no_faster_than_allowed() {
    let Some(server) = server() else { return };
    let home = Home::new();
    home.init();
    home.add("orders", &server, SUPERUSER, PASSWORD, true);
    let begun = Instant::now();
    let upload = format!("repository.max_upload_rate={STORE_RATE}");
    let taken = home.run(["backup", "--json", "--set", &upload]).good().json();
    let stored = taken[0]["stored_bytes"].as_u64().unwrap();
    kept(begun.elapsed(), stored, STORE_RATE_BYTES, "the upload");

    let begun = Instant::now();
    let into = home.path("restored");
    let words = ["restore", "orders", "--into", into.to_str().unwrap()];
    let download = format!("repository.max_download_rate={STORE_RATE}");
    home.run(words.into_iter().chain(["--set", &download])).good();
    let packs = home.objects("/packs/").iter().map(|pack| pack.metadata().unwrap().len()).sum();
    kept(begun.elapsed(), packs, STORE_RATE_BYTES, "the download");

    home.run(["list", "--set", "repository.max_upload_rate=20"]).refused(2, &["max_upload_rate", "50MiB"]);
}

#[test]
fn what_is_stored_without_compression_is_as_large_as_it_is_and_restores() {
    let Some(server) = server() else { return };
    let home = Home::new();
    home.init();
    home.add("orders", &server, SUPERUSER, PASSWORD, true);
    let taken = home.run(["backup", "--json", "--set", "repository.compression=none"]).good().json();
    let number = |taken: &serde_json::Value, name: &str| taken[0][name].as_u64().unwrap();
    assert!(number(&taken, "stored_bytes") >= number(&taken, "new_bytes"), "{taken:#}");
    home.run(["verify"]).good();
    let into = home.path("restored");
    home.run(["restore", "orders", "--start", "--into", into.to_str().unwrap()]).good();

    // What is new is compressed again, and what is there is taken as it is.
    let next = home.run(["backup", "--full", "--json"]).good().json();
    assert!(number(&next, "stored_bytes") * 2 < number(&taken, "stored_bytes"), "{next:#}");
    let wrong = home.run(["list", "--set", "repository.compression=lzma"]);
    assert_eq!(wrong.code, 2, "{wrong:#?}");
    assert!(wrong.err.contains("compression"), "{wrong:#?}");
}
