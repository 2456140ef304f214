use std::path::PathBuf;
use std::process::Command;

use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::*;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

fn inspected(kind: InspectKind, programs: Option<&ClientPrograms>, bytes: &[u8]) -> Result<Inspected> {
    run(async {
        let mut inspection = Inspection::begin(kind, programs)?;
        for piece in bytes.chunks(100_000) {
            inspection.write(&Bytes::copy_from_slice(piece)).await?;
        }
        inspection.finish().await
    })
}

fn dumped(server: &Postgres, arguments: &[&str]) -> Vec<u8> {
    let mut command: Command = server.installation().tool("pg_dump");
    let output = command.arg("--dbname").arg(server.url()).args(arguments);
    let output = output.env("PGPASSWORD", testkit::postgres::PASSWORD).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn tarred(directory: &PathBuf) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", directory).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn pg_restore_lists_every_kind_of_archive_and_refuses_a_broken_one() {
    let Some(installation) = testkit::require_postgres(PostgresVersion::V15) else { return };
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 30000) n").unwrap();
    let programs = ClientPrograms::find(15, Some(installation.bin_directory())).unwrap();
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("dump");
    dumped(&server, &["--format=directory", "--file", directory.to_str().unwrap()]);
    for (kind, whole) in [
        (InspectKind::Archive, dumped(&server, &["--format=custom", "--compress=0"])),
        (InspectKind::Archive, dumped(&server, &["--format=tar"])),
        (InspectKind::Directory, tarred(&directory)),
    ] {
        let listed = inspected(kind, Some(&programs), &whole).unwrap();
        assert_eq!(listed.listed_by.as_deref(), Some(programs.version()), "{kind:?}");
        let mut broken = whole.clone();
        let at = broken.windows(5).position(|bytes| bytes == b"PGDMP").unwrap();
        // The size of its numbers: nothing behind it can be read.
        broken[at + 8] = 0x77;
        let error = inspected(kind, Some(&programs), &broken).unwrap_err();
        assert!(matches!(error, Error::Archive { .. }), "{kind:?}: {error}");
        let mut newer = whole;
        newer[at + 6] = 99;
        let error = inspected(kind, Some(&programs), &newer).unwrap_err();
        assert!(matches!(error, Error::ArchiveTooNew { .. }), "{kind:?}: {error}");
        // Where no program is, nothing is said.
        assert_eq!(inspected(kind, None, &newer).unwrap().listed_by, None);
    }
    let statements = dumped(&server, &["--format=plain"]);
    inspected(InspectKind::Statements, None, &statements).unwrap();
    let cut = inspected(InspectKind::Statements, None, &statements[..statements.len() - 200]).unwrap_err();
    assert!(cut.to_string().contains("end marker"), "{cut}");
}

#[test]
fn a_packed_directory_without_its_contents_or_cut_off_is_no_dump() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("dump");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("1.dat"), vec![b'x'; 300_000]).unwrap();
    let error = inspected(InspectKind::Directory, None, &tarred(&directory)).unwrap_err();
    assert!(error.to_string().contains("no toc.dat"), "{error}");
    std::fs::write(directory.join("toc.dat"), "PGDMP").unwrap();
    let whole = tarred(&directory);
    inspected(InspectKind::Directory, None, &whole).unwrap();
    assert!(inspected(InspectKind::Directory, None, &whole[..200_000]).is_err());
}
