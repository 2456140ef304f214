//! PostgreSQL's own `backup_manifest`, written beside a restored directory, so that
//! `pg_verifybackup` can judge a restore without us.
//!
//! It is written file by file and never held in memory. Its last line is the
//! SHA-256 of all lines before it.

use std::io::{self, Write};

use backstay_model::{Lsn, TimelineId};
use sha2::{Digest, Sha256};

/// The first major version whose manifest names its cluster.
const VERSION_2_SINCE: u32 = 17;

/// The file's name in a data directory.
pub const MANIFEST_FILE: &str = "backup_manifest";

pub struct ManifestWriter<W> {
    out: W,
    digest: Sha256,
    files: u64,
}

impl<W: Write> ManifestWriter<W> {
    pub fn begin(out: W, major: u32, system_identifier: u64) -> io::Result<Self> {
        let mut writer = Self { out, digest: Sha256::new(), files: 0 };
        let version = if major >= VERSION_2_SINCE { 2 } else { 1 };
        writer.write(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n"))?;
        if version == 2 {
            writer.write(&format!("\"System-Identifier\": {system_identifier},\n"))?;
        }
        writer.write("\"Files\": [")?;
        Ok(writer)
    }

    /// `modified` in seconds since 1970. The checksum may be unknown.
    pub fn file(&mut self, path: &str, size: u64, modified: i64, crc32c: Option<u32>) -> io::Result<()> {
        let separator = if self.files == 0 { "\n" } else { ",\n" };
        self.files += 1;
        let name = serde_json::to_string(path)?;
        let mut line = format!(
            "{separator}{{ \"Path\": {name}, \"Size\": {size}, \"Last-Modified\": \"{} GMT\"",
            date_and_time(modified)
        );
        if let Some(crc) = crc32c {
            // The server prints the bytes of the number as they lie in its memory.
            line +=
                &format!(", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{:08x}\"", crc.swap_bytes());
        }
        line += " }";
        self.write(&line)
    }

    /// The log that the backup needs, one range per timeline.
    pub fn finish(mut self, ranges: &[(TimelineId, Lsn, Lsn)]) -> io::Result<W> {
        let ranges: Vec<String> = ranges
            .iter()
            .map(|(timeline, start, end)| {
                format!("{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}")
            })
            .collect();
        self.write(&format!("\n],\n\"WAL-Ranges\": [\n{}\n],\n", ranges.join(",\n")))?;
        let digest: String = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.out, "\"Manifest-Checksum\": \"{digest}\"}}")?;
        Ok(self.out)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.digest.update(text);
        self.out.write_all(text.as_bytes())
    }
}

/// `2026-11-21 02:43:00`, in UTC.
fn date_and_time(seconds: i64) -> String {
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Count from 1 March of a year that begins an era of 400 years: then the leap
    // day is the last of a year, and lengths of months follow a straight line.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_228_980, "2026-11-21 02:43:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
        ] {
            assert_eq!(date_and_time(seconds), text);
        }
    }

    #[test]
    fn a_manifest_is_json_whose_last_line_sums_the_rest() {
        for (major, version) in [(16, 1), (17, 2)] {
            let mut writer = ManifestWriter::begin(Vec::new(), major, 7_000_000_000_000_000_001).unwrap();
            writer.file("base/5/1259", 8192, 0, Some(0x1234_5678)).unwrap();
            writer.file("a \"quoted\" name", 0, 0, None).unwrap();
            let range = (TimelineId(1), Lsn(0x300_0028), Lsn(0x300_0138));
            let text = String::from_utf8(writer.finish(&[range]).unwrap()).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["PostgreSQL-Backup-Manifest-Version"], version);
            assert_eq!(json["System-Identifier"].is_null(), version == 1);
            assert_eq!(json["Files"][0]["Checksum"], "78563412");
            assert_eq!(json["Files"][1]["Path"], "a \"quoted\" name");
            assert_eq!(json["WAL-Ranges"][0]["End-LSN"], "0/3000138");
            let last = text.find("\"Manifest-Checksum\"").unwrap();
            let digest: String =
                Sha256::digest(&text[..last]).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(json["Manifest-Checksum"], digest);
        }
    }
}
