//! The end of a restore: settings, manifest, everything onto the disk, and only
//! then the name that lets the server start.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstay_model::Finding;
use backstay_model::parts::{FileSpec, ParentFiles, PartKind};
use crc_fast::crc32_iscsi;

use super::super::accounts::Accounts;
use super::super::manifest::{MANIFEST_FILE, ManifestWriter};
use super::super::outcome::BackupFacts;
use super::super::recover::{self, AUTO_CONF, MAIN_CONF, MappedTablespace};
use super::super::recovery::RecoverySettings;
use super::super::{rules, tablespaces};
use super::incarnation;
use super::owner;
use super::unconfigured;
use super::write::{CONTROL_FILE_UNTIL_SEALED, PlaceTarget};
use crate::{Error, Result};

/// What the restored copy is told.
#[derive(Debug, Clone, Default)]
pub struct SealOptions {
    /// Leave `archive_mode` as it was: for a restore that replaces its source.
    pub keep_archiving: bool,
    /// Leave the places of tablespaces as they were in the map: for a copy that is packed.
    pub keep_tablespace_map: bool,
    /// It is to recover with log of an archive.
    pub recovery: Option<RecoverySettings>,
}

/// A directory that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub directory: PathBuf,
    pub files: u64,
    pub bytes: u64,
    /// What a person should know before the server takes up work.
    pub findings: Vec<Finding>,
}

/// Everything is on the disk, and nothing can be started yet.
pub struct Settled {
    target: PlaceTarget,
    sealed: Sealed,
}

impl Settled {
    pub fn let_it_start(self) -> Result<Sealed> {
        self.target.let_it_start()?;
        Ok(self.sealed)
    }
}

/// Files whose content is no longer the backup's.
type Rewritten = HashMap<&'static str, (u64, u32)>;

/// Mode of the files that come from nobody's record.
pub(super) const FILE_MODE: u32 = 0o600;

impl PlaceTarget {
    /// Called when every part is written. `files` are the parts again, for the manifest.
    pub fn seal(
        self,
        files: &mut dyn ParentFiles,
        facts: &BackupFacts,
        options: &SealOptions,
    ) -> Result<Sealed> {
        self.settle(files, facts, options)?.let_it_start()
    }

    /// The same up to the last step, for a caller who has something of his own to
    /// take out of the places first.
    pub fn settle(
        self,
        files: &mut dyn ParentFiles,
        facts: &BackupFacts,
        options: &SealOptions,
    ) -> Result<Settled> {
        let rewritten = self.rewrite(facts, options)?;
        let (sealed, owner, added) = self.write_manifest(files, facts, &rewritten)?;
        if let Some(spec) = owner {
            if self.plan.owner.is_none() {
                self.give_places_to(spec.user_id, spec.group_id)?;
            }
            let signal = options.recovery.as_ref().map(|recovery| recovery.signal);
            let ours = [MANIFEST_FILE, AUTO_CONF, "tablespace_map"];
            for name in ours.into_iter().chain(signal).chain(added.iter().map(|file| file.name)) {
                let path = self.plan.directory.join(name);
                if path.exists() {
                    self.give_away(&path, spec.user_id, spec.group_id)?;
                }
            }
        }
        self.synchronise()?;
        Ok(Settled { target: self, sealed })
    }

    fn rewrite(&self, facts: &BackupFacts, options: &SealOptions) -> Result<Rewritten> {
        let mut rewritten = Rewritten::new();
        let auto_conf = self.plan.directory.join(AUTO_CONF);
        let old = read_text(&auto_conf)?.unwrap_or_default();
        let mut text = recover::auto_conf(&old, options.keep_archiving, &incarnation::new()?);
        if let Some(recovery) = &options.recovery {
            text.push_str(&recovery.lines());
            overwrite(&self.plan.directory.join(recovery.signal), "")?;
        }
        rewritten.insert(AUTO_CONF, overwrite(&auto_conf, &text)?);
        let main_conf = self.plan.directory.join(MAIN_CONF);
        if facts.server.outside_configuration.contains_key(MAIN_CONF)
            && let Some(old) = read_text(&main_conf)?
        {
            rewritten.insert(MAIN_CONF, overwrite(&main_conf, &recover::moved_in_conf(&old))?);
        }
        let map = self.plan.directory.join("tablespace_map");
        if !options.keep_tablespace_map
            && let Some(old) = read_text(&map)?
        {
            let new =
                self.moved_map(&old).map_err(|reason| Error::Malformed { path: map.clone(), reason })?;
            rewritten.insert("tablespace_map", overwrite(&map, &new)?);
        }
        Ok(rewritten)
    }

    /// The map with the places of this restore. Recovery makes its links from it: a
    /// line that the plan does not know would lead into a living server.
    pub(super) fn moved_map(&self, old: &str) -> Result<String, String> {
        let entries = recover::parse_tablespace_map(old).ok_or("a line of it is not a tablespace")?;
        let entries = entries.into_iter().map(|entry| match self.plan.tablespaces.get(&entry.oid) {
            Some(new) => match new.to_str() {
                Some(new) => Ok(MappedTablespace { oid: entry.oid, location: new.to_owned() }),
                None => Err(format!("the place of tablespace {} is not UTF-8", entry.oid)),
            },
            // It lies in the data directory and has no link.
            None if !entry.location.starts_with('/') => Ok(entry),
            None => Err(format!("it leads to {}, which the backup's facts do not know", entry.location)),
        });
        Ok(recover::tablespace_map(&entries.collect::<Result<Vec<_>, _>>()?))
    }

    /// Writes the manifest, and the configuration that the parts turn out to lack;
    /// returns what was placed, the parts' owner, and what was added.
    fn write_manifest(
        &self,
        files: &mut dyn ParentFiles,
        facts: &BackupFacts,
        rewritten: &Rewritten,
    ) -> Result<(Sealed, Option<FileSpec>, Vec<unconfigured::Added>)> {
        let path = self.plan.directory.join(MANIFEST_FILE);
        let failed = |source| Error::Write { path: path.clone(), source };
        let out = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let out = BufWriter::new(out.map_err(failed)?);
        let server = &facts.server;
        let mut manifest =
            ManifestWriter::begin(out, server.major(), server.system_identifier).map_err(failed)?;
        let directory = self.plan.directory.clone();
        let mut sealed = Sealed { directory, files: 0, bytes: 0, findings: Vec::new() };
        let mut control = None;
        while let Some(file) = files.next().map_err(|source| Error::Parts { source })? {
            let PartKind::File(shape) = file.spec.kind else { continue };
            sealed.files += 1;
            sealed.bytes += shape.size;
            // The log is described by its range, not by its files.
            if !file.spec.path.starts_with("pg_wal/") {
                let (size, crc) = match rewritten.get(file.spec.path.as_str()) {
                    Some((size, crc)) => (*size, Some(*crc)),
                    None => (shape.size, file.crc32c),
                };
                manifest.file(&file.spec.path, size, file.spec.modified, crc).map_err(failed)?;
            }
            if file.spec.path == rules::CONTROL_FILE {
                control = Some(file.spec);
            }
        }
        let accounts = Accounts::of_this_machine();
        let given_to = control.as_ref().filter(|_| self.may_give_away).map(|control| control.user_id);
        let recorded = facts.owner.as_ref().and_then(|owner| owner.account.as_deref());
        let (account, foreign) = match given_to {
            Some(user_id) => (
                Some(owner::meant(recorded, &accounts).to_owned()),
                owner::finding(user_id, recorded, &accounts, self.plan.places()),
            ),
            None => (accounts.name_of(rustix::process::geteuid().as_raw()), None),
        };
        let added = self.configure(facts, account)?;
        sealed.findings.extend(foreign);
        for file in &added {
            manifest.file(file.name, file.size, file.modified, Some(file.crc32c)).map_err(failed)?;
        }
        sealed.findings.extend(unconfigured::finding(&added, facts.way));
        sealed.findings.extend(subscriptions(server.enabled_subscriptions));
        sealed.findings.extend(tablespaces::finding(&self.plan.late_tablespaces));
        let range = (facts.timeline, facts.start_lsn, facts.stop_lsn);
        let mut out = manifest.finish(&[range]).map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok((sealed, control, added))
    }

    /// Everything written so far reaches the disk: once per file system instead of
    /// once per file, and an error of any of the writes comes to light here.
    fn synchronise(&self) -> Result<()> {
        self.places.iter().try_for_each(|(path, directory)| {
            rustix::fs::syncfs(directory)
                .map_err(|error| Error::Write { path: path.clone(), source: error.into() })
        })
    }

    fn let_it_start(&self) -> Result<()> {
        let until_now = self.plan.directory.join(CONTROL_FILE_UNTIL_SEALED);
        let control = self.plan.directory.join(rules::CONTROL_FILE);
        let failed = |source| Error::Write { path: control.clone(), source };
        if control.exists() {
            return Err(failed(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the content is on the disk already; the directories are synchronised right after"
        )]
        fs::rename(&until_now, &control).map_err(failed)?;
        for directory in [self.plan.directory.join("global"), self.plan.directory.clone()] {
            synchronise_directory(&directory)?;
        }
        // The entry of the data directory itself, where we may have made it.
        match self.plan.directory.parent() {
            Some(parent) => synchronise_directory(parent),
            None => Ok(()),
        }
    }
}

/// A copy that subscribes takes the changes that the source is waiting for.
pub(super) fn subscriptions(enabled: u32) -> Option<Finding> {
    (enabled > 0).then(|| {
        Finding::warning(
            "subscriptions",
            format!("{enabled} were enabled at the source: a server on this copy takes their changes away from it"),
            "start it with `-c max_logical_replication_workers=0`, and run `ALTER SUBSCRIPTION … DISABLE` first",
        )
    })
}

fn synchronise_directory(path: &Path) -> Result<()> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    File::open(path).map_err(failed)?.sync_all().map_err(failed)
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// New content for a file that this restore made itself; size and CRC-32C of it.
fn overwrite(path: &Path, text: &str) -> Result<(u64, u32)> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let existed = path.exists();
    fs::write(path, text).map_err(failed)?;
    if !existed {
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(failed)?;
    }
    Ok((text.len() as u64, crc32_iscsi(text.as_bytes())))
}
