//! An archive of Redis or Valkey on a machine whose clock was set, back and forth: a stream has no times
//! of its own, so a time may be there twice, and whoever asks for one is told.

use jiff::SignedDuration;
use testkit::{Redis, prepare_clock, require_settable_clock, set_clock, with_clock};

use super::redis_streams::{Archive, instant, on_both, restored};

const DOUBT: &str = "the clock of cache";

/// What the machine said then, and how the data were.
struct Said {
    at: String,
    offset: u64,
    digest: String,
}

/// Writes, with the clock so many hours off.
fn said(server: &Redis, archive: &Archive<'_>, number: u32, hours: i32) -> Said {
    server.run(&["SET", &format!("key:{number}"), "value"]).unwrap();
    let instant = instant(server, archive);
    let at = instant.at + SignedDuration::from_hours(hours.into());
    Said { at: at.to_string(), offset: instant.offset, digest: instant.digest }
}

#[test]
fn a_time_that_came_twice_is_told_and_an_offset_is_as_exact_as_ever() {
    if !require_settable_clock() {
        return;
    }
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let clock = home.path("clock");
        prepare_clock(&clock).unwrap();
        let mut command = home.command(["archive", "cache"]);
        with_clock(&mut command, &clock);
        let archive = Archive::run(home, command);
        archive.says("is taken");
        let mut all = Vec::new();
        for (number, hours) in (1..).zip([0, -2, 3, 0]) {
            set_clock(&clock, hours).unwrap();
            all.push(said(server, &archive, number, hours));
        }
        archive.stop();
        let [first, second, third, fourth] = &all[..] else { panic!("four of them") };
        // What came next then was later.
        restored(server, home, &first.at, &first.digest);
        // Of what the last of them remembers, the third was the first that was later. Whoever asks for any
        // instant behind the setting back is told of it.
        for (one, digest) in [(fourth, &second.digest), (third, &third.digest)] {
            let ran = restored(server, home, &one.at, digest);
            assert!(ran.err.contains(DOUBT) && ran.err.contains("go back from"), "{ran:#?}");
            assert!(ran.err.contains("--to offset:") && !ran.err.contains("lsn:"), "{ran:#?}");
        }
        // Before everything, by what the machine said.
        let into = home.path("refused");
        let ran = home.run(["restore", "cache", "--to", &second.at, "--into", into.to_str().unwrap()]);
        assert_eq!(ran.code, 9, "{ran:#?}");
        assert!(!into.exists(), "{ran:#?}");
        for one in &all {
            restored(server, home, &format!("offset:{}", one.offset), &one.digest);
        }
        restored(server, home, "latest", &fourth.digest);
        home.run(["verify", "cache", "--level", "digest"]).good();
    });
}
