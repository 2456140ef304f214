//! A store on a disk that fails. After a sync has failed, the kernel takes the bytes for
//! written and a second sync succeeds without them: so what was not synced is thrown
//! away, and nothing that has a name may be in doubt.

use std::path::Path;

use testkit::{require_tampering, tampered};

use super::program::{Home, Ran, protected, run};

const NAMING: &str = "fsync,renameat2,renameat,linkat";

/// A backup with syncs that fail as the rule says: all, or those of one directory. The
/// catalogue may be lost, and is left out.
fn backup_with(home: &Home, rule: &str, about: Option<&Path>) -> Ran {
    let command = home.command(["backup", "orders", "--set", "repository.catalogue=none"]);
    run(&mut tampered(&command, NAMING, &[rule], about, &home.path("calls")))
}

/// How many files could not be synced: none of them was touched again, but to be removed.
#[track_caller]
fn thrown_away(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    let mut failed: Vec<&str> = Vec::new();
    for call in text.lines() {
        for temporary in &failed {
            assert!(!call.contains(temporary), "{temporary} was used after its sync had failed: {call}");
        }
        if call.contains("(INJECTED)")
            && let Some((_, temporary)) = call.split_once("/.unfinished/")
        {
            // `1234 fsync(9</srv/store/.unfinished/tmp-1>) = -1 EIO …`
            failed.push(temporary.split('>').next().unwrap());
        }
    }
    failed.len()
}

#[test]
fn a_sync_that_fails_at_any_point_is_one_clear_error_and_nothing_is_believed() {
    let Some((server, home)) = protected("orders") else { return };
    if !require_tampering() {
        return;
    }
    server.sql("CREATE TABLE t (n int)").unwrap();
    home.run(["backup", "orders"]).good();
    let mut files = 0;
    for number in 1..=6 {
        server.sql("INSERT INTO t VALUES (1)").unwrap();
        let before = home.backups();
        let ran = backup_with(&home, &format!("fsync:error=EIO:when={number}"), None);
        files += thrown_away(&home.path("calls"));
        // Threads share the work as it comes, and not each of them syncs so often.
        if ran.code != 0 {
            ran.refused(6, &["Input/output error", "backstay config check --connect"]);
        }
        let after = home.backups();
        assert!(after.ends_with(&before) && after.len() <= before.len() + 1, "{before:?} {after:?}");
    }
    assert!(files > 0, "no sync of a file failed");
    home.run(["backup", "orders"]).good();
    assert!(home.run(["verify"]).good().out.contains("sound"));
}

#[test]
fn a_name_that_may_not_last_is_an_error_and_never_half_a_backup() {
    let Some((server, home)) = protected("orders") else { return };
    if !require_tampering() {
        return;
    }
    home.run(["backup", "orders"]).good();
    for (directory, told) in [("packs", "packs/"), ("maps", "maps"), ("backups", "backups/")] {
        server.sql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)").unwrap();
        let before = home.backups().len();
        let about = home.path("store/orders").join(directory);
        let ran = backup_with(&home, "fsync:error=EIO:when=1+", Some(&about));
        ran.refused(6, &["Input/output error", told, "backstay config check --connect"]);
        // A manifest that has its name is seen, and whole: it was the last.
        assert!(home.backups().len() <= before + usize::from(directory == "backups"));
        assert!(home.run(["verify"]).good().out.contains("sound"));
    }
    home.run(["backup", "orders"]).good();
}

#[test]
fn a_store_that_gives_nothing_back_ends_in_one_clear_error() {
    let Some((server, home)) = protected("orders") else { return };
    if !require_tampering() {
        return;
    }
    // Enough to read that no thread is spared.
    server.pgbench_init(3).unwrap();
    home.run(["backup", "orders"]).good();
    let into = home.path("restored");
    let restore = home.command(["restore", "orders", "--into", into.to_str().unwrap()]);
    let with = |rule: &str| run(&mut tampered(&restore, "pread64", &[rule], None, &home.path("calls")));
    let hint = format!("rm -r {}", into.display());
    // In the maps, in the packs, and whichever of them a thread comes to first.
    for first in [10, 12] {
        let ran = with(&format!("pread64:error=EIO:when={first}+"));
        // A sector that cannot be read is as lost as one that was never written.
        let ran = ran.refused(8, &["Input/output error", "backstay verify"]);
        assert!(!into.join("global/pg_control").exists());
        if into.exists() {
            assert!(ran.err.contains("cannot start") && ran.err.contains(&hint), "{}", ran.err);
            std::fs::remove_dir_all(&into).unwrap();
        }
    }

    // That was no proof, so nothing was noted. A file server that lost a handle once is asked again, and nobody needs to know.
    // Calls are counted by thread, and which thread makes how many is nobody's to say.
    let is_hit = [12, 10, 8, 6].into_iter().any(|nth| {
        with(&format!("pread64:error=ESTALE:when={nth}")).good();
        std::fs::remove_dir_all(&into).unwrap();
        std::fs::read_to_string(home.path("calls")).unwrap().contains("ESTALE")
    });
    assert!(is_hit, "no call was hit");
}
