//! The log on standard error: nothing but errors unless somebody asks for more.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// In the form of `tracing`: `backstay_repo=debug,info`.
pub const VARIABLE: &str = "BACKSTAY_LOG";

/// `verbose` counts the `-v`; the variable goes over it.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "error",
        1 => "warn,backstay=info,backstay_ops=info,backstay_engine=info,backstay_repo=info",
        _ => "info,backstay=debug,backstay_ops=debug,backstay_engine=debug,backstay_repo=debug",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|_| EnvFilter::new(default)),
        _ => EnvFilter::new(default),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(verbose > 1)
        .try_init();
    // Only a second start in one process fails, and then a log is there already.
    drop(started);
}
