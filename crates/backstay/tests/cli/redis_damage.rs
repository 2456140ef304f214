//! Stored data of Redis and Valkey that is damaged: met by a restore or a drill, told, and done without.

use testkit::{Redis, RedisVersion, require_redis};

use super::damaged_restore::follow;
use super::program::{Home, flip_a_bit};
use super::redis_bases::{digest, fill};

#[test]
fn a_base_that_is_damaged_is_noted_and_the_one_before_it_is_offered() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, &[]).unwrap();
        let home = Home::new();
        home.init();
        home.append(&format!(
            "[instance.cache]\nengine = 'redis'\nurl = '{}'\nbin_directory = '{}'\n",
            server.url(),
            installation.bin_directory().display()
        ));
        fill(&mut server.client().unwrap());
        let taken = digest(&server);
        home.run(["backup", "cache"]).good();
        let first = home.backups().remove(0);
        let before = home.objects("/packs/");
        server.run(&["SET", "later", "yes"]).unwrap();
        home.run(["backup", "cache", "--full"]).good();
        let second = home.backups().remove(0);
        for pack in home.objects("/packs/").iter().filter(|pack| !before.contains(pack)) {
            flip_a_bit(pack);
        }

        let into = home.path("restored");
        let ran = home.run(["restore", "cache", "--into", into.to_str().unwrap()]);
        let left = into.join("backstay-restoring");
        // The recipe may be met before anything is begun.
        let clear = if left.exists() { format!("rm -r {} && ", left.display()) } else { String::new() };
        let offer = format!("`{clear}backstay restore cache --backup {first} ");
        let ran = ran.refused(8, &["was not finished", &second, &offer]);
        assert!(!into.join("dump.rdb").exists());
        let listed = home.run(["list"]).good().out;
        let state = listed.lines().find(|line| line.starts_with(&second)).unwrap();
        assert!(state.contains("damaged"), "{listed}");
        follow(&home, &ran).good();
        let restored = Redis::start_on(&installation, &into, &[]).unwrap();
        assert_eq!(digest(&restored), taken, "{version}");
        drop(restored);

        // From now on it is passed over by whoever names none.
        let drilled = home.run(["drill", "cache"]);
        assert!(drilled.code == 20 && drilled.out.contains(&first), "{drilled:#?}");
        server.stop().unwrap();
        let words = ["restore", "cache", "--set-aside", "--into", server.data_directory().to_str().unwrap()];
        let ran = home.run(words.iter().chain(&["--backup", &second]));
        ran.refused(8, &["damaged"]);
        home.run(words).good();
        let restored = Redis::start_on(&installation, server.data_directory(), &[]).unwrap();
        assert_eq!(digest(&restored), taken, "{version}");
    }
}
