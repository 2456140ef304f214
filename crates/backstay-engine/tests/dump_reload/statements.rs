//! Plain dumps of others: nothing in them is a command to `psql`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backstay_engine::Error;
use backstay_engine::postgres::reload::{ReloadInput, ReloadOptions, ReloadTarget};
use backstay_model::error::Classified;
use testkit::{Installation, Postgres};

use crate::drive;
use crate::sample::{address, look, on_each_version, on_each_version_with_sample, reload};

const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

fn statements() -> ReloadOptions {
    ReloadOptions { input: ReloadInput::Statements, ..ReloadOptions::default() }
}

/// The clients with a `psql` in the place of one that has never heard of `\restrict`.
fn older(installation: &Installation, server: &Postgres) -> PathBuf {
    let directory = server.workspace().directory("older").unwrap();
    for name in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
        let real = installation.bin_directory().join(name);
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--help=commands*) {real} \"$@\" | grep -v restrict ;;\n\
             *) sed 's/^\\\\\\(un\\)*restrict .*/\\\\nosuchcommand/' | {real} \"$@\" ;; esac\n",
            real = real.display()
        );
        let script =
            if name == "psql" { script } else { format!("#!/bin/sh\nexec {} \"$@\"\n", real.display()) };
        std::fs::write(directory.join(name), script).unwrap();
        std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

async fn through(server: &Postgres, clients: &Path, database: &str, script: &str) -> Result<(), Error> {
    let target = ReloadTarget::open(&address(server, "postgres"), Some(clients)).await.unwrap();
    reload(&target, database, &statements(), script.as_bytes()).await.map(drop)
}

#[test]
fn no_command_in_a_plain_dump_runs_whichever_psql_is_there() {
    on_each_version(|installation, server| {
        server.sql("CREATE DATABASE named").unwrap();
        server.sql("CREATE DATABASE other").unwrap();
        let touched = server.workspace().directory("touched").unwrap().join("file");
        let name = touched.display();
        let modern = installation.bin_directory().to_owned();
        let older = older(installation, &server);
        for clients in [&modern, &older] {
            for command in [
                format!("\\! touch {name}"),
                format!("SELECT 1 \\g {name}"),
                format!("\\copy t FROM PROGRAM 'touch {name}'"),
                format!("\\unrestrict x\n\\! touch {name}"),
                "\\connect other\nCREATE TABLE t (n int);".to_owned(),
            ] {
                // Far behind all that is looked at beforehand.
                let script = format!(
                    "--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nCREATE TABLE t (n int);\n\
                     COPY t FROM stdin;\n{}\\.\n{command}\n{END}\\unrestrict x\n\n",
                    "1\n".repeat(60_000)
                );
                drive::runtime().block_on(async {
                    let error = through(&server, clients, "named", &script).await.unwrap_err();
                    assert!(matches!(error, Error::CommandInStatements { .. }), "{command}: {error}");
                    // Its own key is left out, and its line stays.
                    assert!(error.to_string().contains("line 60010"), "{command}: {error}");
                    assert!(!error.hints().is_empty());
                });
                assert!(!touched.exists(), "{command}");
                for database in ["named", "other"] {
                    let there = "SELECT count(*) FROM pg_class WHERE relname = 't'";
                    assert_eq!(server.query_value_in(database, there).unwrap(), "0", "{command}");
                }
            }
        }
    });
}

#[test]
fn what_pg_dump_wrote_comes_back_with_its_keys_and_without_them() {
    on_each_version_with_sample(|installation, server| {
        let output = server.tool("pg_dump").args(["--dbname", "app"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let script = String::from_utf8(output.stdout).unwrap();
        let keys = script.lines().filter(|line| line.contains("restrict ")).count();
        assert_eq!(keys, 2, "this pg_dump writes none");
        let bare: String =
            script.split_inclusive('\n').filter(|line| !line.starts_with("\\restrict ")).collect();
        let bare: String =
            bare.split_inclusive('\n').filter(|line| !line.starts_with("\\unrestrict ")).collect();
        let expected = look(&server, "app");
        let modern = installation.bin_directory().to_owned();
        let older = older(installation, &server);
        for (number, (clients, script)) in
            [(&modern, &script), (&modern, &bare), (&older, &script), (&older, &bare)].into_iter().enumerate()
        {
            let copy = format!("copy_{number}");
            server.sql(&format!("CREATE DATABASE {copy}")).unwrap();
            drive::runtime().block_on(async {
                through(&server, clients, &copy, script).await.unwrap();
                let target = ReloadTarget::open(&address(&server, "postgres"), Some(clients)).await.unwrap();
                let told = target.statement_findings().unwrap();
                assert_eq!(told.len(), usize::from(clients == &older), "{told:?}");
            });
            assert_eq!(look(&server, &copy), expected, "{number}");
        }
    });
}
