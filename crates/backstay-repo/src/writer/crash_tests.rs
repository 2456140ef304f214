//! The writer stopped after every single store call: what was committed before
//! stays whole, nothing half-made is visible, and the next backup works.

use std::sync::Arc;

use super::tests::{Desk, Files, MemorySource, draft, instance, pages, plain, runtime};
use super::*;
use crate::seal::Cipher;
use crate::store::Store;
use crate::store::faulty::FaultyStore;

fn files(version: u64) -> Files {
    (0..5u64)
        .map(|n| {
            let mut bytes = pages(n, 600_000);
            let changed = pages(version * 10 + n, 8192);
            bytes[16_384..24_576].copy_from_slice(&changed);
            (format!("base/1/{n}"), (8192, bytes))
        })
        .collect()
}

/// One incremental backup over a store that misbehaves; the parent is committed.
async fn attempt(desk: &mut Desk, parent: &BackupId, files: &Files) -> Result<BackupRecord> {
    let manifest = desk.repo.manifest(&instance(), parent).await?;
    let mut writer = desk.writer(Some(parent), Some(manifest));
    let source = MemorySource::new(files, false);
    writer.copy(Box::new(source), Arc::new(Progress::new()), &CancellationToken::new()).await?;
    writer.commit(draft()).await
}

#[test]
fn stopped_after_any_store_call_a_writer_leaves_nothing_half_made() {
    runtime().block_on(async {
        let mut first = Desk::new(Cipher::Aes256Gcm);
        let parent = first.backup(&files(0), None, false).await.unwrap().id;
        let mut stopped = 0;
        for calls in 0.. {
            let memory = Arc::new(first.memory.fork());
            let faulty: Arc<dyn Store> =
                Arc::new(FaultyStore::stop_after(Arc::clone(&memory) as Arc<dyn Store>, calls));
            let mut desk = Desk::over(Arc::clone(&memory), Cipher::Aes256Gcm);
            desk.seconds = first.seconds;
            let sound = Arc::clone(&desk.repo);
            desk.repo = Desk::open(faulty, Cipher::Aes256Gcm);
            let outcome = attempt(&mut desk, &parent, &files(1)).await;
            desk.repo = sound;

            let visible = desk.repo.backups(&instance()).await.unwrap().records;
            assert_eq!(desk.restore(&parent).await.unwrap(), plain(&files(0)), "after {calls} calls");
            match outcome {
                Ok(record) => {
                    assert_eq!(desk.restore(&record.id).await.unwrap(), plain(&files(1)));
                    break;
                }
                Err(_) => {
                    stopped += 1;
                    // The last call may be the commit whose answer nobody heard.
                    for record in visible.iter().filter(|record| record.id != parent) {
                        assert_eq!(desk.restore(&record.id).await.unwrap(), plain(&files(1)));
                    }
                    let healed = desk.backup(&files(2), Some(&parent), false).await.unwrap();
                    assert_eq!(desk.restore(&healed.id).await.unwrap(), plain(&files(2)));
                }
            }
        }
        assert!(stopped > 10, "only {stopped} places to stop at");
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_reported_and_the_backup_is_whole() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut writer = desk.writer(None, None);
        let id = writer.id().clone();
        let source = MemorySource::new(&files(0), false);
        writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await.unwrap();
        let faulty: Arc<dyn Store> = Arc::new(FaultyStore::lose_answer(Arc::clone(&desk.memory) as _, 1));
        let layout = InstanceLayout::new(instance());
        writer.repo = Desk::open(faulty, Cipher::Aes256Gcm);
        let outcome = writer.commit(draft()).await;
        assert!(outcome.is_err(), "without a retry layer a lost answer is an error");
        assert!(desk.memory.names().contains(&layout.backup(&id).to_string()));
        assert_eq!(desk.restore(&id).await.unwrap(), plain(&files(0)));
    });
}

#[test]
fn a_session_that_was_declared_dead_does_not_commit() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut writer = desk.writer(None, None);
        let source = MemorySource::new(&files(0), false);
        writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await.unwrap();
        let name = InstanceLayout::new(instance()).backup(writer.id());
        let tombstone =
            crate::manifest::Tombstone { at: jiff::Timestamp::UNIX_EPOCH, why: "silent".to_owned() };
        desk.repo.put_document(&name, &tombstone.to_json().unwrap()).await.unwrap();
        let error = writer.commit(draft()).await.unwrap_err();
        assert!(matches!(error, Error::DeclaredDead { .. }), "{error}");
        assert!(desk.repo.backups(&instance()).await.unwrap().records.is_empty());
    });
}
