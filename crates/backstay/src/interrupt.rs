//! Ctrl-C, SIGTERM and a terminal that closes: the first asks to stop cleanly, the second leaves at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::render::Output;

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Listens until the returned set is dropped.
pub fn watch(cancel: CancellationToken, output: Output) -> std::io::Result<JoinSet<()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut hang_up = match ignores_hang_up(&status) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let mut watchers = JoinSet::new();
    watchers.spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = hung_up(hang_up.as_mut()) => {}
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

/// Never, when it is ignored.
async fn hung_up(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started us wants us to outlive the terminal, as `nohup` does: to
/// listen would undo it. The kernel's list of ignored signals, SIGHUP in bit 0.
fn ignores_hang_up(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_respected() {
        let status = |mask: &str| format!("Name:\tbackstay\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hang_up(&status("0000000000001001")));
        assert!(!ignores_hang_up(&status("0000000000001000")));
        assert!(!ignores_hang_up(""));
    }
}
