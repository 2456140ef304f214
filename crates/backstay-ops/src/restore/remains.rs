//! What an interrupted restore left, and the command that clears it.
//!
//! The command is typed by somebody in a hurry, so it works as it stands: where the
//! directory itself cannot be removed, only what is in it is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::starting::shell_word;
use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags};

/// Every place that holds something of one restore, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    is_fixed: bool,
}

impl Remains {
    pub(crate) fn of(places: Vec<PathBuf>) -> Self {
        // With a slash at its end, as a shell completes it, a link does not look like one.
        let bare = |path: PathBuf| path.components().collect::<PathBuf>();
        let place = |path: PathBuf| Place { is_fixed: is_fixed(&path), path };
        Self { places: places.into_iter().map(bare).map(place).collect() }
    }

    /// Places that can be removed, whatever this machine has there.
    #[cfg(test)]
    pub(crate) fn loose(paths: &[&str]) -> Self {
        let place = |path: &&str| Place { path: path.into(), is_fixed: false };
        Self { places: paths.iter().map(place).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether more than the data directory is to be cleared.
    pub fn are_several(&self) -> bool {
        self.places.len() > 1
    }

    /// What clears them all, for a shell.
    pub fn command(&self) -> String {
        let (fixed, loose): (Vec<_>, Vec<_>) = self.places.iter().partition(|place| place.is_fixed);
        // A link is followed only when a slash stands behind it.
        let slash = |path: &Path| [path.as_os_str().as_bytes(), b"/"].concat();
        let loose = loose.iter().map(|place| place.path.as_os_str().to_owned()).collect::<Vec<_>>();
        let fixed = fixed.iter().map(|place| OsStringExt::from_vec(slash(&place.path))).collect::<Vec<_>>();
        let remove = (!loose.is_empty()).then(|| format!("rm -r {}", words(&loose)));
        let empty = (!fixed.is_empty()).then(|| format!("find {} -mindepth 1 -delete", words(&fixed)));
        remove.into_iter().chain(empty).collect::<Vec<_>>().join(" && ")
    }
}

fn words(paths: &[std::ffi::OsString]) -> String {
    paths.iter().map(|path| shell_word(OsStr::new(path))).collect::<Vec<_>>().join(" ")
}

/// Whether the directory outlasts `rm -r`: something is mounted there, it is reached
/// through a link, or what is above it is not ours to change.
fn is_fixed(path: &Path) -> bool {
    let Some(above) = path.parent() else { return true };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    path.is_symlink() || is_mounted(path, above) || rustix::fs::access(above, Access::WRITE_OK).is_err()
}

fn is_mounted(path: &Path, above: &Path) -> bool {
    // The kernel knows it of a directory that is bound to a place on the same device, too.
    let told = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    if let Ok(told) = told
        && told.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    match (fs::metadata(path), fs::metadata(above)) {
        (Ok(here), Ok(above)) => here.dev() != above.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn run(remains: &Remains) {
        let ran = Command::new("sh").args(["-c", &remains.command()]).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        assert!(ran.stderr.is_empty(), "{ran:?}");
    }

    #[test]
    fn what_is_reached_through_a_link_is_emptied_and_the_rest_removed() {
        let root = tempfile::tempdir().unwrap();
        let [plain, spaced, real, link] =
            ["plain", "it's fast", "real", "link"].map(|name| root.path().join(name));
        for place in [&plain, &spaced, &real] {
            fs::create_dir(place).unwrap();
            fs::create_dir(place.join("base")).unwrap();
            fs::write(place.join("base/1"), "").unwrap();
        }
        symlink(&real, &link).unwrap();
        let remains = Remains::of(vec![plain.clone(), spaced.clone(), link.join("")]);
        run(&remains);
        assert!(!plain.exists() && !spaced.exists());
        assert_eq!(fs::read_dir(&link).unwrap().count(), 0, "{}", remains.command());
        assert!(link.is_symlink() && real.is_dir());
    }

    #[test]
    fn where_something_is_mounted_only_the_content_goes() {
        assert!(is_fixed(Path::new("/proc")));
        assert!(is_fixed(Path::new("/")));
        assert_eq!(Remains::of(vec!["/proc".into()]).command(), "find /proc/ -mindepth 1 -delete");
        let loose = tempfile::tempdir().unwrap();
        assert!(!is_fixed(loose.path()));
    }
}
