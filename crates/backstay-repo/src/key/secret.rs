//! What a person holds: a key file or a pass phrase.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use backstay_model::{Finding, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Key, key_from_base64, random};
use crate::{Error, Result};

/// What the one line of a key file begins with; the number is the format's.
pub const KEY_FILE_PREFIX: &str = "backstay-key-1 ";
/// A key file is one line; more is another file given by mistake.
const KEY_FILE_MAX: u64 = 1024;
/// Readable by everybody on the machine.
const OTHERS_READ: u32 = 0o004;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    #[serde(rename = "key-file")]
    KeyFile,
    Passphrase,
}

impl KeyKind {
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::KeyFile => "key file",
            KeyKind::Passphrase => "pass phrase",
        }
    }
}

/// A secret that can open a slot.
#[derive(Clone)]
pub enum KeySecret {
    KeyFile(Zeroizing<Key>),
    Passphrase(Secret),
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl KeySecret {
    pub fn kind(&self) -> KeyKind {
        match self {
            KeySecret::KeyFile(_) => KeyKind::KeyFile,
            KeySecret::Passphrase(_) => KeyKind::Passphrase,
        }
    }

    /// From the text of a key file, wherever it was kept; anything else is a pass phrase.
    pub fn from_text(text: &Secret) -> Self {
        match parse_key(text.reveal()) {
            Some(key) => KeySecret::KeyFile(Zeroizing::new(key)),
            None => KeySecret::Passphrase(text.clone()),
        }
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let line = text.trim_end_matches(['\n', '\r', ' ']);
    key_from_base64(line.strip_prefix(KEY_FILE_PREFIX)?.trim())
}

/// Reads a key file. That others on the machine can read it is a finding and no
/// refusal: secrets that an orchestrator mounts have the mode it gives them.
pub fn read_key_file(path: &Path) -> Result<(KeySecret, Option<Finding>)> {
    let failed = |source| Error::KeyFile { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    let mut text = Zeroizing::new(Vec::new());
    file.take(KEY_FILE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    let key = std::str::from_utf8(&text).ok().and_then(parse_key);
    let key = key.ok_or_else(|| Error::NotAKeyFile { path: path.to_owned() })?;
    let exposed = (mode & OTHERS_READ != 0).then(|| {
        Finding::warning(
            path.display().to_string(),
            format!("the key file can be read by every user of this machine (mode {mode:04o})"),
            format!("chmod 600 {}", path.display()),
        )
    });
    Ok((KeySecret::KeyFile(Zeroizing::new(key)), exposed))
}

/// Draws a key and writes it, durably, to a file that did not exist, readable by
/// its owner alone.
pub fn create_key_file(path: &Path) -> Result<KeySecret> {
    let failed = |source| Error::KeyFile { action: "create", path: path.to_owned(), source };
    let key = Zeroizing::new(random()?);
    let text = Zeroizing::new(format!("{KEY_FILE_PREFIX}{}\n", BASE64.encode(*key)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    if let Err(error) = written {
        // It is ours and holds no key that anything was sealed with.
        let _: io::Result<()> = std::fs::remove_file(path);
        return Err(failed(error));
    }
    Ok(KeySecret::KeyFile(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use backstay_model::ErrorKind;
    use backstay_model::error::Classified as _;

    use super::*;

    #[test]
    fn a_key_file_is_private_never_overwritten_and_reads_back() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("repository.key");
        let KeySecret::KeyFile(made) = create_key_file(&path).unwrap() else { panic!("not a key file") };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (read, finding) = read_key_file(&path).unwrap();
        assert!(matches!(&read, KeySecret::KeyFile(key) if *key == made));
        assert!(finding.is_none());
        assert_eq!(format!("{read:?}"), "****");

        let before = std::fs::read(&path).unwrap();
        assert_eq!(create_key_file(&path).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(std::fs::read(&path).unwrap(), before);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (_, finding) = read_key_file(&path).unwrap();
        assert!(finding.unwrap().remedy.starts_with("chmod 600 "));
    }

    #[test]
    fn what_is_not_a_key_file_is_said_so() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("other");
        assert_eq!(read_key_file(&path).unwrap_err().kind(), ErrorKind::NotFound);
        for text in ["", "backstay-key-1", "backstay-key-1 AAAA", "backstay-key-2 x", "\u{0}\u{1}"] {
            std::fs::write(&path, text).unwrap();
            let error = read_key_file(&path).unwrap_err();
            assert!(matches!(error, Error::NotAKeyFile { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_text_of_a_key_file_may_come_from_anywhere() {
        let text = format!("{KEY_FILE_PREFIX}{}\r\n", BASE64.encode([7u8; 32]));
        assert_eq!(KeySecret::from_text(&Secret::new(text)).kind(), KeyKind::KeyFile);
        assert_eq!(KeySecret::from_text(&Secret::new("correct horse")).kind(), KeyKind::Passphrase);
    }
}
