//! A writer that puts the steps of a backup into a directory, as a repository
//! followed by a restore would.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstay_engine::postgres::remote::{IncrementParent, RemoteBackup, RemoteOptions};
use backstay_engine::postgres::settings::Address;
use backstay_engine::postgres::{BackupFacts, Outcome, PostgresSettings};
use backstay_model::parts::{ExtentData, FileSpec, ParentFile, ParentFiles, PartKind, PartSource, Step};
use backstay_model::{Fault, Finding, Secret};
use tempfile::TempDir;
use testkit::Postgres;
use testkit::postgres::PASSWORD;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub fn address(server: &Postgres) -> Address {
    address_of(&server.url())
}

pub fn address_of(url: &str) -> Address {
    let password = Some(Secret::new(PASSWORD));
    PostgresSettings { url: url.to_owned(), password, ..PostgresSettings::default() }.address().unwrap()
}

/// A finished backup as a directory.
pub struct Written {
    pub directory: TempDir,
    pub files: Vec<ParentFile>,
    pub facts: BackupFacts,
    pub findings: Vec<Finding>,
    pub was_incremental: bool,
    /// Bytes that came from the server.
    pub received_bytes: u64,
    pub unchanged_bytes: u64,
}

impl Written {
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where the files of a tablespace were put.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        self.directory.path().join(oid.to_string())
    }

    pub fn as_parent(&self) -> IncrementParent {
        IncrementParent::new(&self.facts, Box::new(Listed(self.files.clone().into_iter())))
    }
}

struct Listed(std::vec::IntoIter<ParentFile>);

impl ParentFiles for Listed {
    fn next(&mut self) -> Result<Option<ParentFile>, Fault> {
        Ok(self.0.next())
    }
}

/// Takes a backup over TCP into a new directory.
pub fn back_up(runtime: &Runtime, server: &Postgres, parent: Option<&Written>) -> Result<Written, Fault> {
    back_up_as(runtime, &address(server), parent)
}

pub fn back_up_as(runtime: &Runtime, address: &Address, parent: Option<&Written>) -> Result<Written, Fault> {
    let outcome = Outcome::new();
    let options = RemoteOptions { label: "a test's".to_owned(), parent: parent.map(Written::as_parent) };
    let begun = RemoteBackup::start(address, options, outcome.clone(), CancellationToken::new());
    write(runtime.block_on(begun)?, &outcome, parent)
}

/// Drives a backup that has begun to its end, on this one thread.
pub fn write(
    mut backup: RemoteBackup,
    outcome: &Outcome,
    parent: Option<&Written>,
) -> Result<Written, Fault> {
    let directory = testkit::short_temp_dir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut writer = Writer {
        root: directory.path().to_owned(),
        parent: parent.map(|parent| parent.directory.path().to_owned()),
        open: None,
        files: Vec::new(),
        seen: HashMap::new(),
        received_bytes: 0,
        unchanged_bytes: 0,
    };
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::set_permissions(directory.path().join("data"), fs::Permissions::from_mode(0o700)).unwrap();
    let was_incremental = backup.is_incremental();
    let mut barriers = 0;
    while let Some(step) = backup.next()? {
        match step {
            Step::Begin(spec) => writer.begin(spec),
            Step::Extent { offset, length, data } => writer.extent(offset, length, data)?,
            Step::Barrier => barriers += 1,
        }
    }
    writer.close();
    assert_eq!(barriers, 1);
    remap_tablespaces(directory.path());
    Ok(Written {
        directory,
        files: writer.files,
        facts: outcome.facts().expect("facts at the end"),
        findings: outcome.findings(),
        was_incremental,
        received_bytes: writer.received_bytes,
        unchanged_bytes: writer.unchanged_bytes,
    })
}

/// Recovery makes the links from the map: it has to name where the files are now.
fn remap_tablespaces(root: &Path) {
    let path = root.join("data/tablespace_map");
    if let Ok(map) = fs::read_to_string(&path) {
        let lines = map.lines().map(|line| line.split_once(' ').unwrap().0);
        let remapped: String = lines.map(|oid| format!("{oid} {}\n", root.join(oid).display())).collect();
        fs::write(path, remapped).unwrap();
    }
}

struct Writer {
    root: PathBuf,
    parent: Option<PathBuf>,
    open: Option<Open>,
    files: Vec<ParentFile>,
    seen: HashMap<String, ()>,
    received_bytes: u64,
    unchanged_bytes: u64,
}

struct Open {
    file: File,
    path: String,
    size: u64,
    block_size: u32,
    covered: u64,
}

impl Writer {
    fn begin(&mut self, spec: FileSpec) {
        self.close();
        assert!(self.seen.insert(spec.path.clone(), ()).is_none(), "{} comes twice", spec.path);
        let target = place(&self.root, &spec.path);
        match &spec.kind {
            PartKind::Directory => match fs::create_dir(&target) {
                Ok(()) => fs::set_permissions(&target, fs::Permissions::from_mode(spec.mode)).unwrap(),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{target:?}"),
            },
            PartKind::Symlink(to) => std::os::unix::fs::symlink(to, &target).unwrap(),
            PartKind::File(shape) => {
                let file = OpenOptions::new().write(true).create_new(true).open(&target).unwrap();
                file.set_permissions(fs::Permissions::from_mode(spec.mode)).unwrap();
                file.set_len(shape.size).unwrap();
                let path = spec.path.clone();
                let (size, block_size) = (shape.size, shape.block_size);
                self.open = Some(Open { file, path, size, block_size, covered: 0 });
            }
        }
        self.files.push(ParentFile { spec, crc32c: None });
    }

    fn extent(&mut self, offset: u64, length: u32, data: ExtentData) -> Result<(), Fault> {
        let open = self.open.as_mut().expect("an extent of an open file");
        assert_eq!(offset, open.covered, "{} is covered without holes", open.path);
        open.covered += u64::from(length);
        assert!(
            length.is_multiple_of(open.block_size) || open.covered == open.size,
            "only the last extent of {} may be uneven",
            open.path
        );
        let mut buffer = vec![0xee; 3];
        match data {
            ExtentData::Read(reader) => {
                reader.read(&mut buffer)?;
                self.received_bytes += u64::from(length);
            }
            ExtentData::Unchanged => {
                let parent = self.parent.as_ref().expect("a parent");
                buffer.resize(length as usize, 0);
                let from = File::open(place(parent, &open.path)).unwrap();
                from.read_exact_at(&mut buffer, offset).expect("the parent has the range");
                self.unchanged_bytes += u64::from(length);
            }
        }
        assert_eq!(buffer.len(), length as usize);
        open.file.write_all_at(&buffer, offset).unwrap();
        Ok(())
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            assert_eq!(open.covered, open.size, "{} is covered", open.path);
        }
    }
}

/// Tablespaces lie beside the data directory.
fn place(root: &Path, path: &str) -> PathBuf {
    match path.strip_prefix("pg_tblspc/") {
        Some(below) => root.join(below),
        None => root.join("data").join(path),
    }
}
