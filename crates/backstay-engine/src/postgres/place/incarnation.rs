//! A name for each life of a cluster.
//!
//! A restored server keeps identifier and timeline of its source, and may write
//! another log at positions that the source has used, too. Nothing in the log
//! tells the two apart. So every restore gives the copy a name of its own, as a
//! setting that the server carries and does not know; a backup notes it, and an
//! increment is built only on a backup of the same life.

use crate::{Error, Result};

/// Names are drawn from this many bytes of chance.
const CHANCE_BYTES: usize = 16;

/// A name nobody had before.
pub(super) fn new() -> Result<String> {
    let mut bytes = [0; CHANCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lives_have_one_name() {
        let (one, two) = (new().unwrap(), new().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 2 * CHANCE_BYTES);
        assert!(one.bytes().all(|letter| letter.is_ascii_hexdigit()));
    }
}
