//! What can be wrong with a dump, so that a wrong pass phrase is never taken for a
//! damaged file nor the other way round.

use backstay_model::dump::DumpCompression;
use backstay_model::error::{Classified, ErrorKind};

use super::DumpLayer;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    #[error("dump {file} is encrypted ({layer}), and no pass phrase was given")]
    PassphraseNeeded { file: String, layer: DumpLayer },
    #[error("{} that of dump {file}", those(*.tried))]
    WrongPassphrase { file: String, tried: usize },
    /// The offset is how far the file was read when the damage was noticed: it lies
    /// there or before.
    #[error("dump {file} is damaged, noticed at byte {offset_bytes}: {reason}")]
    Damaged { file: String, offset_bytes: u64, reason: String },
    #[error("dump {file} takes {what}, which this version does not have")]
    Unsupported { file: String, what: String },
    #[error("{file} is a tar archive that holds {what}")]
    Several { file: String, what: &'static str },
    #[error("{file} is no dump of a kind that this version knows")]
    Unknown { file: String },
    #[error("a dump cannot be encrypted without a pass phrase")]
    NoPassphrase,
    #[error("there is no level {level} of {compression}: its levels are {least} to {most}")]
    NoSuchLevel { compression: DumpCompression, level: i32, least: i32, most: i32 },
    #[error("cannot compress a block of the dump")]
    Compress {
        #[source]
        source: std::io::Error,
    },
    #[error("cannot encrypt the dump")]
    Encrypt {
        #[source]
        source: std::io::Error,
    },
}

impl Classified for DumpError {
    fn kind(&self) -> ErrorKind {
        match self {
            DumpError::PassphraseNeeded { .. } | DumpError::WrongPassphrase { .. } => ErrorKind::Denied,
            DumpError::Damaged { .. } => ErrorKind::Corrupt,
            DumpError::Unsupported { .. } | DumpError::Several { .. } | DumpError::Unknown { .. } => {
                ErrorKind::Unsupported
            }
            DumpError::NoPassphrase | DumpError::NoSuchLevel { .. } => ErrorKind::Invalid,
            DumpError::Compress { .. } | DumpError::Encrypt { .. } => ErrorKind::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            DumpError::PassphraseNeeded { .. } | DumpError::NoPassphrase => {
                "set dump.passphrase, for instance to { file = \"/etc/backstay/dump.passphrase\" }"
            }
            DumpError::WrongPassphrase { .. } => {
                "set dump.passphrase to the one that the file was encrypted with, or name a file with an older one by `--passphrase-file`; a file that `openssl enc -d` or `gpg -d` opens with it is opened here too"
            }
            DumpError::Damaged { .. } => "`backstay verify` names every damaged dump and the newest good one",
            DumpError::Unsupported { .. } => {
                "open it with the program that made it, such as `gpg --decrypt`, and give what comes out to `backstay adopt`"
            }
            DumpError::Several { .. } => {
                "unpack it with `tar -xf`, and give the directory to `backstay adopt`"
            }
            DumpError::Unknown { .. } => "`backstay adopt --dry-run` says what it takes each file for",
            DumpError::NoSuchLevel { .. } => "set dump.compression_level to one of them, or leave it out",
            DumpError::Compress { .. } | DumpError::Encrypt { .. } => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

/// The beginning of a sentence about this many pass phrases.
fn those(tried: usize) -> String {
    match tried {
        0 | 1 => "the pass phrase is not".to_owned(),
        several => format!("none of the {several} pass phrases that were tried is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_mend_says_how() {
        let file = || "daily/orders.dump".to_owned();
        for error in [
            DumpError::PassphraseNeeded { file: file(), layer: DumpLayer::Openssl },
            DumpError::WrongPassphrase { file: file(), tried: 1 },
            DumpError::Damaged { file: file(), offset_bytes: 7, reason: "it ends too early".to_owned() },
            DumpError::Unsupported { file: file(), what: "a private key".to_owned() },
            DumpError::Several { file: file(), what: "several dumps" },
            DumpError::Unknown { file: file() },
            DumpError::NoPassphrase,
            DumpError::NoSuchLevel { compression: DumpCompression::Gzip, level: 13, least: 1, most: 12 },
        ] {
            let hints = error.hints();
            assert!(!hints.is_empty() && hints.iter().all(|hint| !hint.ends_with('.')), "{error}: {hints:?}");
            assert!(hints.iter().all(|hint| hint.contains('`') || hint.contains("dump.")), "{hints:?}");
            assert!(!error.to_string().ends_with('.'));
        }
    }
}
