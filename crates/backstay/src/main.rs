//! The program `backstay`: arguments in, an operation called, its report out.
//!
//! Responsible for the words a person types and reads, for the configuration and
//! for the exit code. Refuses to decide: what happens is decided by `ops` and by
//! the plans of `model`.

mod args;
mod config;
mod error;
mod interrupt;
mod logging;
mod render;
mod session;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use backstay_model::{ErrorKind, Fault};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use args::{Arguments, Verb, WalVerb};
use error::Error;
use render::Output;
use render::errors::Told;

/// Above 125, so that a recovery stops.
const NOT_FETCHED: u8 = 126;
/// Up to 125, so that a standby lives on.
const ASK_AGAIN: u8 = 1;
/// How long threads that were told to stop may still finish one read or write.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if is_fetch(&words) {
        return fetch(&words);
    }
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return refused(&error, &words),
    };
    let output = Output::new(&arguments.global);
    logging::start(arguments.global.verbose);
    let code = match run(arguments, output) {
        Ok(code) => code,
        Err(fault) => {
            output.error(&Told::fault(&fault));
            fault.kind().exit_code()
        }
    };
    ExitCode::from(code)
}

/// `backstay wal fetch` as the command of a recovery.
///
/// PostgreSQL takes every exit code up to 125 for "there is no such file", which ends the
/// recovery there, and opens the database with what it has. So nothing but a proven absence
/// may end with such a code: not a wrong argument, not a panic. A standby asks again after
/// each of them, and would be ended by any other code: it says `--standby`.
fn fetch(words: &[OsString]) -> ExitCode {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(NOT_FETCHED.into());
    }));
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            refused(&error, words);
            return ExitCode::from(NOT_FETCHED);
        }
        Err(help) => return refused(&help, words),
    };
    let output = Output::new(&arguments.global);
    logging::start(arguments.global.verbose);
    let kept_away = match &arguments.verb {
        Verb::Wal(WalVerb::Fetch(fetch)) if fetch.standby => ASK_AGAIN,
        _ => NOT_FETCHED,
    };
    ExitCode::from(run(arguments, output).unwrap_or_else(|fault| {
        output.error(&Told::fault(&fault));
        kept_away
    }))
}

fn is_fetch(words: &[OsString]) -> bool {
    let mut verbs = words.iter().skip(1).skip_while(|word| *word != "wal");
    verbs.next().is_some() && verbs.next().is_some_and(|word| word == "fetch")
}

fn run(arguments: Arguments, output: Output) -> Result<u8, Fault> {
    if let Some(code) = verbs::run_at_once(&arguments) {
        return Ok(code);
    }
    let cancel = CancellationToken::new();
    let left = match &arguments.verb {
        Verb::Archive(_) => "what was received goes to the store first, and the rest with the next run",
        _ => "what is half done is left invisible",
    };
    interrupt::watch(cancel.clone(), output, left).map_err(|source| Error::Start { source })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let code = runtime.block_on(verbs::run(arguments, output, cancel));
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    code
}

/// Wrong arguments, or a question for help, in the parser's own words; with
/// `--json` an error is a document here too.
fn refused(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if error.use_stderr() && words.iter().any(|word| word == "--json") {
        let text = error.render().to_string();
        let mut paragraphs = text.trim_start_matches("error: ").split("\n\n").map(str::trim);
        let told = Told {
            kind: ErrorKind::Invalid,
            message: paragraphs.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
            causes: Vec::new(),
            hints: paragraphs
                .filter(|paragraph| paragraph.starts_with("tip:") || paragraph.starts_with("Usage:"))
                .map(str::to_owned)
                .collect(),
        };
        return told_json(&told);
    }
    // A closed terminal is nobody's to tell.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ErrorKind::Invalid.exit_code()))
}

fn told_json(told: &Told) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stderr().lock().write_all(told.json().as_bytes());
    ExitCode::from(told.kind.exit_code())
}
