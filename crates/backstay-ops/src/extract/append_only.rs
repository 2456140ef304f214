//! Append-only files of Redis or Valkey put into a directory, under the names that their server gave
//! them: what is said of it before, and what brings them into a server.

use std::ffi::OsStr;
use std::path::Path;

use backstay_engine::postgres::starting::shell_word;
use backstay_engine::redis::aof::{AofFacts, set_name};
use backstay_engine::redis::place::FileNames;
use backstay_engine::snapshot::Placed;
use backstay_model::Finding;
use backstay_model::dump::DumpRecord;

use super::{Prepared, other_sum};
use crate::dump::append_only;
use crate::error::Result;

pub(super) fn step(record: &DumpRecord, file: &str, into: &str) -> String {
    let (names, count) = (FileNames::default(), record.members.len() + 1);
    format!(
        "check {file} and the files that it names to their end, and write the {count} of them to {into}/{}",
        names.append_only_directory
    )
}

/// What has cost others their data at this step, and what is not all there.
pub(super) fn findings(record: &DumpRecord, into: &str) -> Vec<Finding> {
    let settings = settings(record);
    let trap = Finding::warning(
        FileNames::default().append_only_directory,
        "a server with `appendonly no`, or with another `appendfilename` or `appenddirname`, does not read it: it \
         starts with its snapshot, or empty",
        format!(
            "set `appendonly yes` in its configuration before it starts; on {into} it starts with `{settings}`"
        ),
    );
    let noted = record.warnings.iter().map(|warning| {
        let remedy =
            "where the server still has its files, copy them anew, and run `backstay adopt` on the copy";
        Finding::warning(record.id.as_str(), warning.message.clone(), remedy)
    });
    std::iter::once(trap).chain(noted).collect()
}

/// What its server has to be told.
fn settings(record: &DumpRecord) -> String {
    let usual = FileNames::default().append_only;
    match set_name(&record.file).filter(|name| *name != usual) {
        Some(name) => format!("--appendonly yes --appendfilename {}", shell_word(OsStr::new(name))),
        None => "--appendonly yes".to_owned(),
    }
}

impl Prepared<'_> {
    pub(super) async fn copy_append_only(&self) -> Result<(AofFacts, Placed)> {
        let (chosen, record) = (&self.chosen, &self.chosen.record);
        let copied = append_only::copy(self.run, &chosen.directory, &chosen.path, &self.request.into);
        let (facts, placed) = copied.await?;
        match append_only::differing(record, &facts) {
            Some(name) => {
                let other = chosen.path.sibling(&name).map_err(backstay_repo::Error::from)?;
                let length = facts.files.iter().find(|file| file.name == name).map_or(0, |file| file.length);
                Err(other_sum(other.as_str(), length))
            }
            None => Ok((facts, placed)),
        }
    }
}

pub(super) fn next(record: &DumpRecord, facts: &AofFacts, into: &Path) -> Vec<String> {
    let own = if facts.snapshot.as_ref().is_some_and(|base| base.is_valkey) { "valkey" } else { "redis" };
    let (names, data) = (FileNames::default(), format!("/var/lib/{own}"));
    let there = format!("{data}/{}", names.append_only_directory);
    let copied = into.join(&names.append_only_directory);
    let mut next: Vec<String> = ["dir", "appenddirname", "appendfilename"]
        .iter()
        .map(|setting| format!("{own}-cli CONFIG GET {setting}"))
        .collect();
    next.extend([
        // What the server has now is kept: a way back, should this be the wrong dump.
        format!("{own}-cli SAVE"),
        format!("{own}-cli SHUTDOWN NOSAVE"),
        format!("mv --no-target-directory --backup=numbered {there} {there}.before-restore"),
        format!("cp --recursive --no-target-directory {} {there}", shell_word(OsStr::new(&copied))),
        format!("chown --recursive {own}:{own} {there}"),
        format!("{own}-server /etc/{own}/{own}.conf {}", settings(record)),
    ]);
    next
}
