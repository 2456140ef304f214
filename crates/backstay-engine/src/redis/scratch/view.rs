//! What a scratch server is shown of a restored directory.
//!
//! A server writes where it loads. Redis 7.0.15 and Valkey 8.1.1 open the last increment for
//! writing; where the manifest lists a base alone, they make an increment and write the manifest
//! anew; and of what the manifest calls history they delete the files. So the server gets a
//! directory of its own, in which links lead to the restored files, and behind the last increment
//! comes an empty one: that is what it opens, and it has nothing to make.
//!
//! Invariant: nothing in the restored directory is written, renamed or deleted, and what does not
//! lie there is not taken for empty.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::Form;
use crate::redis::place::FileNames;
use crate::{Error, Result};

/// The names within the view are always these: those of the source never reach a command line.
pub(super) const SNAPSHOT: &str = "dump.rdb";
pub(super) const APPEND_ONLY_DIRECTORY: &str = "appendonlydir";
pub(super) const APPEND_ONLY: &str = "appendonly.aof";
/// The increment that is the server's own.
const OWN_INCREMENT: &str = "backstay-scratch.incr.aof";

/// Makes the view. Both directories are absolute.
///
/// # Errors
///
/// [`Error::Read`] for what is not there: a server would start empty without it.
pub(super) fn show(directory: &Path, names: &FileNames, form: Form, view: &Path) -> Result<()> {
    make(view)?;
    match form {
        Form::Snapshot => {
            let snapshot = directory.join(&names.snapshot);
            fs::metadata(&snapshot).map_err(|source| Error::Read { path: snapshot.clone(), source })?;
            link(&snapshot, &view.join(SNAPSHOT))
        }
        Form::AppendOnly => show_append_only(
            &directory.join(&names.append_only_directory),
            names,
            &view.join(APPEND_ONLY_DIRECTORY),
        ),
    }
}

fn show_append_only(restored: &Path, names: &FileNames, view: &Path) -> Result<()> {
    let manifest = format!("{}.manifest", names.append_only);
    let path = restored.join(&manifest);
    let text = fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let continued =
        continued(&text).map_err(|reason| Error::Malformed { path, reason: reason.to_owned() })?;
    make(view)?;
    let unread = |source: io::Error| Error::Read { path: restored.to_owned(), source };
    for entry in fs::read_dir(restored).map_err(unread)? {
        let name = entry.map_err(unread)?.file_name();
        if name != manifest.as_str() {
            link(&restored.join(&name), &view.join(&name))?;
        }
    }
    let written = |path: PathBuf| move |source| Error::Write { path, source };
    let own = view.join(OWN_INCREMENT);
    File::create_new(&own).map_err(written(own))?;
    let manifest = view.join(format!("{APPEND_ONLY}.manifest"));
    fs::write(&manifest, continued).map_err(written(manifest))
}

fn make(directory: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(directory);
    made.map_err(|source| Error::Write { path: directory.to_owned(), source })
}

fn link(to: &Path, at: &Path) -> Result<()> {
    symlink(to, at).map_err(|source| Error::Write { path: at.to_owned(), source })
}

/// The manifest with the server's own increment behind the others. A manifest that a server would
/// refuse must not become one that it takes; of what stands within its lines the server speaks.
fn continued(manifest: &str) -> Result<String, &'static str> {
    let lists = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
    if !manifest.lines().any(lists) {
        return Err("it lists no file");
    }
    if !manifest.ends_with('\n') {
        return Err("its last line does not end");
    }
    let last = manifest.lines().filter_map(increment).max().unwrap_or(0);
    Ok(format!("{manifest}file {OWN_INCREMENT} seq {} type i\n", last.saturating_add(1)))
}

/// The number of an increment; nothing for other files.
fn increment(line: &str) -> Option<u64> {
    // A name with a blank stands in quotation marks, which nothing else in a line has.
    let without_name = match (line.find('"'), line.rfind('"')) {
        (Some(begin), Some(end)) => {
            format!("{}name{}", line.get(..begin)?, line.get(end + 1..)?)
        }
        _ => line.to_owned(),
    };
    let words: Vec<&str> = without_name.split_whitespace().collect();
    let field = |name: &str| words.chunks_exact(2).find(|pair| pair.first() == Some(&name))?.get(1).copied();
    match field("type")? {
        "i" => field("seq")?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_increment_comes_behind_all_others() {
        let base = "file a.aof.3.base.rdb seq 3 type b\n";
        let own = |number: u64| format!("file {OWN_INCREMENT} seq {number} type i\n");
        assert_eq!(continued(base), Ok(format!("{base}{}", own(1))));
        let more = format!(
            "{base}file a.aof.2.incr.aof seq 2 type h\nfile \"a seq 9 type i.aof\" seq 7 type i\n\
             file a.aof.8.incr.aof seq 8 type i startoffset 12 endoffset 90\n"
        );
        assert_eq!(continued(&more), Ok(format!("{more}{}", own(9))));
    }

    #[test]
    fn a_manifest_that_no_server_takes_is_not_made_one_that_it_takes() {
        for manifest in ["", "\n", "# nothing\n", "file a.aof.1.base.rdb seq 1 type b"] {
            assert!(continued(manifest).is_err(), "{manifest:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_taken_for_empty() {
        let restored = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        for (form, view) in [(Form::Snapshot, "a"), (Form::AppendOnly, "b")] {
            let shown = show(restored.path(), &FileNames::default(), form, &place.path().join(view));
            assert!(matches!(shown, Err(Error::Read { .. })), "{shown:?}");
        }
    }
}
