//! The name of a file on a shelf, as people and other programs choose them.

use std::fmt;
use std::str::FromStr;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;
use serde::{Deserialize, Serialize};

use crate::store::disk::tree::TreePath;

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the name of a file on a shelf: a relative path without empty or hidden parts")]
pub struct ShelfPathError(pub String);

impl Classified for ShelfPathError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\0')
}

/// A relative path of any text: `daily/Käufe 2026 (alt).sql.gz`. Its parts are not empty
/// and not hidden, so it never leaves the shelf and never meets an unfinished file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShelfPath(String);

impl ShelfPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    pub fn file_name(&self) -> &str {
        crate::store::disk::tree::file_name(&self.0)
    }

    /// `None` for a file directly on the shelf.
    pub fn directory(&self) -> Option<ShelfPath> {
        self.0.rsplit_once('/').map(|(directory, _)| Self(directory.to_owned()))
    }

    /// A file below this directory.
    pub fn join(&self, rest: &str) -> Result<ShelfPath, ShelfPathError> {
        format!("{self}/{rest}").parse()
    }

    /// The file beside this one whose name goes on with `suffix`, such as `.meta.json`.
    pub fn beside(&self, suffix: &str) -> Result<ShelfPath, ShelfPathError> {
        match suffix.contains('/') {
            true => Err(ShelfPathError(format!("{self}{suffix}"))),
            false => format!("{self}{suffix}").parse(),
        }
    }

    /// Another file of the same directory.
    pub fn sibling(&self, name: &str) -> Result<ShelfPath, ShelfPathError> {
        match (name.contains('/'), self.0.rsplit_once('/')) {
            (true, _) => Err(ShelfPathError(name.to_owned())),
            (false, Some((directory, _))) => format!("{directory}/{name}").parse(),
            (false, None) => name.parse(),
        }
    }

    /// How `self`, as a link, names `target`: `../daily/orders.dump` from `weekly/latest`.
    pub(super) fn relative_to(&self, target: &ShelfPath) -> String {
        let mut ours: Vec<&str> = self.0.split('/').collect();
        ours.pop();
        let theirs: Vec<&str> = target.0.split('/').collect();
        let shared = ours.iter().zip(&theirs[..theirs.len() - 1]).take_while(|(a, b)| a == b).count();
        let up = std::iter::repeat_n("..", ours.len() - shared);
        up.chain(theirs[shared..].iter().copied()).collect::<Vec<_>>().join("/")
    }

    pub(super) fn is_shown(segment: &str) -> bool {
        is_segment(segment)
    }
}

impl TreePath for ShelfPath {
    fn as_path(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShelfPath {
    type Err = ShelfPathError;

    fn from_str(text: &str) -> Result<Self, ShelfPathError> {
        match text.split('/').all(is_segment) {
            true => Ok(Self(text.to_owned())),
            false => Err(ShelfPathError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ShelfPath {
    type Error = ShelfPathError;

    fn try_from(text: String) -> Result<Self, ShelfPathError> {
        text.parse()
    }
}

impl From<ShelfPath> for String {
    fn from(path: ShelfPath) -> String {
        path.0
    }
}

impl fmt::Display for ShelfPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShelfPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_any_text_that_stays_on_the_shelf() {
        for good in ["a", "daily/Käufe 2026 (alt).sql.gz", "a b/c\nd", "-rf", "daily/x..y"] {
            assert_eq!(good.parse::<ShelfPath>().unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/..", "../a", ".hidden", "a/.unfinished/b", "a\0b"] {
            assert!(bad.parse::<ShelfPath>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<ShelfPath>(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_sidecar_lies_beside_its_file() {
        let path: ShelfPath = "daily/orders.dump".parse().unwrap();
        assert_eq!(path.beside(".meta.json").unwrap().as_str(), "daily/orders.dump.meta.json");
        assert!(path.beside("/../x").is_err() && path.beside("/x").is_err());
        assert_eq!(path.directory().unwrap().join("x").unwrap().as_str(), "daily/x");
        assert_eq!(path.file_name(), "orders.dump");
    }

    #[test]
    fn a_link_names_its_target_from_where_it_lies() {
        for (name, target, text) in [
            ("latest", "daily/a.dump", "daily/a.dump"),
            ("daily/latest", "daily/a.dump", "a.dump"),
            ("weekly/latest", "daily/a.dump", "../daily/a.dump"),
            ("x/y/latest", "x/z/a.dump", "../z/a.dump"),
            ("x/latest", "a.dump", "../a.dump"),
            ("a/b/latest", "a/b", "../b"),
        ] {
            let name: ShelfPath = name.parse().unwrap();
            assert_eq!(name.relative_to(&target.parse().unwrap()), text, "{name} -> {target}");
        }
    }
}
