//! Names of things: instances, backups, repositories.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};

/// Longest instance name, chosen so that it fits a Kubernetes label and a
/// PostgreSQL identifier (63 bytes) with room for a prefix of ours.
pub const INSTANCE_NAME_MAX: usize = 48;

#[derive(Debug, thiserror::Error)]
pub enum IdError {
    #[error(
        "instance name {0:?} is not made of a-z, 0-9, '-' and '_', starting with a letter or digit, at most {INSTANCE_NAME_MAX} long"
    )]
    Instance(String),
    #[error("{0:?} is not a backup id such as 20261121T024300Z-7q3f")]
    Backup(String),
    #[error("{0:?} is not a repository id of 32 hexadecimal digits")]
    Repository(String),
}

impl Classified for IdError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hints(&self) -> Vec<String> {
        match self {
            IdError::Instance(_) => vec!["rename the section [instance.NAME] in backstay.toml".into()],
            IdError::Backup(_) => vec!["`backstay list` shows the ids of all backups".into()],
            IdError::Repository(_) => Vec::new(),
        }
    }
}

/// The stable name a person gave to one protected server. It is part of object
/// names, so it can hold nothing that a file system or an object store dislikes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// First path segments of a repository that are not instances (`repo::layout`).
const RESERVED: [&str; 4] = ["keys", "rotations", "collections", "probe"];

impl InstanceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let good = (1..=INSTANCE_NAME_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && !RESERVED.contains(&text);
        if good { Ok(Self(text.to_owned())) } else { Err(IdError::Instance(text.to_owned())) }
    }
}

/// Sortable by time and readable: `20261121T024300Z-7q3f`. The same id names the
/// session that writes a backup, its packs and its maps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// No vowels and no look-alikes: an id is read over the telephone.
const SUFFIX_ALPHABET: &[u8; 32] = b"0123456789bcdfghjkmnpqrstvwxyz_-";
const SUFFIX_LETTERS: usize = 30;
const SUFFIX_LENGTH: usize = 4;

impl BackupId {
    /// `random` decides the suffix; two sessions of one second that draw the same
    /// suffix are told apart by the create-if-absent of their intents.
    pub fn new(at: Timestamp, random: u32) -> Self {
        let mut suffix = String::with_capacity(SUFFIX_LENGTH);
        let mut rest = random as usize;
        for _ in 0..SUFFIX_LENGTH {
            suffix.push(SUFFIX_ALPHABET[rest % SUFFIX_LETTERS] as char);
            rest /= SUFFIX_LETTERS;
        }
        Self(format!("{}-{suffix}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
        let good = bytes.len() == 21
            && digits(0..8)
            && bytes[8] == b'T'
            && digits(9..15)
            && &bytes[15..17] == b"Z-"
            && bytes[17..].iter().all(|b| SUFFIX_ALPHABET[..SUFFIX_LETTERS].contains(b));
        if good { Ok(Self(text.to_owned())) } else { Err(IdError::Backup(text.to_owned())) }
    }
}

/// 128 random bits, drawn at `init`. Part of the authenticated data of every
/// sealed object, so that nothing can be replayed from another repository.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryId([u8; 16]);

impl RepositoryId {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryId({self})")
    }
}

impl FromStr for RepositoryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Repository(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
        Ok(Self(number.to_be_bytes()))
    }
}

macro_rules! text_id {
    ($id:ty) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> String {
                id.0
            }
        }

        impl TryFrom<String> for $id {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
    };
}

text_id!(InstanceId);
text_id!(BackupId);

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_id_reads_back_and_sorts_by_time() {
        let early = BackupId::new("2026-11-21T02:43:00Z".parse().unwrap(), u32::MAX);
        let late = BackupId::new("2026-11-21T02:43:01Z".parse().unwrap(), 0);
        assert!(early < late);
        assert_eq!(early.as_str().parse::<BackupId>().unwrap(), early);
        assert!("20261121T024300Z-7q3".parse::<BackupId>().is_err());
        assert!("20261121T024300Z-7q3/".parse::<BackupId>().is_err());
        assert!("latest".parse::<BackupId>().is_err());
    }

    #[test]
    fn an_instance_name_cannot_leave_its_directory() {
        assert!("orders-2".parse::<InstanceId>().is_ok());
        for bad in ["", "..", "a/b", "A", "-a", "keys", "collections", "ä", &"x".repeat(49)] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_repository_id_is_hexadecimal_both_ways() {
        let id = RepositoryId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<RepositoryId>().unwrap(), id);
        assert!("+0000000000000000000000000000000".parse::<RepositoryId>().is_err());
    }
}
