//! The log brought out by the second reader, which was written from the description of the
//! format: a server replays what it wrote, with `cp` as its `restore_command`.

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

    /// A base and the log, as files: where both lie.
    fn bring(&self, archived: &mut Archived) -> (PathBuf, PathBuf, Ran) {
        let (base, log) = (archived.place(), archived.place());
        self.run(archived, &["restore", "orders", base.to_str().unwrap()]).good();
        let brought = self.run(archived, &["log", "orders", log.to_str().unwrap()]);
        (base, log, brought)
    }
}

/// The rows at the end of a recovery as a person would set it up.
fn replayed(archived: &Archived, base: &Path, log: &Path) -> String {
    testkit::ownership::server_owner().unwrap().take_all(log).unwrap();
    std::fs::write(base.join("recovery.signal"), "").unwrap();
    let settings = [
        format!("restore_command=cp \"{}/%f\" \"%p\"", log.display()),
        "recovery_target_timeline=latest".to_owned(),
    ];
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
        let (base, log, brought) = rescue.bring(&mut archived);
        assert!(brought.good().out.contains("of timeline 1"), "the second reader says where it ends");
        assert_eq!(replayed(&archived, &base, &log), "1 2 3", "{version:?}");

        let (ran, into) = archived.restore(&["--to", &second.time]);
        ran.good();
        let mut copy = Postgres::start_on(archived.server.installation(), &into).unwrap();
        copy.sql("INSERT INTO t VALUES (20)").unwrap();
        let segment = copy.query_value("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        copy.stop(StopMode::Immediate).unwrap();
        for name in ["00000002.history", &segment] {
            let file = into.join("pg_wal").join(name);
            archived.home.run(["wal", "push", file.to_str().unwrap()]).good();
        }
        drop(copy);
        let (base, log, brought) = rescue.bring(&mut archived);
        assert!(brought.good().out.contains("of timeline 2"), "the second reader says where it ends");
        assert_eq!(replayed(&archived, &base, &log), "1 2 20", "{version:?}");
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

    flip_a_bit(&lost);
    let (_, log, brought) = rescue.bring(&mut archived);
    assert_eq!(brought.code, 8, "{brought:#?}");
    assert!(brought.err.contains(lost.file_name().unwrap().to_str().unwrap()), "{brought:#?}");
    brought_again_is_refused(&rescue, &archived, &log);

    std::fs::remove_file(&lost).unwrap();
    let (_, _, brought) = rescue.bring(&mut archived);
    assert_eq!(brought.code, 20, "{brought:#?}");
    assert!(brought.out.contains("hole: of timeline 1 nothing is there from"), "{brought:#?}");
    std::fs::write(&lost, kept).unwrap();
    let (base, log, brought) = rescue.bring(&mut archived);
    brought.good();
    assert_eq!(replayed(&archived, &base, &log), "1");
}

fn brought_again_is_refused(rescue: &Rescue, archived: &Archived, log: &Path) {
    let again = rescue.run(archived, &["log", "orders", log.to_str().unwrap()]);
    assert_eq!(again.code, 4, "{again:#?}");
}
