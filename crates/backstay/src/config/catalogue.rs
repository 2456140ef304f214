//! Where this machine keeps the catalogue: named in the file, or the usual place
//! for what a program can make again.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A directory, or "none" for no catalogue.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum CataloguePlace {
    Nowhere,
    Directory(PathBuf),
}

const NOWHERE: &str = "none";

impl FromStr for CataloguePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err(format!("a directory cannot be empty; \"{NOWHERE}\" means no catalogue")),
            NOWHERE => Ok(Self::Nowhere),
            directory => Ok(Self::Directory(PathBuf::from(directory))),
        }
    }
}

impl fmt::Display for CataloguePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str(NOWHERE),
            Self::Directory(directory) => write!(f, "{}", directory.display()),
        }
    }
}

impl<'de> Deserialize<'de> for CataloguePlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for CataloguePlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where it lies when the file does not say: nowhere for a user without a home.
pub fn usual_place(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = match absolute("XDG_CACHE_HOME") {
        Some(caches) => caches,
        None if is_root => Path::new("/var/cache").to_owned(),
        None => absolute("HOME")?.join(".cache"),
    };
    Some(caches.join("backstay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_is_that_of_caches() {
        let place = |variables: &[(&str, &str)], is_root: bool| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            usual_place(variable, is_root).map(|place| place.display().to_string()).unwrap_or_default()
        };
        let home = ("HOME", "/home/ann");
        assert_eq!(place(&[home], false), "/home/ann/.cache/backstay");
        assert_eq!(place(&[home], true), "/var/cache/backstay");
        for is_root in [true, false] {
            assert_eq!(place(&[home, ("XDG_CACHE_HOME", "/caches")], is_root), "/caches/backstay");
        }
        assert_eq!(place(&[home, ("XDG_CACHE_HOME", "caches")], false), "/home/ann/.cache/backstay");
        assert_eq!(place(&[], false), "");
    }

    #[test]
    fn a_directory_or_none_reads_and_prints_as_it_was_written() {
        assert_eq!("none".parse(), Ok(CataloguePlace::Nowhere));
        assert_eq!("./none".parse(), Ok(CataloguePlace::Directory("./none".into())));
        for text in ["none", "/var/cache/backstay", "caches"] {
            assert_eq!(text.parse::<CataloguePlace>().unwrap().to_string(), text);
        }
        assert!("".parse::<CataloguePlace>().unwrap_err().contains("\"none\""));
    }
}
