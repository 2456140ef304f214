//! The list of entries that `pg_restore` is told to take, in a private file: it takes no
//! list in another way. It holds numbers and nothing of the dump.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub(super) struct UseList(PathBuf);

impl UseList {
    pub fn write(entries: &[i32]) -> Result<UseList> {
        let directory = std::env::temp_dir();
        let process = std::process::id();
        let mut number = 0u32;
        let (path, mut file) = loop {
            let path = directory.join(format!("backstay-list-{process}-{number}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(Error::Write { path, source }),
            }
        };
        let list = UseList(path);
        let lines: String = entries.iter().map(|id| format!("{id};\n")).collect();
        file.write_all(lines.as_bytes()).map_err(|source| Error::Write { path: list.0.clone(), source })?;
        Ok(list)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for UseList {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_number_on_each_line_and_is_gone_afterwards() {
        let list = UseList::write(&[3, 14]).unwrap();
        let path = list.path().to_owned();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3;\n14;\n");
        drop(list);
        assert!(!path.exists());
    }
}
