//! Two restores of one backup, compared to the last byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// What a restore by Backstay does not take from the backup as it is, and why. All
/// of it lies at the top of the data directory.
pub const WRITTEN_ANEW: [(&str, &str); 2] = [
    ("backup_manifest", "not in the backup, made of its file table"),
    ("postgresql.auto.conf", "as in the backup, with settings for a copy after it"),
];

const MANIFEST: &str = "backup_manifest";
const SETTINGS: &str = "postgresql.auto.conf";

/// What was found the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Same {
    pub files: u64,
    pub bytes: u64,
}

/// Compares names, kinds, modes, owners, links and contents; fails with what differs.
pub fn compare(ours: &Path, theirs: &Path) -> Result<Same> {
    let (mut left, right) = (entries(ours)?, entries(theirs)?);
    ensure!(left.remove(Path::new(MANIFEST)).is_some(), "{} has no {MANIFEST}", ours.display());
    let mut differences = Vec::new();
    let mut same = Same { files: 0, bytes: 0 };
    for path in left.keys().filter(|path| !right.contains_key(*path)) {
        differences.push(format!("{}: only in {}", path.display(), ours.display()));
    }
    for (path, theirs_is) in &right {
        let Some(ours_is) = left.get(path) else {
            differences.push(format!("{}: only in {}", path.display(), theirs.display()));
            continue;
        };
        let (a, b) = (ours.join(path), theirs.join(path));
        if path == Path::new(SETTINGS) {
            if !fs::read(&a)?.starts_with(&fs::read(&b)?) {
                differences.push(format!("{SETTINGS}: does not begin as in the backup"));
            }
        } else if ours_is != theirs_is {
            differences.push(format!("{}: {ours_is:?} and {theirs_is:?}", path.display()));
        } else if let Kind::File { bytes } = ours_is.kind {
            match first_difference(&a, &b)? {
                None => same = Same { files: same.files + 1, bytes: same.bytes + bytes },
                Some(at) => differences.push(format!("{}: differs at byte {at}", path.display())),
            }
        }
    }
    if !differences.is_empty() {
        bail!("the two restores differ in {} places:\n{}", differences.len(), differences.join("\n"));
    }
    Ok(same)
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File { bytes: u64 },
    Link { target: PathBuf },
}

/// All that lies below a directory, by its path from there.
fn entries(top: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let here = top.join(&directory);
        for entry in fs::read_dir(&here).with_context(|| format!("read {}", here.display()))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let metadata = entry.metadata()?;
            let kind = if metadata.is_dir() {
                waiting.push(path.clone());
                Kind::Directory
            } else if metadata.is_symlink() {
                Kind::Link { target: fs::read_link(entry.path())? }
            } else {
                Kind::File { bytes: metadata.len() }
            };
            let owner = (metadata.uid(), metadata.gid());
            found.insert(path, Entry { kind, mode: metadata.mode(), owner });
        }
    }
    Ok(found)
}

/// Of two files of the same length.
fn first_difference(a: &Path, b: &Path) -> Result<Option<u64>> {
    const PIECE: u64 = 1 << 20;
    let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(PIECE).read_to_end(&mut left)?;
        b.by_ref().take(PIECE).read_to_end(&mut right)?;
        if left != right {
            let at = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + at as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        offset += left.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A small cluster, restored by each of the two.
    fn restored(into: &Path) {
        fs::create_dir_all(into.join("base/1")).unwrap();
        fs::write(into.join("base/1/16384"), vec![7; 3 << 20]).unwrap();
        fs::write(into.join(SETTINGS), "work_mem = '8MB'\n").unwrap();
        symlink("/elsewhere", into.join("link")).unwrap();
    }

    fn pair() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = testkit::short_temp_dir().unwrap();
        let (ours, theirs) = (home.path().join("ours"), home.path().join("theirs"));
        restored(&ours);
        restored(&theirs);
        fs::write(ours.join(MANIFEST), "{}").unwrap();
        fs::write(ours.join(SETTINGS), "work_mem = '8MB'\narchive_mode = 'off'\n").unwrap();
        (home, ours, theirs)
    }

    #[test]
    fn what_a_restore_writes_anew_is_no_difference() {
        let (_home, ours, theirs) = pair();
        assert_eq!(compare(&ours, &theirs).unwrap(), Same { files: 1, bytes: 3 << 20 });
    }

    #[test]
    fn every_other_difference_is_named() {
        type Change = fn(&Path) -> std::io::Result<()>;
        let changes: [(&str, Change); 8] = [
            ("base/1/16384: differs at byte 2097152", |theirs| {
                let mut content = vec![7; 3 << 20];
                content[2 << 20] = 8;
                fs::write(theirs.join("base/1/16384"), content)
            }),
            ("base/1/16384: Entry", |theirs| fs::write(theirs.join("base/1/16384"), [7])),
            ("base/1/16384: Entry", |theirs| {
                fs::set_permissions(theirs.join("base/1/16384"), fs::Permissions::from_mode(0o640))
            }),
            ("base/1/16384: only in", |theirs| fs::remove_file(theirs.join("base/1/16384"))),
            ("base/1/2: only in", |theirs| fs::write(theirs.join("base/1/2"), "")),
            ("link: Entry", |theirs| {
                fs::remove_file(theirs.join("link"))?;
                symlink("/nowhere", theirs.join("link"))
            }),
            ("backup_manifest: only in", |theirs| fs::write(theirs.join(MANIFEST), "{}")),
            ("does not begin as in the backup", |theirs| {
                fs::write(theirs.join(SETTINGS), "work_mem = '9MB'\n")
            }),
        ];
        for (expected, change) in changes {
            let (_home, ours, theirs) = pair();
            change(&theirs).unwrap();
            let error = compare(&ours, &theirs).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} in {error}");
        }
    }
}
