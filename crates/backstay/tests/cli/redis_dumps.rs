//! Portable dumps of Redis and Valkey: taken over the wire, opened without Backstay, given back as
//! a directory that a server starts on.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{Redis, RedisVersion, require_programs, require_redis};

use super::dumps::{PHRASE, shown};
use super::program::{Home, Ran, flip_a_bit, run};
use super::redis_bases::{digest, fill};
use super::unharmed::strays;

/// A home whose instance `cache` is this server. How PostgreSQL is dumped is set as well.
pub fn dumping(server: &Redis, layout: &str) -> Home {
    let home = Home::new();
    home.init();
    std::fs::write(home.path("phrase"), PHRASE).unwrap();
    home.append(&format!(
        "[dump]\nto = 'file://{}'\nlayout = '{layout}'\nformat = 'custom'\npassphrase = {{ file = 'phrase' }}\n\
         [instance.cache]\nengine = 'redis'\nurl = '{}'\nenvironment = 'production'\n",
        home.path("dumps").display(),
        server.url()
    ));
    home
}

/// A server of each fork with values of every type, and its digest.
pub fn on_both(settings: &[(&str, &str)], test: impl Fn(&mut Redis, &str)) {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, settings).unwrap();
        fill(&mut server.client().unwrap());
        let taken = digest(&server);
        test(&mut server, &taken);
    }
}

fn shell(home: &Home, script: &str) -> Ran {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(home.path(".")).stdin(Stdio::null());
    command.env("GNUPGHOME", home.path("gnupg"));
    run(&mut command).good()
}

fn version_of(server: &Redis) -> String {
    let text = server.run(&["INFO", "server"]).unwrap().text();
    let said = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    said("valkey_version").or_else(|| said("redis_version")).unwrap().trim().to_owned()
}

/// Servers that append and those that do not find the same in a restored directory.
pub fn starts_with(server: &Redis, directory: &Path, expected: &str) {
    for settings in [&[][..], &[("appendonly", "yes")]] {
        let restored = Redis::start_on(server.installation(), directory, settings).unwrap();
        assert_eq!(digest(&restored), expected, "{settings:?}");
        assert_eq!(restored.run(&["FCALL", "one", "0"]).unwrap().text(), "1");
    }
}

#[test]
fn a_dump_in_every_form_comes_back_with_every_value() {
    if !require_programs(&["openssl", "gpg", "gpg-agent", "gzip", "zstd"]) {
        return;
    }
    let openssl = "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:phrase -in FILE";
    let gpg = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file phrase --decrypt FILE";
    on_both(&[], |server, taken| {
        for (words, name, way) in [
            (&["--layout", "grill-stats"][..], "daily/redis_TIME.rdb.gz", "gunzip -c FILE".to_owned()),
            (&["--layout", "grill-stats-backup"], "redis_TIME.rdb.gz.enc", format!("{openssl} | gunzip")),
            (&["--encrypt", "openpgp"], "cache/redis_TIME.rdb.gz.gpg", format!("{gpg} | gunzip")),
            (&["--compress", "zstd:1"], "cache/redis_TIME.rdb.zst", "zstd -dc FILE".to_owned()),
            (&["--compress", "none"], "cache/redis_TIME.rdb", "cat FILE".to_owned()),
        ] {
            let home = dumping(server, "plain");
            std::fs::create_dir(home.path("gnupg")).unwrap();
            let told = home.run([&["dump", "cache", "--json"], words].concat()).good().json();
            let dump = &told["dumps"][0];
            let id = dump["id"].as_str().unwrap();
            let path = dump["paths"][0]["path"].as_str().unwrap();
            let time = format!("{}_{}", &id[..8], &id[9..15]);
            assert_eq!(path, name.replace("TIME", &time));
            let file = home.path("dumps").join(path);
            for (field, expected) in [
                ("engine", "redis"),
                ("content", "server"),
                ("format", "rdb"),
                ("environment", "production"),
                ("server_version", version_of(server).as_str()),
            ] {
                assert_eq!(dump[field], expected, "{field}: {told:#}");
            }
            assert_eq!(dump["stored_bytes"], std::fs::metadata(&file).unwrap().len(), "{told:#}");
            assert!(dump["position"].as_str().unwrap().contains('@'), "{told:#}");
            assert!(told["findings"].to_string().contains("neither its users nor its settings"), "{told:#}");
            let sidecar = std::fs::read_to_string(format!("{}.meta.json", file.display())).unwrap();
            assert!(sidecar.contains(id) && !sidecar.contains(PHRASE), "{sidecar}");
            home.run(["verify", "cache"]).good();
            let listed = home.run(["list", "--type", "dump", "--json"]).json();
            assert_eq!((&listed[0]["id"], &listed[0]["damaged"]), (&id.into(), &false.into()), "{listed:#}");
            let detail = home.run(["show", id]).good();
            assert!(detail.out.contains("> dump.rdb") || detail.out.contains("cp "), "{detail:#?}");
            // What others do with it.
            let into = home.path("by-hand");
            std::fs::create_dir(&into).unwrap();
            shell(&home, &format!("{} > by-hand/dump.rdb", way.replace("FILE", file.to_str().unwrap())));
            let by_hand = Redis::start_on(server.installation(), &into, &[]).unwrap();
            assert_eq!(digest(&by_hand), taken, "{words:?}");
            // What Backstay does, without the repository.
            std::fs::remove_dir_all(home.path("store")).unwrap();
            let into = home.path("restored");
            let restore = ["restore", "cache", "--backup", id, "--into", into.to_str().unwrap()];
            let ran = home.run(restore).good();
            assert!(ran.out.contains("--appendonly no") && ran.err.contains("appendonly yes"), "{ran:#?}");
            starts_with(server, &into, taken);
        }
    });
}

/// With `#` for each number, and without what is new in each run.
fn settled(text: &str, home: &Home, id: &str) -> String {
    let text = text.replace(home.path("").to_str().unwrap(), "HOME/").replace(id, "ID");
    let mut settled = String::new();
    for c in text.chars() {
        let is_number = c.is_ascii_digit() || (c == '.' && settled.ends_with('#'));
        match is_number {
            true if settled.ends_with('#') => {}
            true => settled.push('#'),
            false => settled.push(c),
        }
    }
    settled
}

#[test]
fn what_a_person_sees_of_a_dump_and_of_its_restore() {
    on_both(&[], |server, _| {
        let own = server.installation().version().prefix();
        let home = dumping(server, "plain");
        let dumped = home.run(["dump", "cache"]).good();
        let id = home.run(["list", "--type", "dump", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
        let expected = "\
cache: dump ID of the whole server in # s: # KiB from # MiB
  daily               HOME/dumps/cache/redis_#_#rdb.gz
  opened with         gunzip | redis-server
  info: users and settings: a dump holds the data and the functions of the server, and neither its users nor its settings
      remedy: `backstay backup` takes a base, which has them beside the data
";
        assert_eq!(settled(&dumped.out, &home, &id), expected);
        assert_eq!(dumped.err, "");
        // Where the repository has no base, the newest dump is meant.
        let into = home.path("restored");
        let restored = home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        let expected = "\
restore a dump of cache into HOME/restored
  dump                ID of the whole server
  file                cache/redis_#_#rdb.gz
  writes              about # MiB
  steps
    # check cache/redis_#_#rdb.gz to its end, and write HOME/restored/dump.rdb, also as append-only files
    # tell what to run then; no server is touched
  info: the server: the snapshot is of version #
      remedy: start this version or a newer one on it: an older one does not load it
  warning: dump.rdb: a server with `appendonly yes` does not read it: it starts with its append-only file, or empty, and then writes over it
      remedy: start it once with `--appendonly no`, then `redis-cli CONFIG SET appendonly yes`; or start it on HOME/restored, where it finds what it looks for either way
";
        assert_eq!(settled(&restored.err, &home, &id), expected);
        let expected = "\
cache: restored # MiB from dump ID into HOME/restored in # s
  what brings it into the server
    FORK-cli CONFIG GET dir
    FORK-cli CONFIG GET dbfilename
    FORK-cli SAVE
    FORK-cli SHUTDOWN NOSAVE
    mv --backup=numbered /var/lib/FORK/dump.rdb /var/lib/FORK/dump.rdb.before-restore
    install --owner=FORK --group=FORK --mode=# HOME/restored/dump.rdb /var/lib/FORK/dump.rdb
    FORK-server /etc/FORK/FORK.conf --appendonly no
";
        assert_eq!(settled(&restored.out, &home, &id), expected.replace("FORK", own));
    });
}

#[test]
fn what_a_script_left_comes_back_as_well() {
    if !require_programs(&["gzip"]) {
        return;
    }
    on_both(&[], |server, taken| {
        let home = dumping(server, "grill-stats");
        let file = home.path("dumps/daily/redis_20240101_040000.rdb.gz");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        run(server.cli().arg("--rdb").arg(home.path("plain.rdb"))).good();
        shell(&home, &format!("gzip -c plain.rdb > '{}'", file.display()));
        let told = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--json"]).good().json();
        assert_eq!(told["files"][0]["fate"], "adopted", "{told:#}");
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        starts_with(server, &into, taken);
        // Ours stands in one row with it, and is the newest.
        home.run(["dump", "cache", "--quiet"]).good();
        home.run(["verify", "cache"]).good();
        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        let adopted: Vec<_> = listed.as_array().unwrap().iter().map(|dump| &dump["adopted"]).collect();
        assert_eq!(adopted, [false, true], "{listed:#}");
    });
}

#[test]
fn retention_holds_and_the_pointer_are_those_of_every_dump() {
    on_both(&[], |server, taken| {
        let home = dumping(server, "tiers");
        home.append("[instance.cache.dump]\nname = 'daily/{database}_{time}.{ext}'\nkeep = { daily = { count = 1 } }\n");
        let dump = || {
            let told = home.run(["dump", "cache", "--json"]).good().json();
            let of = |field: &str| told["dumps"][0][field].as_str().unwrap().to_owned();
            (of("id"), of("file"))
        };
        let (first, second) = (dump(), dump());
        let pointer = home.path("dumps/latest_redis.rdb.gz");
        let points_to = |name: &str| std::fs::read_link(&pointer).unwrap().ends_with(name);
        assert!(points_to(&second.1));
        let there = || {
            let names = shown(&home.path("dumps/daily"));
            names.iter().filter(|path| path.to_string_lossy().ends_with(".rdb.gz")).count()
        };
        home.run(["hold", "add", &first.0, "--reason", "an audit"]).good();
        home.run(["expire", "cache"]).good();
        assert_eq!(there(), 2);
        home.run(["hold", "remove", &first.0]).good();
        home.run(["expire", "cache"]).good();
        assert_eq!(there(), 1);
        assert!(!home.path("dumps/daily").join(format!("{}.meta.json", first.1)).exists());
        // The last good one stays, and what leads to it.
        assert!(points_to(&second.1));
        let into = home.path("restored");
        home.run(["restore", "cache", "--backup", &second.0, "--into", into.to_str().unwrap()]).good();
        starts_with(server, &into, taken);
    });
}

#[test]
fn a_dump_is_named_where_there_are_bases_too() {
    on_both(&[], |server, taken| {
        let home = dumping(server, "plain");
        let told = home.run(["dump", "cache", "--json"]).good().json();
        server.run(&["FLUSHALL"]).unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
        let (of_base, of_dump) = (home.path("base"), home.path("dump"));
        home.run(["restore", "cache", "--into", of_base.to_str().unwrap()]).good();
        assert!(of_base.join("beside/users.acl").exists());
        let id = told["dumps"][0]["id"].as_str().unwrap();
        home.run(["restore", "cache", "--backup", id, "--into", of_dump.to_str().unwrap()]).good();
        starts_with(server, &of_dump, taken);
    });
}

#[test]
fn a_base_is_handed_out_as_the_file_that_scripts_made() {
    if !require_programs(&["openssl", "gzip"]) {
        return;
    }
    on_both(&[], |server, _| {
        let home = dumping(server, "grill-stats");
        home.run(["backup", "cache", "--quiet"]).good();
        // An increment, whose slices lie in two backups.
        server.run(&["SET", "session:7", "another value"]).unwrap();
        let taken = digest(server);
        home.run(["backup", "cache", "--quiet"]).good();
        let id = home.backups().remove(0);
        let out = home.path("out");
        std::fs::create_dir(&out).unwrap();
        let export = |words: &[&str]| {
            let words = [&["export", &id, "--json", "--to", out.to_str().unwrap()], words].concat();
            home.run(words)
        };
        let told = export(&[]).good().json();
        let file = told["files"][0]["path"].as_str().unwrap().to_owned();
        assert!(file.ends_with(&format!("redis_{}_{}.rdb.gz", &id[..8], &id[9..15])), "{told:#}");
        assert!(told["findings"].to_string().contains("neither its users nor its settings"), "{told:#}");
        let sealed = export(&["--encrypt", "openssl"]).good().json();
        let sealed = sealed["files"][0]["path"].as_str().unwrap();
        let openssl = "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:phrase -in";
        for (number, way) in
            [format!("gunzip -c '{file}'"), format!("{openssl} '{sealed}' | gunzip")].iter().enumerate()
        {
            let into = home.path(&format!("by-hand-{number}"));
            std::fs::create_dir(&into).unwrap();
            shell(&home, &format!("{way} > '{}/dump.rdb'", into.display()));
            let restored = Redis::start_on(server.installation(), &into, &[]).unwrap();
            assert_eq!(digest(&restored), taken, "{way}");
        }
        let before = shown(&out);
        let ran = export(&["--compress", "inside"]);
        assert_eq!(ran.code, 2, "{ran:#?}");
        let ran = home.run(["export", &id, "--to", &file]);
        assert_eq!(ran.code, 4, "{ran:#?}");
        assert_eq!((shown(&out), strays(&out)), (before, Vec::new()));
        for object in home.objects("/packs/") {
            flip_a_bit(&object);
        }
        let spoiled = home.path("spoiled/");
        let ran = home.run(["export", &id, "--to", spoiled.to_str().unwrap()]);
        assert_eq!((ran.code, spoiled.exists()), (8, false), "{ran:#?}");
    });
}
