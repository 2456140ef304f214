//! Verify: look at what is stored, and remember what is damaged so that the next
//! backup stores it again. Holds a reader of the repository, never a writer.

use backstay_model::{BackupId, InstanceId};

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    All,
    Instance(InstanceId),
    Backup(BackupId),
}
