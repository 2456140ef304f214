//! The programs of other people.

use std::path::Path;
use std::process::{Command, Stdio};

use super::material::PASSPHRASE;

/// A home for `gpg`, whose agent ends with it.
pub struct GpgHome(tempfile::TempDir);

impl GpgHome {
    pub fn new() -> Self {
        // Sockets have short paths.
        Self(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap())
    }

    pub fn command(&self) -> String {
        format!(
            "gpg --homedir {} --batch --yes --pinentry-mode loopback --passphrase-file p",
            self.0.path().display()
        )
    }
}

impl Drop for GpgHome {
    fn drop(&mut self) {
        let agent = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--kill", "gpg-agent"])
            .status();
        assert!(agent.is_ok());
    }
}

/// Runs a line of shell in a directory in which `p` holds the pass phrase.
pub fn shell(directory: &Path, line: &str) -> Vec<u8> {
    std::fs::write(directory.join("p"), format!("{PASSPHRASE}\n")).unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("set -e; {line}")])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub const OPENSSL: &str = "openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -pass file:p";
