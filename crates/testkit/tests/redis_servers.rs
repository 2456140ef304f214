//! The private servers of both forks do what tests count on.

use testkit::redis::Reply;
use testkit::{Redis, RedisVersion, require_redis};

#[test]
fn a_server_keeps_every_byte_until_it_ends_and_nothing_behind_that() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, &[]).unwrap();
        let value: Vec<u8> = (0..=255).collect();
        let mut client = server.client().unwrap();
        client.run(&[&b"SET"[..], b"all\0bytes", &value]).unwrap();
        assert_eq!(client.run(&[&b"GET"[..], b"all\0bytes"]).unwrap(), Reply::Bulk(value));
        assert!(client.run(&["NO-SUCH-COMMAND"]).is_err());
        assert_eq!(client.run(&["DEBUG", "DIGEST"]).unwrap().text().len(), 40, "{version}");
        server.restart().unwrap();
        assert_eq!(server.run(&["DBSIZE"]).unwrap(), Reply::Integer(0), "{version}");
        let data = server.data_directory().to_owned();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "{version} left something on its disk");
        drop(server);
        assert!(!data.exists());
    }
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let Some(installation) = require_redis(RedisVersion::Redis70) else { return };
    let error = Redis::start_new(&installation, &[("no-such-setting", "x")]).unwrap_err().to_string();
    assert!(error.contains("no-such-setting"), "{error}");
}
