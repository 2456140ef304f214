//! The ways of the second reader over timelines (`rescue_ways.py`): what it writes of a log, and
//! what its `fetch` says of a segment.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_second_reader_writes_the_log_of_one_way_and_no_other_life() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command.arg("-B").arg(here.join("tests/rescue_ways.py")).arg(here.join("../../rescue"));
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.stdout.ends_with(b"every way as it should be\n"));
}
