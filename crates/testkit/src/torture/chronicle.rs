//! The course of events, told as it happens: from it a failure can be understood.

use std::fmt::Display;
use std::time::Instant;

pub struct Chronicle {
    begun: Instant,
}

impl Chronicle {
    pub fn begin() -> Chronicle {
        Chronicle { begun: Instant::now() }
    }

    pub fn say(&self, what: impl Display) {
        eprintln!("[{:7.2} s] {what}", self.begun.elapsed().as_secs_f64());
    }
}
