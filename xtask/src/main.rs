//! The chores of the project, each one command that does all its own set-up.
//!
//! `cargo xtask demo` and `cargo xtask test` are the two commands of the README.
//! Nothing here is part of the product: what a chore needs of Backstay it asks
//! from the binary, as a person would.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore tells what it does on the terminal; it has no other output"
)]

mod backstay;
mod bench;
mod demo;
mod guide;
mod interruption;
mod process;
mod reference;
mod servers;
mod setup;
mod test;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of Backstay", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure Backstay beside its peers and write docs/benchmarks
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Back up, destroy and restore a database of a few hundred MiB, and prove that it is back
    Demo(demo::Options),
    /// Run every command of docs/guide and compare what it prints with what the page shows
    Guide(guide::Options),
    /// Write docs/reference from what the program says of itself
    Reference(reference::Options),
    /// Prepare the real servers that tests run against; does nothing when they are there
    Servers,
    /// Try to lose a commit
    #[command(subcommand)]
    Torture(torture::Torture),
    /// Check everything: format, lints, guide, all tests on real servers
    Test(test::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Bench(bench) => bench::run(&bench),
        Chore::Demo(options) => demo::run(&options),
        Chore::Guide(options) => guide::run(&options),
        Chore::Reference(options) => reference::run(&options),
        Chore::Servers => servers::run(),
        Chore::Test(options) => test::run(&options),
        Chore::Torture(torture) => torture::run(&torture),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(interrupted) = error.downcast_ref::<interruption::Interrupted>() {
                eprintln!("{interrupted}");
                return ExitCode::from(interrupted.exit_code());
            }
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
