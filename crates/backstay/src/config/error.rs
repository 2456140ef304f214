//! What can be wrong with a configuration, each with the line or variable it is in.

use std::fmt;
use std::io;
use std::path::PathBuf;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;

use super::tree::Place;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find the configuration: there is no {}", .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and no "))]
    Missing { looked: Vec<PathBuf> },
    #[error("read the configuration {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {place}: {message}")]
    Syntax { place: Place, message: String },
    #[error("{}", Problem::list(.0))]
    Problems(Vec<Problem>),
    #[error("read the secret of `{setting}` from {}", .path.display())]
    SecretFile {
        setting: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read the secret of `{setting}`: {} holds {length} bytes, too many for a secret", .path.display())]
    SecretTooLong { setting: String, path: PathBuf, length: u64 },
    #[error("read the secret of `{setting}`: {place} is empty or not set")]
    SecretEmpty { setting: String, place: String },
    #[error("read the secret of `{setting}`: this version cannot ask 1Password")]
    OnePassword { setting: String },
    #[error("the configuration has no instance `{name}`")]
    NoSuchInstance { name: String, known: Vec<String>, nearest: Option<String> },
    #[error("the configuration has no instance")]
    NoInstance,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    fn list(problems: &[Problem]) -> String {
        match problems {
            [one] => one.to_string(),
            many => {
                let lines: Vec<String> = many.iter().map(|problem| format!("\n  {problem}")).collect();
                format!("the configuration has {} errors:{}", many.len(), lines.concat())
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NoSuchInstance { .. } => ErrorKind::NotFound,
            Error::OnePassword { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Invalid,
        }
    }

    fn hints(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Error::Missing { .. } => vec![
                "`backstay init --store file:///var/lib/backstay` writes one".to_owned(),
                "`--config FILE` or BACKSTAY_CONFIG names one that lies elsewhere".to_owned(),
            ],
            Error::Read { .. } => one("check the path given with `--config` and its mode"),
            Error::Syntax { .. } => one("`backstay config reference` shows how each setting is written"),
            Error::Problems(problems) => {
                let mut hints: Vec<String> = Vec::new();
                for hint in problems.iter().filter_map(|problem| problem.hint.clone()) {
                    if !hints.contains(&hint) {
                        hints.push(hint);
                    }
                }
                if hints.is_empty() {
                    hints = one("`backstay config reference` lists every setting");
                }
                hints
            }
            Error::SecretFile { setting, .. } | Error::SecretTooLong { setting, .. } => {
                vec![format!(
                    "point `{setting}` to the file that holds the secret alone, readable by this user"
                )]
            }
            Error::SecretEmpty { setting, .. } => {
                vec![format!(
                    "fill it, or point `{setting}` elsewhere: {{ file = \"…\" }} or {{ env = \"…\" }}"
                )]
            }
            Error::OnePassword { setting } => {
                vec![format!("give `{setting}` as {{ file = \"…\" }} or {{ env = \"…\" }}")]
            }
            Error::NoSuchInstance { known, nearest, .. } => match nearest {
                Some(name) => vec![format!("the nearest name in backstay.toml is `{name}`")],
                None if known.is_empty() => one("add a section [instance.NAME] to backstay.toml"),
                None => vec![format!("backstay.toml has [instance.NAME] for: {}", known.join(", "))],
            },
            Error::NoInstance => {
                one("add a section [instance.NAME] to backstay.toml; `backstay config reference` shows one")
            }
        }
    }
}
