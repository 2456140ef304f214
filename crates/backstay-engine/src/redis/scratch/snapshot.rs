//! What a scratch server has loaded, written down as a snapshot.
//!
//! A log leads beyond the snapshot that it began at. A server without append-only files does not
//! read it, and would start with old data.
//!
//! Invariant: the snapshot that lies there is replaced by a whole one, or stays.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use tracing::warn;

use super::ScratchServer;
use crate::redis::place::sync;
use crate::{Error, Result};

impl ScratchServer {
    /// Writes all that is loaded into the directory, as the snapshot that a server without
    /// append-only files loads. The append-only files stay as they are. Of keys whose time has come, that
    /// server keeps none.
    ///
    /// # Errors
    ///
    /// Where it cannot be written within the limit: what lay there before lies there still, and the server is
    /// ended.
    pub async fn write_snapshot(&mut self, limit: Duration) -> Result<()> {
        const ACTION: &str = "write the snapshot";
        let path = self.directory.join(&self.names.snapshot);
        let before = fs::metadata(&path).ok();
        let mut connection = self.connection().await?;
        // It would go on appending where its directory is, and that changes with the next step.
        connection.call(ACTION, &["CONFIG", "SET", "appendonly", "no"]).await?;
        let directory = self.directory.display().to_string();
        connection
            .call(ACTION, &["CONFIG", "SET", "dir", &directory, "dbfilename", &self.names.snapshot])
            .await?;
        self.is_saving = true;
        if let Err(error) = connection.call_within(limit, ACTION, &["SAVE"]).await {
            self.kill();
            return Err(error);
        }
        self.is_saving = false;
        let failed = |source| Error::Write { path: path.clone(), source };
        // Whoever is to read it is who was to read the one before.
        let mode = before.as_ref().map_or(0o600, |before| before.mode() & 0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        if let Some(before) = before.filter(|_| rustix::process::geteuid().is_root()) {
            let owner = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
            let given = rustix::fs::chown(&path, Some(owner.0), Some(owner.1));
            given.map_err(|error| failed(error.into()))?;
        }
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?;
        sync(&self.directory)
    }

    /// What a save has left that did not end: its server has been killed.
    pub(super) fn discard_unfinished(&mut self, process: u32) {
        if !std::mem::take(&mut self.is_saving) {
            return;
        }
        let unfinished = self.directory.join(format!("temp-{process}.rdb"));
        if let Err(error) = fs::remove_file(&unfinished)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, path = %unfinished.display(), "an unfinished snapshot is left behind");
        }
    }
}
