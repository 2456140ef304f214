//! Waiting for a condition with a limit: the only place in tests that may sleep.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short enough that a test loses nothing, long enough that polling a process
/// table or starting a client does not become the load.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until the condition holds.
///
/// # Errors
/// When it does not hold within the limit; the text says what was waited for.
pub fn wait_until(limit: Duration, what: impl Display, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(limit, what, || condition().then_some(()))
}

/// Polls until there is a value.
///
/// # Errors
/// When there is none within the limit; the text says what was waited for.
pub fn wait_for<T>(limit: Duration, what: impl Display, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if begun.elapsed() >= limit {
            bail!("waited {:.1} s in vain: {what}", limit.as_secs_f64());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut calls = 0;
        let seen = wait_for(Duration::from_secs(5), "three calls", || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(seen.unwrap(), 3);
    }

    #[test]
    fn a_vain_wait_says_what_it_waited_for() {
        let error = wait_until(Duration::from_millis(1), "the moon", || false).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
