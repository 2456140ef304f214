//! The recovery kit: what a person needs, besides the repository and the key, on
//! the day that this program and the machine it ran on are gone.
//!
//! Refuses: to hold the key. The kit may lie where others can read it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::description::Description;
use crate::layout;
use crate::seal::Cipher;
use crate::store::Store;
use crate::{Error, Result};

/// The format in words, as it was when this program was built.
const FORMAT_TEXT: &str = include_str!("../../../docs/format.md");
/// The second reader.
const RESCUE_PROGRAM: &str = include_str!("../../../rescue/backstay-rescue.py");
const RESCUE_FORMAT: &str = include_str!("../../../rescue/backstay_format.py");
const RESCUE_LOG: &str = include_str!("../../../rescue/backstay_log.py");
/// Slots and the description are small.
const STORED_BYTES_MAX: u64 = 1 << 20;

/// Writes the kit into a directory that is empty or does not exist, and returns
/// the paths of its files.
pub async fn write_kit(
    store: &dyn Store,
    description: &Description,
    directory: &Path,
) -> Result<Vec<PathBuf>> {
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("README.txt".into(), read_me(store.location(), description).into_bytes()),
        ("FORMAT.md".into(), FORMAT_TEXT.into()),
        ("backstay-rescue.py".into(), RESCUE_PROGRAM.into()),
        ("backstay_format.py".into(), RESCUE_FORMAT.into()),
        ("backstay_log.py".into(), RESCUE_LOG.into()),
    ];
    let mut stored = vec![layout::description()];
    stored.extend(store.list_all(&layout::key_slots()).await?.into_iter().map(|meta| meta.name));
    for name in stored {
        files.push((name.to_string(), store.get(&name, STORED_BYTES_MAX).await?.to_vec()));
    }
    let directory = directory.to_owned();
    match tokio::task::spawn_blocking(move || write_files(&directory, &files)).await {
        Ok(written) => written,
        Err(join) => Err(Error::broken(join.to_string())),
    }
}

fn write_files(directory: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<PathBuf>> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::WriteFile { path, source }
    };
    let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(directory).map_err(failed(directory))?;
    if std::fs::read_dir(directory).map_err(failed(directory))?.next().is_some() {
        return Err(Error::DirectoryNotEmpty { path: directory.to_owned() });
    }
    let mut written = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let path = directory.join(name);
        let parent = path.parent().unwrap_or(directory);
        let write = || {
            private(parent)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            File::open(parent)?.sync_all()
        };
        write().map_err(failed(&path))?;
        written.push(path);
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))?;
    Ok(written)
}

fn read_me(location: &str, description: &Description) -> String {
    let id = description.repository;
    let created = description.created;
    let (secret, option) = match description.cipher {
        Cipher::Aes256Gcm => (
            "\nWhat is NOT in here is the key. You need the key file or the pass phrase that opens one of\n\
             the slots under keys/. Without it nobody can read the repository, we neither. Keep the key in\n\
             two places that do not burn together, and not beside the repository.\n",
            " --key KEYFILE",
        ),
        Cipher::None => ("\nThe repository is not encrypted: no key is needed.\n", ""),
    };
    format!(
        "RECOVERY KIT OF A BACKSTAY REPOSITORY\n\
         \n\
         Repository   {id}\n\
         Made         {created}\n\
         Lies at      {location}\n\
         \n\
         With this kit, the repository and its key a database comes back on any machine.\n\
         {secret}\n\
         With Backstay installed\n\
         -----------------------\n\
         Write a backstay.toml with repository.store (and repository.key), then:\n\
         \n\
         \x20   backstay list\n\
         \x20   backstay restore INSTANCE --into EMPTY_DIRECTORY --dry-run\n\
         \x20   backstay restore INSTANCE --into EMPTY_DIRECTORY\n\
         \n\
         Without Backstay\n\
         ----------------\n\
         Copy the repository to a directory, then, with Python 3.9 or newer:\n\
         \n\
         \x20   pip install cryptography zstandard blake3\n\
         \x20   python3 backstay-rescue.py --repository DIRECTORY{option} list\n\
         \x20   python3 backstay-rescue.py --repository DIRECTORY{option} check\n\
         \x20   python3 backstay-rescue.py --repository DIRECTORY{option} restore INSTANCE latest EMPTY_DIRECTORY\n\
         \x20   python3 backstay-rescue.py --repository DIRECTORY{option} log INSTANCE latest EMPTY_DIRECTORY\n\
         \n\
         If backstay.json or keys/ are gone from the repository, copy those of this kit back to the\n\
         same names. FORMAT.md says in words what every byte of the repository means.\n\
         \n\
         Make the kit again after every change of the keys.\n"
    )
}
