use backstay_model::dump::{DumpShape, DumpWarning};
use backstay_model::{EngineKind, Finding};

use super::*;

fn record() -> DumpRecord {
    let at: Timestamp = "2024-09-01T02:00:00Z".parse().unwrap();
    DumpRecord {
        id: BackupId::new(at, 7),
        instance: "main".parse().unwrap(),
        environment: None,
        engine: EngineKind::Postgresql,
        content: DumpContent::Database { database: "orders".to_owned() },
        set: None,
        file: "a".to_owned(),
        tier: Tier::Daily,
        started_at: at,
        finished_at: at,
        duration_seconds: 1.0,
        shape: DumpShape::default(),
        raw_bytes: 10,
        stored_bytes: 5,
        compression_ratio: 2.0,
        sha256: "aa".to_owned(),
        database_bytes: None,
        position: None,
        system_identifier: None,
        server_version: None,
        tool_version: None,
        backstay_version: "1".to_owned(),
        extensions: std::collections::BTreeMap::new(),
        tables: Vec::new(),
        timescaledb: None,
        needs: Default::default(),
        members: Vec::new(),
        warnings: Vec::<DumpWarning>::new(),
        adopted: false,
        safety: false,
        guessed: false,
    }
}

fn seen(path: &str, state: DumpState, level: VerifyLevel) -> FileVerdict {
    let record = record();
    let findings = match state {
        DumpState::Good => Vec::new(),
        _ => vec![Finding::error(path, "it is not well", "`backstay dump main`")],
    };
    FileVerdict {
        path: path.to_owned(),
        id: record.id,
        instance: record.instance,
        content: record.content,
        tier: record.tier,
        finished_at: record.finished_at,
        stored_bytes: record.stored_bytes,
        sha256: record.sha256,
        state,
        level,
        verified_at: "2024-09-02T06:00:00Z".parse().unwrap(),
        findings,
        newest_good: None,
    }
}

fn report(files: Vec<FileVerdict>) -> VerificationReport {
    VerificationReport {
        backstay_version: "1".to_owned(),
        shelf: "file:///srv".to_owned(),
        verified_at: "2024-09-02T06:00:00Z".parse().unwrap(),
        level: VerifyLevel::Digest,
        sound: false,
        files,
        findings: vec![Finding::warning("/srv/x.meta.json", "nobody's", "`backstay adopt`")],
    }
}

#[test]
fn a_shallow_look_clears_no_damage_and_no_look_changes_nothing() {
    use {DumpState as State, VerifyLevel as Level};
    for (before, later, holds) in [
        ((State::Damaged, Level::Digest), (State::Good, Level::Existence), State::Damaged),
        ((State::Damaged, Level::Digest), (State::Good, Level::Structure), State::Damaged),
        ((State::Damaged, Level::Digest), (State::Good, Level::Digest), State::Good),
        ((State::Damaged, Level::Existence), (State::Good, Level::Existence), State::Good),
        ((State::Good, Level::Digest), (State::Damaged, Level::Existence), State::Damaged),
        ((State::Good, Level::Digest), (State::Unseen, Level::Digest), State::Good),
        ((State::Damaged, Level::Digest), (State::Unseen, Level::Digest), State::Damaged),
        ((State::Gone, Level::Existence), (State::Unseen, Level::Digest), State::Unseen),
        ((State::Damaged, Level::Digest), (State::Gone, Level::Existence), State::Gone),
        ((State::Gone, Level::Digest), (State::Good, Level::Existence), State::Good),
    ] {
        let [before, later] = [before, later].map(|(state, level)| seen("a", state, level));
        assert_eq!(before.clone().then(later.clone()).state, holds, "{before:?} {later:?}");
    }
}

#[test]
fn a_report_holds_what_is_there_as_it_was_seen_last() {
    let record = record();
    let good = |path| seen(path, DumpState::Good, VerifyLevel::Digest);
    let before = report(vec![seen("a", DumpState::Damaged, VerifyLevel::Digest), good("b"), good("gone")]);
    let there = [("b", &record), ("a", &record)];
    let now = report(vec![good("a")]).renewed(Some(&before), &there);
    let paths: Vec<_> = now.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((paths, now.sound), (vec!["b", "a"], true));
    // Nobody has looked at the third.
    let there = [("a", &record), ("b", &record), ("c", &record)];
    assert!(!report(vec![good("a")]).renewed(Some(&before), &there).sound);
    // Another dump under the same name has nothing to do with it.
    let other = DumpRecord { sha256: "bb".to_owned(), ..record.clone() };
    assert!(!before.says_damaged("a", &other) && before.says_damaged("a", &record));
}

#[test]
fn the_text_says_the_same_in_words() {
    let files = vec![
        seen("daily/a.dump", DumpState::Good, VerifyLevel::Digest),
        seen("daily/b.dump", DumpState::Damaged, VerifyLevel::Digest),
    ];
    let id = record().id;
    let expected = format!(
        "\
Verification of the dumps in file:///srv
by Backstay 1, 2024-09-02T06:00:00Z, level digest

NOT SOUND: 2 files, 1 good, 1 damaged, 0 gone, 0 not seen

good        daily/a.dump
            database orders of main, dump {id}, 5 B
            seen 2024-09-02T06:00:00Z, level digest
DAMAGED     daily/b.dump
            database orders of main, dump {id}, 5 B
            seen 2024-09-02T06:00:00Z, level digest
            it is not well
            `backstay dump main`

Not of one dump:
  /srv/x.meta.json: nobody's
    `backstay adopt`
"
    );
    assert_eq!(text::of(&report(files)), expected);
}
