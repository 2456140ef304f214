//! One module for each verb: read the arguments, call the operation, show its report.
//!
//! Each returns the exit code of a run that did what it was asked; what went wrong
//! comes back as a fault and is told once, at the edge.

mod adopt;
mod archive;
mod backup;
mod collect;
pub mod config;
mod drill;
mod dump;
mod expire;
mod export;
mod hold;
pub mod init;
mod key;
mod list;
mod manual;
mod restore;
mod show;
mod status;
mod verify;
mod wal;

use backstay_model::verify::VerifyReport;
use backstay_model::{ErrorKind, Fault};
use tokio_util::sync::CancellationToken;

use crate::args::{Arguments, Verb, WalFetchArguments, WalVerb};
use crate::render::Output;
use crate::render::errors::Told;
use crate::session::Session;

/// A run that did what it was asked.
const DONE: u8 = 0;
/// A proof that failed: the same as a verification with findings.
const NOT_SOUND: u8 = VerifyReport::EXIT_FINDINGS;
/// Nobody could prove anything: the same as a verification that could not look.
const NOT_SEEN: u8 = VerifyReport::EXIT_UNSEEN;

/// What needs neither the configuration nor a runtime, and ends with a signal as any program.
pub fn run_at_once(arguments: &Arguments) -> Option<u8> {
    match &arguments.verb {
        Verb::Wal(verb) => wal::attended(&arguments.global, verb),
        _ => None,
    }
}

pub async fn run(arguments: Arguments, output: Output, cancel: CancellationToken) -> Result<u8, Fault> {
    let global = &arguments.global;
    let session = || Session::start(global, output, cancel.clone());
    match arguments.verb {
        Verb::Init(init) => init::run(global, &init, output, cancel).await,
        Verb::Config(verb) => config::run(global, &verb, output, cancel).await,
        Verb::Backup(backup) => backup::run(&session()?, &backup).await,
        Verb::Archive(archive) => archive::run(&session()?, &archive).await,
        // Asked by a server of this program's, whose user may not read the configuration.
        Verb::Wal(WalVerb::Fetch(WalFetchArguments { desk: Some(socket), name, to, .. })) => {
            wal::from_desk(&socket, &name, &to)
        }
        Verb::Wal(verb) => wal::run(&session()?, global, &verb).await,
        Verb::Adopt(adopt) => adopt::run(&session()?, &adopt).await,
        Verb::Dump(dump) => dump::run(&session()?, &dump).await,
        Verb::Export(export) => export::run(&session()?, &export).await,
        Verb::List(list) => list::run(&session()?, &list).await,
        Verb::Show(show) => show::run(&session()?, &show).await,
        Verb::Status(status) => status::run(&session()?, &status).await,
        Verb::Verify(verify) => verify::run(&session()?, &verify).await,
        Verb::Restore(restore) => restore::run(&session()?, &restore).await,
        Verb::Drill(drill) => drill::run(&session()?, &drill).await,
        Verb::Expire(expire) => expire::run(&session()?, &expire).await,
        Verb::Hold(hold) => hold::run(&session()?, &hold).await,
        Verb::Collect(collect) => collect::run(&session()?, &collect).await,
        Verb::Key(verb) => key::run(&session()?, &verb).await,
        Verb::Completions { shell } => manual::completions(output, shell),
        Verb::Man => manual::man(output),
    }
}

/// The exit code of several instances: every failure is told when it happens, and
/// the last verdict is the gravest one.
#[derive(Debug, Default)]
struct Verdict(u8);

impl Verdict {
    fn failed(&mut self, session: &Session, fault: &Fault) {
        session.output.error(&Told::fault(fault));
        self.worsen(fault.kind().exit_code());
    }

    fn worsen(&mut self, code: u8) {
        // A bug outweighs the rest, and known damage what nobody has seen yet; the
        // other codes are ordered by gravity.
        let gravity = |code: u8| match code {
            1 => u8::MAX,
            NOT_SOUND => u8::MAX - 1,
            other => other,
        };
        if gravity(code) > gravity(self.0) {
            self.0 = code;
        }
    }

    fn code(&self) -> u8 {
        self.0
    }
}

/// Whether an error of opening or reading the repository says nothing about the
/// backups, only that nobody saw them. A wrong argument or configuration keeps its own
/// code.
fn could_not_look(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Corrupt | ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_verdict_wins_in_whatever_order_they_come() {
        for (codes, gravest) in [
            (&[0, NOT_SEEN, NOT_SOUND][..], NOT_SOUND),
            (&[NOT_SEEN, 3, 0], NOT_SEEN),
            (&[NOT_SOUND, 10], NOT_SOUND),
            (&[NOT_SOUND, 1, NOT_SEEN], 1),
            (&[0, 0], 0),
        ] {
            for reversed in [false, true] {
                let mut verdict = Verdict::default();
                let mut codes = codes.to_vec();
                if reversed {
                    codes.reverse();
                }
                codes.iter().for_each(|code| verdict.worsen(*code));
                assert_eq!(verdict.code(), gravest, "{codes:?}");
            }
        }
    }
}
