//! The archived log under `verify`, `expire` and `collect`, by the real program: what is
//! damaged or missing is named with what can still be restored to, and what no backup needs
//! goes.

use std::fs;
use std::path::PathBuf;

use backstay_model::Lsn;
use serde_json::Value;
use testkit::postgres::StopMode;
use testkit::{PostgresVersion, wait_until};

use super::program::{Home, Ran, flip_a_bit};
use super::windows::{
    LIMIT, Receiver, SEGMENT, archived, end_of_log, lose, remembering, row, spans, status, wait_for_log,
};

fn verify(home: &Home, level: &str) -> Ran {
    home.run(["verify", "orders", "--level", level, "--json"])
}

/// What was found above a note, as `subject: message`.
fn found(ran: &Ran) -> Vec<String> {
    let told = ran.json();
    let grave = told["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] != "info");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    grave.map(|finding| format!("{}: {}", text(&finding["subject"]), text(&finding["message"]))).collect()
}

#[track_caller]
fn finds(home: &Home, level: &str, words: &[&str]) {
    let ran = verify(home, level);
    assert_eq!(ran.code, 20, "{level}: {ran:#?}");
    let found = found(&ran);
    let holds = |finding: &String| words.iter().all(|word| finding.contains(word));
    assert!(found.iter().any(holds), "no {words:?} in {found:#?}");
}

/// The object that holds all of a segment, without those that hold parts of it.
fn whole(home: &Home, start: u64) -> PathBuf {
    let (wholes, parts): (Vec<_>, Vec<_>) = spans(home)
        .into_iter()
        .filter(|(_, from, to)| *from < start + SEGMENT && start < *to)
        .partition(|(_, from, to)| (*from, *to) == (start, start + SEGMENT));
    parts.into_iter().for_each(|(path, _, _)| fs::remove_file(path).unwrap());
    wholes.into_iter().next().map(|(path, _, _)| path).unwrap_or_else(|| panic!("no object of {start:X}"))
}

#[test]
fn whatever_is_wrong_with_the_log_is_named_with_what_can_still_be_reached() {
    let Some(server) = remembering(PostgresVersion::V15) else { return };
    let home = archived(&server);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    row(&server, 1);
    let lost_at = end_of_log(&server).0.next_multiple_of(SEGMENT);
    row(&server, 2);
    row(&server, 3);
    wait_for_log(&home, &server);
    for start in [lost_at, lost_at + SEGMENT] {
        wait_until(LIMIT, "a segment as a whole", || {
            spans(&home).iter().any(|(_, from, to)| (*from, *to) == (start, start + SEGMENT))
        })
        .unwrap();
    }
    receiver.stop();
    for level in ["structure", "digest"] {
        let ran = verify(&home, level).good();
        assert!(found(&ran).is_empty(), "{ran:#?}");
        assert!(ran.json()["objects_read"].as_u64().unwrap() > spans(&home).len() as u64, "{ran:#?}");
    }
    let object = whole(&home, lost_at);
    let name = object.file_name().unwrap().to_str().unwrap().to_owned();
    let reach = format!("restores reach 1@{}, and nothing behind it", Lsn(lost_at));
    let sound = fs::read(&object).unwrap();
    let put_back = || {
        fs::remove_file(&object).unwrap();
        fs::write(&object, &sound).unwrap();
    };
    // A bit within is found by reading everything.
    flip_a_bit(&object);
    finds(&home, "digest", &[&name, &reach]);
    put_back();
    // A shorter one, and one under another's name, by opening it.
    fs::remove_file(&object).unwrap();
    fs::write(&object, &sound[..sound.len() - 100]).unwrap();
    finds(&home, "structure", &[&name, &reach]);
    put_back();
    let next = whole(&home, lost_at + SEGMENT);
    let of_next = fs::read(&next).unwrap();
    fs::remove_file(&object).unwrap();
    fs::write(&object, of_next).unwrap();
    finds(&home, "structure", &[&name, &reach]);
    put_back();
    verify(&home, "digest").good();

    lose(&home, lost_at, lost_at + SEGMENT);
    let missing = format!("the log from {} to {} is missing", Lsn(lost_at), Lsn(lost_at + SEGMENT));
    finds(&home, "structure", &[&missing, "is gone from the store", &reach]);
    let text = home.run(["verify", "orders"]);
    assert!(text.out.contains("remedy: `backstay backup orders`"), "{text:#?}");
    // The existence of a backup's own objects is another matter.
    verify(&home, "existence").good();
    home.run(["backup", "orders", "--quiet"]).good();
    let newest = home.backups()[0].clone();
    let receiver = Receiver::start(&home);
    row(&server, 4);
    wait_for_log(&home, &server);
    receiver.stop();
    finds(&home, "structure", &[&missing, &format!("again from backup {newest} on, which ended ")]);
}

#[test]
fn timelines_must_know_where_they_came_from_and_agree_about_it() {
    let Some(mut server) = remembering(PostgresVersion::V17) else { return };
    let home = archived(&server);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    for number in 1..=2 {
        row(&server, number);
        server.sql("INSERT INTO t VALUES (0)").unwrap();
        wait_for_log(&home, &server);
        server.stop(StopMode::Fast).unwrap();
        server.write_data_file("standby.signal", b"", 0o600).unwrap();
        server.start().unwrap();
        server.promote().unwrap();
    }
    row(&server, 3);
    let is_there = || status(&home)["archive"]["lag_bytes"] == 0;
    wait_until(LIMIT, "the log of the third timeline", is_there).unwrap();
    receiver.stop();
    let ran = verify(&home, "digest").good();
    assert!(found(&ran).is_empty(), "{ran:#?}");
    let histories: Vec<PathBuf> =
        home.objects("/log/").into_iter().filter(|path| path.ends_with("history")).collect();
    assert_eq!(histories.len(), 2, "{histories:?}");
    // One that does not open, and one that is not there.
    let of_second = fs::read(&histories[0]).unwrap();
    flip_a_bit(&histories[0]);
    finds(&home, "structure", &["00000002/history", "where the timeline came from is not known"]);
    assert_eq!(status(&home)["health"], "degraded");
    fs::remove_file(&histories[0]).unwrap();
    finds(&home, "structure", &["00000002/history", "where timeline 2 came from is not stored"]);
    fs::write(&histories[0], of_second).unwrap();
    verify(&home, "structure").good();
}

/// Keeps one backup, and lets what it let go be deleted at its next run.
fn keep_one(home: &Home) {
    let text = fs::read_to_string(home.config()).unwrap();
    let keep = text.lines().find(|line| line.starts_with("keep = ")).unwrap();
    fs::write(home.config(), text.replace(keep, "keep = { last = 1 }\ngrace = \"0s\"")).unwrap();
}

/// Where the log begins and ends in the store.
fn extent(home: &Home) -> (u64, u64) {
    let spans = spans(home);
    let first = spans.iter().map(|(_, start, _)| *start).min().unwrap();
    (first, spans.iter().map(|(_, _, end)| *end).max().unwrap())
}

#[test]
fn log_goes_with_the_last_backup_that_needs_it_and_not_before() {
    let Some(server) = remembering(PostgresVersion::V15) else { return };
    let home = archived(&server);
    keep_one(&home);
    let receiver = Receiver::start(&home);
    row(&server, 1);
    home.run(["backup", "orders", "--quiet"]).good();
    let old = home.backups()[0].clone();
    row(&server, 2);
    row(&server, 3);
    home.run(["backup", "orders", "--full", "--quiet"]).good();
    let new = home.backups()[0].clone();
    let last = row(&server, 4);
    row(&server, 5);
    wait_for_log(&home, &server);
    receiver.stop();
    let start_of = |id: &str| {
        let position = home.run(["show", id, "--json"]).good().json()["start_position"].clone();
        let lsn: Lsn = position.as_str().unwrap().split_once('@').unwrap().1.parse().unwrap();
        lsn.0 / SEGMENT * SEGMENT
    };
    let (before, end) = extent(&home);
    let of_old = start_of(&old);
    let of_new = start_of(&new);
    assert!(before < of_old && of_old < of_new && of_new < end);
    // What is older than the oldest backup, and what would be with the next one's end.
    let dry = home.run(["collect", "--dry-run"]).good();
    let line = format!("would delete log of orders, timeline 1, up to {}: ", Lsn(of_old));
    assert!(dry.out.contains(&line) && dry.out.contains(&old), "{dry:#?}");
    assert_eq!(extent(&home), (before, end));

    // One that is held keeps its log, however long nobody else needs it.
    home.run(["hold", "add", &old]).good();
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    home.run(["collect", "--max-share", "100"]).good();
    assert_eq!(extent(&home), (of_old, end));
    verify(&home, "digest").good();
    home.run(["hold", "remove", &old]).good();

    home.run(["expire"]).good();
    // Condemned, it can still be restored, and its log is there.
    assert_eq!(home.backups(), [new.clone(), old]);
    home.run(["collect", "--max-share", "100"]).good();
    assert_eq!(extent(&home), (of_old, end));
    let dry = home.run(["expire", "--dry-run", "--json"]).good().json();
    let log = &dry[0]["log"][0];
    assert_eq!((&log["timeline"], &log["to"]), (&1.into(), &Lsn(of_new).to_string().into()), "{dry}");
    assert!(log["reason"].as_str().unwrap().contains(&new), "{dry}");
    assert!(log["freed_bytes"].as_u64().unwrap() > 0 && log["objects"].as_u64().unwrap() > 0);
    let text = home.run(["expire", "--dry-run"]).good().out;
    assert!(text.contains("; `backstay collect` deletes it"), "{text}");
    home.run(["expire"]).good();
    assert_eq!(home.backups(), std::slice::from_ref(&new));
    let dry = home.run(["collect", "--dry-run", "--json"]).good().json();
    let report = home.run(["collect", "--max-share", "100", "--json"]).good().json();
    assert_eq!(dry["freed_log_bytes"], report["freed_log_bytes"], "{dry} {report}");
    assert!(report["freed_log_bytes"].as_u64().unwrap() > 0);
    assert_eq!(extent(&home), (of_new, end));
    // Nothing that is left is held twice, but for the last parts.
    let spans = spans(&home);
    let settled = end - 2 * SEGMENT;
    let twice = |(_, start, stop): &&(PathBuf, u64, u64)| {
        *stop <= settled
            && spans.iter().any(|(_, from, to)| from <= start && stop <= to && (from, to) != (start, stop))
    };
    assert_eq!(spans.iter().filter(twice).count(), 0, "{spans:?}");
    verify(&home, "digest").good();
    let into = testkit::Workspace::new().unwrap();
    let into = into.path().join("restored");
    let to = last.to_string();
    home.run(["restore", "orders", "--to", &to, "--start", "--into", into.to_str().unwrap(), "--quiet"])
        .good();
    // A second collection finds nothing.
    assert_eq!(home.run(["collect", "--json"]).good().json()["deleted_log_objects"], 0);
}
