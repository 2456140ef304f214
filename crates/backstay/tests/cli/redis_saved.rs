//! Bases of Redis and Valkey from the file that the server saves, where its directory is named.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Redis, RedisVersion, require_redis, wait_for, wait_until};

use super::program::{Home, Ran};
use super::redis_bases::{digest, fill};

const LIMIT: Duration = Duration::from_secs(60);

/// A server of each fork, and a home that knows the directory of its instance `cache`.
fn on_both(test: impl Fn(&Redis, &Home)) {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let server = Redis::start_new(&installation, &[("repl-diskless-sync-delay", "0")]).unwrap();
        let home = home_of(&server, server.data_directory());
        test(&server, &home);
    }
}

fn home_of(server: &Redis, directory: &Path) -> Home {
    let home = Home::new();
    home.init();
    home.append(&format!(
        "[instance.cache]\nengine = 'redis'\nurl = '{}'\ndata_directory = '{}'\n[instance.cache.archive]\nspool = '{}'\n",
        server.url(),
        directory.display(),
        home.path("spool").display()
    ));
    home
}

fn info(server: &Redis, field: &str) -> String {
    let text = server.run(&["INFO", "everything"]).unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
}

fn restored(server: &Redis, home: &Home, words: &[&str], name: &str) -> String {
    let into = home.path(name);
    let place = ["--into", into.to_str().unwrap(), "--quiet"];
    home.run(["restore", "cache"].iter().chain(words).chain(&place)).good();
    let settings = [("appendonly", "yes"), ("replicaof", "127.0.0.1 1")];
    digest(&Redis::start_on(server.installation(), &into, &settings).unwrap())
}

/// Over the wire this side is a replica for a moment.
fn came_over_the_wire(server: &Redis) -> bool {
    info(server, "sync_full") != "0"
}

#[test]
fn the_file_that_the_server_saves_is_a_base_and_comes_back_with_every_value() {
    on_both(|server, home| {
        fill(&mut server.client().unwrap());
        server.run(&["SAVE"]).unwrap();
        let file = server.data_directory().join("dump.rdb");
        let old = std::fs::metadata(&file).unwrap().ino();
        server.run(&["SET", "since", "then"]).unwrap();
        let checked = home.run(["config", "check", "--connect"]).good();
        assert!(checked.out.contains("its data directory can be read"), "{checked:#?}");
        let taken = digest(server);
        let ran = home.run(["backup", "cache"]).good();
        assert!(!came_over_the_wire(server), "{ran:#?}");
        assert_ne!(std::fs::metadata(&file).unwrap().ino(), old);
        let shown = home.run(["show", &home.backups()[0]]).good().out;
        for said in ["dump.rdb", "in the place of the one before", "nothing that comes later is replayed"] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
        server.run(&["FLUSHALL"]).unwrap();
        home.run(["verify", "cache", "--level", "digest"]).good();
        assert_eq!(restored(server, home, &[], "restored"), taken);
        let told = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["recovery_windows"].as_array().map(Vec::len), Some(1), "{told:#}");
    });
}

/// `backstay archive cache`, until it is dropped.
struct Archive(Child);

impl Archive {
    fn start(home: &Home) -> Archive {
        let log = std::fs::File::create(home.path("archive.log")).unwrap();
        let mut command: Command = home.command(["archive", "cache"]);
        Archive(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_stream_goes_on_behind_a_file_that_the_server_saved() {
    on_both(|server, home| {
        fill(&mut server.client().unwrap());
        let archive = Archive::start(home);
        wait_until(LIMIT, "the first base", || home.backups().len() == 1).unwrap();
        let syncs = info(server, "sync_full");
        server.run(&["SELECT", "9"]).unwrap();
        server.run(&["SET", "before", "the base"]).unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
        assert_eq!(info(server, "sync_full"), syncs);
        let id = home.backups().into_iter().max().unwrap();
        let shown = home.run(["show", &id]).good().out;
        assert!(!shown.contains("nothing that comes later"), "{shown}");
        let mut client = server.client().unwrap();
        for words in ["SELECT 9", "APPEND ninth !", "SELECT 0", "RPUSH list d e f", "SET behind yes"] {
            client.run(&words.split(' ').collect::<Vec<_>>()).unwrap();
        }
        let (end, taken) = (info(server, "master_repl_offset"), digest(server));
        let to = format!("offset:{end}");
        let words = ["restore", "cache", "--backup", &id, "--to", &to, "--dry-run", "--into", "planned"];
        wait_for(LIMIT, "the stream to be archived", || (home.run(words).code == 0).then_some(())).unwrap();
        assert_eq!(restored(server, home, &["--backup", &id, "--to", &to], "restored"), taken);
        drop(archive);
    });
}

#[test]
fn a_directory_that_is_not_the_servers_is_told_and_the_base_comes_over_the_wire() {
    on_both(|server, home| {
        server.run(&["SET", "a", "b"]).unwrap();
        let taken = digest(server);
        let other = home.path("other");
        std::fs::create_dir(&other).unwrap();
        for (directory, why) in
            [(&other, "is not the directory of the server"), (&home.path("x"), "No such file")]
        {
            let home = home_of(server, directory);
            let syncs = info(server, "sync_full");
            let ran = home.run(["backup", "cache"]).good();
            assert_ne!(info(server, "sync_full"), syncs);
            let shown = home.run(["show", &home.backups()[0]]).good().out;
            assert!(shown.contains(why) && shown.contains("data_directory"), "{why}: {shown} {ran:#?}");
            assert_eq!(restored(server, &home, &[], "restored"), taken);
            let checked = home.run(["config", "check", "--connect"]).good();
            assert!(checked.out.contains("bases come over the network"), "{checked:#?}");
        }
        assert_eq!(info(server, "rdb_saves"), "0", "a server was made to save for nothing");
    });
}

#[test]
fn a_server_that_may_not_or_cannot_save_is_backed_up_over_the_wire() {
    on_both(|server, home| {
        server.run(&["SET", "a", "b"]).unwrap();
        let taken = digest(server);
        // A directory of the name of its file: it cannot be replaced.
        let file = server.data_directory().join("dump.rdb");
        std::fs::create_dir(&file).unwrap();
        std::fs::write(file.join("in it"), "x").unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
        let shown = home.run(["show", &home.backups()[0]]).good().out;
        assert!(shown.contains("could not save its snapshot"), "{shown}");
        assert_eq!(restored(server, home, &[], "restored"), taken);

        std::fs::remove_dir_all(&file).unwrap();
        server.run(&["ACL", "SETUSER", "default", "-bgsave"]).unwrap();
        let home = home_of(server, server.data_directory());
        home.run(["backup", "cache", "--quiet"]).good();
        let shown = home.run(["show", &home.backups()[0]]).good().out;
        assert!(shown.contains("NOPERM") && shown.contains("ACL SETUSER backstay +bgsave"), "{shown}");
    });
}

#[test]
fn a_save_of_somebody_else_and_a_rewrite_are_waited_for() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let settings = [("rdb-key-save-delay", "300"), ("appendonly", "yes")];
        let server = Redis::start_new(&installation, &settings).unwrap();
        let home = home_of(&server, server.data_directory());
        fill(&mut server.client().unwrap());
        let running = |field: &str| info(&server, field) == "1";
        for (command, field) in
            [("BGSAVE", "rdb_bgsave_in_progress"), ("BGREWRITEAOF", "aof_rewrite_in_progress")]
        {
            server.run(&[command]).unwrap();
            wait_until(LIMIT, format!("{command} to run"), || running(field)).unwrap();
            // What the one that runs does not hold any more.
            server.run(&["SET", "late", command]).unwrap();
            let taken = digest(&server);
            home.run(["backup", "cache", "--quiet"]).good();
            assert!(!came_over_the_wire(&server));
            assert_eq!(restored(&server, &home, &[], command), taken, "{command}");
        }
    }
}

#[test]
fn a_server_that_dies_while_it_saves_leaves_no_backup() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, &[("rdb-key-save-delay", "2000")]).unwrap();
        let home = home_of(&server, server.data_directory());
        fill(&mut server.client().unwrap());
        let backup = home.start(["backup", "cache"]);
        wait_until(LIMIT, "the save to run", || info(&server, "rdb_bgsave_in_progress") == "1").unwrap();
        server.kill9().unwrap();
        let ran = Ran::from(&backup.wait_with_output().unwrap());
        assert!(ran.code == 6 && home.backups().is_empty(), "{ran:#?}");
    }
}
