//! Sessions, retention and collections at a store: each rule by its sentence, and
//! the whole stopped after every single call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "functions of a test that are not tests themselves")]

mod world;

use std::sync::Arc;

use backstay_model::ErrorKind;
use backstay_model::error::Classified as _;
use backstay_repo::Error;
use backstay_repo::store::faulty::{FaultyStore, Injection, denied};
use backstay_repo::store::{Operation, Store as _};
use world::{GRACE, World, at, elsewhere, here, id};

const HOUR: i64 = 3600;

#[tokio::test]
async fn the_second_of_two_backups_gives_way_and_says_to_whom() {
    let world = World::new();
    let first = world.begin(id(1), &[], elsewhere(), at(0)).await.unwrap();
    let error = world.begin(id(2), &[], here(), at(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.to_string();
    assert!(text.contains("elsewhere") && text.contains("2026-11-21T00:00:00Z"), "{text}");
    assert_eq!(world.names_of("intents/20261121T000002Z-0000").len(), 0, "it left its intent");
    // An earlier id is no right to push in: the other one runs.
    let error = world.begin(id(0), &[], here(), at(60)).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyRunning { .. }), "{error}");
    drop(first);
    // Silent for longer than the lease: it does not block for ever.
    world.begin(id(3), &[], here(), at(HOUR)).await.unwrap();
}

#[tokio::test]
async fn a_session_that_committed_or_whose_process_is_gone_blocks_nobody() {
    let world = World::new();
    let gone = world.begin(id(1), &[], world::gone(), at(0)).await.unwrap();
    drop(gone);
    let second = world.begin(id(2), &[], here(), at(1)).await.unwrap();
    world.commit(&id(2), &[]).await.unwrap();
    drop(second);
    world.begin(id(3), &[], here(), at(2)).await.unwrap();
}

#[tokio::test]
async fn a_condemned_or_missing_parent_is_not_built_on() {
    let world = World::new();
    for number in 1..=3 {
        world.backup(number, &[]).await;
    }
    let now = at(9 * 24 * HOUR);
    world.repo.condemn(&world.instance, &id(3), at(0)).await.unwrap();
    world.repo.condemn(&world.instance, &id(2), at(0)).await.unwrap();
    world.repo.delete_condemned(&world.instance, &id(2), GRACE, now).await.unwrap();
    let (mut session, parent) = world.begin(id(4), &[id(3), id(2), id(1)], here(), now).await.unwrap();
    assert_eq!(parent.unwrap().record.id, id(1));
    session.close().await.unwrap();
    let (_session, parent) = world.begin(id(5), &[id(3), id(2)], here(), now).await.unwrap();
    assert!(parent.is_none());
}

#[tokio::test]
async fn retention_waits_for_its_grace_and_for_those_who_build_on_the_backup() {
    let world = World::new();
    world.backup(1, &[]).await;
    let old = id(1);
    let delete = |now| world.repo.delete_condemned(&world.instance, &old, GRACE, now);
    assert!(matches!(delete(at(0)).await, Err(Error::NotCondemned { .. })));
    let (session, parent) = world.begin(id(2), &[id(1)], elsewhere(), at(0)).await.unwrap();
    assert!(parent.is_some());
    world.repo.condemn(&world.instance, &id(1), at(0)).await.unwrap();
    world.repo.condemn(&world.instance, &id(1), at(HOUR)).await.unwrap();
    assert_eq!(world.repo.condemned(&world.instance).await.unwrap()[&id(1)], at(0));
    assert!(matches!(delete(at(6 * 24 * HOUR)).await, Err(Error::GraceNotOver { .. })));
    assert!(matches!(delete(at(8 * 24 * HOUR)).await, Err(Error::StillNeeded { .. })));
    world.data(2).await;
    world.commit(&id(2), &[1]).await.unwrap();
    drop(session);
    delete(at(8 * 24 * HOUR)).await.unwrap();
    // The child needs what the parent wrote, and keeps it.
    world.collect(at(8 * 24 * HOUR)).await.unwrap();
    world.check_all_sound().await;
    assert_eq!(world.data_objects().len(), 4);
}

#[tokio::test]
async fn a_collection_deletes_packs_and_maps_that_nobody_needs_and_nothing_else() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.data(2).await; // given up and cleaned up: no intent is left
    let (_live, _) = world.begin(id(3), &[], elsewhere(), at(0)).await.unwrap();
    world.data(3).await;
    let before = world.memory.names();
    let preview = world.preview(at(60)).await.unwrap();
    assert_eq!((preview.unreferenced_objects(), preview.running_sessions), (2, 1));
    assert_eq!(before, world.memory.names(), "a preview writes nothing");
    let report = world.collect(at(60)).await.unwrap();
    assert_eq!((report.deleted_objects, report.freed_bytes), (2, 8));
    assert_eq!(world.data_objects().len(), 4);
    world.check_all_sound().await;
    assert_eq!(world.collect(at(61)).await.unwrap().deleted_objects, 0);
}

#[tokio::test]
async fn a_dead_session_is_ended_at_once_where_its_process_is_seen_and_after_a_lease_elsewhere() {
    let world = World::new();
    drop(world.begin(id(1), &[], world::gone(), at(0)).await.unwrap());
    world.data(1).await;
    drop(world.begin(id(2), &[], elsewhere(), at(HOUR)).await.unwrap());
    world.data(2).await;
    let later = HOUR + 10;
    let preview = world.preview(at(later)).await.unwrap();
    assert_eq!(preview.ended.len(), 1);
    assert!(!world.memory.names().iter().any(|name| name.contains("backups/")), "a preview ends nobody");
    let report = world.collect(at(later)).await.unwrap();
    assert_eq!((report.ended.len(), report.deleted_objects), (1, 2));
    assert!(report.ended[0].process_gone);
    // The first look at the other one was a moment ago: its own times do not count.
    assert_eq!(world.collect(at(later + 10 * 60)).await.unwrap().ended.len(), 0);
    assert_eq!(world.collect(at(later + 16 * 60)).await.unwrap().ended.len(), 1);
    assert!(world.data_objects().is_empty());
    assert!(world.names_of("intents").is_empty());
    // Both learn it at their commit.
    for number in [1, 2] {
        let outcome = world.commit(&id(number), &[]).await;
        assert!(outcome.is_err(), "a dead session committed");
    }
}

#[tokio::test]
async fn a_heartbeat_keeps_a_session_alive_and_only_the_last_one_stays() {
    let world = World::new();
    let (mut session, _) = world.begin(id(1), &[], elsewhere(), at(0)).await.unwrap();
    for minute in 1..=10 {
        session.heartbeat(at(minute * 600)).await.unwrap();
        assert_eq!(world.collect(at(minute * 600)).await.unwrap().ended.len(), 0);
    }
    assert_eq!(world.names_of("intents").len(), 2);
    session.close().await.unwrap();
    assert!(world.names_of("intents").is_empty());
}

#[tokio::test]
async fn a_heartbeat_whose_predecessor_stays_counts_and_so_do_those_after_it() {
    let world = World::new();
    let stuck = FaultyStore::new(Arc::new(world.memory.clone()), |call| match call.operation {
        Operation::Delete => Injection::Fail(denied(call)),
        _ => Injection::Pass,
    });
    let (mut session, _) =
        world.at_store(Arc::new(stuck)).begin(id(1), &[], elsewhere(), at(0)).await.unwrap();
    for minute in 1..=3 {
        session.heartbeat(at(minute * 600)).await.unwrap();
        // A number that stood still would look like silence after a lease.
        assert_eq!(world.collect(at(minute * 600)).await.unwrap().ended.len(), 0);
    }
    assert_eq!(world.names_of("intents").len(), 5, "the intent and a heartbeat for each time");
    world.collect(at(3 * 600 + HOUR)).await.unwrap();
    assert!(world.names_of("intents").is_empty());
}

#[tokio::test]
async fn a_backup_that_vanished_ends_the_collection_until_the_loss_is_accepted() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.backup(2, &[1]).await;
    world.collect(at(0)).await.unwrap();
    world.repo.store().delete(&world.layout.backup(&id(2))).await.unwrap();
    let error = world.collect(at(1)).await.unwrap_err();
    assert!(matches!(error, Error::BackupVanished { .. }), "{error}");
    assert!(!error.hints().is_empty());
    assert_eq!(world.data_objects().len(), 4, "something was deleted on top of the loss");
    let mut options = world.options(at(2));
    options.accept_loss = true;
    let report = world.collect_with(options).await.unwrap();
    assert_eq!((report.findings.len(), report.deleted_objects), (1, 2));
    world.collect(at(3)).await.unwrap();
    // All objects of the instance at once: a bucket's life cycle rule.
    for name in world.memory.names() {
        if !name.starts_with("collections") {
            world.repo.store().delete(&name.parse().unwrap()).await.unwrap();
        }
    }
    assert!(matches!(world.collect(at(4)).await, Err(Error::BackupVanished { .. })));
}

#[tokio::test]
async fn more_than_a_share_is_deleted_only_when_told_so() {
    let world = World::new();
    world.backup(1, &[]).await;
    for number in 2..=20 {
        world.data(number).await;
    }
    let error = world.collect(at(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(world.data_objects().len(), 40);
    let mut options = world.options(at(0));
    options.max_share_percent = 100;
    assert_eq!(world.collect_with(options).await.unwrap().deleted_objects, 38);
    world.check_all_sound().await;
}

#[tokio::test]
async fn nothing_is_deleted_after_any_error_in_looking() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.data(2).await;
    let counting = FaultyStore::counting(Arc::new(world.memory.fork()));
    world.at_store(Arc::new(counting.clone())).preview(at(0)).await.unwrap();
    for call in 1..=counting.calls() {
        let memory = world.memory.fork();
        let faulty = FaultyStore::fail_call(Arc::new(memory.clone()), call, denied);
        let outcome = world.at_store(Arc::new(faulty)).collect(at(0)).await;
        assert!(outcome.is_err(), "call {call}");
        assert_eq!(memory.names(), world.memory.names(), "call {call}");
    }
    // A manifest that cannot be read is not one that is not there.
    let damaged = world.memory.fork();
    damaged.tamper(&world.layout.backup(&id(1)), vec![0; 100]);
    let error = world.at_store(Arc::new(damaged.clone())).collect(at(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(damaged.names(), world.memory.names());
}

#[tokio::test]
async fn a_damaged_marker_condemns_its_backup_for_ever_and_stands_in_nobodys_way() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.backup(2, &[]).await;
    for number in [1, 2] {
        world.repo.condemn(&world.instance, &id(number), at(0)).await.unwrap();
    }
    world.memory.tamper(&world.layout.condemned(&id(1)), vec![0; 100]);
    world.memory.put_if_absent(&"orders/condemned/readme".parse().unwrap(), "x".into()).await.unwrap();
    let markers = world.repo.markers(&world.instance).await.unwrap();
    assert_eq!(markers.condemned.len(), 2);
    assert_eq!((markers.condemned[&id(1)], markers.condemned[&id(2)]), (None, Some(at(0))));
    assert_eq!(markers.findings.len(), 2);
    assert!(world.repo.condemned(&world.instance).await.unwrap()[&id(1)] > at(100 * 365 * 24 * HOUR));
    // Nothing builds on it, it does not go, and its manifest still opens.
    let (_session, parent) = world.begin(id(3), &[id(1)], world::gone(), at(HOUR)).await.unwrap();
    assert!(parent.is_none());
    let later = at(9 * 24 * HOUR);
    world.repo.delete_condemned(&world.instance, &id(1), GRACE, later).await.unwrap_err();
    world.repo.delete_condemned(&world.instance, &id(2), GRACE, later).await.unwrap();
    let report = world.collect(at(3 * 365 * 24 * HOUR)).await.unwrap();
    assert_eq!((report.deleted_objects, report.findings.len()), (2, 2));
    world.repo.manifest(&world.instance, &id(1)).await.unwrap();
    assert!(world.memory.names().contains(&world.layout.condemned(&id(1)).to_string()));
    // A store that does not answer is no damage.
    let denying = FaultyStore::new(Arc::new(world.memory.fork()), |call| match call.operation {
        Operation::Get => Injection::Fail(denied(call)),
        _ => Injection::Pass,
    });
    let refused = world.at_store(Arc::new(denying)).repo.markers(&world.instance).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn damage_at_one_instance_leaves_it_untouched_and_the_others_are_collected() {
    let world = World::new();
    let billing = world.of_instance("billing");
    for instance in [&world, &billing] {
        instance.backup(1, &[]).await;
        instance.data(2).await;
    }
    world.collect(at(0)).await.unwrap();
    for instance in [&world, &billing] {
        instance.data(3).await;
    }
    world.memory.tamper(&billing.layout.backup(&id(1)), vec![0; 100]);
    let of = |name: &str| -> Vec<String> {
        world.memory.names().into_iter().filter(|object| object.starts_with(name)).collect()
    };
    let before = of("billing/");
    let preview = world.preview(at(1)).await.unwrap();
    assert_eq!((preview.unreferenced_objects(), preview.findings.len()), (2, 1));
    assert_eq!(preview.findings[0].subject, "billing");
    let error = world.collect(at(2)).await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { object, .. } if object.starts_with("billing/")), "{error}");
    assert_eq!(of("billing/"), before);
    assert_eq!(world.data_objects().len(), 2, "the other instance was not collected");
    // The run in between still remembers what billing had.
    world.repo.store().delete(&billing.layout.backup(&id(1))).await.unwrap();
    assert!(matches!(world.collect(at(3)).await, Err(Error::BackupVanished { .. })));
}

#[tokio::test]
async fn a_process_stopped_after_any_call_loses_nothing_and_the_next_one_heals() {
    let story = |world: World| async move {
        let (mut session, parent) = world.begin(id(5), &[id(1)], world::gone(), at(HOUR)).await?;
        let shared: &[u32] = if parent.is_some() { &[1] } else { &[] };
        world.try_data(5).await?;
        session.heartbeat(at(HOUR + 1)).await?;
        world.commit(&id(5), shared).await?;
        session.close().await?;
        world.repo.condemn(&world.instance, &id(1), at(HOUR + 2)).await?;
        let later = at(9 * 24 * HOUR);
        world.repo.delete_condemned(&world.instance, &id(1), GRACE, later).await?;
        world.collect(later).await?;
        Ok::<(), Error>(())
    };
    let begin = || async {
        let world = World::new();
        world.backup(1, &[]).await;
        world.data(2).await;
        world
    };
    let counting = FaultyStore::counting(Arc::new(begin().await.memory));
    story(begin().await.at_store(Arc::new(counting.clone()))).await.unwrap();
    assert!(counting.calls() > 20);
    for calls in 0..counting.calls() {
        for lost in [false, true] {
            let world = begin().await;
            // Either the call after was never made, or it was and nobody heard.
            let dying = FaultyStore::new(Arc::new(world.memory.clone()), move |call| match call.number {
                n if n > calls + 1 || (n == calls + 1 && !lost) => Injection::Die,
                n if n == calls + 1 => Injection::LoseAnswer,
                _ => Injection::Pass,
            });
            let outcome = story(world.at_store(Arc::new(dying))).await;
            assert!(outcome.is_err(), "stopped after call {calls}");
            world.check_all_sound().await;
            let later = at(20 * 24 * HOUR);
            world.collect(later).await.unwrap();
            world.check_all_sound().await;
            let needed = world.needed().await;
            assert_eq!(world.data_objects(), needed, "garbage stays, or more went: call {calls}");
            assert!(world.names_of("intents").is_empty(), "call {calls}");
        }
    }
}

#[tokio::test]
async fn a_hundred_aborted_backups_leave_nothing_that_grows() {
    let world = World::new();
    world.backup(1, &[]).await;
    for number in 2..102 {
        drop(world.begin(id(number), &[id(1)], world::gone(), at(i64::from(number))).await.unwrap());
        world.data(number).await;
        world.collect(at(i64::from(number))).await.unwrap();
        assert_eq!(world.data_objects().len(), 2);
        assert!(world.names_of("intents").is_empty());
    }
    assert!(world.memory.names().iter().filter(|name| name.starts_with("collections/")).count() <= 100);
    // The tombstones go after a year.
    world.collect(at(400 * 24 * HOUR)).await.unwrap();
    assert_eq!(world.names_of("backups").len(), 1);
    world.check_all_sound().await;
}

#[tokio::test]
async fn two_collectors_at_once_do_no_more_than_one() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.data(2).await;
    let (a, b) = tokio::join!(world.collect(at(0)), world.collect(at(0)));
    assert!(a.is_ok() && b.is_ok());
    world.check_all_sound().await;
    assert_eq!(world.data_objects().len(), 2);
}

#[tokio::test]
async fn at_a_store_that_overwrites_only_a_process_seen_gone_is_ended() {
    let world = World::new();
    drop(world.begin(id(1), &[], elsewhere(), at(0)).await.unwrap());
    drop(world.begin(id(2), &[], world::gone(), at(10_000)).await.unwrap());
    for now in [at(0), at(HOUR), at(2 * HOUR)] {
        let mut options = world.options(now);
        options.store.create_if_absent = false;
        world.collect_with(options).await.unwrap();
    }
    assert_eq!(world.names_of("backups"), [format!("orders/backups/{}", id(2))]);
}

#[tokio::test]
async fn a_backup_committed_behind_the_back_of_a_listing_keeps_its_parents_packs() {
    let world = World::new();
    world.backup(1, &[]).await;
    world.repo.condemn(&world.instance, &id(1), at(1)).await.unwrap();
    let inner = world.memory.clone();
    let late = world.at_store(Arc::new(inner.clone()));
    // While the collector lists backups, the child commits and its parent goes.
    let done = std::sync::atomic::AtomicBool::new(false);
    let (layout, child) = (world.layout.clone(), late.manifest_object(&id(2), &[1]).await);
    let store = FaultyStore::new(Arc::new(inner.clone()), move |call| {
        let listing = call.operation == Operation::Get && call.object == layout.backup(&id(1)).as_str();
        if listing && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let (inner, layout, child) = (inner.clone(), layout.clone(), child.clone());
            return Injection::After(Box::pin(async move {
                for name in [layout.pack(&id(2), 0), layout.map(&id(2), 0)] {
                    inner.put_if_absent(&name, bytes::Bytes::from_static(b"data")).await.unwrap();
                }
                inner.put_if_absent(&layout.backup(&id(2)), child).await.unwrap();
                inner.delete(&layout.backup(&id(1))).await.unwrap();
            }));
        }
        Injection::Pass
    });
    world.at_store(Arc::new(store)).collect(at(2)).await.unwrap();
    world.check_all_sound().await;
    assert_eq!(world.data_objects().len(), 4);
}
