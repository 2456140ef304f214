//! Dumps of Redis and Valkey that do not end well, and those that are spoiled afterwards: one error,
//! and nothing that looks like a dump, or like what a dump restores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::way::Way;
use testkit::{Redis, RedisVersion, require_redis, wait_until};

use super::dumps::shown;
use super::full_disks::ran_with_one_error;
use super::program::{Home, Ran, flip_a_bit};
use super::redis_dumps::{dumping, on_both, starts_with};
use super::space::on_small_file_system;
use super::unharmed::strays;

const LIMIT: Duration = Duration::from_secs(60);
/// A server that takes a millisecond for each value.
const SLOW: [(&str, &str); 1] = [("rdb-key-save-delay", "1000")];

/// The only dump of the shelf, without what stands beside it.
fn dump_of(home: &Home) -> PathBuf {
    let is_dump = |path: &PathBuf| path.extension().is_none_or(|end| end != "json" && end != "hmac");
    let mut files = shown(&home.path("dumps")).into_iter().filter(|path| !path.is_symlink()).filter(is_dump);
    let dump = files.next().unwrap();
    assert_eq!(files.next(), None);
    dump
}

#[track_caller]
fn nothing_there(home: &Home, why: &str) {
    let dumps = home.path("dumps");
    assert_eq!((shown(&dumps), strays(&dumps)), (Vec::new(), Vec::new()), "{why}");
}

fn is_sending(server: &Redis) -> bool {
    server.run(&["INFO", "persistence"]).unwrap().text().contains("rdb_bgsave_in_progress:1")
}

#[test]
fn a_server_that_dies_while_it_sends_leaves_no_dump_and_no_obstacle() {
    on_both(&SLOW, |server, taken| {
        let home = dumping(server, "tiers");
        let dump = home.start(["dump", "cache"]);
        wait_until(LIMIT, "the snapshot to be on its way", || is_sending(server)).unwrap();
        server.kill9().unwrap();
        Ran::from(&dump.wait_with_output().unwrap()).refused(6, &["its snapshot"]);
        nothing_there(&home, "a server that died");
        home.run(["dump", "cache"]).refused(6, &["connect"]);
        server.start().unwrap();
        server.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        super::redis_bases::fill(&mut server.client().unwrap());
        home.run(["dump", "cache", "--layout", "plain"]).good();
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        starts_with(server, &into, taken);
    });
}

#[test]
fn a_dump_that_is_cancelled_or_killed_leaves_nothing_and_the_server_stops_sending() {
    on_both(&SLOW, |server, _| {
        let home = dumping(server, "tiers");
        for (signal, code) in [(Signal::INT, 10), (Signal::KILL, -1)] {
            let dump = home.start(["dump", "cache"]);
            wait_until(LIMIT, "the snapshot to be on its way", || is_sending(server)).unwrap();
            kill_process(Pid::from_child(&dump), signal).unwrap();
            let ran = Ran::from(&dump.wait_with_output().unwrap());
            assert_eq!(ran.code, code, "{ran:#?}");
            wait_until(LIMIT, "the server to stop", || !is_sending(server)).unwrap();
            assert_eq!(shown(&home.path("dumps")), Vec::<PathBuf>::new());
        }
        server.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        home.run(["dump", "cache"]).good();
        home.run(["verify", "cache"]).good();
    });
}

#[test]
fn a_snapshot_that_is_damaged_on_its_way_gets_no_name() {
    on_both(&[], |server, _| {
        let home = dumping(server, "tiers");
        let way = Way::to(server.port()).unwrap();
        way.spoil(3 << 20);
        let url = format!("instance.cache.url=redis://127.0.0.1:{}", way.port);
        let ran = home.run(["dump", "cache", "--set", &url]);
        assert!(ran.code == 8 && ran.err.contains("its sum is another"), "{ran:#?}");
        nothing_there(&home, "a damaged snapshot");
    });
}

#[test]
fn a_dump_that_is_damaged_is_told_and_never_given_back() {
    for words in [&["--compress", "gzip"][..], &["--encrypt", "openssl"], &["--compress", "none"]] {
        on_both(&[], |server, _| {
            let home = dumping(server, "plain");
            home.run([&["dump", "cache", "--quiet"], words].concat()).good();
            let file = dump_of(&home);
            let whole = std::fs::read(&file).unwrap();
            let into = home.path("restored");
            let spoil: [&dyn Fn(&Path); 3] = [
                &|file| flip_a_bit(file),
                &|file| std::fs::write(file, &whole[..whole.len() - 1]).unwrap(),
                &|file| std::fs::write(file, &whole[..whole.len() / 2]).unwrap(),
            ];
            for spoil in spoil {
                std::fs::write(&file, &whole).unwrap();
                spoil(&file);
                home.run(["restore", "cache", "--into", into.to_str().unwrap()]).refused(8, &["damaged"]);
                assert!(!into.exists(), "{words:?}");
                let seen = home.run(["verify", "cache", "--json"]);
                assert_eq!(
                    (seen.code, &seen.json()["dumps"][0]["state"]),
                    (20, &"damaged".into()),
                    "{seen:#?}"
                );
                std::fs::remove_dir_all(home.path("dumps/verification")).unwrap();
            }
        });
    }
}

#[test]
fn a_wrong_pass_phrase_is_not_taken_for_damage() {
    on_both(&[], |server, taken| {
        for cipher in ["openssl", "openpgp"] {
            let home = dumping(server, "plain");
            home.run(["dump", "cache", "--quiet", "--encrypt", cipher]).good();
            std::fs::copy(home.path("phrase"), home.path("older")).unwrap();
            std::fs::write(home.path("phrase"), "another").unwrap();
            let into = home.path("restored");
            let restore = ["restore", "cache", "--into", into.to_str().unwrap()];
            home.run(restore).refused(5, &["pass phrase"]);
            assert!(!into.exists());
            assert_eq!(home.run(["verify", "cache"]).code, 21);
            let older = home.path("older");
            home.run([&restore[..], &["--passphrase-file", older.to_str().unwrap()]].concat()).good();
            starts_with(server, &into, taken);
        }
    });
}

/// Bytes that do not compress.
fn noise(server: &Redis) {
    let (mut state, mut client) = (0x9e37_79b9_7f4a_7c15_u64, server.client().unwrap());
    for number in 0..200 {
        let mut value = Vec::with_capacity(100_000);
        while value.len() < 100_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_le_bytes());
        }
        client.run(&[&b"SET"[..], format!("noise:{number}").as_bytes(), &value]).unwrap();
    }
}

#[test]
fn a_shelf_that_fills_up_keeps_the_dumps_it_has() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let large = Redis::start_new(&installation, &[]).unwrap();
        noise(&large);
        let small = Redis::start_new(&installation, &[]).unwrap();
        small.run(&["SET", "a", "b"]).unwrap();
        let home = dumping(&large, "plain");
        home.append(&format!("[instance.small]\nengine = 'redis'\nurl = '{}'\n", small.url()));
        let place = home.path("dumps");
        for words in ["--compress none", "--compress gzip", "--encrypt openssl"] {
            let script = format!(
                "b() {{ \"$BACKSTAY\" --config '{config}' dump \"$@\"; }}
                 b small --quiet >/dev/null || exit 101
                 b cache {words}; echo \"code=$?\"
                 find '{place}' -path '*cache*' -type f -o -path '*unfinished/tmp-*'
                 ls '{place}/small' | wc -l
                 b small --quiet >/dev/null && echo again",
                config = home.config().display(),
                place = place.display(),
            );
            let Some(ran) = on_small_file_system(&place, 8, &script) else { return };
            assert_eq!(ran.out, "code=6\n2\nagain\n", "{words}: {ran:#?}");
            ran_with_one_error(&ran.err, &["No space left", "dump.to"]);
        }
        // The same where a dump is given back.
        let to = home.path("elsewhere");
        home.run(["dump", "cache", "--quiet", "--to", to.to_str().unwrap()]).good();
        let into = home.path("small-disk");
        let script = format!(
            "\"$BACKSTAY\" --config '{config}' restore cache --set 'dump.to=file://{to}' --into '{into}/data'
             echo \"code=$?\"; ls -A '{into}'",
            config = home.config().display(),
            to = to.display(),
            into = into.display(),
        );
        let Some(ran) = on_small_file_system(&into, 8, &script) else { return };
        assert_eq!(ran.out, "code=6\n", "{ran:#?}");
    }
}

#[test]
fn a_name_that_is_taken_is_left_to_whom_it_belongs() {
    on_both(&[], |server, _| {
        let home = dumping(server, "save-it-ai");
        let words = ["dump", "cache", "--set", "instance.cache.dump.name=redis-{time:%Y-%m-%d}.{ext}"];
        home.run(words).good();
        let before = std::fs::read(dump_of(&home)).unwrap();
        server.run(&["SET", "another", "value"]).unwrap();
        home.run(words).refused(4, &["redis-", "is there already", "dump.name"]);
        assert_eq!(std::fs::read(dump_of(&home)).unwrap(), before);
        // Somebody's, without a sidecar.
        let file = dump_of(&home);
        std::fs::remove_file(format!("{}.meta.json", file.display())).unwrap();
        std::fs::write(&file, "of a script").unwrap();
        home.run(words).refused(4, &["redis-", "adopt"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"of a script");
        // Two within a second have names of their own.
        for _ in 0..2 {
            home.run(["dump", "cache", "--quiet", "--layout", "plain"]).good();
        }
        assert_eq!(shown(&home.path("dumps/cache")).len(), 4);
    });
}

#[test]
fn what_cannot_be_dumped_is_refused_before_the_first_file() {
    on_both(&[], |server, _| {
        let home = dumping(server, "plain");
        let refused = |words: &[&str], code: i32, told: &[&str]| {
            home.run([&["dump", "cache"], words].concat()).refused(code, told);
            nothing_there(&home, &format!("{words:?}"));
        };
        refused(&["--format", "custom"], 2, &["snapshot", "--format"]);
        refused(&["--database", "0"], 2, &["all that the server has", "--database"]);
        refused(&["--table", "session"], 2, &["all that the server has", "--table"]);
        refused(&["--compress", "gzip:99"], 2, &["99"]);
        refused(&["--to", "s3://bucket"], 2, &["dump.to"]);
        let rules = "ACL SETUSER weak on >secret ~* -@all +ping +info +replconf +client|setname";
        server.run(&rules.split(' ').collect::<Vec<_>>()).unwrap();
        std::fs::write(home.path("weak"), "secret").unwrap();
        let url = format!("instance.cache.url=redis://weak@127.0.0.1:{}", server.port());
        let weak = ["--set", &url, "--set", "instance.cache.password.file=weak"];
        refused(&weak, 5, &["NOPERM", "ACL SETUSER backstay"]);
        server.run(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
        refused(&[], 5, &["NOAUTH", "password"]);
    });
}

#[test]
fn a_snapshot_without_a_sum_is_a_dump_with_a_warning() {
    on_both(&[("rdbchecksum", "no")], |server, taken| {
        let home = dumping(server, "plain");
        let told = home.run(["dump", "cache", "--json"]).good().json();
        assert!(told["findings"].to_string().contains("rdbchecksum yes"), "{told:#}");
        let record = &told["dumps"][0];
        assert!(record["warnings"].to_string().contains("no sum into it"), "{told:#}");
        let shown = home.run(["show", record["id"].as_str().unwrap()]).good();
        assert!(shown.out.contains("no sum into it") && !shown.out.contains("pg_dump"), "{shown:#?}");
        home.run(["verify", "cache"]).good();
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        starts_with(server, &into, taken);
    });
}
