//! The one home of the time.
//!
//! Whatever needs to know what time it is gets a [`Clock`], so that retention,
//! ages and names can be tested at any hour.

use std::fmt::Debug;
use std::time::Instant;

use jiff::Timestamp;

pub trait Clock: Send + Sync + Debug {
    /// The time of day. May jump; only for what is shown or stored.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Measures seconds by a clock that does not jump.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
