use super::*;

fn orders() -> InstanceLayout {
    InstanceLayout::new("orders".parse().unwrap())
}

fn session() -> BackupId {
    "20261121T024300Z-7q3f".parse().unwrap()
}

#[test]
fn a_name_cannot_leave_the_repository_or_meet_a_temporary() {
    for bad in ["", "/", "a//b", "a/", "/a", "..", "a/../b", "a/.tmp-x", "a b", "ä", "a\\b", "a\0"] {
        assert!(bad.parse::<ObjectName>().is_err(), "{bad:?}");
    }
    assert!("x".repeat(SEGMENT_MAX + 1).parse::<ObjectName>().is_err());
    assert!("orders/packs/20261121T024300Z-7q3f-000001".parse::<ObjectName>().is_ok());
}

#[test]
fn every_name_reads_back_as_what_it_is() {
    let (layout, session) = (orders(), session());
    let data = DataObject { session: session.clone(), number: 7 };
    assert_eq!(layout.data_object_of(&layout.pack(&session, 7)), Some(data.clone()));
    assert_eq!(layout.data_object_of(&layout.map(&session, 7)), Some(data.clone()));
    assert_eq!(layout.hold_of(&layout.hold(&session, 7)), Some(data.clone()));
    assert_eq!(layout.data_object_of(&layout.hold(&session, 7)), None);
    assert_eq!(layout.deletion_of(&layout.deletion(&session, 7)), Some(data.clone()));
    assert_eq!(layout.deletion_of(&layout.hold(&session, 7)), None);
    assert_eq!(layout.intent_of(&layout.intent(&session, 7)), Some(data));
    assert!(layout.intent(&session, 0).is_of_intents() && layout.intents_of(&session).is_of_intents());
    assert!(!layout.backup(&session).is_of_intents() && !layout.packs().is_of_intents());
    assert!(!Prefix::root().is_of_intents());
    assert_eq!(layout.session_of_backup(&layout.backup(&session)), Some(session.clone()));
    assert_eq!(layout.session_of_condemned(&layout.condemned(&session)), Some(session.clone()));
    assert_eq!(layout.data_object_of(&layout.backup(&session)), None);
    let elsewhere = InstanceLayout::new("order".parse().unwrap());
    assert_eq!(elsewhere.data_object_of(&layout.pack(&session, 7)), None);
    for made in [layout.pack(&session, 0), layout.map(&session, u32::MAX), layout.intent(&session, 1)] {
        assert_eq!(made.as_str().parse::<ObjectName>().unwrap(), made);
    }
}

#[test]
fn names_of_the_log_are_in_the_order_of_positions_and_read_back() {
    let layout = orders();
    let log = LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() };
    let mut names = Vec::new();
    for (start, end) in [(0, 1), (0x2000000, 0x2000028), (0x2000028, 0x3000000), (u64::MAX - 1, u64::MAX)] {
        let span = LogSpan { start, end };
        let name = layout.log_object(&log, span).unwrap();
        assert_eq!(layout.log_object_of(&name), Some((log.clone(), LogItem::Span(span))));
        names.push(name);
    }
    assert!(names.is_sorted());
    let history = layout.log_history(&log).unwrap();
    assert_eq!(layout.log_object_of(&history), Some((log.clone(), LogItem::History)));
    let place = GapPlace { from: 0x2000028, server: 0x1000000 };
    let gap = layout.log_gap(&log, place).unwrap();
    assert_eq!(layout.log_object_of(&gap), Some((log.clone(), LogItem::Gap(place))));
    assert!(history.is_under(&layout.log()) && history.is_under(&layout.log_of(&log).unwrap()));
    for strange in [
        "a/b/0-1",
        "a/b/0000000000000002-0000000000000002",
        "a/b/gap-0000000002000028",
        "a/b/gap-0000000002000028-3000000",
        "a/b/c/history",
        "a/history",
        "a/b/000000000000000a-00000000000000FF",
    ] {
        let name = format!("orders/log/{strange}").parse().unwrap();
        assert_eq!(layout.log_object_of(&name), None, "{strange}");
    }
    assert!(layout.log_of(&LogId { lineage: "..".to_owned(), timeline: "1".to_owned() }).is_err());
}

#[test]
fn a_prefix_is_whole_segments() {
    let packs = orders().packs();
    assert!(orders().pack(&session(), 0).is_under(&packs));
    assert!(!"orders/packs2/a".parse::<ObjectName>().unwrap().is_under(&packs));
    assert!(!"orders/packs".parse::<ObjectName>().unwrap().is_under(&packs));
    assert!("x".parse::<ObjectName>().unwrap().is_under(&Prefix::root()));
}
