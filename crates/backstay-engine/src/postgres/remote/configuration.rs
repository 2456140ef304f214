//! Configuration that no archive of the server has, because it lies outside of the
//! data directory, as Debian's does.
//!
//! It is read through an ordinary session when the backup begins, and handed on
//! behind the last archive, under the names it has inside of a data directory. A
//! role that may not read it loses nothing else: the backup goes on and says so.
//!
//! Invariant: what an archive brings wins; no path comes twice.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use backstay_model::Finding;
use backstay_model::parts::{EXTENT_SIZE, FileShape, FileSpec, PartKind};

use super::members::Piece;
use crate::postgres::connect::{Session, column};
use crate::postgres::facts::{self, ServerFacts};
use crate::postgres::recover::MAIN_CONF;
use crate::postgres::{included, rules, walsender};
use crate::{Error, Result};

/// Nobody but the server's user reads it, whatever it was in its old place.
const FILE_MODE: u32 = 0o600;

pub(super) struct OutsideConfiguration {
    /// What was read and has not come by archive.
    files: BTreeMap<String, Vec<u8>>,
    /// What was not, and why; it may come by archive.
    missing: BTreeMap<String, String>,
    role: String,
    /// A file of the backup: whose owner these get.
    neighbour: Option<FileSpec>,
}

impl OutsideConfiguration {
    pub(super) async fn read(session: &Session, server: &ServerFacts, role: String) -> Self {
        let mut files = BTreeMap::new();
        let mut missing = BTreeMap::new();
        if server.data_directory.is_none() {
            missing.insert(MAIN_CONF.to_owned(), "the role may not know where it is".to_owned());
        }
        for (name, place) in &server.outside_configuration {
            match read_file(session, &place.display().to_string()).await {
                Ok(bytes) => drop(files.insert(name.clone(), bytes)),
                Err(error) => {
                    let said = walsender::refusal(&error).map(ToString::to_string);
                    missing.insert(name.clone(), said.unwrap_or_else(|| error.to_string()));
                }
            }
        }
        Self { files, missing, role, neighbour: None }
    }

    /// Told of every part that an archive brings.
    pub(super) fn meet(&mut self, spec: &FileSpec) {
        self.files.remove(&spec.path);
        self.missing.remove(&spec.path);
        if spec.path == rules::CONTROL_FILE {
            self.neighbour = Some(spec.clone());
        }
    }

    /// Behind the last archive: the parts that none of them brought, and a word
    /// about those that nobody has.
    pub(super) fn finish(self, pieces: &mut VecDeque<Piece>) -> Option<Finding> {
        if let Some(neighbour) = &self.neighbour {
            for (path, bytes) in self.files {
                let size = bytes.len() as u64;
                let shape = FileShape { size, block_size: rules::unit_of(&path, size, 0) };
                let kind = PartKind::File(shape);
                pieces.push_back(Piece::Begin(FileSpec { path, kind, mode: FILE_MODE, ..neighbour.clone() }));
                for (number, extent) in bytes.chunks(EXTENT_SIZE as usize).enumerate() {
                    let offset = number as u64 * u64::from(EXTENT_SIZE);
                    pieces.push_back(Piece::Bytes { offset, bytes: extent.to_vec() });
                }
            }
        }
        let reason = self.missing.values().next()?;
        let names: Vec<&str> = self.missing.keys().map(String::as_str).collect();
        Some(Finding::info(
            names.join(", "),
            format!("outside of the data directory, and so not in the backup: {reason}"),
            facts::grant_configuration(&self.role),
        ))
    }
}

async fn read_file(session: &Session, path: &str) -> Result<Vec<u8>> {
    let statement = "SELECT pg_read_binary_file($1, 0, $2, false)";
    let most = (included::LARGEST_FILE + 1) as i64;
    let row = session.row("read the server's configuration", statement, &[&path, &most]).await?;
    let bytes: Vec<u8> = column(&row, 0)?;
    match bytes.len() as u64 <= included::LARGEST_FILE {
        true => Ok(bytes),
        false => {
            let most = included::LARGEST_FILE;
            Err(Error::Protocol { reason: format!("{path} has more than {most} bytes") })
        }
    }
}
