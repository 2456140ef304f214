//! Disks that fill up while dumps are taken and put back: the shelf's, the spool's, the
//! server's. One error that says which, and all as it was.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::Postgres;
use testkit::ownership::server_owner;

use super::dumps::{dumping, shown};
use super::program::{Home, server};
use super::reloads::shop;
use super::space::on_small_file_system;
use super::unharmed::{no_sessions, state, strays, unharmed};

/// Half a MiB of the table are 200 MiB of text: what a spool needs cannot be known before.
const SQUEEZED: &str =
    "CREATE TABLE orders AS SELECT g AS id, repeat('x' || g, 2000000) AS x FROM generate_series(1, 50) g";

/// The words of a script that runs Backstay and says with which code it ended.
fn script(home: &Home, runs: &[&str]) -> String {
    let config = home.config();
    let run = |words: &&str| format!("b {words}; echo \"code=$?\"");
    let runs: Vec<String> = runs.iter().map(run).collect();
    format!(
        "b() {{ \"$BACKSTAY\" --config '{}' \"$@\"; }}\n{}\nls -A '{}'",
        config.display(),
        runs.join("\n"),
        home.path("spool").display()
    )
}

fn spooling(server: &Postgres) -> Home {
    let home = dumping(server);
    home.append(&format!("spool = \"{}\"\n", home.path("spool").display()));
    home
}

#[test]
fn a_spool_that_fills_up_ends_a_dump_and_keeps_nothing() {
    let Some(server) = server() else { return };
    let home = spooling(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", SQUEEZED).unwrap();
    let before = state(&server, &home);
    let words = "dump orders --database shop --format directory --jobs 2";
    let Some(ran) = on_small_file_system(&home.path("spool"), 64, &script(&home, &[words])) else { return };
    assert_eq!(ran.out, "code=6\n", "something is left, or it did not fail: {ran:#?}");
    ran_with_one_error(&ran.err, &["No space left on device", "df"]);
    unharmed(&server, &home, &before, "the spool of a dump");
}

#[test]
fn a_spool_without_room_is_refused_before_the_first_byte() {
    let Some(server) = server() else { return };
    let home = spooling(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", SQUEEZED).unwrap();
    home.run(["dump", "orders", "--database", "shop"]).good();
    home.run(["dump", "orders", "--database", "shop", "--format", "directory"]).good();
    let before = state(&server, &home);
    let small = script(
        &home,
        &[
            "dump orders --database shop --format directory",
            "restore orders --database shop --into-database copy",
            "restore orders --swap shop --force --confirm shop",
        ],
    );
    let Some(ran) = on_small_file_system(&home.path("spool"), 1, &small) else { return };
    assert_eq!(ran.out, "code=4\n".repeat(3), "{ran:#?}");
    assert_eq!(ran.err.matches("error:").count(), 3, "{ran:#?}");
    assert_eq!(ran.err.matches(home.path("spool").to_str().unwrap()).count(), 3, "{ran:#?}");
    assert!(ran.err.contains("dump.spool") || ran.err.contains("--spool"), "{ran:#?}");
    unharmed(&server, &home, &before, "a spool without room");
}

/// Makes the sidecars say that little comes out of their dumps.
fn understate(home: &Home) {
    for path in shown(&home.path("dumps")) {
        if path.to_string_lossy().ends_with(".meta.json") && !path.is_symlink() {
            let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            record["raw_bytes"] = 1.into();
            std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_spool_that_fills_up_ends_a_restore_and_everything_is_as_it_was() {
    let Some(server) = server() else { return };
    let home = spooling(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", SQUEEZED).unwrap();
    for format in ["custom", "directory"] {
        home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        understate(&home);
        let before = state(&server, &home);
        let runs = [
            "restore orders --database shop --into-database copy --jobs 2",
            "restore orders --database shop --into-database copy --table orders",
            "restore orders --swap shop --force --confirm shop --jobs 2",
        ];
        let Some(ran) = on_small_file_system(&home.path("spool"), 32, &script(&home, &runs)) else { return };
        assert_eq!(ran.out, "code=6\n".repeat(3), "{format}: {ran:#?}");
        assert_eq!(ran.err.matches("error:").count(), 3, "{ran:#?}");
        assert_eq!(ran.err.matches("No space left on device").count(), 3, "{ran:#?}");
        assert!(ran.err.matches("dump.spool").count() >= 3, "{ran:#?}");
        assert!(!ran.err.contains("make the directory"), "nothing was being made: {ran:#?}");
        unharmed(&server, &home, &before, format);
    }
}

/// A server on a disk of its own, in a script: there it is made, and gone with the disk.
struct SmallServer {
    port: u16,
    place: PathBuf,
    begin: String,
}

fn small_server(server: &Postgres, home: &Home) -> SmallServer {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let place = home.path("disk");
    home.append(&format!(
        "\n[instance.small]\nengine = \"postgresql\"\nenvironment = \"production\"\n\
         url = \"postgresql://postgres@127.0.0.1:{port}/postgres\"\nbin_directory = \"{}\"\n",
        server.installation().bin_directory().display()
    ));
    let owner = server_owner().unwrap();
    // Rows that come into tables of the same transaction are not in the log, which has few
    // and small files: what fills up is the table.
    let begin = format!(
        "chown {uid}:{gid} '{place}'; cd '{place}'
         as() {{ setpriv --reuid={uid} --regid={gid} --clear-groups \"$@\"; }}
         as '{bin}/initdb' -D data -U postgres -A trust --no-sync --wal-segsize=1 >init.log 2>&1 || exit 101
         as '{bin}/pg_ctl' -D data -w -l log -o \"-p {port} -k '{place}' -c listen_addresses=127.0.0.1 \
             -c wal_level=minimal -c max_wal_senders=0 -c min_wal_size=2MB -c max_wal_size=2MB -c fsync=off \
             -c autovacuum=off\" start >/dev/null || exit 102
         trap \"as '{bin}/pg_ctl' -D data -m immediate stop >/dev/null\" EXIT
         q() {{ '{bin}/psql' -AtqX -h 127.0.0.1 -p {port} -U postgres \"$@\"; }}
         q -c 'CREATE DATABASE shop' && q -d shop -c 'CREATE TABLE orders AS SELECT 7 AS id'",
        uid = owner.user_id,
        gid = owner.group_id,
        place = place.display(),
        bin = server.installation().bin_directory().display(),
    );
    SmallServer { port, place, begin }
}

#[test]
fn a_server_whose_disk_fills_up_keeps_its_databases_and_nothing_of_the_restore() {
    let Some(server) = server() else { return };
    if !server_owner().is_ok_and(|owner| !owner.is_root()) {
        return;
    }
    let home = shop(&server, &["--layout", "plain"]);
    std::fs::create_dir(home.path("spool")).unwrap();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let spool = format!("[dump]\nspool = \"{}\"\n", home.path("spool").display());
    std::fs::write(home.config(), text.replacen("[dump]\n", &spool, 1)).unwrap();
    let fill = "INSERT INTO orders (customer, x) SELECT 1, repeat(md5(g::text), 10) FROM generate_series(1, 150000) g";
    server.sql_in("shop", fill).unwrap();
    let small = small_server(&server, &home);
    let before = state(&server, &home);
    for format in ["custom", "plain", "directory"] {
        let dumps = home.path(&format!("dumps-{format}"));
        let to = dumps.to_str().unwrap();
        home.run(["dump", "orders", "--database", "shop", "--to", to, "--format", format]).good();
        let restore = format!("restore orders --set 'dump.to=file://{to}' --database shop --to-server small");
        let runs = [
            format!("{restore} --into-database copy"),
            format!("{restore} --into-database copy --jobs 2"),
            format!("{restore} --swap shop --force --confirm shop"),
        ];
        let runs: Vec<String> = runs
            .iter()
            .map(|words| {
                format!(
                    "b {words}; echo \"code=$?\"
                     q -c \"SELECT string_agg(datname || datallowconn, ' ' ORDER BY datname) FROM pg_database\"
                     q -d shop -c 'SELECT * FROM orders'"
                )
            })
            .collect();
        let script = format!(
            "b() {{ \"$BACKSTAY\" --config '{}' \"$@\"; }}\n{}\n{}",
            home.config().display(),
            small.begin,
            runs.join("\n")
        );
        let Some(ran) = on_small_file_system(&small.place, 90, &script) else { return };
        let as_it_was = "code=6\npostgrestrue shoptrue template0false template1true\n7\n";
        assert_eq!(ran.out, as_it_was.repeat(3), "{format} at {}: {ran:#?}", small.port);
        assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 3, "{ran:#?}");
        assert_eq!(ran.err.matches("could not extend file").count(), 3, "{format}: {ran:#?}");
        assert!(ran.err.matches("`df`").count() >= 3, "{format}: {ran:#?}");
        assert_eq!(strays(&home.path("spool")), Vec::<PathBuf>::new());
    }
    unharmed(&server, &home, &before, "another server's disk");
}

#[test]
fn a_server_that_cannot_even_make_the_database_says_so() {
    let Some(server) = server() else { return };
    let home = shop(&server, &["--layout", "plain"]);
    let small = small_server(&server, &home);
    let restore = "restore orders --database shop --to-server small";
    let look = "q -c \"SELECT string_agg(datname || datallowconn, ' ' ORDER BY datname) FROM pg_database\"";
    let script = format!(
        "b() {{ \"$BACKSTAY\" --config '{}' \"$@\"; }}\n{}\nhead -c 100M /dev/zero >fill 2>/dev/null
         truncate -s -1M fill
         b {restore} --into-database copy; echo \"code=$?\"; {look}
         b {restore} --swap shop --force --confirm shop; echo \"code=$?\"; {look}",
        home.config().display(),
        small.begin,
    );
    let Some(ran) = on_small_file_system(&small.place, 90, &script) else { return };
    let as_it_was = "code=6\npostgrestrue shoptrue template0false template1true\n";
    assert_eq!(ran.out, as_it_was.repeat(2), "{ran:#?}");
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 2, "{ran:#?}");
    assert!(ran.err.contains("create the database") && ran.err.contains("`df`"), "{ran:#?}");
}

#[track_caller]
pub fn ran_with_one_error(err: &str, words: &[&str]) {
    assert_eq!(err.lines().filter(|line| line.starts_with("error:")).count(), 1, "{err}");
    assert!(err.contains("  hint: "), "{err}");
    for word in words {
        assert!(err.contains(word), "no {word:?} in {err}");
    }
}

#[test]
fn a_shelf_that_fills_up_keeps_the_dumps_it_has_in_every_form() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    let noise =
        "CREATE TABLE orders AS SELECT g AS id, md5(random()::text) AS x FROM generate_series(1, 600000) g";
    server.sql_in("shop", noise).unwrap();
    let place = home.path("dumps");
    for words in [
        "--format plain --compress none",
        "--format custom --compress inside",
        "--encrypt openssl",
        "--compress gzip --encrypt openpgp",
    ] {
        let script = format!(
            "b() {{ \"$BACKSTAY\" --config '{config}' dump orders \"$@\"; }}
             b --database postgres >/dev/null || exit 101
             b --database shop {words}; echo \"code=$?\"
             find '{place}' -type f -name '*shop*' -o -path '*unfinished/tmp-*'; ls '{place}/daily' | wc -l
             b --database postgres --layout plain >/dev/null && echo again",
            config = home.config().display(),
            place = place.display(),
        );
        let Some(ran) = on_small_file_system(&place, 8, &script) else { return };
        assert_eq!(ran.out, "code=6\n2\nagain\n", "{words}: {ran:#?}");
        ran_with_one_error(&ran.err, &["No space left", "dump.to"]);
    }
    assert_eq!(strays(Path::new(&place)), Vec::<PathBuf>::new());
    no_sessions(&server, "a full shelf");
}
