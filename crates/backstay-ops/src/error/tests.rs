use std::io;

use super::*;

fn all() -> Vec<Error> {
    let backup = || "20261121T024300Z-7q3f".parse::<BackupId>().unwrap();
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    vec![
        Error::Refused {
            refusal: Refusal::new(ErrorKind::Corrupt, "it is damaged", vec!["`backstay list`".into()]),
        },
        Error::NoSuchBackup { backup: backup() },
        Error::RestoreFailed {
            instance: "orders".parse().unwrap(),
            backup: backup(),
            into: "/srv/a".into(),
            instead: Instead::Other(Box::new(Offer {
                backup: "20261120T024300Z-7q3f".parse().unwrap(),
                finished_at: "2026-11-20T02:43:02Z".parse().unwrap(),
                is_older: true,
                arguments: "orders --backup 20261120T024300Z-7q3f --into /srv/a --start".into(),
            })),
            remains: Remains::loose(&["/srv/a"]).into(),
            source: Box::new(Error::Cancelled),
        },
        Error::RestoreInterrupted {
            into: "/srv/a".into(),
            remains: Remains::loose(&["/srv/a", "/srv/it's fast"]),
            elsewhere: "--into".into(),
        },
        Error::RestoreRunning { into: "/srv/a".into(), elsewhere: "--into".into() },
        Error::TablespaceNotEmpty { name: "s".into(), location: "/old".into(), path: "/new".into() },
        Error::LateTablespaceNotEmpty { name: "s".into(), path: "/old".into() },
        Error::DrillOutside { backup: backup(), name: "s".into(), path: "/old".into() },
        Error::DrillDirectory { path: "/srv".into(), source: denied() },
        Error::DrillTooSmall { path: "/srv".into(), free: 1, needed: 2 },
        Error::Remove { path: "/srv/a".into(), source: denied() },
        Error::WriteKit { path: "/srv/kit/keys".into(), source: denied() },
        Error::Shelf {
            shelf: "file:///srv".into(),
            source: backstay_repo::store::StoreError::AlreadyExists { object: "a".into() },
        },
        Error::DumpNameOfStranger {
            instance: "orders".parse().unwrap(),
            path: "daily/a".into(),
            shelf: "file:///srv/it's".into(),
        },
        Error::VerificationUnreadable { path: "/srv/a".into(), reason: "it is cut".into() },
        Error::HoldOver { until: "2020-01-01T00:00:00Z".parse().unwrap() },
        Error::BeingDeleted {
            backup: "20260601T000000Z-7q3f".parse().unwrap(),
            since: "2020-01-01T00:00:00Z".parse().unwrap(),
        },
        Error::ExportPlace { path: "/srv/.a".into(), reason: "it is hidden".into() },
        Error::ExportTaken { path: "/srv/a".into() },
        Error::ExportUnseen { path: "/srv/a".into(), source: denied() },
        Error::ExportWrite {
            path: "/srv/a".into(),
            source: backstay_repo::store::StoreError::AlreadyExists { object: "a".into() },
        },
        Error::NoKeys,
        Error::Cancelled,
        Error::broken("a rule"),
        Error::SlotLost { instance: "orders".parse().unwrap(), slot: "backstay_orders".into() },
        Error::LogGone { instance: "orders".parse().unwrap(), segment: "000000010000000000000003".into() },
        Error::GapNotNoted { reason: "the store does not answer".into() },
        Error::StoreSilent { seconds: 15 },
        Error::StreamUnknown { spool: "/srv/spool".into() },
    ]
}

#[test]
fn every_error_says_its_own_layer_and_every_hint_can_be_followed() {
    for error in all() {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        if let Some(source) = std::error::Error::source(&error) {
            assert!(!text.contains(&source.to_string()), "{text} repeats its cause");
        }
        for hint in error.hints() {
            assert!(!hint.ends_with('.'), "{hint}");
            assert!(hint.contains('`') || hint.contains("drill.directory"), "{hint}");
        }
        let can_be_mended = !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Internal);
        assert!(!can_be_mended || !error.hints().is_empty(), "{text} has no hint");
    }
}

#[test]
fn what_may_be_in_use_is_left_to_whom_it_belongs() {
    for error in all() {
        let may_be_in_use = matches!(
            error,
            Error::RestoreRunning { .. }
                | Error::TablespaceNotEmpty { .. }
                | Error::LateTablespaceNotEmpty { .. }
                | Error::DrillOutside { .. }
        );
        for hint in error.hints().iter().filter(|_| may_be_in_use) {
            let words = ["mv ", "rm ", "move", "remove"];
            assert!(!words.iter().any(|word| hint.contains(word)), "{hint}");
        }
    }
}

#[test]
fn all_that_an_interrupted_restore_left_is_cleared_by_one_command() {
    let hint = all()[3].hints().remove(0);
    let (command, rest) = hint.split_once(" clears it, then restore again").unwrap();
    assert_eq!(command, r"`rm -r /srv/a '/srv/it'\''s fast'`");
    // A server may have begun to use the place of a tablespace since.
    assert!(rest.contains("no server"), "{rest}");
}

#[test]
fn a_failed_restore_offers_the_backup_before_first() {
    let failed = &all()[2];
    assert_eq!(failed.kind(), ErrorKind::Cancelled);
    let hint = "`rm -r /srv/a && backstay restore orders --backup 20261120T024300Z-7q3f --into /srv/a \
                --start` restores the newest one before that does not need what failed, of \
                2026-11-20T02:43:02Z";
    assert_eq!(failed.hints(), [hint]);
}
