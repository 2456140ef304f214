//! Full disks: a store that fills up half-way, and a target that is too small. Each
//! needs a small file system of its own, mounted where no other process sees it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::program::{Ran, backstay, protected, run};

/// Runs a script with a file system of this size at `place`, or says why not.
pub fn on_small_file_system(place: &Path, mebibytes: u32, script: &str) -> Option<Ran> {
    std::fs::create_dir_all(place).unwrap();
    let mount = format!("mount -t tmpfs -o size={mebibytes}m tmpfs '{}'", place.display());
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).stdin(Stdio::null());
        command
    };
    if !namespace(&mount).output().is_ok_and(|output| output.status.success()) {
        let required = std::env::var("REQUIRE_ENGINES").is_ok_and(|engines| engines.contains("postgresql"));
        assert!(!required || !rustix::process::geteuid().is_root(), "cannot mount a small file system");
        eprintln!("SKIPPED: mounting a small file system needs root and unshare");
        return None;
    }
    let program = backstay().get_program().to_owned();
    let mut command = namespace(&format!("{mount} && {script}"));
    command.env("BACKSTAY", program).env("NO_COLOR", "1");
    Some(run(&mut command))
}

#[test]
fn a_store_that_fills_up_half_way_leaves_no_backup_and_loses_none() {
    let Some((server, home)) = protected("orders") else { return };
    let store = home.path("small");
    server.sql("CREATE TABLE first AS SELECT g FROM generate_series(1, 1000) g").unwrap();
    let config = home.path("small.toml");
    // The first backup fits, what comes then does not compress and does not fit.
    let fill = "CREATE TABLE noise AS SELECT string_agg(md5(random()::text), '') AS t \
                FROM generate_series(1, 3000000) g GROUP BY g % 20000";
    let script = format!(
        "set -u; b() {{ \"$BACKSTAY\" --config '{config}' \"$@\"; }}
         b init --store '{store}' >/dev/null || exit 101
         sed -n '/^\\[instance/,$p' '{home}' >> '{config}'
         b backup >/dev/null || exit 102
         psql -q -h '{socket}' -p {port} -U postgres -d postgres -c \"{fill}\" || exit 103
         b backup; echo \"code=$?\"
         echo \"listed=$(b list --json | grep -c '\"id\"')\"
         b verify >/dev/null; echo \"verified=$?\"
         mount -o remount,size=400m tmpfs '{store}'
         b backup >/dev/null; echo \"again=$?\"
         b verify >/dev/null; echo \"verified again=$?\"",
        config = config.display(),
        store = store.display(),
        home = home.config().display(),
        socket = server.socket_directory().display(),
        port = server.port(),
    );
    let Some(ran) = on_small_file_system(&store, 24, &script) else { return };
    for line in ["listed=1", "verified=0", "again=0", "verified again=0"] {
        assert!(ran.out.lines().any(|found| found == line), "no {line:?} in {ran:#?}");
    }
    assert!(ran.out.contains("code=6"), "{ran:#?}");
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 1, "{ran:#?}");
    assert!(ran.err.contains("No space left") && ran.err.contains("hint: "), "{ran:#?}");
}

#[test]
fn a_target_that_is_too_small_is_refused_before_the_first_byte() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    let place = home.path("small");
    let script = format!(
        "\"$BACKSTAY\" --config '{config}' restore orders --into '{place}/data'; code=$?
         ls -A '{place}'; exit $code",
        config = home.config().display(),
        place = place.display(),
    );
    let Some(ran) = on_small_file_system(&place, 4, &script) else { return };
    let ran = ran.refused(4, &["free", "needed", "--into"]);
    assert_eq!(ran.out, "", "something was written");
}
