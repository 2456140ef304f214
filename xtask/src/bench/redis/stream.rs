//! The stream of a server that writes at a given rate, and how far the archive is behind it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::wait_until;

use super::Bench;
use crate::bench::measure::{Cost, bytes_below};
use crate::bench::wal::running::Running;

/// A hundred megabytes in a second.
const RATE: f64 = 100e6;
const LIMIT: Duration = Duration::from_secs(300);
/// What is sent before answers are waited for: two megabytes of the stream, in values of some KiB.
const AT_ONCE: u64 = 500;
const VALUE_BYTES: usize = 4000;
/// Keys that are written again and again.
const KEYS: u64 = 20_000;

pub struct Measured {
    pub written_bytes: u64,
    pub seconds: f64,
    /// What the server had sent and the archive had not yet called durable, at most.
    pub most_behind: u64,
    /// From the last byte that was written to its being durable.
    pub last_seconds: f64,
    /// And in the store.
    pub stored_seconds: f64,
    pub stored_bytes: u64,
    pub cost: Cost,
}

pub fn measure(bench: &Bench, seconds: u32) -> Result<Measured> {
    let mut running = Running::start(&mut bench.backstay.command(&["archive", "bench"]))?;
    running.until("the archive to receive", || place(bench).is_ok_and(|(_, taken)| taken.is_some()))?;
    // A base may be under way that is not what is measured here.
    running
        .until("the archive to have all", || place(bench).is_ok_and(|(sent, taken)| taken == Some(sent)))?;
    let before = bytes_below(&bench.path("store"))?;
    let (from, _) = place(bench)?;
    let mut client = bench.server.client()?;
    let (mut most_behind, mut number) = (0, 0u64);
    // Digits of no pattern, which compress to a half.
    let mut state = 1u64;
    let digits: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"0123456789abcdef"[(state >> 60) as usize]
    })
    .take(16 << 20)
    .collect();
    let begun = Instant::now();
    let mut looked = Instant::now();
    let sent = loop {
        let (sent, taken) = place(bench)?;
        most_behind = most_behind.max(sent.saturating_sub(taken.unwrap_or(sent)));
        if begun.elapsed().as_secs_f64() >= f64::from(seconds) {
            break sent;
        }
        // As fast as the rate, and no faster.
        while ((sent_by(&mut client)? - from) as f64) < RATE * begun.elapsed().as_secs_f64()
            && looked.elapsed() < Duration::from_millis(200)
        {
            for one in 0..AT_ONCE {
                let key = format!("stream:{}", (number * AT_ONCE + one) % KEYS);
                let at = (number * 7919 + one * 104_729) as usize % (digits.len() - VALUE_BYTES);
                client.send(&[b"SET", key.as_bytes(), &digits[at..at + VALUE_BYTES]])?;
            }
            for _ in 0..AT_ONCE {
                client.receive()?;
            }
            number += 1;
        }
        looked = Instant::now();
    };
    let written_seconds = begun.elapsed().as_secs_f64();
    let ended = Instant::now();
    running
        .until("the last byte to be durable", || place(bench).is_ok_and(|(_, taken)| taken >= Some(sent)))?;
    let last_seconds = ended.elapsed().as_secs_f64();
    wait_until(LIMIT, "the last byte to be stored", || stored_to(bench).is_ok_and(|end| end >= sent))?;
    let stored_seconds = ended.elapsed().as_secs_f64();
    let cost = running.until("its cost", || true)?;
    running.stop()?;
    let measured = Measured {
        written_bytes: sent - from,
        seconds: written_seconds,
        most_behind,
        last_seconds,
        stored_seconds,
        stored_bytes: bytes_below(&bench.path("store"))? - before,
        cost,
    };
    eprintln!(
        "  stream: {:.0} MB/s for {:.0} s, at most {:.1} MB behind, durable {:.2} s and stored {:.1} s after the last byte, {} MiB of memory",
        measured.written_bytes as f64 / 1e6 / measured.seconds,
        measured.seconds,
        measured.most_behind as f64 / 1e6,
        measured.last_seconds,
        measured.stored_seconds,
        measured.cost.largest_process_bytes >> 20
    );
    Ok(measured)
}

fn sent_by(client: &mut testkit::redis::Client) -> Result<u64> {
    let text = client.run(&["INFO", "replication"])?.text();
    let line = text.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
    line.context("no offset")?.trim().parse().context("an offset")
}

/// How far the server is, and what the archive has acknowledged.
fn place(bench: &Bench) -> Result<(u64, Option<u64>)> {
    let text = bench.server.run(&["INFO", "replication"])?.text();
    let field = |line: &str, name: &str| {
        line.split(',').find_map(|pair| pair.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let sent = text.lines().find_map(|line| field(line, "master_repl_offset:")).context("no offset")?;
    let taken = text
        .lines()
        .filter(|line| line.contains("port=0") && line.contains("state=online"))
        .find_map(|line| field(line, "offset="));
    Ok((sent, taken))
}

/// The end of the log in the store, by the names of its objects.
fn stored_to(bench: &Bench) -> Result<u64> {
    let files = crate::bench::measure::files_below(&bench.path("store/bench/log"))?;
    let end = |name: &str| u64::from_str_radix(name.split_once('-')?.1, 16).ok();
    Ok(files.iter().filter_map(|path| end(path.file_name()?.to_str()?)).max().unwrap_or(0))
}
