//! Loopback ports for private servers.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the kernel's range of ephemeral ports (32768 and up), so that no outgoing
/// connection takes the port of a server that is being restarted.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1 on which nobody listens now. Processes begin at different
/// places of the range, so two of them rarely want the same one; a server that
/// finds its port taken asks again.
///
/// # Errors
/// When the whole range is taken.
pub fn free_port() -> Result<u16> {
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let candidate = FIRST + start.wrapping_add(step) % COUNT;
        let Ok(port) = u16::try_from(candidate) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("find a free port: all of {FIRST}..{} are taken", FIRST + COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_are_different_and_can_be_bound() {
        let (one, two) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(one, two);
        assert!((20_000..32_000).contains(&one));
        drop(TcpListener::bind(("127.0.0.1", two)).unwrap());
    }
}
