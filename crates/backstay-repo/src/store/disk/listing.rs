//! Walking the directories of a disk store, a page at a time.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::on_blocking_thread;
use super::tree::{Custody, Seen, Tree};
use crate::layout::{ObjectName, Prefix};
use crate::store::{Listing, ObjectMeta, Operation, StoreError};

/// As many as object stores answer at once.
const PAGE_ENTRIES: usize = 1000;
const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directories still to read, outermost first; their number is the depth of the names.
pub(crate) struct Walk {
    tree: Arc<Tree>,
    under: String,
    open: Vec<(String, Dir)>,
    /// Which segments are entered or shown at all.
    admits: fn(&str) -> bool,
}

pub(super) struct DiskListing {
    under: Prefix,
    /// `None` while a page is being read: a page whose future was dropped ends the
    /// listing with an error instead of leaving a hole in it.
    walk: Option<Walk>,
}

fn join(directory: &str, segment: &str) -> String {
    if directory.is_empty() { segment.to_owned() } else { format!("{directory}/{segment}") }
}

pub(crate) fn failed(under: &str, error: impl Into<io::Error>) -> StoreError {
    // Whatever the cause: a directory stream that broke cannot be taken up again.
    StoreError::Io { operation: Operation::List, object: shown(under), cause: error.into().into() }
}

fn shown(under: &str) -> String {
    if under.is_empty() { "/".to_owned() } else { under.to_owned() }
}

/// `None` when the directory is not there (any more).
fn open_directory(tree: &Tree, under: &str, path: &str) -> Result<Option<Dir>, StoreError> {
    let root = match tree.root() {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io(Operation::List, shown(under), error)),
    };
    let path = if path.is_empty() { "." } else { path };
    match rustix::fs::openat(root, path, OPEN_DIRECTORY, Mode::empty()) {
        Ok(opened) => Dir::new(opened).map(Some).map_err(|error| failed(under, error)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(StoreError::from_io(Operation::List, shown(under), error.into())),
    }
}

fn is_object_segment(segment: &str) -> bool {
    segment.parse::<ObjectName>().is_ok()
}

impl DiskListing {
    pub fn begin(tree: Arc<Tree>, under: Prefix) -> Result<Self, StoreError> {
        let walk = Walk::begin(tree, under.as_str(), is_object_segment)?;
        Ok(Self { under, walk: Some(walk) })
    }
}

#[async_trait]
impl Listing for DiskListing {
    async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        let Some(mut walk) = self.walk.take() else {
            return Err(broken_off(self.under.as_str()));
        };
        let (walk, page) = on_blocking_thread(Operation::List, self.under.as_str(), move || {
            let page = walk.page()?;
            Ok((walk, page))
        })
        .await?;
        self.walk = Some(walk);
        let meta = |(path, seen): (String, Seen)| {
            let name = path.parse().ok()?;
            Some(ObjectMeta { name, size_bytes: seen.size_bytes, modified: seen.modified })
        };
        Ok((!page.is_empty()).then(|| page.into_iter().filter_map(meta).collect()))
    }
}

pub(crate) fn broken_off(under: &str) -> StoreError {
    failed(under, io::Error::other("the listing broke off earlier"))
}

impl Walk {
    pub fn begin(tree: Arc<Tree>, under: &str, admits: fn(&str) -> bool) -> Result<Self, StoreError> {
        let first = open_directory(&tree, under, under)?;
        let open = first.map(|dir| (under.to_owned(), dir)).into_iter().collect();
        Ok(Self { tree, under: under.to_owned(), open, admits })
    }

    /// The next files with what they look like; none at the end.
    pub fn page(&mut self) -> Result<Vec<(String, Seen)>, StoreError> {
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES {
            let Some((directory, dir)) = self.open.last_mut() else { break };
            let Some(entry) = dir.next() else {
                self.open.pop();
                continue;
            };
            let entry = entry.map_err(|error| failed(&self.under, error))?;
            // Hidden and foreign files (`lost+found`) are not objects and not ours.
            let Ok(segment) = entry.file_name().to_str() else { continue };
            if !(self.admits)(segment) {
                continue;
            }
            let path = join(directory, segment);
            let stat = match rustix::fs::statat(
                dir.fd().map_err(|error| failed(&self.under, error))?,
                segment,
                AtFlags::SYMLINK_NOFOLLOW,
            ) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(&self.under, error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => page.push((path, Seen::of(&stat))),
                FileType::Directory => {
                    let inner = open_directory(&self.tree, &self.under, &path)?;
                    self.open.extend(inner.map(|dir| (path, dir)));
                }
                _ if self.tree.custody() == Custody::Shared => {}
                _ => {
                    let text = format!("{path} is neither a file nor a directory");
                    return Err(failed(&self.under, io::Error::other(text)));
                }
            }
        }
        Ok(page)
    }
}

pub(super) fn directories(tree: &Tree, under: &Prefix) -> Result<Vec<String>, StoreError> {
    let under = under.as_str();
    let Some(mut dir) = open_directory(tree, under, under)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    while let Some(entry) = dir.next() {
        let entry = entry.map_err(|error| failed(under, error))?;
        let Ok(segment) = entry.file_name().to_str() else { continue };
        if !is_object_segment(segment) {
            continue;
        }
        let fd = dir.fd().map_err(|error| failed(under, error))?;
        match rustix::fs::statat(fd, segment, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => found.push(segment.to_owned()),
                FileType::RegularFile => {}
                _ => {
                    let text = format!("{segment} is neither a file nor a directory");
                    return Err(failed(under, io::Error::other(text)));
                }
            },
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(under, error)),
        }
    }
    found.sort_unstable();
    Ok(found)
}
