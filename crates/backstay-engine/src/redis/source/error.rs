//! Why no server can be taken, or not the one that was named.
//!
//! Where several were asked in vain, each has its own reason in the text.

use backstay_model::ErrorKind;
use backstay_model::error::Classified;

use crate::redis::error::RedisError;
use crate::redis::rights::SENTINEL_STATEMENT;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error(
        "the replica at {replica} holds other data than {primary}: the ids of their streams are {replica_id} and \
         {primary_id}"
    )]
    OtherData { replica: String, replica_id: String, primary: String, primary_id: String },
    #[error(
        "the replica at {replica} is a master itself, and {primary} cannot be asked whether it was promoted"
    )]
    ReplicaIsMaster {
        replica: String,
        primary: String,
        #[source]
        source: Box<crate::Error>,
    },
    #[error("the Sentinel at {server} knows no `{name}`, but {}", listed(.known))]
    NameUnknown { server: String, name: String, known: Vec<String> },
    #[error("the server at {server} is no Sentinel")]
    NotASentinel { server: String },
    /// Each of them with its own reason.
    #[error("no Sentinel says where `{name}` is: {}", joined(.tried))]
    NoSentinel { name: String, tried: Vec<Tried> },
    #[error("nobody gives the data away: {}", joined(.tried))]
    NoSource { tried: Vec<Tried> },
}

impl From<SourceError> for crate::Error {
    fn from(error: SourceError) -> Self {
        RedisError::from(error).into()
    }
}

impl SourceError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            SourceError::OtherData { .. } | SourceError::NotASentinel { .. } => ErrorKind::Invalid,
            SourceError::ReplicaIsMaster { .. } => ErrorKind::Conflict,
            SourceError::NameUnknown { .. } => ErrorKind::NotFound,
            SourceError::NoSentinel { tried, .. } | SourceError::NoSource { tried } => kind_of_all(tried),
        }
    }

    pub(crate) fn hints(&self) -> Vec<String> {
        let text = match self {
            SourceError::OtherData { .. } => "let `replica` lead to a replica of `url`, or leave it out",
            SourceError::ReplicaIsMaster { .. } => {
                "if it was promoted, let `url` lead to it, and `replica` to a replica of it"
            }
            SourceError::NameUnknown { .. } => {
                "correct the name at the end of `url`; `SENTINEL MASTERS` lists those that there are"
            }
            SourceError::NotASentinel { .. } => {
                "let `url` name Sentinels, which listen at `sentinel://…:26379`, or begin it with `redis://`"
            }
            SourceError::NoSentinel { tried, .. } => return hints_of_all(tried),
            SourceError::NoSource { tried } => {
                let mut hints = hints_of_all(tried);
                hints.push(
                    "`INFO replication` says of each server whose data it has, and whether it has all".into(),
                );
                return hints;
            }
        };
        vec![text.to_owned()]
    }
}

/// A server that was asked in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub server: String,
    pub reason: String,
    pub kind: ErrorKind,
    hints: Vec<String>,
}

impl Tried {
    pub(in crate::redis) fn new(server: &str, reason: impl Into<String>) -> Tried {
        let (server, reason) = (server.to_owned(), reason.into());
        Tried { server, reason, kind: ErrorKind::Unavailable, hints: Vec::new() }
    }

    pub(in crate::redis) fn failed(server: &str, error: &crate::Error) -> Tried {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            reason = format!("{reason}: {next}");
            cause = next.source();
        }
        Tried { server: server.to_owned(), reason, kind: error.kind(), hints: error.hints() }
    }

    /// The same of a Sentinel, whose users and passwords are others than its servers'.
    pub(in crate::redis) fn sentinel_failed(server: &str, error: &crate::Error) -> Tried {
        let tried = Tried::failed(server, error);
        match error {
            crate::Error::Redis(RedisError::Refused { .. }) if tried.kind == ErrorKind::Denied => {
                let hint = format!(
                    "give the Sentinels' own password as `sentinel_password = {{ file = \"…\" }}`, and their user as \
                     `sentinel_user`, which an administrator makes there with `{SENTINEL_STATEMENT}`"
                );
                Tried { hints: vec![hint], ..tried }
            }
            _ => tried,
        }
    }
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An error that names the server itself says it well enough.
        match self.reason.contains(&self.server) {
            true => f.write_str(&self.reason),
            false => write!(f, "{}: {}", self.server, self.reason),
        }
    }
}

fn joined(tried: &[Tried]) -> String {
    tried.iter().map(Tried::to_string).collect::<Vec<_>>().join("; ")
}

fn listed(known: &[String]) -> String {
    match known {
        [] => "no other either".to_owned(),
        known => known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// What passes by itself decides; where nothing does, the first.
fn kind_of_all(tried: &[Tried]) -> ErrorKind {
    let passing = tried.iter().find(|one| one.kind.is_retryable());
    passing.or(tried.first()).map_or(ErrorKind::Unavailable, |one| one.kind)
}

/// Of all of them, each once.
fn hints_of_all(tried: &[Tried]) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for hint in tried.iter().flat_map(|one| &one.hints) {
        if !hints.contains(hint) {
            hints.push(hint.clone());
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> crate::Error {
        RedisError::Refused { action: "ask the Sentinel", message: message.to_owned() }.into()
    }

    fn mendable() -> Vec<SourceError> {
        let text = || "one:1".to_owned();
        let tried = |error: crate::Error| vec![Tried::sentinel_failed("one:1", &error)];
        let unknown =
            || SourceError::NameUnknown { server: text(), name: "m".into(), known: vec!["n".into()] };
        vec![
            SourceError::OtherData {
                replica: text(),
                replica_id: "a".into(),
                primary: text(),
                primary_id: "b".into(),
            },
            SourceError::ReplicaIsMaster {
                replica: text(),
                primary: text(),
                source: Box::new(crate::Error::ConnectTimeout { server: text(), seconds: 9 }),
            },
            unknown(),
            SourceError::NotASentinel { server: text() },
            SourceError::NoSentinel { name: "m".into(), tried: tried(unknown().into()) },
            SourceError::NoSentinel { name: "m".into(), tried: tried(refused("NOPERM this user")) },
            SourceError::NoSource { tried: vec![Tried::new("one:1", "it has lost its master")] },
        ]
    }

    #[test]
    fn every_error_a_person_can_mend_says_how() {
        for error in mendable() {
            let hints = error.hints();
            assert!(!hints.is_empty() && !error.to_string().ends_with('.'), "{error}");
            for hint in hints {
                assert!(hint.contains('`') && !hint.ends_with('.') && !hint.contains("  "), "{hint:?}");
            }
        }
    }

    #[test]
    fn what_is_denied_at_a_sentinel_is_no_matter_of_the_servers_password() {
        let tried = vec![Tried::sentinel_failed("one:1", &refused("NOAUTH Authentication required."))];
        let error = SourceError::NoSentinel { name: "m".into(), tried };
        assert_eq!(error.kind(), ErrorKind::Denied);
        let [hint] = &error.hints()[..] else { panic!("{:?}", error.hints()) };
        assert!(hint.contains("`sentinel_password") && !hint.contains("`password"), "{hint}");
    }

    #[test]
    fn what_may_pass_decides_over_what_does_not() {
        let of = |kinds: &[ErrorKind]| {
            let tried: Vec<_> =
                kinds.iter().map(|kind| Tried { kind: *kind, ..Tried::new("a", "b") }).collect();
            kind_of_all(&tried)
        };
        assert_eq!(of(&[ErrorKind::NotFound, ErrorKind::Unavailable]), ErrorKind::Unavailable);
        assert_eq!(of(&[ErrorKind::NotFound, ErrorKind::Denied]), ErrorKind::NotFound);
    }
}
