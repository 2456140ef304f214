//! Opening a repository for the operations that follow.

use std::path::Path;
use std::sync::Arc;

use backstay_repo::key::KeySecret;
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::Store;
use backstay_repo::store::limit::{LimitStore, Limits};
use backstay_repo::store::parting::PartingStore;
use backstay_repo::store::retry::{Pace, RetryPolicy, SystemPace};
use backstay_repo::store::url;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// Opens the repository at a store's address. `secret` is needed exactly when
/// the repository is encrypted. Calls of the store that fail for the moment are
/// made again, here and in no other layer, until `cancel` says stop. Below
/// `catalogue` lies what listings remember; without it they read every manifest.
pub async fn repository(
    store_url: &str,
    secret: Option<&KeySecret>,
    catalogue: Option<&Path>,
    cancel: &CancellationToken,
) -> Result<Arc<Repo>> {
    repository_limited(store_url, secret, catalogue, Limits::default(), cancel).await
}

/// The same, with a limit to what goes over the line in a second.
pub async fn repository_limited(
    store_url: &str,
    secret: Option<&KeySecret>,
    catalogue: Option<&Path>,
    limits: Limits,
    cancel: &CancellationToken,
) -> Result<Arc<Repo>> {
    let mut store = store(store_url, cancel)?;
    if !limits.is_none() {
        let pace: Arc<dyn Pace> = Arc::new(SystemPace::new());
        store = Arc::new(LimitStore::new(store, limits, &pace, cancel));
    }
    repository_in(store, secret, catalogue).await
}

/// Opens the repository in a store that somebody made.
pub async fn repository_in(
    store: Arc<dyn Store>,
    secret: Option<&KeySecret>,
    catalogue: Option<&Path>,
) -> Result<Arc<Repo>> {
    let open = backstay_repo::init::open(&*store, secret).await?;
    let parameters = Parameters {
        frame_size: open.description.frame_size,
        pack_size: u64::from(open.description.pack_size),
    };
    let repo = Repo::from_parts(store, open.seal_keys(), parameters);
    Ok(Arc::new(match catalogue {
        Some(directory) => repo.with_catalogue(directory),
        None => repo,
    }))
}

pub(crate) fn store(store_url: &str, cancel: &CancellationToken) -> Result<Arc<dyn Store>> {
    let store = url::open(store_url).map_err(backstay_repo::Error::from)?;
    let pace = Arc::new(SystemPace::new());
    Ok(Arc::new(PartingStore::new(store, RetryPolicy::default(), pace, cancel.clone())))
}
