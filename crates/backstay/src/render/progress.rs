//! The bar of a long operation, on standard error, only on a terminal.
//!
//! A thread of its own polls the counters, so that neither a lane waits for the
//! terminal nor the terminal for a lane. Nothing is drawn in the first second.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use backstay_model::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// An operation that ends sooner needs no bar.
const QUIET: Duration = Duration::from_secs(1);
/// Often enough to look alive, seldom enough to cost nothing.
const REFRESH: Duration = Duration::from_millis(200);

const MEASURED: &str = "{prefix} {msg} [{bar:28}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
const UNMEASURED: &str = "{prefix} {msg} {spinner} {bytes} {elapsed}";

/// Draws until it is dropped, then wipes its line.
pub struct Bar {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// No bar where none is wanted.
    pub fn show(wanted: bool, title: &str, progress: Arc<Progress>) -> Self {
        if !wanted {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let title = title.to_owned();
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            if stopped.recv_timeout(QUIET) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_prefix(title);
            let mut phase = None;
            loop {
                draw(&bar, &progress, &mut phase);
                if stopped.recv_timeout(REFRESH) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

/// A phase counts from zero, so its rate does too.
fn draw(bar: &ProgressBar, progress: &Progress, phase: &mut Option<(String, bool)>) {
    let reading = progress.read();
    let now = (reading.phase, reading.total_bytes > 0);
    if phase.as_ref() != Some(&now) {
        if let Ok(style) = ProgressStyle::with_template(if now.1 { MEASURED } else { UNMEASURED }) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.reset();
        bar.set_message(now.0.clone());
        *phase = Some(now);
    }
    bar.set_length(reading.total_bytes.max(reading.done_bytes));
    bar.set_position(reading.done_bytes);
    bar.tick();
}

impl Drop for Bar {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A bar that panicked is no reason to fail what it was showing.
            let _ = thread.join();
        }
    }
}
