//! The bar of a long operation, on standard error, only on a terminal.
//!
//! A thread of its own polls the counters, so that neither a lane waits for the
//! terminal nor the terminal for a lane. Nothing is drawn in the first second.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backstay_model::{Progress, ProgressReading};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::{size, span};

/// An operation that ends sooner needs no bar.
const QUIET: Duration = Duration::from_secs(1);
/// Often enough to look alive, seldom enough to cost nothing.
const REFRESH: Duration = Duration::from_millis(200);

const MEASURED: &str = "{prefix}: {msg} [{bar:20}]";
const UNMEASURED: &str = "{prefix}: {msg} {spinner}";

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
            let started = Instant::now();
            let mut phase = Phase::new(progress.read(), started);
            let mut bar = None;
            while stopped.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                phase = phase.follow(progress.read(), now);
                if now.duration_since(started) >= QUIET {
                    phase.draw(bar.get_or_insert_with(|| new_bar(&title)), now);
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

fn new_bar(title: &str) -> ProgressBar {
    // Hidden until it has its own style: setting anything draws.
    let bar = ProgressBar::hidden();
    bar.set_prefix(title.to_owned());
    if let Ok(style) = ProgressStyle::with_template(UNMEASURED) {
        bar.set_style(style);
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

/// A phase counts from zero, and so does its rate.
struct Phase {
    reading: ProgressReading,
    since: Instant,
    is_new: bool,
}

impl Phase {
    fn new(reading: ProgressReading, since: Instant) -> Self {
        Self { reading, since, is_new: true }
    }

    fn follow(self, reading: ProgressReading, now: Instant) -> Self {
        let measured = |reading: &ProgressReading| reading.total_bytes > 0;
        if reading.phase != self.reading.phase || measured(&reading) != measured(&self.reading) {
            return Self::new(reading, now);
        }
        Self { reading, ..self }
    }

    fn draw(&mut self, bar: &ProgressBar, now: Instant) {
        let reading = &self.reading;
        if std::mem::take(&mut self.is_new) {
            let template = if reading.total_bytes > 0 { MEASURED } else { UNMEASURED };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
        }
        let text = describe(reading, now.duration_since(self.since).as_secs_f64());
        bar.update(|state| {
            state.set_len(reading.total_bytes.max(reading.done_bytes));
            state.set_pos(reading.done_bytes);
        });
        bar.set_message(text);
    }
}

/// What, how much of how much, how fast, how long still.
fn describe(reading: &ProgressReading, seconds: f64) -> String {
    let mut text = if reading.phase.is_empty() { "begin".to_owned() } else { reading.phase.clone() };
    if reading.done_bytes == 0 {
        return text;
    }
    text.push_str(&format!(" {}", size(reading.done_bytes)));
    if reading.total_bytes > 0 {
        text.push_str(&format!(" of {}", size(reading.total_bytes.max(reading.done_bytes))));
    }
    // The first moments of a phase say nothing about the rest of it.
    if seconds >= QUIET.as_secs_f64() {
        let rate = reading.done_bytes as f64 / seconds;
        text.push_str(&format!(", {}/s", size(rate as u64)));
        if reading.total_bytes > reading.done_bytes {
            let left = (reading.total_bytes - reading.done_bytes) as f64 / rate;
            // A guess has no tenths.
            let left = if left < 59.5 { format!("{:.0} s", left.ceil()) } else { span(left) };
            text.push_str(&format!(", {left} left"));
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_much_how_fast_and_how_long() {
        let reading = |done_bytes, total_bytes| ProgressReading {
            phase: "copy".to_owned(),
            done_bytes,
            total_bytes,
            ..ProgressReading::default()
        };
        assert_eq!(describe(&reading(0, 1 << 30), 5.0), "copy");
        assert_eq!(describe(&reading(1 << 20, 1 << 30), 0.2), "copy 1.00 MiB of 1.00 GiB");
        assert_eq!(
            describe(&reading(256 << 20, 1 << 30), 2.0),
            "copy 256 MiB of 1.00 GiB, 128 MiB/s, 6 s left"
        );
        assert_eq!(describe(&reading(256 << 20, 0), 2.0), "copy 256 MiB, 128 MiB/s");
    }

    #[test]
    fn the_rate_of_a_phase_begins_with_the_phase() {
        let started = Instant::now();
        let later = started + Duration::from_secs(60);
        let reading = |phase: &str| ProgressReading { phase: phase.to_owned(), ..ProgressReading::default() };
        let phase = Phase::new(reading("wait for the checkpoint"), started);
        let phase = phase.follow(reading("wait for the checkpoint"), later);
        assert_eq!(phase.since, started);
        assert_eq!(phase.follow(reading("copy"), later).since, later);
    }
}
