//! A dump from its shelf into a file of its own, packed and encrypted anew.

use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpRecord, DumpShape};
use backstay_model::{BackupId, Finding};
use backstay_repo::dump::{DumpError, DumpInside, DumpRead, DumpReader, DumpRecipe};

use super::destination::{Destination, Ready};
use super::outlet::Outlet;
use super::{ExportOptions, ExportReport};
use crate::clock::Stopwatch;
use crate::context::workers;
use crate::dump::shelved::{self, Presence, ShelvedFile};
use crate::dump::{DumpPolicy, described, inside};
use crate::error::{Error, Result};
use crate::run::Run;

/// What names of dumps end with, ours and those of others.
const ENDINGS: [&str; 16] = [
    ".enc", ".aes", ".gpg", ".pgp", ".asc", ".gz", ".zst", ".bz2", ".xz", ".tgz", ".sql", ".dump", ".tar",
    ".backup", ".pgdump", ".bak",
];

/// Exports a dump by its id; `None` when the shelf has none of it.
pub async fn run(
    run: &Run,
    policy: &DumpPolicy,
    id: &BackupId,
    options: &ExportOptions,
) -> Result<Option<ExportReport>> {
    let watch = Stopwatch::start();
    let shelved = shelved::look(run, policy, None).await?;
    let names: Vec<&ShelvedFile> = shelved.files.iter().filter(|file| file.record().id == *id).collect();
    let Some(first) = names.first() else { return Ok(None) };
    // What a report calls damaged may have been put right since: reading it tells.
    let there = names.iter().find(|file| file.is_good());
    let Some(file) = there.or_else(|| names.iter().find(|file| file.presence != Presence::Gone)) else {
        let file = first.path().to_string();
        return Err(Error::DumpNotGood { file, fault: "gone", instead: None });
    };
    let record = file.record();
    let shelf = policy.place()?.shelf;
    if !record.shape.format.is_of_pg_dump() {
        return Err(Error::NotExportable {
            file: file.path().to_string(),
            engine: record.engine,
            instance: record.instance.clone(),
            id: id.clone(),
        });
    }
    let reading = |error: backstay_repo::Error| match error {
        backstay_repo::Error::Store(source) => shelved::failed(&*shelf, source),
        other => other.into(),
    };
    let opened = DumpReader::open_with_any(&shelf, file.path(), &policy.passphrases()).await;
    let mut reader = opened.map_err(reading)?;
    let inside = reader.known().map_err(backstay_repo::Error::from)?;
    let (shape, level) = shape(record, inside, policy, options)?;
    let recipe = DumpRecipe { shape, level, workers: workers() };
    recipe.check()?;
    if shape.cipher != DumpCipher::None && policy.passphrase.is_none() {
        return Err(backstay_repo::Error::from(DumpError::NoPassphrase).into());
    }
    let own_name = format!("{}.{}", stem(&record.file), shape.extension());
    let (destination, path) = Destination::of_file(&options.to, &own_name)?;
    destination.must_be_free(&path)?;

    run.progress.begin(&format!("export {}", described(&record.content)), record.raw_bytes);
    let exported = async {
        destination.sweep().await;
        let passphrase = policy.passphrase.as_ref();
        let mut outlet = Outlet::begin(&destination, &run.cancel, path, &recipe, passphrase).await?;
        let filled = async {
            loop {
                let chunk = tokio::select! {
                    biased;
                    () = run.cancel.cancelled() => return Err(Error::Cancelled),
                    chunk = reader.read() => chunk.map_err(reading)?,
                };
                let Some(chunk) = chunk else { break };
                let count = chunk.len() as u64;
                outlet.write(chunk).await?;
                run.progress.done(count);
            }
            let read = reader.finish().await.map_err(reading)?;
            must_be_whole(file, &read)
        }
        .await;
        let ((), ready): ((), Ready) = outlet.end(filled).await?;
        destination.publish(vec![ready]).await
    }
    .await;
    let files = destination.leave(exported).await?;
    let Some(exported) = files.first() else {
        return Err(Error::broken("a dump that was exported is a file"));
    };
    let (raw_bytes, stored_bytes, sha256) =
        (exported.raw_bytes, exported.stored_bytes, exported.sha256.clone());
    let findings = strangely_named(&exported.path, &shape).into_iter().collect();
    Ok(Some(ExportReport {
        id: id.clone(),
        instance: record.instance.clone(),
        backup_type: "dump",
        of: described(&record.content),
        shape,
        raw_bytes,
        stored_bytes,
        sha256,
        duration_seconds: watch.seconds(),
        opened_with: match inside {
            // `pg_dump -Ft`: one file for `pg_restore`, as it is.
            DumpInside::TarArchive => shape.opened_before("pg_restore"),
            _ => shape.opened_with(),
        },
        files,
        findings,
    }))
}

/// The bytes are those that were written; a file that was cut between two of its members is
/// whole to every check that it has in itself.
fn must_be_whole(file: &ShelvedFile, read: &DumpRead) -> Result<()> {
    let record = file.record();
    let reason = if !record.sha256.is_empty() && read.sha256 != record.sha256 {
        "its SHA-256 is not the one in its sidecar".to_owned()
    } else if read.raw_bytes != record.raw_bytes {
        format!("{} bytes came out of it, and {} were put in", read.raw_bytes, record.raw_bytes)
    } else {
        return Ok(());
    };
    let file = file.path().to_string();
    let damaged = DumpError::Damaged { file, offset_bytes: read.stored_bytes, reason };
    Err(backstay_repo::Error::from(damaged).into())
}

/// What comes out: what is asked for, else what the policy says, as far as it fits.
fn shape(
    record: &DumpRecord,
    inside: DumpInside,
    policy: &DumpPolicy,
    options: &ExportOptions,
) -> Result<(DumpShape, Option<i32>)> {
    let format = match inside {
        DumpInside::CustomArchive => DumpFormat::Custom,
        DumpInside::PlainSql | DumpInside::PlainCluster => DumpFormat::Plain,
        DumpInside::TarArchive | DumpInside::DirectoryTar => DumpFormat::Directory,
        other => {
            let (file, what) = (record.file.clone(), format!("it is {}", inside::described(other)));
            return Err(Error::NotReloadable { file, what });
        }
    };
    // Of what others made it is not known: an archive that nothing lies over is left as it is.
    let is_bare = record.adopted && record.shape.compression == DumpCompression::None;
    let is_inside = record.shape.compression == DumpCompression::Inside;
    let (compression, level) = match options.compression {
        Some((DumpCompression::Inside, _)) if is_inside => (DumpCompression::Inside, None),
        Some((DumpCompression::Inside, _)) if is_bare && format == DumpFormat::Custom => {
            (DumpCompression::None, None)
        }
        Some((DumpCompression::Inside, _)) => {
            return Err(Error::DumpShape {
                reason: "the dump is no archive that `pg_dump` compressed itself, and an export does not dump anew",
                hint: "choose `--compress zstd`, `gzip` or `none`",
            });
        }
        Some(asked) => asked,
        // Compressed once more it would only be slower to open.
        None if is_inside => (DumpCompression::Inside, None),
        None => match policy.shape.compression {
            DumpCompression::Inside => (DumpCompression::Gzip, None),
            other => (other, policy.level),
        },
    };
    let cipher = options.cipher.unwrap_or(policy.shape.cipher);
    Ok((DumpShape { format, compression, cipher }, level))
}

/// The name of a file without all that says how it is packed.
fn stem(file: &str) -> &str {
    let mut stem = file;
    while let Some(shorter) = ENDINGS.iter().find_map(|ending| stem.strip_suffix(ending)) {
        if shorter.is_empty() {
            break;
        }
        stem = shorter;
    }
    stem
}

/// A name of somebody's own choice that promises something else than the file is.
pub(super) fn strangely_named(path: &str, shape: &DumpShape) -> Option<Finding> {
    let extension = shape.extension();
    let layers = extension.split_once('.').map_or("", |(_, layers)| layers);
    let promised = path.rsplit('/').next().unwrap_or(path);
    let is_packed = |name: &str| [".gz", ".zst", ".enc", ".gpg"].iter().any(|ending| name.ends_with(ending));
    let fits =
        if layers.is_empty() { !is_packed(promised) } else { promised.ends_with(&format!(".{layers}")) };
    (!fits).then(|| {
        Finding::info(
            path,
            format!("its name does not say what opens it: the usual one would end with .{extension}"),
            "give `--to` a directory, and the name is made to fit",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_all_that_says_how_it_was_packed_and_nothing_else() {
        for (file, bare) in [
            ("orders_20261121_020000.dump.zst.enc", "orders_20261121_020000"),
            ("backup-2024-01-24.sql.gz.gpg", "backup-2024-01-24"),
            ("shop.v2.backup", "shop.v2"),
            ("shop", "shop"),
            (".sql", ".sql"),
        ] {
            assert_eq!(stem(file), bare);
        }
    }

    #[test]
    fn a_name_that_promises_another_program_is_told() {
        let shape = |compression, cipher| DumpShape { format: DumpFormat::Plain, compression, cipher };
        let plain = shape(DumpCompression::None, DumpCipher::None);
        let sealed = shape(DumpCompression::Gzip, DumpCipher::Openssl);
        for (path, shape, is_strange) in [
            ("/srv/a.sql", plain, false),
            ("/srv/a.txt", plain, false),
            ("/srv/a.sql.gz", plain, true),
            ("/srv/a.sql.gz.enc", sealed, false),
            ("/srv/a.sql.gz", sealed, true),
            ("/srv/a", sealed, true),
        ] {
            assert_eq!(strangely_named(path, &shape).is_some(), is_strange, "{path}");
        }
    }
}
