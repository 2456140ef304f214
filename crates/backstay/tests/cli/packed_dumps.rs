//! Dumps that somebody packed with `tar`.

use testkit::{PostgresOptions, PostgresVersion};

use super::dumps::{dumping, shown, without_backstay};
use super::program::server_of;

const ROWS: &str = "SELECT concat_ws('|', count(*), min(x), max(x)) FROM readings";

#[test]
fn a_dump_that_is_alone_in_a_tar_archive_is_adopted_verified_and_restored() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = dumping(&server);
        server.sql("CREATE DATABASE shop").unwrap();
        let table =
            "CREATE TABLE readings AS SELECT g AS id, md5(g::text) AS x FROM generate_series(1, 9000) g";
        server.sql_in("shop", table).unwrap();
        let expected = server.query_value_in("shop", ROWS).unwrap();
        without_backstay(
            &server,
            &home,
            "mkdir -p dumps w/b; pg_dump -Fc -Z0 shop > w/b/shop.dump; pg_dump shop > w/shop.sql
             gzip -k w/shop.sql; echo notes > w/b/README
             tar -C w -cf dumps/archive.tar b/shop.dump b/README
             tar -C w --format=pax -czf dumps/statements.tgz shop.sql
             tar -C w -c shop.sql.gz |
                 openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:phrase > dumps/packed.tar.enc
             rm -r w",
        );
        let to = format!("dump.to=file://{}", home.path("dumps").display());
        let told = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--json"]).good().json();
        let files = told["files"].as_array().unwrap();
        assert_eq!((files.len(), &told["others"]), (3, &0.into()), "{told:#}");
        for (number, file) in files.iter().enumerate() {
            assert_eq!(file["fate"], "adopted", "{file:#}");
            assert!(file["what"].as_str().unwrap().contains("tar"), "{file:#}");
            let (id, copy) = (file["record"]["id"].as_str().unwrap(), format!("copy_{number}"));
            home.run(["--set", &to, "restore", "orders", "--backup", id, "--into-database", &copy]).good();
            assert_eq!(server.query_value_in(&copy, ROWS).unwrap(), expected, "{file:#}");
        }
        home.run(["--set", &to, "verify", "orders"]).good();

        // The end of the archive counts, although the dump lies before it.
        let archive = home.path("dumps/archive.tar");
        let whole = std::fs::read(&archive).unwrap();
        let id = files.iter().find(|file| file["path"] == "archive.tar").unwrap()["record"]["id"].clone();
        let header = whole.windows(8).rposition(|window| window == b"b/README").unwrap_or(0);
        assert!(header > 0, "tar keeps another order here");
        let mut other = whole.clone();
        other[header + 2] ^= 1;
        for bytes in [&whole[..whole.len() - 10240 - 512], &whole[..whole.len() / 2], &other] {
            std::fs::write(&archive, bytes).unwrap();
            assert_eq!(home.run(["--set", &to, "verify", "orders"]).code, 20);
            let words = ["--set", &to, "restore", "orders", "--backup", id.as_str().unwrap()];
            home.run([&words[..], &["--into-database", "cut"]].concat()).refused(8, &["archive.tar"]);
        }
        assert_eq!(
            server.query_value("SELECT count(*) FROM pg_database WHERE datname = 'cut'").unwrap(),
            "0"
        );
    }
}

#[test]
fn an_archive_of_more_than_a_dump_is_left_alone_and_says_how_to_unpack_it() {
    let Some(server) = server_of(PostgresVersion::V15, &PostgresOptions::default()) else { return };
    let home = dumping(&server);
    without_backstay(
        &server,
        &home,
        "mkdir -p left w; pg_dump postgres > w/a.sql; pg_dump -Fc postgres | gzip > w/b.dump.gz
         head -c 2000000 /dev/zero > w/uploads
         tar -C w -cf left/two.tar a.sql b.dump.gz; tar -C w -czf left/more.tgz a.sql uploads
         tar -C w -cf left/none.tar uploads; tar -C w -cf left/cut.tar a.sql; truncate -s 900 left/cut.tar",
    );
    let ran = home.run(["adopt", home.path("left").to_str().unwrap(), "--json"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    for (name, fate, words) in [
        ("two.tar", "later", "several dumps"),
        ("more.tgz", "later", "other files beside a dump"),
        ("none.tar", "later", "some tar archive"),
        ("cut.tar", "damaged", "ends too early"),
    ] {
        let file = told["files"].as_array().unwrap().iter().find(|file| file["path"] == name).unwrap();
        let text = file[if fate == "later" { "what" } else { "reason" }].as_str().unwrap();
        assert_eq!(file["fate"], fate, "{file:#}");
        assert!(text.contains(words), "{file:#}");
        assert_eq!(text.contains("`tar -xf`"), fate == "later", "{file:#}");
    }
    assert_eq!(shown(&home.path("left")).len(), 4, "a sidecar was written");
}
