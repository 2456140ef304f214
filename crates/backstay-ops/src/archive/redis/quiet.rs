//! What a running archive knows of an idle server, for whoever asks for the status meanwhile.
//!
//! A server that nobody writes to says something every ten seconds all the same. Such words alone go to
//! the store once a minute, so that what is stored ends before the stream although nothing is missing.
//! From where to where nothing else came, the archive writes beside its spool.
//!
//! Invariant: what stands there is true of that stream for ever, whoever was killed meanwhile. So it is not made
//! durable, and what was half written does not read.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::instants::sum;

const FILE: &str = "quiet";
/// It is written over in its place, with an id of forty digits and two numbers.
const FILE_BYTES: usize = 192;

/// A part of a stream with nothing in it but the server's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quiet {
    pub replication_id: String,
    /// Behind this byte.
    pub since: u64,
    pub until: u64,
}

impl Quiet {
    /// Nothing is known yet of what follows.
    pub fn from(replication_id: String, at: u64) -> Quiet {
        Quiet { replication_id, since: at, until: at }
    }

    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        let text = format!("{:<FILE_BYTES$}", format!("{:08x} {json}\n", sum(&json)));
        let path = directory.join(FILE);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.write_all_at(text.as_bytes(), 0)
    }

    /// Nothing where no archive of this machine wrote any.
    pub fn read(directory: &Path) -> Option<Quiet> {
        let text = fs::read_to_string(directory.join(FILE)).ok()?;
        let (of, json) = text.lines().next()?.split_once(' ')?;
        let is_whole = u32::from_str_radix(of, 16).ok()? == sum(json);
        serde_json::from_str(json).ok().filter(|_| is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_over_reads_and_what_was_half_written_does_not() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Quiet::read(place.path()), None);
        let longest = Quiet { replication_id: "a".repeat(40), since: u64::MAX, until: u64::MAX };
        longest.write(place.path()).unwrap();
        assert_eq!(Quiet::read(place.path()).as_ref(), Some(&longest));
        let shorter = Quiet { until: 2, ..Quiet::from("b".repeat(40), 1) };
        shorter.write(place.path()).unwrap();
        assert_eq!(Quiet::read(place.path()).as_ref(), Some(&shorter));
        let path = place.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), FILE_BYTES);
        fs::write(&path, [&whole[..20], b"9", &whole[21..]].concat()).unwrap();
        assert_eq!(Quiet::read(place.path()), None);
    }
}
