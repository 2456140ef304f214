//! A collection that ends between two deletions of log, as a kill or a dying store ends it: what is
//! left of the log is the younger part as a whole, and every restore that was possible stays so.

use std::fs;

use backstay_model::Lsn;
use testkit::{PostgresVersion, Workspace, require_tampering, tampered};

use super::program::{Home, run};
use super::windows::{Receiver, archived, remembering, row, spans, status, wait_for_log};

const DELETION: &str = "unlinkat";

/// Keeps one backup, and lets what it let go be deleted at once.
fn keep_one(home: &Home) {
    let text = fs::read_to_string(home.config()).unwrap();
    let keep = text.lines().find(|line| line.starts_with("keep = ")).unwrap();
    fs::write(home.config(), text.replace(keep, "keep = { last = 1 }\ngrace = \"0s\"")).unwrap();
}

/// What is held of the log, and that there is nothing between.
fn extent_without_holes(home: &Home) -> (u64, u64) {
    let mut ends: Vec<(u64, u64)> = spans(home).into_iter().map(|(_, start, end)| (start, end)).collect();
    ends.sort_unstable();
    let first = ends[0].0;
    let reached = ends.iter().fold(first, |reached, (start, end)| {
        assert!(*start <= reached, "a hole from {} to {}", Lsn(reached), Lsn(*start));
        reached.max(*end)
    });
    (first, reached)
}

#[test]
fn wherever_a_collection_ends_the_younger_part_of_the_log_is_left_as_a_whole() {
    if !require_tampering() {
        return;
    }
    let Some(server) = remembering(PostgresVersion::V17) else { return };
    let home = archived(&server);
    keep_one(&home);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    (1..=12).for_each(|number| {
        row(&server, number);
    });
    home.run(["backup", "orders", "--full", "--quiet"]).good();
    let last = row(&server, 13);
    row(&server, 14);
    wait_for_log(&home, &server);
    receiver.stop();
    // The first lets the old backup go, the second deletes it.
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    assert_eq!(home.backups().len(), 1);

    let (mut first, end) = extent_without_holes(&home);
    let begun_at = first;
    let mut cut_between = 0;
    // Each time the third span of those that are left cannot be deleted. Its path decides and not a
    // number of calls: those are counted for each thread, and the deletions wander between threads.
    for _ in 0..40 {
        let collect = home.command(["collect", "--max-share", "100", "--quiet"]);
        let mut left = spans(&home);
        left.sort_unstable_by_key(|(_, start, end)| (*end, *start));
        // As the store names it, below its directory.
        let (stuck, ..) = left.get(2).expect("more than two spans");
        let stuck = stuck.strip_prefix(home.path("store")).unwrap();
        let rule = format!("{DELETION}:error=EIO");
        let ran = run(&mut tampered(&collect, DELETION, &[&rule], Some(stuck), &home.path("calls")));
        let now = extent_without_holes(&home);
        assert!(first <= now.0 && now.1 == end, "{now:?} behind {first} to {end}: {ran:#?}");
        if ran.code == 0 {
            break;
        }
        assert_eq!(ran.code, 6, "{ran:#?}");
        cut_between += u32::from(now.0 > first);
        first = now.0;
        assert_eq!(status(&home)["holes"].as_array().map(Vec::len), Some(0));
        home.run(["verify", "orders", "--level", "structure"]).good();
    }
    assert!(cut_between > 0, "no collection ended between deletions");
    home.run(["collect", "--max-share", "100"]).good();
    assert!(extent_without_holes(&home).0 > begun_at);
    let into = Workspace::new().unwrap();
    let (into, to) = (into.path().join("restored"), last.to_string());
    home.run(["restore", "orders", "--to", &to, "--start", "--into", into.to_str().unwrap(), "--quiet"])
        .good();
}
