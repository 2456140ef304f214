//! `cargo xtask guide`: every command of `docs/guide/*.md` is run, and what it
//! prints is compared with what the page shows.
//!
//! Recovery instructions are read once a year by a frightened person, and must be
//! right. Each page is a person of its own: an empty directory as its home, a
//! fresh server, and one shell from the first command to the last.
//!
//! A page sees `backstay` and the programs of its server in its `PATH`, and what
//! [`Server::environment`] says of the server.

mod document;
mod expectation;
mod server;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::document::{Part, parts};
use self::server::{Installations, Server};
use self::session::Session;
use crate::backstay;
use crate::process::project;

#[derive(Args, Default)]
pub struct Options {
    /// Only the pages whose name contains this
    filter: Option<String>,
    /// Print what each command printed, as a reader of the page would see it
    #[arg(long)]
    show: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let pages = pages(options.filter.as_deref())?;
    if pages.is_empty() {
        bail!("run the guide: docs/guide has no such page");
    }
    let installations = Installations::prepare(&pages)?;
    let program = backstay::build(backstay::Profile::Dev)?;
    let mut failures = Vec::new();
    for page in &pages {
        let name = page.strip_prefix(project()).unwrap_or(page).display().to_string();
        let begun = Instant::now();
        match run_page(page, &installations, &program, options.show) {
            Ok(commands) => {
                println!("{name}: {commands} commands as written ({:.1} s)", begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                println!("{name}: FAILED");
                failures.push(format!("{name}: {error:#}"));
            }
        }
    }
    if !failures.is_empty() {
        bail!("the guide is not true:\n{}", failures.join("\n\n"));
    }
    Ok(())
}

fn pages(filter: Option<&str>) -> Result<Vec<PathBuf>> {
    let directory = project().join("docs/guide");
    let mut pages = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".md") && filter.is_none_or(|filter| name.contains(filter)) {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

/// Runs one page and says how many commands it had.
fn run_page(page: &Path, installations: &Installations, program: &Path, show: bool) -> Result<usize> {
    let text = fs::read_to_string(page)?;
    let parts = parts(&text)?;
    let server = Server::start(&text, installations)?;
    let home = server.workspace().path().join("home");
    fs::create_dir(&home)?;

    let mut session = Session::open(&home, &environment(&server, program)?)?;
    let mut commands = 0;
    for part in &parts {
        match part {
            Part::Skipped { line } => println!("  line {line}: not run, as the page says"),
            Part::Command(command) => {
                commands += 1;
                let (output, status) = session.run(&command.text)?;
                if show {
                    println!("$ {}\n{output}", command.text);
                }
                if status != 0 && !command.may_fail {
                    bail!("line {}: `{}` ended with {status}\n{output}", command.line, command.text);
                }
                if let Some(difference) = expectation::difference(&command.expected, &output) {
                    bail!("line {}: `{}` {difference}\nit printed:\n{output}", command.line, command.text);
                }
            }
        }
    }
    Ok(commands)
}

fn environment(server: &Server, program: &Path) -> Result<Vec<(&'static str, String)>> {
    let programs = program.parent().context("find the directory of the program")?;
    let mut path = std::env::var("PATH").unwrap_or_default();
    // The rescue script's packages, which its reader is told to install.
    if let Some(python) = testkit::servers::rescue_python().as_deref().and_then(Path::parent) {
        path = format!("{}:{path}", python.display());
    }
    let path = format!("{}:{}:{path}", programs.display(), server.bin_directory().display());
    let mut environment = server.environment();
    environment.push(("PATH", path));
    Ok(environment)
}
