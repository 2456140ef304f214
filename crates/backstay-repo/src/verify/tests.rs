//! Every kind of stored object, damaged in every way: verification names it, and a
//! restore refuses it.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::document::open_document;
use crate::seal::Cipher;
use crate::store::Store;
use crate::store::faulty::{FaultyStore, Injection};
use crate::store::memory::MemoryStore;
use crate::writer::tests::{Desk, Files, instance, pages, plain, runtime};

struct Damaged {
    desk: Desk,
    older: BackupId,
    newest: BackupId,
    files: Files,
}

/// A chain of two, so that the newest needs objects of both.
async fn chain(cipher: Cipher) -> Damaged {
    let mut desk = Desk::new(cipher);
    let mut files: Files =
        (0..6).map(|n| (format!("base/1/{n}"), (8192, pages(n, 700_000 + n as usize * 8192)))).collect();
    let older = desk.backup(&files, None, false).await.unwrap().id;
    for n in 0..6 {
        let new = pages(100 + n, 8192);
        files.get_mut(&format!("base/1/{n}")).unwrap().1[81_920..90_112].copy_from_slice(&new);
    }
    let newest = desk.backup(&files, Some(&older), false).await.unwrap().id;
    Damaged { desk, older, newest, files }
}

async fn verify(desk: &Desk, backup: &BackupId, level: VerifyLevel) -> Verified {
    let manifest = desk.repo.manifest(&instance(), backup).await.unwrap();
    desk.repo.verify(manifest, level, 2, Arc::default(), &CancellationToken::new()).await.unwrap()
}

/// The same repository over a copy of its objects, to be spoilt.
fn fork(desk: &Desk, cipher: Cipher) -> Desk {
    Desk::over(Arc::new(desk.memory.fork()), cipher)
}

async fn object(memory: &MemoryStore, name: &ObjectName) -> Bytes {
    memory.get(name, u64::MAX).await.unwrap()
}

async fn assert_noticed(case: &Damaged, spoilt: &Desk, name: &ObjectName, what: &str) {
    if name.as_str().contains("/backups/") {
        let read = spoilt.repo.manifest(&instance(), &case.newest).await;
        assert!(read.is_err(), "{what} of {name} was not noticed");
        return;
    }
    // A swap may have spoilt the manifest, too: then nothing of the backup opens.
    if spoilt.repo.manifest(&instance(), &case.newest).await.is_err() {
        return;
    }
    let verified = verify(spoilt, &case.newest, VerifyLevel::Digest).await;
    assert!(
        verified.report.findings.iter().any(|finding| finding.subject == name.as_str()),
        "{what} of {name}: {:?}",
        verified.report.findings
    );
    assert!(!verified.report.sound);
    let restored = spoilt.restore(&case.newest).await;
    assert!(restored.is_err(), "a restore went through {what} of {name}");
}

#[test]
fn damage_of_every_object_in_every_way_is_named_and_stops_a_restore() {
    runtime().block_on(async {
        for cipher in [Cipher::Aes256Gcm, Cipher::None] {
            let case = chain(cipher).await;
            let manifest = case.desk.repo.manifest(&instance(), &case.newest).await.unwrap();
            let mut names = manifest.needed_objects();
            names.push(InstanceLayout::new(instance()).backup(&case.newest));
            assert!(names.len() >= 7, "{names:?}");
            for (number, name) in names.iter().enumerate() {
                let good = object(&case.desk.memory, name).await;

                let spoilt = fork(&case.desk, cipher);
                spoilt.memory.delete(name).await.unwrap();
                assert_noticed(&case, &spoilt, name, "the loss").await;

                for cut in [0, 1, 47, 48, good.len() / 2, good.len() - 1] {
                    let spoilt = fork(&case.desk, cipher);
                    spoilt.memory.tamper(name, good.slice(..cut));
                    assert_noticed(&case, &spoilt, name, "a cut").await;
                }

                // Every byte class: header, salt, frames, table, trailer, and some in between.
                let length = good.len();
                let places = [0, 4, 5, 6, 7, 8, 12, 16, 47, 48, 60, length / 3, length / 2, length - 40];
                for place in places.into_iter().chain(length - 16..length) {
                    let mut bytes = good.to_vec();
                    bytes[place] ^= 1 << (place % 8);
                    let spoilt = fork(&case.desk, cipher);
                    spoilt.memory.tamper(name, bytes);
                    assert_noticed(&case, &spoilt, name, "a flipped bit").await;
                }

                let other = &names[(number + 1) % names.len()];
                let spoilt = fork(&case.desk, cipher);
                spoilt.memory.tamper(name, object(&case.desk.memory, other).await);
                spoilt.memory.tamper(other, good);
                assert_noticed(&case, &spoilt, name, "a swap").await;
            }
        }
    });
}

#[test]
fn an_older_object_under_a_newer_name_is_refused() {
    runtime().block_on(async {
        let case = chain(Cipher::Aes256Gcm).await;
        let layout = InstanceLayout::new(instance());
        let old = object(&case.desk.memory, &layout.backup(&case.older)).await;
        case.desk.memory.tamper(&layout.backup(&case.newest), old);
        assert!(case.desk.repo.manifest(&instance(), &case.newest).await.is_err());
    });
}

#[test]
fn an_object_of_another_repository_or_key_does_not_open() {
    runtime().block_on(async {
        let case = chain(Cipher::Aes256Gcm).await;
        let name = InstanceLayout::new(instance()).backup(&case.newest);
        let bytes = object(&case.desk.memory, &name).await;
        let other_repository = crate::seal::SealKeys::new(
            backstay_model::RepositoryId::from_bytes([8; 16]),
            Cipher::Aes256Gcm,
            [(1, [1; 32])],
            &[2; 32],
        );
        let id = backstay_model::RepositoryId::from_bytes([7; 16]);
        let other_key = crate::seal::SealKeys::new(id, Cipher::Aes256Gcm, [(1, [3; 32])], &[2; 32]);
        let other_generation = crate::seal::SealKeys::new(id, Cipher::Aes256Gcm, [(2, [1; 32])], &[2; 32]);
        for keys in [other_repository, other_key, other_generation] {
            assert!(open_document(&keys, &name, &bytes).is_err());
        }
    });
}

#[test]
fn a_sound_chain_has_nothing_to_say_at_any_level() {
    runtime().block_on(async {
        let case = chain(Cipher::Aes256Gcm).await;
        for level in [VerifyLevel::Existence, VerifyLevel::Structure, VerifyLevel::Digest] {
            for backup in [&case.older, &case.newest] {
                let verified = verify(&case.desk, backup, level).await;
                assert!(verified.report.sound, "{level}: {:?}", verified.report.findings);
                assert!(verified.report.objects_read > 0);
            }
        }
        assert_eq!(case.desk.restore(&case.newest).await.unwrap(), plain(&case.files));
    });
}

/// One run over these backups, and how many bytes of packs it asked for.
async fn run_over(desk: &Desk, backups: &[&BackupId]) -> (u64, Vec<Verified>) {
    let counting = FaultyStore::new(Arc::clone(&desk.memory) as Arc<dyn Store>, |_| Injection::Pass);
    let repo = Desk::open(Arc::new(counting.clone()), Cipher::Aes256Gcm);
    let run = VerifyRun::default();
    let mut all = Vec::new();
    for backup in backups {
        let manifest = repo.manifest(&instance(), backup).await.unwrap();
        let cancel = CancellationToken::new();
        let one = repo.verify_in(&run, manifest, VerifyLevel::Digest, 2, Arc::default(), &cancel).await;
        all.push(one.unwrap());
    }
    let of_packs = counting.log().into_iter().filter(|call| call.object.contains("/packs/"));
    (of_packs.map(|call| call.asked).sum(), all)
}

#[test]
fn what_the_backups_of_a_run_share_is_read_once() {
    runtime().block_on(async {
        let case = chain(Cipher::Aes256Gcm).await;
        let both = [&case.newest, &case.older];
        let newest = run_over(&case.desk, &both[..1]).await.0;
        let older = run_over(&case.desk, &both[1..]).await.0;
        let (together, verified) = run_over(&case.desk, &both).await;
        let manifest = case.desk.repo.manifest(&instance(), &case.newest).await.unwrap();
        let stored: u64 = manifest.packs().map(|(_, pack)| pack.size).sum();
        assert!(older > newest / 2, "nothing is shared: {newest} and {older} bytes");
        assert!(together < newest + older / 20, "{together} bytes were asked for, by the newest {newest}");
        assert!(verified.iter().all(|one| one.report.sound));
        // What is reported as read are the objects, once.
        assert_eq!(verified.iter().map(|one| one.report.bytes_read).sum::<u64>(), stored);
    });
}

#[test]
fn damage_is_found_for_every_backup_of_a_run_that_needs_it() {
    runtime().block_on(async {
        let case = chain(Cipher::Aes256Gcm).await;
        let layout = InstanceLayout::new(instance());
        let name = layout.pack(&case.older, 0);
        let good = object(&case.desk.memory, &name).await;
        for place in (0..good.len()).step_by(good.len() / 40) {
            let spoilt = fork(&case.desk, Cipher::Aes256Gcm);
            let mut bytes = good.to_vec();
            bytes[place] ^= 1;
            spoilt.memory.tamper(&name, bytes);
            let both = [&case.newest, &case.older];
            let (_, together) = run_over(&spoilt, &both).await;
            for (backup, found) in both.into_iter().zip(together) {
                let alone = verify(&spoilt, backup, VerifyLevel::Digest).await;
                assert_eq!(found.report.findings, alone.report.findings, "byte {place}, {backup}");
                assert_eq!(found.damaged_packs, alone.damaged_packs);
            }
        }
    });
}

#[test]
fn a_damaged_pack_is_mended_by_the_next_backup() {
    runtime().block_on(async {
        let mut case = chain(Cipher::Aes256Gcm).await;
        let layout = InstanceLayout::new(instance());
        let name = layout.pack(&case.older, 0);
        let mut bytes = object(&case.desk.memory, &name).await.to_vec();
        bytes[100_000] ^= 1;
        case.desk.memory.tamper(&name, bytes);
        let verified = verify(&case.desk, &case.newest, VerifyLevel::Digest).await;
        assert_eq!(verified.damaged_packs, vec![(case.older.clone(), 0)]);

        let manifest = case.desk.repo.manifest(&instance(), &case.newest).await.unwrap();
        let mended = case
            .desk
            .backup_avoiding(&case.files, &case.newest, Some(manifest), verified.damaged_packs)
            .await
            .unwrap();
        assert!(verify(&case.desk, &mended.id, VerifyLevel::Digest).await.report.sound);
        assert_eq!(case.desk.restore(&mended.id).await.unwrap(), plain(&case.files));
    });
}
