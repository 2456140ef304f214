//! Redis: everything is deleted while the archive follows, and what is restored has the sum over
//! all values that the source had the instant before.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testkit::redis::{Client, RedisInstallation};
use testkit::{Redis, wait_until};

use super::receiver::Receiver;
use super::story::{Story, seconds, thousands};
use crate::backstay::Backstay;
use crate::process::{quoted, run_quietly};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: &str = "200000";
const BEHIND: u64 = 5000;

/// Deletes and brings back; `false`, after saying so, where there is no server.
pub fn go_back(
    story: &mut Story,
    backstay: &Backstay,
    place: &Path,
    installation: &Result<RedisInstallation>,
) -> Result<bool> {
    let installation = match installation {
        Ok(installation) => installation,
        Err(why) => {
            let why = format!("{why:#}");
            story.warn(&format!("FLUSHALL undone, because there is no server:\n{}", why.trim_end()));
            return Ok(false);
        }
    };
    let server = Redis::start_new(installation, &[])?;
    server.run(&["DEBUG", "POPULATE", KEYS, "session", "100"])?;
    story.say(&format!(
        "{} answers on port {}, with {} sessions",
        installation.version(),
        server.port(),
        thousands(KEYS.parse()?)
    ));
    let backstay = configured(backstay, place, &server)?;
    let receiver = Receiver::start(&backstay, "cache", &place.join("archive-of-redis.log"))?;
    let written = while_somebody_writes(&server, || {
        wait_until(LIMIT, "the base of Redis", || backstay.list("cache").is_ok_and(|list| !list.is_empty()))
    })?;
    let mut client = server.client()?;
    (written..written + BEHIND).try_for_each(|number| write(&mut client, number))?;
    story.done(&format!(
        "the archive began with a base; {} orders were written meanwhile, and {} since, into the stream",
        thousands(written),
        thousands(BEHIND)
    ));

    // What was written has come by then, and what follows comes later.
    wait_until_stored(&backstay, &server)?;
    let before = run_quietly(Command::new("date").args(["-u", "+%FT%T.%3NZ"]))?.trim().to_owned();
    let (digest, keys) = (digest(&server)?, keys(&server)?);
    server.run(&["FLUSHALL"])?;
    server.run(&["SET", "order:after", "life goes on"])?;
    story.say(&format!("source    {digest}, {keys} keys, at {before}"));
    story.say(&format!("FLUSHALL: {} key is there, a new one", self::keys(&server)?));
    wait_until_stored(&backstay, &server)?;

    let into = place.join("before-the-flush");
    let directory = into.to_string_lossy().into_owned();
    let begun = Instant::now();
    story.show(&mut backstay.command(&[
        "--no-progress",
        "--quiet",
        "restore",
        "cache",
        "--to",
        &before,
        "--into",
        &directory,
    ]))?;
    // The replica of nobody: nothing expires, so that the sums can be compared.
    let settings = [("appendonly", "yes"), ("replicaof", "127.0.0.1 1")];
    let copy = Redis::start_on(installation, &into, &settings)?;
    let took = begun.elapsed().as_secs_f64();
    let there = self::digest(&copy)?;
    story.say(&format!("restored  {there}, {} keys", self::keys(&copy)?));
    ensure!(there == digest, "the copy holds something else than the source did");
    story.done(&format!(
        "ok: restored and started in {}, with the sum over every value that the source had",
        seconds(took)
    ));
    drop((copy, receiver));
    fs::remove_dir_all(&into).context("remove the copy")?;
    Ok(true)
}

/// The repository of the demo, and an instance that is gone when the chapter ends.
fn configured(backstay: &Backstay, place: &Path, server: &Redis) -> Result<Backstay> {
    let path = place.join("redis.toml");
    let text = format!(
        "[repository]\nstore = \"file://{}\"\nkey = {{ file = \"{}\" }}\n\n\
         [instance.cache]\nengine = \"redis\"\nurl = \"{}\"\nbin_directory = \"{}\"\npolicy = {{ rpo = \"1s\" }}\n\
         [instance.cache.archive]\nspool = \"{}\"\n",
        place.join("repository").display(),
        place.join("backstay.key").display(),
        server.url(),
        server.installation().bin_directory().display(),
        place.join("spool").display(),
    );
    fs::write(&path, text).with_context(|| format!("write {}", quoted(&path.to_string_lossy())))?;
    Ok(Backstay::new(backstay.program().to_owned(), path))
}

/// How many orders a client wrote until something had happened.
fn while_somebody_writes(server: &Redis, happens: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut client = server.client()?;
            while !is_over.load(Ordering::Relaxed) {
                let number = written.fetch_add(1, Ordering::Relaxed);
                write(&mut client, number)?;
            }
            Ok(())
        });
        let happened = happens();
        is_over.store(true, Ordering::Relaxed);
        match writer.join() {
            Ok(wrote) => happened.and(wrote),
            Err(_) => bail!("the writer panicked"),
        }
    })?;
    Ok(written.into_inner())
}

fn write(client: &mut Client, number: u64) -> Result<()> {
    let (key, number) = (format!("order:{number}"), number.to_string());
    let words = ["HSET", &key, "number", &number, "state", "paid"];
    client.run(&words).map(drop)
}

fn digest(server: &Redis) -> Result<String> {
    Ok(server.run(&["DEBUG", "DIGEST"])?.text())
}

fn keys(server: &Redis) -> Result<String> {
    Ok(thousands(server.run(&["DBSIZE"])?.text().parse()?))
}

/// Until the store has all that the server has sent by now.
fn wait_until_stored(backstay: &Backstay, server: &Redis) -> Result<()> {
    let text = server.run(&["INFO", "replication"])?.text();
    let said = text.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
    let end: u64 = said.context("find how far the stream is")?.trim().parse()?;
    wait_until(LIMIT, format!("the stream up to {end}"), || {
        stored(backstay).is_ok_and(|stored| stored >= end)
    })
}

fn stored(backstay: &Backstay) -> Result<u64> {
    let status = run_quietly(&mut backstay.command(&["--json", "status", "cache"]))?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let position = status[0]["archive"]["position"].as_str().context("find how far the stream is stored")?;
    let (_, offset) = position.rsplit_once('@').context("find the offset in a position")?;
    Ok(offset.parse()?)
}
