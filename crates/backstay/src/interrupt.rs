//! Ctrl-C and SIGTERM: the first asks to stop cleanly, the second leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::render::Output;

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Listens until the returned set is dropped.
pub fn watch(cancel: CancellationToken, output: Output) -> std::io::Result<JoinSet<()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut watchers = JoinSet::new();
    watchers.spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        output.note("stopping: what is half done is left invisible; press Ctrl-C again to leave at once");
        cancel.cancel();
        next().await;
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(watchers)
}
