//! A server that nobody writes to: what it says by itself is no data that could be lost.

use serde_json::Value;
use testkit::wait_until;

use super::program::Home;
use super::redis_streams::{Archive, LIMIT, offset, on_both};

fn status(home: &Home) -> Value {
    home.run(["status", "cache", "--json"]).good().json()[0].clone()
}

#[test]
fn an_idle_server_loses_nothing_although_its_own_words_are_not_stored_each_time() {
    on_both(&[("repl-ping-replica-period", "1")], |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        server.run(&["SET", "a", "b"]).unwrap();
        archive.holds(server);
        let objects = || home.objects("log/").len();
        let (before, stored) = (offset(server), objects());
        let mut seen = 0;
        wait_until(LIMIT, "the status of a server that is ahead", || {
            let told = status(home);
            assert_eq!(told["archive"]["lag_bytes"], 0, "{told:#}");
            assert_eq!(told["objectives"]["rpo_met"], true, "{told:#}");
            seen += usize::from(told["archive"]["position"] != told["archive"]["source_position"]);
            seen >= 5 && offset(server) > before + 40
        })
        .unwrap();
        assert!(objects() <= stored + 1, "{} and {stored} before", objects());
        // What nobody received is missing.
        archive.kill();
        server.run(&["SET", "a", "c"]).unwrap();
        wait_until(LIMIT, "the objective to be missed", || {
            let told = status(home);
            assert_ne!(told["archive"]["lag_bytes"], 0, "{told:#}");
            told["objectives"]["rpo_met"] == false
        })
        .unwrap();
        let archive = Archive::start(home);
        archive.holds(server);
        archive.stop();
        let told = status(home);
        assert_eq!(told["archive"]["lag_bytes"], 0, "{told:#}");
    });
}

#[test]
fn what_lies_beside_the_store_alone_is_missing_whatever_the_server_says_behind_it() {
    on_both(&[("repl-ping-replica-period", "1")], |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        server.run(&["SET", "a", "b"]).unwrap();
        archive.holds(server);
        archive.stop();
        let told = std::fs::read_to_string(home.config()).unwrap();
        std::fs::write(home.config(), told.replace("rpo = '1s'", "rpo = '1h'")).unwrap();
        let archive = Archive::start(home);
        archive.says("receiving the stream");
        server.run(&["SET", "a", "c"]).unwrap();
        let written = offset(server);
        wait_until(LIMIT, "words of the server behind what the archive has", || {
            let acknowledged = |said: &str| {
                let mut pairs = said.split(',').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| *name == "offset").map(|(_, offset)| offset.parse::<u64>().unwrap())
            };
            acknowledged(&server.info("slave0").unwrap()).is_some_and(|offset| offset > written)
        })
        .unwrap();
        let told = status(home);
        assert!(told["archive"]["lag_bytes"].as_u64().is_some_and(|lag| lag > 20), "{told:#}");
        archive.stop();
    });
}
