//! One module for each verb: read the arguments, call the operation, show its report.
//!
//! Each returns the exit code of a run that did what it was asked; what went wrong
//! comes back as a fault and is told once, at the edge.

mod backup;
mod collect;
pub mod config;
mod drill;
mod expire;
pub mod init;
mod key;
mod list;
mod manual;
mod restore;
mod show;
mod status;
mod verify;

use backstay_model::Fault;
use tokio_util::sync::CancellationToken;

use crate::args::{Arguments, Verb};
use crate::render::Output;
use crate::render::errors::Told;
use crate::session::Session;

/// A run that did what it was asked.
const DONE: u8 = 0;
/// A proof that failed: the same as a verification with findings.
const NOT_SOUND: u8 = backstay_model::verify::VerifyReport::EXIT_FINDINGS;

pub async fn run(arguments: Arguments, output: Output, cancel: CancellationToken) -> Result<u8, Fault> {
    let global = &arguments.global;
    let session = || Session::start(global, output, cancel.clone());
    match arguments.verb {
        Verb::Init(init) => init::run(global, &init, output, cancel).await,
        Verb::Config(verb) => config::run(global, &verb, output, cancel).await,
        Verb::Backup(backup) => backup::run(&session()?, &backup).await,
        Verb::List(list) => list::run(&session()?, &list).await,
        Verb::Show(show) => show::run(&session()?, &show).await,
        Verb::Status(status) => status::run(&session()?, &status).await,
        Verb::Verify(verify) => verify::run(&session()?, &verify).await,
        Verb::Restore(restore) => restore::run(&session()?, &restore).await,
        Verb::Drill(drill) => drill::run(&session()?, &drill).await,
        Verb::Expire(expire) => expire::run(&session()?, &expire).await,
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
        // A bug outweighs the rest; the codes above 1 are ordered by gravity.
        if self.0 != 1 && (code == 1 || code > self.0) {
            self.0 = code;
        }
    }

    fn code(&self) -> u8 {
        self.0
    }
}
