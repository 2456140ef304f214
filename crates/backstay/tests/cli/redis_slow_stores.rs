//! Bases of Redis and Valkey that a store takes more slowly than their server is written to: it holds
//! the stream for nobody without end.

use backstay_ops::{Clock, SystemClock};
use testkit::redis::Client;
use testkit::wait_until;

use super::redis_streams::{Archive, LIMIT, instant, on_both, restored, write};

/// More than lies in memory on both sides and on the way, of what does not become smaller.
const VALUES: u32 = 48;
const VALUE_BYTES: u32 = 1 << 20;

fn noise(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        // As xorshift does.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..VALUE_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect()
}

pub fn set(client: &mut Client, number: u32) {
    client.run(&[b"SET", format!("large:{number}").as_bytes(), &noise(number)]).unwrap();
}

#[test]
fn a_stream_begins_although_the_store_is_slower_than_the_server_may_wait() {
    let settings = [
        ("repl-diskless-sync-delay", "0"),
        ("client-output-buffer-limit", "replica 1mb 0 0"),
        ("repl-backlog-size", "1mb"),
    ];
    on_both(&settings, |server, home| {
        let mut client = server.client().unwrap();
        (0..VALUES).for_each(|number| set(&mut client, number));
        let archive = Archive::start_with(home, &["--set", "repository.max_upload_rate=4MiB"]);
        archive.says("taking a base");
        let is_lost = || archive.text().contains("nothing is kept");
        // What is written while the snapshot is stored is more than the server keeps.
        (0..6).for_each(|number| set(&mut client, number));
        wait_until(LIMIT, format!("the loss: {}", archive.text()), is_lost).unwrap();
        archive.says("receiving the stream");
        write(&mut client, 1);
        archive.says("restores reach every instant");
        write(&mut client, 2);
        let instant = instant(server, &archive);
        let after = SystemClock.now();
        archive.stop();
        // The one that was lost, the one that was passed over, and the base beside it.
        assert_eq!(server.info("sync_full").unwrap(), "3");
        assert_eq!(home.backups().len(), 1);
        restored(server, home, &instant.at.to_string(), &instant.digest);
        let status = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(status[0]["holes"].as_array().map(Vec::len), Some(0), "{after}: {status}");
    });
}
