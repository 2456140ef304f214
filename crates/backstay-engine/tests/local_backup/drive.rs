//! Moves a backup into a directory, one step after the other, as the repository's
//! lanes do with many.

use std::path::{Path, PathBuf};

use backstay_engine::postgres::local::LocalBackup;
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, SealOptions, SpaceNeeded};
use backstay_engine::postgres::{BackupFacts, Outcome, PostgresSettings};
use backstay_engine::{Error, Result};
use backstay_model::parts::{
    EXTENT_SIZE, ExtentData, ParentFile, ParentFiles, PartKind, PartSource, PartTarget, PartWriter, Step,
};
use backstay_model::{Fault, Secret};
use testkit::Postgres;
use testkit::postgres::PASSWORD;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The server through its socket, as the superuser.
pub fn settings(server: &Postgres) -> PostgresSettings {
    PostgresSettings {
        url: server.socket_url(),
        data_directory: Some(server.data_directory().to_owned()),
        ..PostgresSettings::default()
    }
}

/// The server over TCP, as another role.
pub fn settings_as(server: &Postgres, role: &str, password: &str) -> PostgresSettings {
    PostgresSettings { url: server.url_as(role), password: Some(Secret::new(password)), ..settings(server) }
}

pub fn superuser_over_tcp(server: &Postgres) -> PostgresSettings {
    settings_as(server, "postgres", PASSWORD)
}

pub fn begin(runtime: &Runtime, settings: &PostgresSettings) -> Result<(LocalBackup, Outcome)> {
    runtime.block_on(LocalBackup::start(settings, "backstay test", CancellationToken::new()))
}

/// What was stored of one backup.
#[derive(Debug)]
pub struct Stored {
    pub files: Vec<ParentFile>,
    pub facts: BackupFacts,
}

pub struct Listed(std::vec::IntoIter<ParentFile>);

impl Listed {
    pub fn of(files: Vec<ParentFile>) -> Self {
        Self(files.into_iter())
    }
}

impl ParentFiles for Listed {
    fn next(&mut self) -> Result<Option<ParentFile>, Fault> {
        Ok(self.0.next())
    }
}

/// Takes every step, and tells `watch` of each before it is taken.
pub fn pump(
    source: &mut dyn PartSource,
    target: &dyn PartTarget,
    mut watch: impl FnMut(&Step),
) -> Result<Vec<ParentFile>, Fault> {
    let mut files: Vec<ParentFile> = Vec::new();
    let mut writer: Option<Box<dyn PartWriter>> = None;
    let mut checksum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut buffer = Vec::new();
    loop {
        let step = source.next()?;
        if let Some(step) = &step {
            watch(step);
        }
        if matches!(step, None | Some(Step::Begin(_)))
            && let Some(open) = writer.take()
        {
            open.finish()?;
            let last = files.last_mut().unwrap();
            last.crc32c = Some(checksum.finalize_reset() as u32);
        }
        match step {
            None => return Ok(files),
            Some(Step::Begin(spec)) => {
                let file = ParentFile { spec, crc32c: None };
                writer = target.create(&file)?;
                files.push(file);
            }
            Some(Step::Extent { offset, length, data }) => {
                let ExtentData::Read(reader) = data else { panic!("nothing is declared unchanged") };
                reader.read(&mut buffer)?;
                assert_eq!(buffer.len(), length as usize);
                assert!((1..=EXTENT_SIZE).contains(&length), "{length} bytes in one extent");
                checksum.update(&buffer);
                writer.as_ref().expect("extents belong to files").write_at(offset, &buffer)?;
            }
            Some(Step::Barrier) => {}
        }
    }
}

/// Backs a server up into `directory`, ready to be started.
pub fn copy(server: &Postgres, directory: &Path, moved: Vec<(String, PathBuf)>) -> Result<(Stored, Outcome)> {
    let runtime = runtime();
    let (mut backup, outcome) = begin(&runtime, &settings(server))?;
    let stored =
        finish(&mut backup, &outcome, directory, moved, |_| {}).map_err(|source| Error::Parts { source })?;
    Ok((stored, outcome))
}

/// The rest of a begun backup.
pub fn finish(
    backup: &mut LocalBackup,
    outcome: &Outcome,
    directory: &Path,
    moved: Vec<(String, PathBuf)>,
    watch: impl FnMut(&Step),
) -> Result<Stored, Fault> {
    let options = PlaceOptions {
        directory: directory.to_owned(),
        tablespaces: backup.server().tablespaces.clone(),
        moved,
        ..PlaceOptions::default()
    };
    let target = PlacePlan::check(&options, &SpaceNeeded::default())?.begin()?;
    let files = pump(backup, &target, watch)?;
    let facts = outcome.facts().expect("the facts are there after the last step");
    let sealed = target.seal(&mut Listed::of(files.clone()), &facts, &SealOptions::default())?;
    let count = files.iter().filter(|file| matches!(file.spec.kind, PartKind::File(_))).count();
    assert_eq!(sealed.files, count as u64);
    Ok(Stored { files, facts })
}
