//! Names that somebody else has given, made durable.
//!
//! Whoever stored an object may have been stopped between its name and the flush of the
//! directory; who finds it there, and says so, answers for it.

use std::io;

use rustix::fs::Mode;

use super::tree::{OPEN_DIRECTORY, Tree, TreePath, sync};
use crate::store::{Operation, StoreError};

impl Tree {
    /// The name of a file that is there becomes durable, and so do those of the directories above.
    pub fn settle(&self, object: &impl TreePath) -> Result<(), StoreError> {
        self.look_at(object)?;
        let failed = |error: io::Error| StoreError::from_io(Operation::Head, object, error);
        let root = self.root().map_err(failed)?;
        let mut path = object.as_path();
        loop {
            let parent = path.rsplit_once('/').map(|(parent, _)| parent);
            let directory = rustix::fs::openat(root, parent.unwrap_or("."), OPEN_DIRECTORY, Mode::empty())
                .map_err(io::Error::from);
            directory.and_then(|directory| sync(&directory)).map_err(failed)?;
            let Some(parent) = parent else { return Ok(()) };
            path = parent;
        }
    }
}
