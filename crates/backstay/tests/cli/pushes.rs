//! `backstay wal push`, as a server calls it and as one by one: what is ready goes ahead, and
//! no segment is taken for stored that is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, renameat};
use testkit::ownership::server_owner;
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::attendants::{attendants_in, kill};
use super::leash::Archive;
use super::program::{Home, backstay, server_of};
use super::windows::{LIMIT, SEGMENT, archived, end_of_log, spans, status};

/// A server that cannot give its log away: whatever it writes is ready.
fn piling_up(version: PostgresVersion) -> Option<Postgres> {
    let options =
        PostgresOptions::default().configure("archive_mode = on").configure("archive_command = '/bin/false'");
    let server = server_of(version, &options)?;
    server.sql("CREATE TABLE t (n int)").unwrap();
    Some(server)
}

fn write_segments(server: &Postgres, count: u32) {
    for number in 0..count {
        server.sql(&format!("INSERT INTO t VALUES ({number})")).unwrap();
        server.sql("SELECT pg_switch_wal()").unwrap();
    }
}

/// What the server notes about its segments, by name.
fn noted(server: &Postgres) -> Vec<String> {
    let status = server.data_directory().join("pg_wal/archive_status");
    let entries = fs::read_dir(status).unwrap().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Segments that wait, in order.
fn ready(server: &Postgres) -> Vec<PathBuf> {
    let names = noted(server);
    let names = names.iter().filter_map(|name| name.strip_suffix(".ready")).filter(|name| name.len() == 24);
    names.map(|name| server.data_directory().join("pg_wal").join(name)).collect()
}

fn push_words(path: &Path) -> [&str; 5] {
    ["wal", "push", path.to_str().unwrap(), "--instance", "orders"]
}

/// The whole segments that the store has, by where they begin.
fn whole(home: &Home) -> Vec<u64> {
    let spans = spans(home).into_iter().filter(|(_, start, end)| end - start == SEGMENT);
    spans.map(|(_, start, _)| start).collect()
}

fn start_of(segment: &Path) -> u64 {
    let name = segment.file_name().unwrap().to_str().unwrap();
    let digits = |range| u64::from_str_radix(&name[range], 16).unwrap();
    digits(8..16) * (SEGMENT * 256) + digits(16..24) * SEGMENT
}

#[test]
fn what_is_ready_goes_ahead_and_is_compared_when_the_server_comes_to_it() {
    for version in PostgresVersion::ALL {
        let Some(server) = piling_up(version) else { return };
        let home = archived(&server);
        home.append("push_ahead = 2\n");
        home.run(["backup", "orders", "--quiet"]).good();
        write_segments(&server, 5);
        let ready = ready(&server);
        assert!(ready.len() >= 5, "{ready:?}");
        let before = noted(&server);
        home.run(push_words(&ready[0])).good();
        let starts: Vec<u64> = ready.iter().map(|path| start_of(path)).collect();
        assert_eq!(whole(&home), starts[..3], "two ahead, and no more");
        assert_eq!(noted(&server), before, "what is the server's was changed");
        // The same again, and other bytes.
        let bytes = fs::read(&ready[1]).unwrap();
        let mut other = bytes.clone();
        let end = other.len() - 1;
        other[end] ^= 1;
        fs::write(&ready[1], &other).unwrap();
        home.run(push_words(&ready[1])).refused(4, &["other bytes of the log"]);
        assert_eq!(whole(&home), starts[..3], "behind one that is refused nothing goes ahead");
        fs::write(&ready[1], &bytes).unwrap();
        home.run(push_words(&ready[1])).good();
        assert_eq!(whole(&home), starts[..4]);
        // One that went ahead and is gone is stored again, and not believed.
        fs::remove_file(&spans(&home)[2].0).unwrap();
        home.run(push_words(&ready[2])).good();
        assert_eq!(whole(&home)[..5], starts[..5]);
        home.run([
            "wal",
            "push",
            ready[0].to_str().unwrap(),
            "--set",
            "instance.orders.archive.push_ahead=0",
        ])
        .good();
        home.run(["verify", "orders", "--level", "digest"]).good();
    }
}

#[test]
fn one_that_cannot_go_ahead_fails_only_when_the_server_comes_to_it() {
    let Some(server) = piling_up(PostgresVersion::V15) else { return };
    let home = archived(&server);
    home.run(["backup", "orders", "--quiet"]).good();
    write_segments(&server, 3);
    let ready = ready(&server);
    let bytes = fs::read(&ready[1]).unwrap();
    fs::write(&ready[1], &bytes[..8192]).unwrap();
    home.run(push_words(&ready[0])).good();
    assert!(!whole(&home).contains(&start_of(&ready[1])));
    home.run(push_words(&ready[1])).refused(2, &["8192 bytes"]);
    fs::write(&ready[1], &bytes).unwrap();
    home.run(push_words(&ready[1])).good();
    assert!(whole(&home).contains(&start_of(&ready[1])));
}

#[test]
fn a_push_that_is_killed_while_others_go_ahead_costs_nothing() {
    let Some(server) = piling_up(PostgresVersion::V17) else { return };
    let home = archived(&server);
    home.run(["backup", "orders", "--quiet"]).good();
    write_segments(&server, 8);
    let ready = ready(&server);
    let mut killed = 0;
    for (number, segment) in ready.iter().enumerate() {
        // Killed when it has stored so many more than there were.
        let before = whole(&home).len();
        let mut push = home.start(push_words(segment));
        wait_until(LIMIT, "a push on its way", || {
            whole(&home).len() > before + number % 3 || push.try_wait().unwrap().is_some()
        })
        .unwrap();
        killed += u32::from(push.try_wait().unwrap().is_none());
        let _ = push.kill();
        push.wait().unwrap();
        home.run(push_words(segment)).good();
        assert!(whole(&home).contains(&start_of(segment)), "{segment:?}");
    }
    assert!(killed > 0, "no push was killed on its way");
    let mut starts = whole(&home);
    starts.dedup();
    assert_eq!(starts, ready.iter().map(|path| start_of(path)).collect::<Vec<_>>());
    home.run(["verify", "orders", "--level", "digest"]).good();
}

/// The server calls the program as its own user, who must be able to read what that reads.
fn give_to_server(home: &Home) {
    let home_directory = home.config().parent().unwrap().to_owned();
    server_owner().unwrap().take_all(&home_directory).unwrap();
    fs::set_permissions(&home_directory, fs::Permissions::from_mode(0o700)).unwrap();
}

/// From now on the server gives its log away.
fn push_by_itself(server: &Postgres, home: &Home) {
    let program = backstay().get_program().to_owned().into_string().unwrap();
    let call = format!(
        "XDG_CACHE_HOME={} {program} --config {} wal push %p --instance orders 2>>{}",
        home.path("caches").display(),
        home.config().display(),
        home.path("pushed").display()
    );
    server.sql(&format!("ALTER SYSTEM SET archive_command = '{call}'")).unwrap();
    server.reload().unwrap();
}

fn wait_until_all_is_given_away(server: &Postgres, home: &Home) {
    wait_until(LIMIT, "a server with nothing to give away", || ready(server).is_empty())
        .unwrap_or_else(|error| panic!("{error}: {:?}", fs::read_to_string(home.path("pushed"))));
    let errors = fs::read_to_string(home.path("pushed")).unwrap_or_default();
    assert!(!errors.contains("error:"), "{errors}");
}

#[test]
fn an_attendant_stores_what_waits_and_its_death_costs_nothing() {
    for version in PostgresVersion::ALL {
        let Some(server) = piling_up(version) else { return };
        let home = archived(&server);
        home.run(["backup", "orders", "--quiet"]).good();
        write_segments(&server, 12);
        let waiting = ready(&server);
        assert!(waiting.len() >= 12, "{waiting:?}");
        give_to_server(&home);
        push_by_itself(&server, &home);
        let directory = server.data_directory();
        wait_until(LIMIT, "an attendant", || !attendants_in(directory).is_empty()).unwrap();
        for attendant in attendants_in(directory) {
            kill(attendant);
        }
        wait_until_all_is_given_away(&server, &home);
        write_segments(&server, 4);
        wait_until_all_is_given_away(&server, &home);
        let mut stored = whole(&home);
        stored.sort_unstable();
        stored.dedup();
        let first = start_of(&waiting[0]);
        let expected: Vec<u64> =
            (0..waiting.len() as u64 + 4).map(|number| first + number * SEGMENT).collect();
        assert_eq!(stored, expected);
        // It goes by itself, and leaves nothing with the server's files.
        wait_until(LIMIT, "an attendant to go", || attendants_in(directory).is_empty()).unwrap();
        let left = fs::read_dir(directory.join("pg_wal")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("backstay")), "{left:?}");
        home.run(["verify", "orders", "--level", "digest"]).good();
    }
}

#[test]
fn an_attendant_under_which_the_repository_is_exchanged_stores_nothing_elsewhere() {
    let Some(server) = piling_up(PostgresVersion::V15) else { return };
    let home = archived(&server);
    home.run(["backup", "orders", "--quiet"]).good();
    write_segments(&server, 4);
    give_to_server(&home);
    push_by_itself(&server, &home);
    wait_until_all_is_given_away(&server, &home);
    let directory = server.data_directory();
    let attendants = attendants_in(directory);
    assert_eq!(attendants.len(), 1, "{attendants:?}");
    server.sql("ALTER SYSTEM SET archive_command = '/bin/false'").unwrap();
    server.reload().unwrap();
    write_segments(&server, 4);
    let waiting = ready(&server);
    // The same configuration, and the directory is the same: what lies in it is another repository.
    let other = Home::new();
    other.init();
    fs::copy(other.path("backstay.key"), home.path("backstay.key")).unwrap();
    fs::create_dir(other.path("old")).unwrap();
    for entry in fs::read_dir(home.path("store")).unwrap().flatten() {
        renameat(CWD, entry.path(), CWD, other.path("old").join(entry.file_name())).unwrap();
    }
    for entry in fs::read_dir(other.path("store")).unwrap().flatten() {
        renameat(CWD, entry.path(), CWD, home.path("store").join(entry.file_name())).unwrap();
    }
    give_to_server(&home);
    push_by_itself(&server, &home);
    wait_until_all_is_given_away(&server, &home);
    let stored = whole(&home);
    for segment in &waiting {
        assert!(stored.contains(&start_of(segment)), "{segment:?}: {stored:?}");
    }
    home.run(["backup", "orders", "--quiet"]).good();
    home.run(["verify", "orders", "--level", "digest"]).good();
}

#[test]
fn a_server_that_pushes_and_a_receiver_agree() {
    for version in PostgresVersion::ALL {
        let Some(server) = piling_up(version) else { return };
        let home = archived(&server);
        // The server calls it as its own user, and the receiver runs as the same.
        home.run(["backup", "orders", "--quiet"]).good();
        give_to_server(&home);
        let mut command: Command = home.command(["archive", "orders"]);
        server_owner().unwrap().apply(&mut command);
        let mut archive = Archive::of(&home, command);
        archive.says("receiving timeline");
        write_segments(&server, 4);
        push_by_itself(&server, &home);
        write_segments(&server, 4);
        let end = end_of_log(&server);
        wait_until_all_is_given_away(&server, &home);
        wait_until(LIMIT, "a receiver that has everything", || {
            spans(&home).iter().map(|(_, _, end)| *end).max().unwrap() >= end.0
        })
        .unwrap();
        archive.stop();
        let told = status(&home);
        assert_eq!(told["holes"].as_array().unwrap().len(), 0, "{told}");
        assert_eq!(told["archive"]["pushed"], true, "{told}");
        home.run(["verify", "orders", "--level", "digest"]).good();
    }
}
