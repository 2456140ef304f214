//! Ctrl-C, SIGTERM and a terminal that closes: the first asks to stop cleanly, the second leaves at once.

use backstay_ops::critical;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::render::Output;

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Listens until the process ends, in a thread of its own: the second Ctrl-C must be
/// heard also while the runtime of the verb shuts down and waits for a thread that
/// stands in a read of a file server that is away.
///
/// `left` says what becomes of what the verb was at.
pub fn watch(cancel: CancellationToken, output: Output, left: &'static str) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _inside = runtime.enter();
        Signals::register()?
    };
    let listening = move || runtime.block_on(signals.listen(&cancel, output, left));
    std::thread::Builder::new().name("signals".to_owned()).spawn(listening).map(drop)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` when it is ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    fn register() -> std::io::Result<Signals> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: match ignores_hang_up(&status) {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
        })
    }

    async fn listen(mut self, cancel: &CancellationToken, output: Output, left: &str) {
        self.next().await;
        output.note(&format!("stopping: {left}; press Ctrl-C again to leave at once"));
        cancel.cancel();
        self.next().await;
        if critical::is_inside() {
            output.note(
                "databases are being swapped, and the old one lets nobody in: leaving when that is over, in seconds; \
                 `psql --list` shows whether they were",
            );
            critical::left().await;
        }
        std::process::exit(EXIT_INTERRUPTED);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hung_up(self.hang_up.as_mut()) => {}
        }
    }
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
