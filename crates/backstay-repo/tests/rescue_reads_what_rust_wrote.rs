//! The second reader, `rescue/backstay-rescue.py`, against what this crate writes:
//! two programs that share nothing but `docs/format.md` agree on every byte.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also outside of its functions")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backstay_model::error::Fault;
use backstay_model::parts::{ExtentData, ExtentReader, FileShape, FileSpec, PartKind, PartSource, Step};
use backstay_model::{BackupId, EngineKind, InstanceId, Secret};
use backstay_repo::frame::UNCOMPRESSED;
use backstay_repo::init::{self, InitOptions};
use backstay_repo::key::{KeySecret, NewSlot, Slots, create_key_file};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::Store;
use backstay_repo::store::disk::DiskStore;
use backstay_repo::writer::{RecordDraft, WriterOptions};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

const NAME: &str = "orders";
/// More than a file may have levels.
const GENERATIONS: u64 = 11;
/// The full one, the one whose files have the most levels, and the first that merges them.
const RESTORED: [usize; 3] = [0, 7, 8];
/// Not the extent that is handed out in practice, so that files have several.
const EXTENT: usize = 256 << 10;
const PASS_PHRASE: &str = "gesprungene Saite, zweimal";

/// A made-up cluster: what changes from backup to backup, and what does not.
type Cluster = BTreeMap<String, (u32, Vec<u8>)>;

/// Repeatable and without pattern, half of it compressible.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|n| if n % 2 == 0 { next() as u8 } else { b'-' }).collect()
}

fn first_cluster(tablespace: &Path) -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..60usize {
        let length = [0, 1, 8191, 8192, 8193, 65536, 250_000, 3 * 8192][n % 8];
        let block_size = if n % 7 == 0 { 512 } else { 8192 };
        cluster.insert(format!("base/{}/{}", n % 3, 16_384 + n), (block_size, bytes(n as u64, length)));
    }
    cluster.insert("base/1/large".into(), (8192, bytes(99, 3 << 20)));
    cluster.insert("base/1/zeros".into(), (8192, vec![0; 1_500_000]));
    cluster.insert("pg_tblspc/16500/PG_17_202406281/5/1".into(), (8192, bytes(7, 100_000)));
    cluster.insert("PG_VERSION".into(), (8192, b"17\n".to_vec()));
    cluster.insert("global/pg_control".into(), (8192, bytes(3, 8192)));
    cluster
        .insert("postgresql.conf".into(), (8192, b"port = 1\n include_dir = 'x'\nHBA_file='/y'\n".to_vec()));
    let map = format!("16500 {}\n", tablespace.display());
    cluster.insert("tablespace_map".into(), (8192, map.into_bytes()));
    cluster
}

/// A day of work: pages change, files grow, shrink, come and go.
fn change(cluster: &mut Cluster, generation: u64) {
    let large = "base/1/large";
    let paths: Vec<String> =
        cluster.keys().filter(|path| path.starts_with("base/") && *path != large).cloned().collect();
    for (n, path) in paths.iter().enumerate() {
        let (block_size, content) = cluster.get_mut(path).unwrap();
        let (block, n) = (*block_size as usize, n as u64 + generation);
        let length = content.len();
        match n % 6 {
            0 if length > block => {
                let at = (n as usize * 31) % (length / block) * block;
                content[at..at + block].copy_from_slice(&bytes(n, block));
            }
            1 if length > 3 * block => content[block..3 * block].fill(0),
            2 => content.extend(bytes(n, block + 5)),
            3 if n.is_multiple_of(9) => content.truncate(length / 2),
            4 if n.is_multiple_of(8) => {
                cluster.remove(path);
            }
            _ => {}
        }
    }
    // One file that changes a little every time, so that it reaches the limit of levels.
    let (_, large) = cluster.get_mut(large).unwrap();
    large[generation as usize * 16_384..][..8192].copy_from_slice(&bytes(generation, 8192));
    cluster.insert(format!("base/2/new{generation}"), (8192, bytes(generation + 500, 70_000)));
}

struct Held(Vec<u8>);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        *buffer = self.0;
        Ok(())
    }
}

struct Source(std::vec::IntoIter<Step>);

impl Source {
    fn new(cluster: &Cluster) -> Self {
        // Whoever runs the test, the script may give the files back to him.
        let own = fs::metadata("/proc/self").unwrap();
        let spec = |path: &str, kind, mode| FileSpec {
            path: path.to_owned(),
            kind,
            mode,
            user_id: own.uid(),
            group_id: own.gid(),
            modified: 1_700_000_000,
        };
        let mut steps = vec![
            Step::Begin(spec("empty directory", PartKind::Directory, 0o750)),
            Step::Begin(spec("link", PartKind::Symlink("nowhere/in particular".into()), 0o777)),
        ];
        for (path, (block_size, content)) in cluster {
            let shape = FileShape { size: content.len() as u64, block_size: *block_size };
            steps.push(Step::Begin(spec(path, PartKind::File(shape), 0o600)));
            for (n, extent) in content.chunks(EXTENT).enumerate() {
                steps.push(Step::Extent {
                    offset: (n * EXTENT) as u64,
                    length: extent.len() as u32,
                    data: ExtentData::Read(Box::new(Held(extent.to_vec()))),
                });
            }
        }
        Self(steps.into_iter())
    }
}

impl PartSource for Source {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        Ok(self.0.next())
    }
}

/// A repository on a disk, and what each of its backups holds.
struct Written {
    place: tempfile::TempDir,
    backups: Vec<(BackupId, Cluster)>,
}

impl Written {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn rescue(&self, python: &Path, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rescue/backstay-rescue.py");
        let mut command = Command::new(python);
        command.arg(script).arg("--repository").arg(self.path("repository"));
        if self.path("key").exists() && !arguments.contains(&"--passphrase-file") {
            command.arg("--key").arg(self.path("key"));
        }
        command.args(arguments).output().unwrap()
    }
}

async fn write(encrypted: bool, generations: u64) -> Written {
    let place = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(DiskStore::new(place.path().join("repository")));
    let now: Timestamp = "2026-11-21T02:43:00Z".parse().unwrap();
    let mut slots = Vec::new();
    if encrypted {
        slots.push(NewSlot {
            slot: "initial".into(),
            secret: create_key_file(&place.path().join("key")).unwrap(),
        });
    }
    let made = init::init(&*store, &InitOptions { slots, now }).await.unwrap().repository;
    // Small, so that a few megabytes are many frames, packs and map frames.
    let parameters = Parameters { frame_size: 64 << 10, pack_size: 1 << 20 };
    let repo = Arc::new(Repo::from_parts(store, made.seal_keys(), parameters));
    let instance: InstanceId = NAME.parse().unwrap();
    let mut cluster = first_cluster(&place.path().join("tablespace"));
    let mut backups: Vec<(BackupId, Cluster)> = Vec::new();
    for generation in 0..generations {
        if generation > 0 {
            change(&mut cluster, generation);
        }
        let at = now + jiff::Span::new().hours(generation as i64);
        let parent = backups.last().map(|(id, _)| id.clone());
        // Some of them as they are, as who says `compression = "none"` wants it.
        let compression_level = if generation % 3 == 0 { 1 } else { UNCOMPRESSED };
        let options = WriterOptions {
            lanes: 2,
            compression_level,
            verify: true,
            damaged_packs: Default::default(),
            sequence: 1,
        };
        let mut writer = repo.begin_backup(&instance, parent, at, options).await.unwrap();
        let source = Box::new(Source::new(&cluster));
        writer.copy(source, Arc::default(), &CancellationToken::new()).await.unwrap();
        let record = writer
            .commit(RecordDraft {
                engine: EngineKind::Postgresql,
                finished_at: at,
                start_position: None,
                stop_position: None,
                engine_version: "17.2".into(),
                facts: serde_json::json!({ "server": { "outside_configuration": { "postgresql.conf": "/etc/x" } } }),
                findings: Vec::new(),
            })
            .await
            .unwrap();
        backups.push((record.id, cluster.clone()));
    }
    Written { place, backups }
}

fn assert_success(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Every file below a directory, links followed into tablespaces only.
fn files_below(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files_below(&entry.path(), &format!("{path}/"), found);
        } else if !entry.path().is_symlink() {
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

fn assert_restored(directory: &Path, cluster: &Cluster) {
    let mut found = BTreeMap::new();
    files_below(directory, "", &mut found);
    let missing: Vec<_> = cluster.keys().filter(|path| !found.contains_key(*path)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(found.len(), cluster.len());
    for (path, (_, content)) in cluster {
        assert!(&found[path] == content, "{path} came back with other content");
    }
    assert_eq!(fs::read_link(directory.join("link")).unwrap(), Path::new("nowhere/in particular"));
    assert_eq!(fs::metadata(directory.join("empty directory")).unwrap().mode() & 0o7777, 0o750);
}

/// What led back to the old cluster is commented out.
fn with_configuration_moved_in(cluster: &mut Cluster) {
    let text = b"port = 1\n#restored elsewhere:  include_dir = 'x'\n#restored elsewhere: HBA_file='/y'\n";
    cluster.insert("postgresql.conf".into(), (8192, text.to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_comes_back_byte_for_byte() {
    let Some(python) = testkit::require_rescue_python() else { return };
    for encrypted in [true, false] {
        let written = write(encrypted, GENERATIONS).await;
        let listed = assert_success(&written.rescue(&python, &["list"]));
        let checked = assert_success(&written.rescue(&python, &["check"]));
        for (n, (id, cluster)) in written.backups.iter().enumerate() {
            assert!(listed.contains(id.as_str()), "{listed}");
            assert!(checked.contains(&format!("{id}: sound, {} files", cluster.len())), "{checked}");
            if !RESTORED.contains(&n) {
                continue;
            }
            let into = written.path(&format!("restored {n}"));
            let moved = written.path(&format!("moved {n}"));
            let tablespace = format!("{}={}", written.path("tablespace").display(), moved.display());
            let into_text = into.to_str().unwrap();
            let arguments = ["restore", NAME, id.as_str(), into_text, "--tablespace", &tablespace];
            assert_success(&written.rescue(&python, &arguments));
            let mut expected = cluster.clone();
            let map = format!("16500 {}\n", moved.display()).into_bytes();
            expected.insert("tablespace_map".into(), (8192, map));
            with_configuration_moved_in(&mut expected);
            assert_restored(&into, &expected);
            assert_eq!(fs::read_link(into.join("pg_tblspc/16500")).unwrap(), moved);
        }
        let latest = written.path("latest");
        assert_success(&written.rescue(&python, &["restore", NAME, latest.to_str().unwrap()]));
        let mut expected = written.backups.last().unwrap().1.clone();
        with_configuration_moved_in(&mut expected);
        assert_restored(&latest, &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_phrase_and_a_rotated_key_open_what_they_should() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let written = write(true, 1).await;
    let store = DiskStore::new(written.path("repository"));
    let (key, _) = backstay_repo::key::read_key_file(&written.path("key")).unwrap();
    let open = init::open(&store, Some(&key)).await.unwrap();
    let slots = Slots::new(&store, open.description.repository);
    let phrase = KeySecret::Passphrase(Secret::new(PASS_PHRASE));
    let new = NewSlot { slot: "phrase".into(), secret: phrase.clone() };
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    slots.add(&open.keyring, &new, now).await.unwrap();
    let kept = [NewSlot { slot: "initial".into(), secret: key }, new];
    slots.rotate(&kept, &[], now).await.unwrap();

    fs::write(written.path("phrase"), format!("{PASS_PHRASE}\n")).unwrap();
    fs::write(written.path("wrong phrase"), "gesprungene Saite\n").unwrap();
    assert_success(&written.rescue(&python, &["check"]));
    let with = |file: &str| {
        let path = written.path(file);
        written.rescue(&python, &["--passphrase-file", path.to_str().unwrap(), "list"])
    };
    assert!(assert_success(&with("phrase")).contains(written.backups[0].0.as_str()));
    let refused = with("wrong phrase");
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("opens no slot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_is_named_and_nothing_startable_is_left() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let written = write(true, 2).await;
    let mut objects = BTreeMap::new();
    files_below(&written.path("repository").join(NAME), "", &mut objects);
    let id = &written.backups.last().unwrap().0;
    let mut tried = 0;
    for (name, whole) in objects.iter().filter(|(name, _)| name.contains(id.as_str())) {
        if !["packs/", "maps/", "backups/"].iter().any(|kind| name.starts_with(kind)) {
            continue;
        }
        tried += 1;
        let path = written.path("repository").join(NAME).join(name);
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 4;
        fs::write(&path, &damaged).unwrap();
        let into = written.path(&format!("restored {tried}"));
        let restored = written.rescue(&python, &["restore", NAME, into.to_str().unwrap()]);
        let checked = written.rescue(&python, &["check", id.as_str()]);
        let (said, found) =
            (String::from_utf8_lossy(&restored.stderr), String::from_utf8_lossy(&checked.stdout));
        assert_eq!(restored.status.code(), Some(8), "{name}: {said}");
        assert!(said.starts_with("error: ") && said.contains(name.as_str()), "{name}: {said}");
        assert!(!into.join("global/pg_control").exists(), "{name}");
        assert_eq!(checked.status.code(), Some(20), "{name}: {found}");
        assert!(found.contains(name.as_str()), "{name}: {found}");
        fs::write(&path, whole).unwrap();
        let _ = fs::remove_dir_all(written.path("tablespace"));
    }
    assert!(tried >= 3, "a pack, a map and a manifest at least");
}
