//! Directories and files that an ordinary user may not read or not write: told as that, in
//! every verb about dumps, with the setting that names the place; nothing is left.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::Postgres;
use testkit::ownership::server_owner;

use super::program::{Home, Ran, backstay, run, server};
use super::reloads::{databases, shop};
use super::unharmed::{no_sessions, strays};

/// The program as somebody whom permissions mean something to.
struct Ordinary<'a> {
    home: &'a Home,
    program: PathBuf,
}

impl Ordinary<'_> {
    /// Everything in the home is his.
    fn of(home: &Home) -> Ordinary<'_> {
        let program = home.path("backstay");
        // Where it was built may be closed to him.
        std::fs::copy(backstay().get_program(), &program).unwrap();
        server_owner().unwrap().take_all(&home.path(".")).unwrap();
        Ordinary { home, program }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let asked = self.home.command(words);
        let mut command = Command::new(&self.program);
        command.args(asked.get_args()).current_dir(self.home.path(".")).stdin(std::process::Stdio::null());
        for (name, value) in asked.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("HOME", self.home.path("."));
        server_owner().unwrap().apply(&mut command);
        run(&mut command)
    }

    /// One error with this code and these words.
    #[track_caller]
    fn is_refused(&self, words: &[&str], code: i32, told: &[&str]) {
        let ran = self.run(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:#?}");
        ran.refused(code, told);
    }
}

/// A path with other permissions until the value is dropped.
struct Closed(PathBuf, Permissions);

fn closed(path: impl AsRef<Path>, mode: u32) -> Closed {
    let path = path.as_ref().to_owned();
    let before = std::fs::metadata(&path).unwrap().permissions();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    Closed(path, before)
}

impl Drop for Closed {
    fn drop(&mut self) {
        std::fs::set_permissions(&self.0, self.1.clone()).unwrap();
    }
}

const DUMP: [&str; 6] = ["dump", "orders", "--database", "shop", "--layout", "plain"];
const INTO: [&str; 6] = ["restore", "orders", "--database", "shop", "--into-database", "copy"];
const SWAP: [&str; 7] = ["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"];

/// A dump of `shop` on a shelf of its own, and its file.
fn house() -> Option<(Postgres, Home, PathBuf)> {
    let server = server()?;
    let home = shop(&server, &["--layout", "plain"]);
    std::fs::create_dir(home.path("spool")).unwrap();
    home.append(&format!("spool = \"{}\"\n", home.path("spool").display()));
    let files = super::dumps::shown(&home.path("dumps"));
    let dump = files.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "zst")).unwrap();
    Some((server, home, dump))
}

#[test]
fn a_shelf_that_cannot_be_read_is_told_as_that_by_every_verb() {
    let Some((server, home, dump)) = house() else { return };
    let ordinary = Ordinary::of(&home);
    let shelf = home.path("dumps");
    for mode in [0o000, 0o300] {
        let _closed = closed(&shelf, mode);
        let place = shelf.to_str().unwrap();
        ordinary.is_refused(&["list", "--type", "dump"], 5, &["Permission denied", place, "dump.to"]);
        ordinary.is_refused(&["expire", "orders", "--dry-run"], 5, &["Permission denied", "dump.to"]);
        ordinary.is_refused(&["adopt", place], 5, &["Permission denied", place]);
        ordinary.is_refused(&INTO, 5, &["Permission denied", "dump.to"]);
        ordinary.is_refused(&SWAP, 5, &["Permission denied", "dump.to"]);
        let seen = ordinary.run(&["verify", "orders"]);
        assert_eq!(seen.code, 21, "{seen:#?}");
        assert!(seen.out.contains("Permission denied") && seen.out.contains("dump.to"), "{seen:#?}");
    }
    assert!(dump.exists());
    assert_eq!(databases(&server), ["postgres", "shop"]);
    no_sessions(&server, "a shelf that cannot be read");
}

#[test]
fn a_file_that_cannot_be_read_is_never_called_damaged() {
    let Some((server, home, dump)) = house() else { return };
    let ordinary = Ordinary::of(&home);
    let file = closed(&dump, 0o000);
    ordinary.run(&["list", "--type", "dump"]).good();
    let seen = ordinary.run(&["verify", "orders", "--json"]);
    assert_eq!((seen.code, &seen.json()["dumps"][0]["state"]), (21, &"unseen".into()), "{seen:#?}");
    for words in [&INTO[..], &SWAP] {
        ordinary.is_refused(words, 5, &["Permission denied", "dump.to"]);
    }
    drop(file);
    // What lies in a directory of others.
    let left = home.path("left");
    std::fs::create_dir(&left).unwrap();
    for name in ["one.dump.zst", "two.dump.zst"] {
        std::fs::copy(&dump, left.join(name)).unwrap();
    }
    server_owner().unwrap().take_all(&left).unwrap();
    let file = closed(left.join("one.dump.zst"), 0o000);
    let ran = ordinary.run(&["adopt", left.to_str().unwrap(), "--json"]);
    let told = ran.json();
    assert_eq!((ran.code, &told["files"][0]["fate"]), (20, &"closed".into()), "{told:#}");
    assert!(told["files"][0]["reason"].as_str().unwrap().contains("Permission denied"), "{told:#}");
    assert_eq!(told["files"][1]["fate"], "adopted", "{told:#}");
    drop(file);
    let sidecar = closed(format!("{}.meta.json", dump.display()), 0o000);
    let seen = ordinary.run(&["verify", "orders"]);
    assert!(seen.code == 21 && seen.out.contains("Permission denied"), "{seen:#?}");
    drop(sidecar);
    assert_eq!(databases(&server), ["postgres", "shop"]);
    no_sessions(&server, "a file that cannot be read");
}

#[test]
fn a_shelf_that_cannot_be_written_gets_no_dump_and_gives_what_it_has() {
    let Some((server, home, dump)) = house() else { return };
    let ordinary = Ordinary::of(&home);
    let before = super::dumps::shown(&home.path("dumps"));
    let parent = dump.parent().unwrap().to_owned();
    std::fs::remove_dir_all(home.path("dumps/.unfinished")).ok();
    let closed_all = [closed(&parent, 0o555), closed(home.path("dumps"), 0o555)];
    ordinary.is_refused(&DUMP, 5, &["Permission denied", "dump.to"]);
    // The safety dump comes before anything is changed.
    let used = ["restore", "orders", "--database", "shop", "--into-database", "shop", "--table", "orders"];
    let used = [&used[..], &["--force", "--confirm", "shop"]].concat();
    ordinary.is_refused(&used, 5, &["Permission denied", "dump.to"]);
    // Reading asks for no more than reading.
    ordinary.run(&["list", "--type", "dump"]).good();
    let seen = ordinary.run(&["verify", "orders"]).good();
    assert!(seen.out.contains("sound") && seen.out.contains("Permission denied"), "{seen:#?}");
    ordinary.run(&INTO).good();
    server.sql("DROP DATABASE copy").unwrap();
    // Without its sidecar it is a stranger, who cannot be taken in here.
    drop(closed_all);
    std::fs::remove_file(format!("{}.meta.json", dump.display())).unwrap();
    let closed_all = [closed(&parent, 0o555), closed(home.path("dumps"), 0o555)];
    let place = home.path("dumps");
    let adopt = ["adopt", place.to_str().unwrap()];
    ordinary.is_refused(&adopt, 5, &["Permission denied", place.to_str().unwrap()]);
    ordinary.run(&[&adopt[..], &["--dry-run"]].concat()).good();
    drop(closed_all);
    let after = super::dumps::shown(&home.path("dumps"));
    assert_eq!(before.len(), after.len() + 1, "{after:#?}");
    assert_eq!(strays(&home.path("dumps")), Vec::<PathBuf>::new());
    assert_eq!(databases(&server), ["postgres", "shop"]);
    no_sessions(&server, "a shelf that cannot be written");
}

#[test]
fn a_spool_that_cannot_be_written_is_told_with_its_setting() {
    let Some((server, home, _)) = house() else { return };
    let ordinary = Ordinary::of(&home);
    ordinary.run(&[&DUMP[..], &["--format", "directory"]].concat()).good();
    let files = super::dumps::shown(&home.path("dumps"));
    let spool = closed(home.path("spool"), 0o555);
    let place = home.path("spool");
    let told = ["Permission denied", place.to_str().unwrap(), "spool`"];
    let gzipped = [&DUMP[..], &["--format", "directory", "--compress", "gzip"]].concat();
    ordinary.is_refused(&gzipped, 5, &told);
    for words in [&INTO[..], &SWAP, &[&INTO[..], &["--table", "orders"]].concat()] {
        ordinary.is_refused(words, 5, &told);
    }
    drop(spool);
    assert_eq!(super::dumps::shown(&home.path("dumps")), files);
    assert_eq!(strays(&home.path("dumps")), Vec::<PathBuf>::new());
    assert_eq!(databases(&server), ["postgres", "shop"]);
    no_sessions(&server, "a spool that cannot be written");
}
