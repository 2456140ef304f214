//! A database that is no place for a whole dump.

use backstay_model::ErrorKind;
use backstay_model::plan::Refusal;

/// The catalogue of TimescaleDB comes with a dump, with numbers of its own.
pub(in crate::reload) fn refuse_used(database: &str) -> Refusal {
    Refusal::new(
        ErrorKind::Conflict,
        format!("a whole dump with TimescaleDB goes only into an empty database, and {database} is not"),
        vec![format!(
            "restore it into a new one with `--into-database`, or in the place of {database} with `--swap`"
        )],
    )
}
