//! One file of an export on its way out: packed, encrypted, and without a name.

use backstay_model::Secret;
use backstay_repo::dump::{DumpRecipe, DumpWriter};
use backstay_repo::shelf::ShelfPath;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::destination::{Destination, Ready};
use crate::error::{Error, Result};

pub(super) struct Outlet<'a> {
    destination: &'a Destination,
    cancel: &'a CancellationToken,
    path: ShelfPath,
    writer: DumpWriter,
}

impl<'a> Outlet<'a> {
    pub async fn begin(
        destination: &'a Destination,
        cancel: &'a CancellationToken,
        path: ShelfPath,
        recipe: &DumpRecipe,
        passphrase: Option<&Secret>,
    ) -> Result<Self> {
        destination.must_be_free(&path)?;
        let begun = DumpWriter::begin(destination.shelf(), &path, recipe, passphrase).await;
        match begun {
            Ok(writer) => Ok(Self { destination, cancel, path, writer }),
            Err(error) => Err(destination.failed(&path, error)),
        }
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            written = self.writer.write(bytes) => written.map_err(|error| self.destination.failed(&self.path, error)),
        }
    }

    /// All was written, if `filled` says so; else nothing of it is left.
    pub async fn end<T>(self, filled: Result<T>) -> Result<(T, Ready)> {
        let Self { destination, path, writer, .. } = self;
        match filled {
            Ok(value) => match writer.finish().await {
                Ok(finished) => Ok((value, Ready { path, finished })),
                Err(error) => Err(destination.failed(&path, error)),
            },
            Err(error) => {
                // Nothing of it has a name; what else went wrong is no news.
                let _ = writer.abandon().await;
                Err(error)
            }
        }
    }
}
