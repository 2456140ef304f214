use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::repo::Parameters;
use crate::seal::Cipher;
use crate::store::faulty::FaultyStore;
use crate::store::{MemoryStore, Operation};
use crate::writer::tests::{Desk, Files, instance, runtime};

/// A repository in memory and a directory for catalogues of it.
struct Office {
    desk: Desk,
    directory: TempDir,
}

impl Office {
    async fn with_backups(count: usize) -> Self {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        for _ in 0..count {
            desk.backup(&Files::new(), None, false).await.unwrap();
        }
        Self { desk, directory: TempDir::new().unwrap() }
    }

    fn repo_over(&self, store: Arc<dyn Store>, keys: SealKeys) -> Repo {
        Repo::from_parts(store, keys, Parameters::default()).with_catalogue(self.directory.path())
    }

    fn repo(&self) -> Repo {
        let store: Arc<dyn Store> = Arc::clone(&self.desk.memory) as _;
        self.repo_over(store, (**self.desk.repo.seal_keys()).clone())
    }

    /// What a fresh process lists, and how many manifests it fetched.
    async fn list(&self) -> (Listed, usize) {
        let store = FaultyStore::counting(Arc::clone(&self.desk.memory) as _);
        let repo = self.repo_over(Arc::new(store.clone()), (**self.desk.repo.seal_keys()).clone());
        let listed = repo.backups(&instance()).await.unwrap();
        (listed, fetched(&store))
    }

    fn file(&self) -> PathBuf {
        let name = InstanceLayout::new(instance()).catalogue();
        self.directory.path().join(self.desk.repo.id().to_string()).join(name.as_str())
    }

    /// The list without any catalogue.
    async fn truth(&self) -> Listed {
        self.desk.repo.backups(&instance()).await.unwrap()
    }

    async fn check(&self, fetches: usize) {
        let (listed, fetched) = self.list().await;
        assert_eq!(listed.records, self.truth().await.records);
        assert!(listed.unreadable.is_empty());
        assert_eq!(fetched, fetches);
    }
}

fn fetched(store: &FaultyStore) -> usize {
    store.log().iter().filter(|call| call.operation == Operation::Get).count()
}

fn test(work: impl Future<Output = ()>) {
    runtime().block_on(work);
}

#[test]
fn a_manifest_is_fetched_once_and_a_new_one_alone() {
    test(async {
        let mut office = Office::with_backups(3).await;
        office.check(3).await;
        office.check(0).await;
        office.desk.backup(&Files::new(), None, false).await.unwrap();
        office.check(1).await;
        office.check(0).await;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&office.file()), 0o600);
        assert_eq!(mode(office.file().parent().unwrap()), 0o700);
    });
}

#[test]
fn the_order_and_every_digit_are_those_of_the_manifests() {
    test(async {
        let office = Office::with_backups(2).await;
        let layout = InstanceLayout::new(instance());
        let first = office.truth().await.records[0].id.clone();
        let mut manifest = office.desk.repo.manifest(&instance(), &first).await.unwrap();
        // The last one does not survive being written and read as decimal digits.
        let small = [1e-9, 9.3e-7, 1.285_714_285_714_285_6e-9];
        for number in (0..200).map(|n| 1.0 + f64::from(n).sqrt() / 7.0).chain(small) {
            let at = manifest.record.started_at + jiff::SignedDuration::from_secs(3600);
            manifest.record.started_at = at;
            manifest.record.id = BackupId::new(at, 7);
            manifest.record.statistics.restore_amplification = number;
            manifest.record.facts = serde_json::json!({ "rate": number, "text": "ä\n" });
            let name = layout.backup(&manifest.record.id);
            office.desk.repo.put_document(&name, &manifest.to_json().unwrap()).await.unwrap();
        }
        let truth = office.truth().await.records;
        for fetches in [205, 1, 1] {
            let (Listed { records: listed, .. }, fetched) = office.list().await;
            assert_eq!(fetched, fetches, "all but one are remembered");
            // As JSON: that is how a person or a program would see a difference.
            assert_eq!(serde_json::to_string(&listed).unwrap(), serde_json::to_string(&truth).unwrap());
        }
    });
}

#[test]
fn a_deleted_catalogue_is_built_again() {
    test(async {
        let office = Office::with_backups(2).await;
        office.check(2).await;
        std::fs::remove_dir_all(office.directory.path()).unwrap();
        office.check(2).await;
        office.check(0).await;
    });
}

#[test]
fn a_damaged_catalogue_is_ignored_and_built_again() {
    test(async {
        let office = Office::with_backups(2).await;
        office.check(2).await;
        let good = std::fs::read(office.file()).unwrap();
        let mut spoilt = vec![Vec::new(), b"garbage".to_vec(), good[..good.len() - 1].to_vec()];
        for bit in (0..good.len() * 8).step_by(37) {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            spoilt.push(flipped);
        }
        for bytes in spoilt {
            std::fs::write(office.file(), bytes).unwrap();
            office.check(2).await;
        }
        office.check(0).await;
    });
}

#[test]
fn a_catalogue_of_another_format_or_instance_is_ignored() {
    test(async {
        let office = Office::with_backups(1).await;
        office.check(1).await;
        let layout = InstanceLayout::new(instance());
        let keys = office.desk.repo.seal_keys();
        let json = open_document(keys, &layout.catalogue(), &std::fs::read(office.file()).unwrap()).unwrap();
        let json = String::from_utf8(json).unwrap();
        for (now, then) in
            [("{\"format\":2,", "{\"format\":3,"), ("\"instance\":\"orders\"", "\"instance\":\"other\"")]
        {
            let other = json.replacen(now, then, 1);
            assert_ne!(other, json);
            let sealed = seal_document(keys, &layout.catalogue(), other.as_bytes()).unwrap();
            std::fs::write(office.file(), sealed).unwrap();
            office.check(1).await;
            office.check(0).await;
        }
    });
}

#[test]
fn a_catalogue_of_another_repository_or_key_is_ignored() {
    test(async {
        let office = Office::with_backups(1).await;
        office.check(1).await;
        let mine = std::fs::read(office.file()).unwrap();
        let id = |byte: u8| backstay_model::RepositoryId::from_bytes([byte; 16]);
        let repository = office.desk.repo.id();
        for keys in [
            SealKeys::new(id(8), Cipher::Aes256Gcm, [(1, [1; 32])], &[2; 32]),
            SealKeys::new(repository, Cipher::Aes256Gcm, [(1, [9; 32])], &[2; 32]),
            SealKeys::new(repository, Cipher::None, [(1, [1; 32])], &[2; 32]),
        ] {
            // Its own store has nothing; what the file remembers must not appear.
            let other = office.repo_over(Arc::new(MemoryStore::new()), keys);
            let layout = InstanceLayout::new(instance());
            let place = other.catalogue().unwrap().files.root().join(layout.catalogue().as_str());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(&place, &mine).unwrap();
            assert!(other.catalogue().unwrap().load(&layout).await.entries.is_empty());
            assert!(other.backups(&instance()).await.unwrap().records.is_empty());
        }
        std::fs::write(office.file(), &mine).unwrap();
        office.check(0).await;
    });
}

#[test]
fn a_backup_that_expired_disappears_and_its_tombstone_is_remembered() {
    test(async {
        let office = Office::with_backups(3).await;
        office.check(3).await;
        let layout = InstanceLayout::new(instance());
        let ids: Vec<_> = office.truth().await.records.into_iter().map(|record| record.id).collect();
        let memory = &office.desk.memory;
        memory.delete(&layout.backup(&ids[0])).await.unwrap();
        office.check(0).await;
        // Between two listings: the manifest expired, and the collector ended the session.
        memory.delete(&layout.backup(&ids[1])).await.unwrap();
        let tombstone = br#"{"format":1,"tombstone":{"at":"2026-11-21T02:43:00Z","why":"it is over"}}"#;
        office.desk.repo.put_document(&layout.backup(&ids[1]), tombstone).await.unwrap();
        office.check(1).await;
        office.check(0).await;
        assert_eq!(office.list().await.0.records.len(), 1);
    });
}

#[test]
fn a_manifest_that_was_replaced_is_noticed_by_whatever_decides() {
    test(async {
        let office = Office::with_backups(2).await;
        office.check(2).await;
        let id = office.truth().await.records[0].id.clone();
        let name = InstanceLayout::new(instance()).backup(&id);
        let size = office.desk.memory.head(&name).await.unwrap().size_bytes as usize;
        // Of the same size in a store without times: the catalogue cannot know.
        office.desk.memory.tamper(&name, Bytes::from(vec![b'x'; size]));
        assert_eq!(office.list().await.0.records.len(), 2);
        let repo = office.repo();
        assert!(matches!(repo.manifest(&instance(), &id).await, Err(Error::Damaged { .. })));
        let read = repo.read_backups(&instance()).await.unwrap();
        assert_eq!((read.records.len(), read.unreadable.len()), (1, 1));
        // And from then on the list names it too.
        let (listed, fetches) = office.list().await;
        assert_eq!((listed.records.len(), listed.unreadable.len(), fetches), (1, 1, 1));
    });
}

#[test]
fn a_directory_that_cannot_be_used_costs_time_and_nothing_else() {
    test(async {
        let office = Office::with_backups(2).await;
        // Not by its mode: the tests may run as somebody for whom modes do not count.
        std::fs::write(office.directory.path().join(office.desk.repo.id().to_string()), b"a file").unwrap();
        office.check(2).await;
        office.check(2).await;
    });
}

#[test]
fn listings_at_the_same_time_are_all_right_and_leave_nothing_unfinished() {
    test(async {
        let office = Office::with_backups(3).await;
        let truth = office.truth().await.records;
        let repos: Vec<_> = (0..8).map(|_| office.repo()).collect();
        let instance = instance();
        let lists = futures_util::future::join_all(repos.iter().map(|repo| repo.backups(&instance))).await;
        for listed in lists {
            assert_eq!(listed.unwrap().records, truth);
        }
        office.check(0).await;
        let unfinished = office.file().parent().unwrap().parent().unwrap().join(".unfinished");
        // A killed process leaves one; the next catalogue that is written sweeps it.
        std::fs::write(unfinished.join("tmp-left"), b"half").unwrap();
        let old = std::fs::File::options().write(true).open(unfinished.join("tmp-left")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        let id = truth[0].id.clone();
        office.desk.memory.delete(&InstanceLayout::new(instance).backup(&id)).await.unwrap();
        office.check(0).await;
        assert_eq!(std::fs::read_dir(&unfinished).unwrap().count(), 0);
    });
}

#[test]
fn nothing_of_a_record_lies_in_plain_text() {
    test(async {
        let office = Office::with_backups(1).await;
        office.check(1).await;
        let bytes = std::fs::read(office.file()).unwrap();
        let id = office.truth().await.records[0].id.to_string();
        for word in ["17.2", "postgresql", "entries", &id] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
    });
}
