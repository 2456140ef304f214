//! Sessions by number: a map names sessions millions of times, and a number is
//! four bytes where the id is twenty-one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::BackupId;

use super::MapError;

/// An index into one [`Sessions`]; meaningless beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

/// Every session that the maps of one operation name. Grows with the length of a
/// history, not with the size of a database.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    ids: Vec<BackupId>,
    numbers: HashMap<BackupId, SessionIndex>,
}

/// More than a backup a minute for three years, all still referred to.
const SESSIONS_MAX: usize = 1 << 21;

impl Sessions {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn index_of(&self, id: &BackupId) -> Result<SessionIndex, MapError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = inner.numbers.get(id) {
            return Ok(*index);
        }
        if inner.ids.len() >= SESSIONS_MAX {
            return Err(MapError::TooManySessions);
        }
        let index = SessionIndex(inner.ids.len() as u32);
        inner.ids.push(id.clone());
        inner.numbers.insert(id.clone(), index);
        Ok(index)
    }

    /// The id behind a number that this table gave out.
    pub fn id(&self, index: SessionIndex) -> Option<BackupId> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ids.get(index.0 as usize).cloned()
    }
}
