//! Where a secret comes from: a file, a variable of the environment, later a
//! password store. The text itself never stands in the configuration.
//!
//! Refuses a secret given as text, without repeating it.

use std::fmt;
use std::path::{Path, PathBuf};

use backstay_model::Secret;
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::{Error, Result};

/// A secret: `{ file = "/run/secrets/orders" }`, `{ env = "ORDERS_PASSWORD" }` or
/// `{ onepassword = "op://vault/item/field" }`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// The content of a file, without the line end.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A reference into 1Password; not read by this version.
    Onepassword(String),
}

/// The ways to give a secret, for the errors that name them.
const FORMS: &str = "{ file = \"…\" } or { env = \"…\" }";

/// No secret is longer; a wrong path to a large file must not fill the memory.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl SecretSource {
    /// The secret itself. A relative file lies beside the configuration.
    pub fn read(&self, setting: &str, base: &Path) -> Result<Secret> {
        match self {
            SecretSource::File(path) => {
                let path = base.join(path);
                let failed =
                    |source| Error::SecretFile { setting: setting.to_owned(), path: path.clone(), source };
                let length = std::fs::metadata(&path).map_err(failed)?.len();
                if length > SECRET_BYTES_MAX {
                    return Err(Error::SecretTooLong { setting: setting.to_owned(), path, length });
                }
                let text = std::fs::read_to_string(&path).map_err(failed)?;
                let text = text.trim_end_matches(['\n', '\r']);
                if text.is_empty() {
                    return Err(Error::SecretEmpty { setting: setting.to_owned(), place: self.to_string() });
                }
                Ok(Secret::new(text))
            }
            SecretSource::Env(name) => match std::env::var(name) {
                Ok(text) if !text.is_empty() => Ok(Secret::new(text)),
                _ => Err(Error::SecretEmpty { setting: setting.to_owned(), place: self.to_string() }),
            },
            SecretSource::Onepassword(_) => Err(Error::OnePassword { setting: setting.to_owned() }),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "file {}", path.display()),
            SecretSource::Env(name) => write!(f, "environment variable {name}"),
            SecretSource::Onepassword(reference) => write!(f, "1Password {reference}"),
        }
    }
}

impl Serialize for SecretSource {
    /// For showing, never for writing a configuration.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("**** from {self}"))
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    // The text is not repeated: it may well be the secret.
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(E::custom(format_args!("a secret does not stand in the configuration; write {FORMS}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let one = || serde::de::Error::custom(format_args!("one of {FORMS} is needed"));
        let Some((name, value)) = map.next_entry::<String, String>()? else { return Err(one()) };
        if map.next_key::<String>()?.is_some() {
            return Err(one());
        }
        match name.as_str() {
            "file" => Ok(SecretSource::File(value.into())),
            "env" => Ok(SecretSource::Env(value)),
            "onepassword" => Ok(SecretSource::Onepassword(value)),
            _ => Err(one()),
        }
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::ErrorKind;
    use backstay_model::error::Classified;

    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_beside_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pw"), "hunter2\n").unwrap();
        let secret = SecretSource::File("pw".into()).read("password", directory.path()).unwrap();
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn a_missing_empty_or_unsupported_secret_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("empty"), "\n").unwrap();
        let read = |source: SecretSource| source.read("x.password", directory.path()).unwrap_err();
        assert_eq!(read(SecretSource::File("none".into())).kind(), ErrorKind::Invalid);
        assert_eq!(read(SecretSource::File("empty".into())).kind(), ErrorKind::Invalid);
        assert_eq!(read(SecretSource::Env("BACKSTAY_NO_SUCH_VARIABLE".into())).kind(), ErrorKind::Invalid);
        assert_eq!(read(SecretSource::Onepassword("op://v/i/f".into())).kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_secret_written_as_text_is_refused_and_not_repeated() {
        let error = toml::from_str::<std::collections::BTreeMap<String, SecretSource>>("p = 'hunter2'")
            .unwrap_err()
            .message()
            .to_owned();
        assert!(error.contains("file") && !error.contains("hunter2"), "{error}");
    }
}
