//! Old copies of a store, and all that looks like one and is none.

use std::sync::Arc;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Error;
use crate::description::StoreFacts;
use crate::protocol::{CollectOptions, CollectReport, Collection, ProcessIdentity};
use crate::repo::Parameters;
use crate::seal::Cipher;
use crate::store::{MemoryStore, Store};
use crate::writer::tests::{Desk, Files, instance, runtime};

const DAY: i64 = 24 * 3600;

fn day(number: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + number * DAY).unwrap()
}

async fn copy_of(store: &MemoryStore) -> Arc<MemoryStore> {
    let copy = MemoryStore::new();
    for name in store.names() {
        let name = name.parse().unwrap();
        copy.put_if_absent(&name, store.get(&name, u64::MAX).await.unwrap()).await.unwrap();
    }
    Arc::new(copy)
}

/// One of the machines that work with a repository.
struct Machine {
    cache: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { cache: TempDir::new().unwrap() }
    }

    fn repo(&self, desk: &Desk, store: &Arc<MemoryStore>) -> Repo {
        let keys = (**desk.repo.seal_keys()).clone();
        Repo::from_parts(Arc::clone(store) as _, keys, Parameters::default())
            .with_catalogue(self.cache.path())
    }

    /// What a listing on this machine says is gone, as any of them does it.
    async fn gone(&self, desk: &Desk, store: &Arc<MemoryStore>, now: Timestamp) -> Vec<Finding> {
        let repo = self.repo(desk, store);
        repo.backups(&instance()).await.unwrap();
        repo.vanished(&instance(), now).await.unwrap()
    }
}

async fn collect(repo: &Repo, now: Timestamp, accept_loss: bool) -> Result<CollectReport> {
    let facts = StoreFacts { create_if_absent: true, read_after_write: true };
    let mut options = CollectOptions::new(facts, ProcessIdentity::current(), now);
    options.accept_loss = accept_loss;
    options.max_share_percent = 100;
    let collection = Collection::new(repo, options, CancellationToken::new());
    collection.prepare().await?.execute().await
}

async fn backups(desk: &mut Desk, count: usize) -> Vec<BackupId> {
    let mut ids: Vec<BackupId> = Vec::new();
    for _ in 0..count {
        let parent = ids.last().cloned();
        ids.push(desk.backup(&Files::new(), parent.as_ref(), false).await.unwrap().id);
    }
    ids
}

#[test]
fn an_old_copy_of_the_store_is_noticed_until_it_is_accepted_or_gone() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let machine = Machine::new();
        let first = backups(&mut desk, 2).await;
        let old = copy_of(&desk.memory).await;
        let later = backups(&mut desk, 5).await;
        let memory = Arc::clone(&desk.memory);
        assert_eq!(machine.gone(&desk, &memory, day(1)).await, []);

        // However often it is looked at, and after a new backup on top of it.
        for round in 0..4 {
            let findings = machine.gone(&desk, &old, day(1)).await;
            let [finding] = findings.as_slice() else { panic!("round {round}: {findings:?}") };
            assert!(finding.message.starts_with("5 backups are gone"), "{}", finding.message);
            assert!(finding.message.contains(later[4].as_str()), "{}", finding.message);
            assert!(finding.message.contains("the catalogue of this machine knew"), "{}", finding.message);
            if round < 2 {
                assert_eq!(machine.gone(&desk, &memory, day(1)).await, [], "the right store again");
            } else {
                let mut on_top = Desk::over(Arc::clone(&old), Cipher::Aes256Gcm);
                on_top.seconds = 100 + round;
                on_top.backup(&Files::new(), Some(&first[1]), false).await.unwrap();
            }
        }
        let repo = machine.repo(&desk, &old);
        let refused = collect(&repo, day(1), false).await;
        assert!(matches!(refused, Err(Error::BackupVanished { .. })), "{refused:?}");
        let other = Machine::new();
        assert_eq!(other.gone(&desk, &memory, day(1)).await, []);
        let report = collect(&repo, day(1), true).await.unwrap();
        assert_eq!(report.findings.len(), 5, "{:?}", report.findings);
        for machine in [&machine, &other] {
            assert_eq!(machine.gone(&desk, &old, day(1)).await, [], "accepted");
            collect(&machine.repo(&desk, &old), day(2), false).await.unwrap();
            assert_eq!(machine.gone(&desk, &old, day(2)).await, [], "and it stays accepted");
        }
    });
}

#[test]
fn what_expired_and_was_collected_raises_nothing_anywhere() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let (here, elsewhere) = (Machine::new(), Machine::new());
        let ids = backups(&mut desk, 6).await;
        let memory = Arc::clone(&desk.memory);
        assert_eq!(here.gone(&desk, &memory, day(1)).await, []);
        let repo = elsewhere.repo(&desk, &memory);
        let grace = Duration::from_secs(DAY as u64);
        // The parent of the newest among them, which its manifest remembers.
        for id in [&ids[0], &ids[1], &ids[4]] {
            repo.condemn(&instance(), id, day(1)).await.unwrap();
        }
        assert_eq!(here.gone(&desk, &memory, day(2)).await, []);
        for id in [&ids[0], &ids[1]] {
            repo.delete_condemned(&instance(), id, grace, day(3)).await.unwrap();
        }
        collect(&repo, day(3), false).await.unwrap();
        assert_eq!(here.gone(&desk, &memory, day(3)).await, []);
        repo.delete_condemned(&instance(), &ids[4], grace, day(20)).await.unwrap();
        collect(&repo, day(20), false).await.unwrap();
        // One collector's clock, or the time of one backup, is not enough.
        desk.seconds = 364 * DAY;
        desk.backup(&Files::new(), None, false).await.unwrap();
        for now in [380, 381, 900] {
            collect(&repo, day(now), false).await.unwrap();
        }
        let markers =
            |desk: &Desk| desk.memory.names().iter().filter(|name| name.contains("/condemned/")).count();
        assert_eq!(markers(&desk), 3);
        desk.seconds = 367 * DAY;
        desk.backup(&Files::new(), None, false).await.unwrap();
        collect(&repo, day(21), false).await.unwrap();
        assert_eq!(markers(&desk), 3);
        collect(&repo, day(380), false).await.unwrap();
        collect(&repo, day(381), false).await.unwrap();
        assert!(!desk.memory.names().iter().any(|name| name.contains("/condemned/")), "markers are old");
        assert_eq!(elsewhere.gone(&desk, &memory, day(381)).await, []);
        // This machine slept for a year: it knew the fifth, and its marker is gone.
        assert_eq!(here.gone(&desk, &memory, day(381)).await, []);
    });
}

/// Lets a backup go as retention and the collector do, marker and all.
async fn expire(desk: &Desk, backup: &BackupId, condemned: i64, deleted: i64) {
    let _ = desk.repo.condemn(&instance(), backup, day(condemned)).await;
    let grace = Duration::from_secs(DAY as u64);
    desk.repo.delete_condemned(&instance(), backup, grace, day(deleted)).await.unwrap();
    desk.memory.delete(&InstanceLayout::new(instance()).condemned(backup)).await.unwrap();
}

#[test]
fn a_machine_that_was_away_for_a_year_raises_nothing_and_notices_the_next_loss() {
    runtime().block_on(async {
        // However old the newest backup is by then.
        for newest_day in [399, 250] {
            let mut desk = Desk::new(Cipher::Aes256Gcm);
            let here = Machine::new();
            let ids = backups(&mut desk, 3).await;
            let memory = Arc::clone(&desk.memory);
            assert_eq!(here.gone(&desk, &memory, day(1)).await, []);
            desk.seconds = newest_day * DAY;
            let later = backups(&mut desk, 3).await;
            for id in &ids {
                expire(&desk, id, 21, 30).await;
            }
            for now in [401, 402] {
                assert_eq!(here.gone(&desk, &memory, day(now)).await, []);
            }
            memory.delete(&InstanceLayout::new(instance()).backup(&later[0])).await.unwrap();
            let findings = here.gone(&desk, &memory, day(403)).await;
            let [finding] = findings.as_slice() else { panic!("{findings:?}") };
            assert!(finding.message.starts_with(&format!("{} is gone", later[0])), "{}", finding.message);
            // Missed once while it was fresh, it is missed on top of newer backups.
            desk.seconds = 499 * DAY;
            desk.backup(&Files::new(), None, false).await.unwrap();
            assert_eq!(here.gone(&desk, &memory, day(500)).await.len(), 1);
            desk.seconds = 790 * DAY;
            desk.backup(&Files::new(), None, false).await.unwrap();
            assert_eq!(here.gone(&desk, &memory, day(795)).await.len(), 1);
        }
    });
}

#[test]
fn a_grace_of_more_than_a_year_raises_nothing_where_the_marker_was_seen() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let here = Machine::new();
        let ids = backups(&mut desk, 2).await;
        let memory = Arc::clone(&desk.memory);
        assert_eq!(here.gone(&desk, &memory, day(1)).await, []);
        desk.repo.condemn(&instance(), &ids[0], day(1)).await.unwrap();
        assert_eq!(here.gone(&desk, &memory, day(2)).await, []);
        desk.seconds = 399 * DAY;
        desk.backup(&Files::new(), None, false).await.unwrap();
        assert_eq!(here.gone(&desk, &memory, day(400)).await, []);
        expire(&desk, &ids[0], 1, 401).await;
        assert_eq!(here.gone(&desk, &memory, day(402)).await, []);
        // It is not that nothing would be noticed.
        memory.delete(&InstanceLayout::new(instance()).backup(&ids[1])).await.unwrap();
        assert_eq!(here.gone(&desk, &memory, day(402)).await.len(), 1);
    });
}

#[test]
fn a_backup_that_became_unreadable_is_still_missed_when_it_goes() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let here = Machine::new();
        let ids = backups(&mut desk, 3).await;
        let memory = Arc::clone(&desk.memory);
        assert_eq!(here.gone(&desk, &memory, day(1)).await, []);
        let name = InstanceLayout::new(instance()).backup(&ids[0]);
        let good = memory.get(&name, u64::MAX).await.unwrap();
        memory.tamper(&name, bytes::Bytes::from_static(b"rubbish"));
        assert_eq!(here.gone(&desk, &memory, day(1)).await, [], "it is there");
        assert_eq!(here.gone(&desk, &memory, day(2)).await, []);
        memory.delete(&name).await.unwrap();
        for _ in 0..2 {
            let findings = here.gone(&desk, &memory, day(3)).await;
            let [finding] = findings.as_slice() else { panic!("{findings:?}") };
            assert!(finding.message.starts_with(&format!("{} is gone", ids[0])), "{}", finding.message);
        }
        memory.put_if_absent(&name, good).await.unwrap();
        assert_eq!(here.gone(&desk, &memory, day(4)).await, []);
    });
}

#[test]
fn a_lost_catalogue_raises_nothing_and_the_newest_manifest_still_speaks() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let old = copy_of(&desk.memory).await;
        let ids = backups(&mut desk, 4).await;
        let memory = Arc::clone(&desk.memory);
        assert_eq!(Machine::new().gone(&desk, &old, day(1)).await, []);
        assert_eq!(Machine::new().gone(&desk, &memory, day(1)).await, []);
        // The newest names its parent; the one before that is known to nobody here.
        let layout = InstanceLayout::new(instance());
        memory.delete(&layout.backup(&ids[1])).await.unwrap();
        assert_eq!(Machine::new().gone(&desk, &memory, day(1)).await, []);
        memory.delete(&layout.backup(&ids[2])).await.unwrap();
        let findings = Machine::new().gone(&desk, &memory, day(1)).await;
        let expected = format!(
            "{} is gone from the store, and nothing says that it expired: backup {} knew it",
            ids[2], ids[3]
        );
        assert_eq!(findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>(), [expected]);
        // Without any directory for catalogues as well.
        assert_eq!(desk.repo.vanished(&instance(), day(1)).await.unwrap(), findings);
        assert_eq!(desk.repo.vanished(&instance(), day(301)).await.unwrap(), [], "the memory is too old");
    });
}

#[test]
fn a_backup_remembers_the_newest_that_are_not_condemned_and_no_tombstone() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let ids = backups(&mut desk, 20).await;
        desk.repo.condemn(&instance(), &ids[18], day(0)).await.unwrap();
        let layout = InstanceLayout::new(instance());
        let tombstone = crate::manifest::Tombstone { at: day(0), why: "x".to_owned() };
        let dead = BackupId::new(day(0), 3);
        desk.repo.put_document(&layout.backup(&dead), &tombstone.to_json().unwrap()).await.unwrap();
        let known = desk.repo.known_backups(&layout).await.unwrap();
        let expected: Vec<_> = ids[4..].iter().filter(|id| **id != ids[18]).cloned().collect();
        assert_eq!(known, expected);
        // And it is what a manifest of a real writer holds.
        let options = crate::writer::WriterOptions {
            lanes: 1,
            compression_level: 1,
            verify: false,
            damaged_packs: Default::default(),
            sequence: 1,
        };
        let mut writer = desk.repo.begin_backup(&instance(), None, day(1), options).await.unwrap();
        let source = crate::writer::tests::MemorySource::new(&Files::new(), false);
        writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await.unwrap();
        let record = writer.commit(crate::writer::tests::draft()).await.unwrap();
        assert_eq!(desk.repo.manifest(&instance(), &record.id).await.unwrap().known_backups, expected);
    });
}
