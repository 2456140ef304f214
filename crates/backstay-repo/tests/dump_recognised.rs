//! What PostgreSQL's own programs write is known for what it is, packed by `tar` or not.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backstay_repo::dump::{DumpInside, DumpLayer, DumpReader};
use backstay_repo::shelf::{DiskShelf, Shelf};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};

fn run(command: &mut Command, into: Option<&Path>) {
    if let Some(path) = into {
        command.stdout(File::create(path).unwrap());
    }
    assert!(command.status().unwrap().success(), "{command:?}");
}

async fn recognised(shelf: &Arc<dyn Shelf>, name: &str) -> (Vec<DumpLayer>, DumpInside) {
    let mut reader = DumpReader::open(shelf, &name.parse().unwrap(), None).await.unwrap();
    let found = (reader.layers().to_vec(), reader.inside());
    while reader.read().await.unwrap().is_some() {}
    found
}

#[tokio::test]
async fn every_format_of_both_versions_is_recognised() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        // A table larger than what is looked at, so that no archive shows all its members.
        server
            .sql(
                "CREATE TABLE orders AS SELECT i AS id, md5(i::text) AS text FROM generate_series(1, 60000) i;
                 SELECT lo_from_bytea(0, 'a large object')",
            )
            .unwrap();
        let place = tempfile::tempdir().unwrap();
        // The programs may run as the server's user.
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let at = |name: &str| place.path().join(name);
        for (name, format) in [("custom", "-Fc"), ("tar", "-Ft"), ("plain", "-Fp")] {
            run(server.tool("pg_dump").args([format, "-d", "postgres"]), Some(&at(name)));
        }
        run(&mut server.tool("pg_dumpall"), Some(&at("cluster")));
        run(server.tool("pg_dumpall").arg("--globals-only"), Some(&at("globals")));
        for (name, packed) in [("packed", "-Z6"), ("unpacked", "-Z0")] {
            let directory = at(&format!("{name}.directory"));
            run(server.tool("pg_dump").args([packed, "-Fd", "-d", "postgres", "-f"]).arg(&directory), None);
            let parent = format!("{name}.parent.tgz");
            run(Command::new("tar").arg("-C").arg(&directory).arg("-cf").arg(at(name)).arg("."), None);
            let whole = format!("{name}.directory");
            run(
                Command::new("tar").arg("-C").arg(place.path()).arg("-czf").arg(at(&parent)).arg(&whole),
                None,
            );
            std::fs::remove_dir_all(directory).unwrap();
        }
        let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(place.path()));
        use DumpInside as Inside;
        for (name, layers, inside) in [
            ("custom", vec![], Inside::CustomArchive),
            ("tar", vec![], Inside::TarArchive),
            ("plain", vec![], Inside::PlainSql),
            ("cluster", vec![], Inside::PlainCluster),
            ("globals", vec![], Inside::PlainCluster),
            ("packed", vec![], Inside::DirectoryTar),
            ("unpacked", vec![], Inside::DirectoryTar),
            ("packed.parent.tgz", vec![DumpLayer::Gzip], Inside::DirectoryTar),
            ("unpacked.parent.tgz", vec![DumpLayer::Gzip], Inside::DirectoryTar),
        ] {
            assert_eq!(recognised(&shelf, name).await, (layers, inside), "{name} of PostgreSQL {version}");
        }
    }
}
