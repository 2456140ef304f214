//! A home for the program under test: a directory with its configuration and its store.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_postgres};

/// One run of the program.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn from(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Ends with this code and tells exactly one error, which holds these words and has a hint.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let errors = self.err.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(errors, 1, "not one error in {self:#?}");
        assert!(self.err.contains("  hint: "), "no hint in {self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:#?}");
        }
        assert!(!self.err.contains(PASSWORD), "a password in {self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// The program with nothing of this process's environment that it would read.
pub fn backstay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BACKSTAY_") {
            command.env_remove(name);
        }
    }
    command.env_remove("PGPASSWORD").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Ran {
    Ran::from(&command.output().unwrap())
}

pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(testkit::short_temp_dir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("backstay.toml")
    }

    pub fn store_url(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = backstay();
        command.current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path("caches")).args(words);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(words))
    }

    pub fn start<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A repository and a configuration without instances.
    pub fn init(&self) -> Ran {
        self.run(["init", "--store", &self.store_url()]).good()
    }

    /// Adds a section for a server, over TCP with its password unless `local`.
    pub fn add(&self, name: &str, server: &Postgres, role: &str, password: &str, local: bool) {
        let file = self.path(&format!("{name}.password"));
        std::fs::write(&file, password).unwrap();
        let mut text = format!(
            "\n[instance.{name}]\nengine = \"postgresql\"\nurl = \"{}\"\npassword = {{ file = \"{}\" }}\n\
             bin_directory = \"{}\"\n",
            server.url_as(role),
            file.display(),
            server.installation().bin_directory().display(),
        );
        if local {
            text.push_str(&format!("data_directory = \"{}\"\n", server.data_directory().display()));
        }
        self.append(&text);
    }

    pub fn append(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.config()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The ids of the backups that `list` shows, newest first.
    pub fn backups(&self) -> Vec<String> {
        let listed = self.run(["list", "--json"]).good().json();
        listed.as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Objects of the store whose path holds this part, in order.
    pub fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.path("store")];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.to_string_lossy().contains(part) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// A server of PostgreSQL 15, or `None` after a loud word.
pub fn server() -> Option<Postgres> {
    server_of(PostgresVersion::V15, &PostgresOptions::default())
}

/// A server of that version, or `None` after a loud word.
pub fn server_of(version: PostgresVersion, options: &PostgresOptions) -> Option<Postgres> {
    let installation = require_postgres(version)?;
    Some(Postgres::start_new(&installation, options).unwrap())
}

/// What is true on every version that tests run on.
pub fn on_each_version(is_true: impl Fn(&Postgres)) {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { continue };
        eprintln!("on PostgreSQL {version}");
        is_true(&server);
    }
}

/// A server and a home that backs it up in the local way.
pub fn protected(name: &str) -> Option<(Postgres, Home)> {
    let server = server()?;
    let home = Home::new();
    home.init();
    home.add(name, &server, SUPERUSER, PASSWORD, true);
    Some((server, home))
}

/// Changes one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Stored objects may be read-only.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
