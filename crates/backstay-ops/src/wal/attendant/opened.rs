//! Whether what was opened long ago is still what the address leads to.

use backstay_repo::description::Description;
use backstay_repo::layout::ObjectName;

use crate::context::Context;
use crate::error::{Error, Result};

/// What the repository said of itself in the beginning.
#[derive(Clone)]
pub(super) struct Opened(Description);

impl Opened {
    pub async fn now(context: &Context) -> Result<Opened> {
        Ok(Opened(Description::read(context.repo.store().as_ref()).await?.claimed().clone()))
    }

    /// Whether these lie in the store that has the address now, and that store has this repository.
    /// What was opened long ago may be a disk that was exchanged, or there is another repository in
    /// its place: what is sealed with the keys of the old one opens nowhere there.
    pub async fn has(&self, context: &Context, objects: &[ObjectName]) -> Result<bool> {
        let store = crate::open::store(context.repo.store().location(), &context.cancel)?;
        if *Description::read(store.as_ref()).await?.claimed() != self.0 {
            return Err(Error::broken("another repository lies at the address"));
        }
        for object in objects {
            store.settle(object).await.map_err(backstay_repo::Error::from)?;
        }
        Ok(true)
    }
}
