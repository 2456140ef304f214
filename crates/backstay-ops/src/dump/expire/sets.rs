//! Dumps of several files: a set goes as a whole, or stays as a whole.
//!
//! Refuses to remove one of which a part would stay that nothing names any more, and append-only
//! files that somebody works with since they were taken in: they are the data of a server then.

use backstay_model::Finding;
use backstay_model::dump::DumpFormat;
use backstay_repo::shelf::ShelfPath;
use backstay_repo::store::StoreError;

use super::Removing;
use crate::dump::append_only;
use crate::dump::shelved::{self, ShelvedFile, members};
use crate::error::Result;
use crate::extract::whole;

impl Removing<'_> {
    /// Why it stays, and what lets it go.
    pub(super) async fn stays(&self, file: &ShelvedFile) -> Result<Option<Finding>> {
        let record = file.record();
        if record.members.is_empty() {
            return Ok(None);
        }
        let stays = |why: String, remedy: String| {
            let message = format!("retention lets it go, and it stays: {why}");
            let path = shelved::full(self.shelf().location(), file.path.as_str());
            Finding::warning(path, message, remedy)
        };
        if self.claims.may_be_of_unread(&file.path) {
            let why =
                "a sidecar beside it does not read, and may be of a dump that its files belong to as well";
            let remedy = "mend that sidecar or move it away, then `backstay expire` takes the whole of it";
            return Ok(Some(stays(why.to_owned(), remedy.to_owned())));
        }
        if record.shape.format != DumpFormat::AppendOnly {
            return Ok(None);
        }
        if let Some(changed) = self.changed(file).await? {
            let why = format!("{changed} is not what was taken in, and may be of a server that works there");
            let remedy =
                "move the files of the set to where their server is to have them, or remove them by hand";
            return Ok(Some(stays(why, remedy.to_owned())));
        }
        let holder = append_only::holder(&self.place.directory, &file.path).await?;
        Ok(holder.map(|holder| {
            let remedy = match holder.is_seen {
                true => "end it, or give the server a directory of its own: this one is a dump of the shelf",
                false => append_only::LOOK,
            };
            stays(holder.to_string(), remedy.to_owned())
        }))
    }

    /// The first file that is another than was taken in. One that is gone is none: a server that
    /// works there has written a manifest since, or has files open.
    async fn changed(&self, file: &ShelvedFile) -> Result<Option<ShelfPath>> {
        let record = file.record();
        let lengths = record.members.iter().map(|member| member.stored_bytes);
        let all = members(&file.path, record).into_iter().zip(lengths);
        for (path, length) in all.chain([(file.path.clone(), record.stored_bytes)]) {
            match self.shelf().head(&path).await {
                Ok(there) if there.size_bytes == length => {}
                Ok(_) => return Ok(Some(path)),
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(shelved::failed(self.shelf(), error)),
            }
            // A rewrite leaves a manifest of the same length.
            let is_manifest = path == file.path;
            if is_manifest && whole(&self.place.shelf, &path).await?.sha256 != record.sha256 {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}
