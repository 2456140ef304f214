//! Time and chance, passed in: so that a test of back-off takes no time.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

#[async_trait]
pub trait Pace: Send + Sync + fmt::Debug {
    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;

    async fn wait(&self, duration: Duration);

    /// From 0 up to, and never, 1.
    fn random(&self) -> f64;
}

/// The machine's monotonic clock and random numbers.
#[derive(Debug)]
pub struct SystemPace {
    begun: tokio::time::Instant,
}

impl SystemPace {
    pub fn new() -> Self {
        Self { begun: tokio::time::Instant::now() }
    }
}

impl Default for SystemPace {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Pace for SystemPace {
    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> f64 {
        let mut bytes = [0; 4];
        // Without randomness the clients are in step, which is not a reason to fail.
        match getrandom::fill(&mut bytes) {
            Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
            Err(_) => 0.5,
        }
    }
}
