//! Clients that write at random, each over a connection of its own, to whichever server there is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::super::chance::Chance;
use super::commands::{load_library, some, words};
use crate::redis::{Client, Reply};
use crate::wait::wait_until;

const WRITERS: u64 = 3;
/// Between two attempts to reach a server that is away.
const AGAIN: Duration = Duration::from_millis(50);
/// Commands between two rests, without which nothing but the load would have a processor.
const BURST: usize = 60;

#[derive(Default)]
struct Place {
    /// Nobody writes while there is none.
    socket: Option<PathBuf>,
    /// Counts the servers: a connection belongs to one.
    number: u64,
    writing: u64,
}

#[derive(Default)]
struct Shared {
    place: Mutex<Place>,
    changed: Condvar,
    is_over: AtomicBool,
    commands: AtomicU64,
    refused: AtomicU64,
}

pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Writes to no server yet.
    pub fn begin(seed: u64) -> Writers {
        let shared = Arc::new(Shared::default());
        let threads = (0..WRITERS).map(|number| {
            let own = Arc::clone(&shared);
            let mut chance = Chance::of(seed.wrapping_mul(WRITERS).wrapping_add(number));
            std::thread::spawn(move || {
                while !own.is_over.load(Ordering::Relaxed) {
                    own.write(&mut chance);
                    let _ = wait_until(AGAIN, "", || own.is_over.load(Ordering::Relaxed));
                }
            })
        });
        let threads = threads.collect();
        Writers { shared, threads }
    }

    pub fn write_to(&self, socket: &Path) {
        let mut place = self.shared.place();
        place.socket = Some(socket.to_owned());
        place.number += 1;
    }

    /// Nobody writes any more when this returns.
    pub fn rest(&self) {
        let mut place = self.shared.place();
        place.socket = None;
        drop(self.shared.changed.wait_while(place, |place| place.writing > 0));
    }

    pub fn count(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To one server, to its end.
    fn write(&self, chance: &mut Chance) {
        let (socket, number) = {
            let mut place = self.place();
            let Some(socket) = place.socket.clone() else { return };
            place.writing += 1;
            (socket, place.number)
        };
        // An error is the end of a connection: the server went away, as it was made to.
        let _ = self.write_on(&socket, number, chance);
        self.place().writing -= 1;
        self.changed.notify_all();
    }

    fn write_on(&self, socket: &Path, number: u64, chance: &mut Chance) -> Result<()> {
        let mut client = Client::connect_socket(socket)?;
        client.call(&load_library(chance.below(100)))?;
        loop {
            for _ in 0..BURST {
                for command in some(chance) {
                    let reply = client.call(&command)?;
                    self.commands.fetch_add(1, Ordering::Relaxed);
                    if matches!(reply, Reply::Error(_)) {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            let is_over = || {
                let place = self.place();
                self.is_over.load(Ordering::Relaxed) || place.socket.is_none() || place.number != number
            };
            let _ = wait_until(chance.between(Duration::ZERO, AGAIN), "", is_over);
            if is_over() {
                return Ok(());
            }
        }
    }
}

/// More than a span of the log holds, in values and in one command; and nothing of it stays.
///
/// # Errors
/// When the server goes away.
pub fn flood(client: &mut Client, chance: &mut Chance, bytes: usize) -> Result<()> {
    const VALUE: usize = 256 << 10;
    client.run(&words("SELECT 1"))?;
    let block = chance.bytes(VALUE);
    for number in 0..bytes.div_ceil(VALUE) {
        let key = format!("flood:{}", number % 8).into_bytes();
        client.run(&[b"SET".to_vec(), key, block.clone()])?;
    }
    if chance.is_heads() {
        // One command that lies in more than one object.
        let huge = block.repeat(20 << 20 >> 18);
        client.run(&[b"SET".to_vec(), b"huge".to_vec(), huge])?;
    }
    let keys = (0..8).map(|number| format!("flood:{number}").into_bytes());
    let mut delete = words("DEL huge");
    delete.extend(keys);
    // Else it lies in the next snapshot as well.
    if chance.below(3) > 0 {
        client.run(&delete)?;
    }
    Ok(())
}
