//! The last backup once more, by a program that shares nothing with Backstay but
//! `docs/format.md`: the rescue script, with the repository and the key alone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::servers::rescue_python;

use super::comparison::{self, WRITTEN_ANEW};
use super::story::{Story, mebibytes, thousands};
use crate::backstay::{Backstay, Listed};
use crate::process::project;

/// Restores with both and compares; `false`, after saying so, where the script has no Python to run in.
pub fn compare(
    story: &mut Story,
    backstay: &Backstay,
    place: &Path,
    backup: &Listed,
    python: Result<()>,
) -> Result<bool> {
    if let Err(why) = python {
        story.warn(&format!(
            "the rescue script restoring backup {}, because it has no Python to run in:\n{}",
            backup.id,
            format!("{why:#}").trim_end()
        ));
        return Ok(false);
    }
    let python = rescue_python().context("find the Python of the rescue script, which was just prepared")?;
    let (ours, theirs) = (place.join("by-backstay"), place.join("by-the-rescue-script"));
    let ours_text = ours.to_string_lossy();
    // The script reads backups, and no log.
    let words =
        ["--quiet", "restore", "demo", "--backup", &backup.id, "--to", "immediate", "--into", &ours_text];
    story.show(&mut backstay.command(&words))?;
    let mut script = Command::new(python);
    script
        .arg("rescue/backstay-rescue.py")
        .arg("--repository")
        .arg(place.join("repository"))
        .arg("--key")
        .arg(place.join("backstay.key"))
        .args(["restore", "demo", &backup.id])
        .arg(&theirs)
        .current_dir(project());
    story.show(&mut script)?;

    let same = comparison::compare(&ours, &theirs)?;
    ensure!(same.files > 0, "the two restores have no file in common");
    let rewritten: Vec<String> = WRITTEN_ANEW.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    story.done(&format!(
        "ok: {} files with {} are the same in both, byte by byte, with their modes and owners",
        thousands(same.files),
        mebibytes(same.bytes)
    ));
    story.say(&format!("left out, as a restore by Backstay writes them anew: {}", rewritten.join(", ")));
    Ok(true)
}
