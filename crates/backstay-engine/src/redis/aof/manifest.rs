//! The manifest of the append-only files: pairs of a word and a value in each line.
//!
//! Newer servers write more pairs than older ones; those that are not known mean nothing here.
//! Refuses what a server refuses: a second base, increments that are not in their order, a file
//! elsewhere. Refuses as well what is no manifest of a server: more than a few megabytes, and a
//! file that is listed twice.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// Of one with ten thousand increments; a server keeps a handful.
const MANIFEST_MAX: u64 = 4 << 20;
/// Behind the name that the settings of a server give its append-only files.
const SUFFIX: &str = ".manifest";
/// As every line of one begins that is no remark.
const FIRST_WORD: &str = "file ";

/// One of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFile {
    pub name: String,
    /// Which names it, as it stands in the manifest.
    pub line: String,
    pub sequence: u64,
    /// Where in the server's stream it begins and ends, where the server says it.
    pub start_offset: Option<u64>,
    pub end_offset: Option<u64>,
}

/// What is loaded, and what is not any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AofManifest {
    pub base: Option<AofFile>,
    /// In their order.
    pub increments: Vec<AofFile>,
    /// Those that only wait for their deletion: no server reads them, and they may be gone.
    pub history: Vec<AofFile>,
}

impl AofManifest {
    /// # Errors
    ///
    /// The reason.
    pub fn parse(text: &str) -> Result<AofManifest, String> {
        let mut found = AofManifest::default();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (file, kind) =
                parse_line(line).ok_or_else(|| format!("line {} names no file", number + 1))?;
            if file.name.contains('/') || file.name.starts_with('.') {
                return Err(format!("{}, which it names, is no file beside it", file.name));
            }
            if kind != "h" && found.loaded().any(|known| known.name == file.name) {
                return Err(format!("{} is listed twice", file.name));
            }
            match kind.as_str() {
                "b" if found.base.is_some() => return Err("two bases are listed".to_owned()),
                "b" => found.base = Some(file),
                "i" if found.increments.last().is_some_and(|last| last.sequence >= file.sequence) => {
                    return Err(format!("{} is not behind the increment before it", file.name));
                }
                "i" => found.increments.push(file),
                "h" => found.history.push(file),
                other => return Err(format!("{} is of type {other:?}", file.name)),
            }
        }
        match found.base.is_none() && found.increments.is_empty() {
            true => Err("no file is listed".to_owned()),
            false => Ok(found),
        }
    }

    /// The one of this name in a directory. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], and [`Error::Malformed`] for one that no server would start on.
    pub fn read(directory: &Path, name: &str) -> Result<AofManifest> {
        let path = directory.join(name);
        let unread = |source| Error::Read { path: path.clone(), source };
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MANIFEST_MAX).read_to_end(&mut bytes));
        if read.map_err(unread)? as u64 == MANIFEST_MAX {
            return Err(malformed(format!("{MANIFEST_MAX} bytes and more are no manifest")));
        }
        let text = String::from_utf8(bytes).map_err(|_| malformed("it is no text".to_owned()))?;
        AofManifest::parse(&text).map_err(malformed)
    }

    /// Those that a server reads, in its order.
    pub fn loaded(&self) -> impl Iterator<Item = &AofFile> {
        self.base.iter().chain(&self.increments)
    }

    /// One that names these alone.
    pub fn text(&self) -> String {
        self.loaded().map(|file| format!("{}\n", file.line)).collect()
    }
}

/// What the settings of the server call the set of this manifest; nothing for another name.
pub fn set_name(manifest: &str) -> Option<&str> {
    manifest.strip_suffix(SUFFIX).filter(|name| !name.is_empty())
}

/// Whether it is a manifest by its name, or at least by how it begins. Blocks.
///
/// # Errors
///
/// [`Error::Read`].
pub fn may_be_manifest(directory: &Path, name: &str) -> Result<bool> {
    if set_name(name).is_none_or(|name| name.ends_with(".aof")) {
        return Ok(set_name(name).is_some());
    }
    let path = directory.join(name);
    let mut first = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(FIRST_WORD.len() as u64).read_to_end(&mut first));
    read.map_err(|source| Error::Read { path, source })?;
    Ok(first == FIRST_WORD.as_bytes())
}

/// Whether a server gives such a name to a file of the set of this manifest. The base of one that
/// began as a single file has the name of the set.
pub fn may_be_member(manifest: &str, name: &str) -> bool {
    let Some(set) = set_name(manifest) else { return false };
    let Some(rest) = name.strip_prefix(set) else { return false };
    let numbered = rest.strip_prefix('.').and_then(|rest| rest.split_once('.'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_empty()
        || numbered.is_some_and(|(number, kind)| {
            is_number(number) && matches!(kind, "base.rdb" | "base.aof" | "incr.aof")
        })
}

fn parse_line(line: &str) -> Option<(AofFile, String)> {
    let words = words(line)?;
    let value = |wanted: &str| {
        words
            .chunks_exact(2)
            .find(|pair| pair.first().is_some_and(|word| word == wanted))
            .and_then(|pair| pair.get(1))
    };
    if words.len() % 2 > 0 {
        return None;
    }
    let name = value("file").filter(|name| !name.is_empty())?.clone();
    let number = |wanted: &str| value(wanted).and_then(|text| text.parse().ok());
    let file = AofFile {
        name,
        line: line.trim().to_owned(),
        sequence: number("seq")?,
        start_offset: number("startoffset"),
        end_offset: number("endoffset"),
    };
    Some((file, value("type")?.clone()))
}

/// A name with a space in it stands in quotes, as servers write such words.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (mut word, mut letters) = (Vec::new(), quoted.bytes().enumerate());
            let end = loop {
                match letters.next()? {
                    (at, b'"') => break at + 1,
                    (_, b'\\') => match letters.next()?.1 {
                        b'x' => {
                            let digits = [letters.next()?.1, letters.next()?.1];
                            word.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                        }
                        b'n' => word.push(b'\n'),
                        b'r' => word.push(b'\r'),
                        b't' => word.push(b'\t'),
                        other => word.push(other),
                    },
                    (_, letter) => word.push(letter),
                }
            };
            words.push(String::from_utf8(word).ok()?);
            rest = quoted.get(end..)?.trim_start();
        } else {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = behind.trim_start();
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_in_any_number_and_what_is_to_be_deleted_is_left_out() {
        let text = "file a.aof.2.base.rdb seq 2 type b\n# said\nfile a.aof.1.incr.aof seq 1 type h\n\
            file a.aof.4.incr.aof seq 4 type i startoffset 10 endoffset 20\n\
            file \"a \\\"\\xc3\\xa4.incr.aof\" seq 5 type i startoffset 21 later new\n";
        let found = AofManifest::parse(text).unwrap();
        assert_eq!(found.base.unwrap().name, "a.aof.2.base.rdb");
        let increments: Vec<_> = found
            .increments
            .iter()
            .map(|file| (file.name.as_str(), file.start_offset, file.end_offset))
            .collect();
        assert_eq!(
            increments,
            [("a.aof.4.incr.aof", Some(10), Some(20)), ("a \"ä.incr.aof", Some(21), None)]
        );
        let found = AofManifest::parse(text).unwrap();
        assert_eq!(found.history[0].name, "a.aof.1.incr.aof");
        let again = AofManifest::parse(&found.text()).unwrap();
        assert_eq!(again, AofManifest { history: Vec::new(), ..found });
    }

    #[test]
    fn only_names_that_a_server_gives_are_of_its_set() {
        let of = |name| may_be_member("a.aof.manifest", name);
        for name in ["a.aof", "a.aof.1.base.rdb", "a.aof.12.base.aof", "a.aof.3.incr.aof"] {
            assert!(of(name), "{name}");
        }
        for name in ["b.aof", "a.aof.x.incr.aof", "a.aof..incr.aof", "a.aof.1.incr", "a.aof.manifest", "a"] {
            assert!(!of(name), "{name}");
        }
        assert!(!may_be_member(".manifest", "notes") && !may_be_member("a", "a"));
    }

    #[test]
    fn what_a_server_would_not_start_on_is_refused() {
        for text in [
            "",
            "file a seq 1 type b\nfile b seq 2 type b\n",
            "file a seq 2 type i\nfile b seq 2 type i\n",
            "file ../a seq 1 type b\n",
            "file a seq 1 type b\nfile a seq 2 type i\n",
            "file a seq 1 type x\n",
            "file a seq x type b\n",
            "file a seq 1 type\n",
            "file \"a seq 1 type b\n",
        ] {
            assert!(AofManifest::parse(text).is_err(), "{text:?}");
        }
    }
}
