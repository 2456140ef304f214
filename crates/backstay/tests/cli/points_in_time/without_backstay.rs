//! The log brought out by the second reader: a server replays what it wrote, set up as it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::postgres::StopMode;
use testkit::{Postgres, PostgresVersion, wait_until};

use super::{Archived, LIMIT, ROWS};
use crate::program::{Ran, flip_a_bit, run};

struct Rescue {
    python: PathBuf,
    kit: PathBuf,
}

impl Rescue {
    fn run(&self, archived: &Archived, words: &[&str]) -> Ran {
        let mut command = Command::new(&self.python);
        command.arg(self.kit.join("backstay-rescue.py"));
        command.arg("--repository").arg(archived.home.path("store"));
        command.arg("--key").arg(archived.home.path("backstay.key"));
        run(command.args(words))
    }

    /// The log, as files: where they lie.
    fn bring(&self, archived: &mut Archived, more: &[&str]) -> (PathBuf, Ran) {
        let log = archived.place();
        let words = [&["log", "orders", log.to_str().unwrap()], more].concat();
        let brought = self.run(archived, &words);
        (log, brought)
    }

    /// The rows of the newest base and its log, after a recovery as a person sets it up.
    fn rows(&self, archived: &mut Archived, more: &[&str]) -> String {
        let base = archived.place();
        self.run(archived, &["restore", "orders", base.to_str().unwrap()]).good();
        let (_, brought) = self.bring(archived, more);
        replayed(archived, &base, &brought.good())
    }
}

/// The rows at the end of a recovery as a person would set it up.
fn replayed(archived: &Archived, base: &Path, brought: &Ran) -> String {
    std::fs::write(base.join("recovery.signal"), "").unwrap();
    let told = brought.out.lines().skip_while(|line| !line.starts_with("next: ")).skip(1);
    let settings: Vec<String> = told
        .map(|line| {
            let (name, value) = line.trim().split_once(" = ").unwrap();
            format!("{name}={}", value.trim_matches('\''))
        })
        .collect();
    assert_eq!(settings.len(), 3, "{brought:#?}");
    let copy = Postgres::start_on_with(archived.server.installation(), base, &settings).unwrap();
    let is_open = || copy.query_value("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f");
    wait_until(LIMIT, "the recovery to end", is_open).unwrap();
    copy.query_value(ROWS).unwrap()
}

#[test]
fn the_second_reader_brings_the_log_of_two_lives_to_the_last_row() {
    let Some(python) = testkit::require_rescue_python() else { return };
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let rescue = Rescue { python: python.clone(), kit: archived.home.path("backstay.recovery-kit") };
        archived.insert(1);
        // Records of all lengths, over the ends of pages and segments, and spans of all cuts.
        let filler =
            "CREATE TABLE f AS SELECT n, repeat(md5(n::text), n % 300) FROM generate_series(1, 9000) n";
        archived.server.sql(filler).unwrap();
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        let second = archived.insert(2);
        archived.insert(3);
        archived.stop_receiving();
        assert_eq!(rescue.rows(&mut archived, &[]), "1 2 3", "{version:?}");

        let (ran, into) = archived.restore(&["--to", &second.time]);
        ran.good();
        let mut copy = Postgres::start_on(archived.server.installation(), &into).unwrap();
        copy.sql("INSERT INTO t VALUES (20)").unwrap();
        let segment = copy.query_value("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        copy.stop(StopMode::Immediate).unwrap();
        for name in ["00000002.history", &segment] {
            let file = into.join("pg_wal").join(name);
            archived.home.run(["wal", "push", file.to_str().unwrap()]).good();
            if name != segment {
                // Nothing of the new life is there yet, and more of the old one than it came from.
                assert_eq!(rescue.rows(&mut archived, &[]), "1 2", "{version:?}");
            }
        }
        drop(copy);
        assert_eq!(rescue.rows(&mut archived, &[]), "1 2 20", "{version:?}");
        assert_eq!(rescue.rows(&mut archived, &["--timeline", "1"]), "1 2 3", "{version:?}");
        let (log, strange) = rescue.bring(&mut archived, &["--timeline", "7"]);
        assert!(strange.code == 2 && !log.exists(), "{strange:#?}");
    }
}

#[test]
fn the_second_reader_tells_a_hole_and_damage_and_leaves_what_is_there_alone() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let Some(mut archived) = Archived::new(PostgresVersion::ALL[0]) else { return };
    let rescue = Rescue { python, kit: archived.home.path("backstay.recovery-kit") };
    let filler = "CREATE TABLE f AS SELECT n, md5(n::text) FROM generate_series(1, 400000) n";
    archived.server.sql(filler).unwrap();
    archived.insert(1);
    archived.stop_receiving();
    let spans = archived.home.objects("/log/");
    let whole = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ends =
            name.split_once('-').map(|(start, end)| [start, end].map(|at| u64::from_str_radix(at, 16)));
        matches!(ends, Some([Ok(start), Ok(end)]) if end - start == 16 << 20)
    };
    let lost = spans.iter().rfind(whole).expect("a whole span").clone();
    let kept = std::fs::read(&lost).unwrap();

    for length in [0, 40, kept.len() / 2, kept.len() - 1] {
        std::fs::remove_file(&lost).unwrap();
        std::fs::write(&lost, &kept[..length]).unwrap();
        let (_, cut) = rescue.bring(&mut archived, &[]);
        assert_eq!(cut.code, 8, "cut to {length}: {cut:#?}");
    }
    std::fs::write(&lost, &kept).unwrap();
    flip_a_bit(&lost);
    let (log, brought) = rescue.bring(&mut archived, &[]);
    assert_eq!(brought.code, 8, "{brought:#?}");
    assert!(brought.err.contains(lost.file_name().unwrap().to_str().unwrap()), "{brought:#?}");
    // Half of a log is none that a server could be given.
    assert!(log.exists() && !log.join("fetch").exists());
    let again = rescue.run(&archived, &["log", "orders", log.to_str().unwrap()]);
    assert_eq!(again.code, 4, "{again:#?}");

    std::fs::remove_file(&lost).unwrap();
    let (_, brought) = rescue.bring(&mut archived, &[]);
    assert_eq!(brought.code, 20, "{brought:#?}");
    assert!(brought.out.contains("hole: of timeline 1 nothing is there from"), "{brought:#?}");
    std::fs::write(&lost, kept).unwrap();
    assert_eq!(rescue.rows(&mut archived, &[]), "1");

    // What a server is told when its log cannot be read, and when it ends.
    let (log, brought) = rescue.bring(&mut archived, &[]);
    brought.good();
    let fetch = |name: &str, to: &Path| {
        Command::new(log.join("fetch")).arg(name).arg(to).output().unwrap().status.code()
    };
    let to = archived.place();
    assert_eq!(fetch("0000000100000000000000F0", &to), Some(1));
    let there = std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.file_name());
    let segment = there.map(|name| name.into_string().unwrap()).find(|name| name.len() == 24).unwrap();
    assert_eq!(fetch(&segment, &to), Some(0));
    assert_eq!(fetch(&segment, &to.join("nowhere")), Some(126));
}
