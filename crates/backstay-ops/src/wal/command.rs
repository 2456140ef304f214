//! The command that a server calls for a file of the log, as its settings hold it.
//!
//! Three readers take it apart: the server replaces what begins with a percent sign, a
//! shell splits the rest into words, and this program reads those.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::starting::shell_word;

use super::LogSource;

/// How this program is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchProgram {
    /// The program, and the configuration it was started with: absolute.
    pub program: PathBuf,
    pub config: PathBuf,
    /// What was laid over the configuration.
    pub assignments: Vec<(String, String)>,
}

impl FetchProgram {
    /// For a server that outlives this process: it opens the repository for every file.
    pub fn from_repository(&self, source: &LogSource) -> String {
        let mut words = vec![self.program.clone().into_os_string(), "--config".into()];
        words.push(self.config.clone().into_os_string());
        for (key, value) in &self.assignments {
            words.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        let mut line = quoted(&words);
        line.push_str(&format!(
            " wal fetch %f \"%p\" --instance {} --system-identifier {} --segment-bytes {}",
            source.instance, source.system_identifier, source.segment_bytes
        ));
        if let Some(own_to) = source.own_to {
            line.push_str(&format!(" --own-to {own_to}"));
        }
        if let Some(needed_to) = source.needed_to {
            line.push_str(&format!(" --needed-to {needed_to}"));
        }
        if let Some(follows) = source.follows {
            line.push_str(&format!(" --timeline {follows}"));
        }
        if source.standby {
            line.push_str(" --standby");
        }
        line
    }

    /// For a server of this process, which has the repository open.
    pub fn from_desk(&self, socket: &Path) -> String {
        let program = quoted(&[self.program.clone().into_os_string()]);
        let socket = quoted(&[socket.to_owned().into_os_string()]);
        format!("{program} wal fetch %f \"%p\" --desk {socket}")
    }
}

fn quoted(words: &[std::ffi::OsString]) -> String {
    let words: Vec<String> =
        words.iter().map(|word| shell_word(OsStr::new(word)).replace('%', "%%")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_odd_letter_of_a_path_comes_through_server_and_shell() {
        let program = FetchProgram {
            program: "/opt/100% it's/backstay".into(),
            config: "/etc/a b.toml".into(),
            assignments: vec![("policy.rpo".to_owned(), "5s".to_owned())],
        };
        let source = LogSource {
            instance: "orders".parse().unwrap(),
            system_identifier: 7,
            segment_bytes: 16 << 20,
            own_to: Some(backstay_model::Lsn(0x4000000)),
            needed_to: Some(backstay_model::Lsn(0x5000028)),
            follows: Some(backstay_model::TimelineId(2)),
            standby: false,
        };
        assert_eq!(
            program.from_repository(&source),
            "'/opt/100%% it'\\''s/backstay' --config '/etc/a b.toml' --set policy.rpo=5s wal fetch %f \"%p\" \
             --instance orders --system-identifier 7 --segment-bytes 16777216 --own-to 0/4000000 \
             --needed-to 0/5000028 --timeline 2"
        );
        assert_eq!(
            program.from_desk(Path::new("/tmp/x/desk")),
            "'/opt/100%% it'\\''s/backstay' wal fetch %f \"%p\" --desk /tmp/x/desk"
        );
    }
}
