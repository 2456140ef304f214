//! Commands at random: every kind of value, with every byte, and everything that changes more
//! than its own key.
//!
//! Many of them are refused by the server, for the key is of another kind: that is a command as
//! well, and one that must leave no trace.

use super::super::chance::Chance;

pub const DATABASES: usize = 6;
/// Of each kind, in each database.
const KEYS: usize = 24;
const MEMBERS: usize = 40;

/// What a client sends: `{s}` is a key of a string, `{c}` of a counter, `{l}` of a list, `{h}` of a
/// hash, `{e}` of a set, `{z}` of a sorted set, `{x}` of a stream, `{k}` any of these; `{m}` is a
/// member, `{v}` a value, `{n}` a number, `{f}` one with a fraction, `{ms}` a short time, `{db}` a
/// database.
const COMMANDS: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {v}",
    "SET {s} {v} PX {ms}",
    "SET {s} {v} KEEPTTL",
    "SET {s} {v} GET NX",
    "SETEX {s} 1 {v}",
    "PSETEX {s} {ms} {v}",
    "GETSET {s} {v}",
    "GETEX {s} PX {ms}",
    "GETEX {s} PERSIST",
    "GETDEL {s}",
    "APPEND {s} {v}",
    "SETRANGE {s} {n} {v}",
    "SETBIT {s} {n} 1",
    "BITFIELD {s} INCRBY u5 {n} 3 SET i8 #1 {n}",
    "BITOP XOR {s} {s} {s}",
    "MSET {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "INCR {c}",
    "DECRBY {c} {n}",
    "INCRBYFLOAT {c} {f}",
    "PFADD {s} {m} {m}",
    "EXPIRE {k} 1",
    "PEXPIRE {k} {ms}",
    "PEXPIRE {k} {ms} NX",
    "EXPIREAT {k} 1",
    "PERSIST {k}",
    "PERSIST {k}",
    "TOUCH {k}",
    "TTL {k}",
    "GET {k}",
    "RPUSH {l} {v} {m}",
    "LPUSH {l} {v}",
    "LPOP {l}",
    "RPOP {l} 2",
    "BLPOP {l} 0.001",
    "LMOVE {l} {l} LEFT RIGHT",
    "LTRIM {l} 0 30",
    "LTRIM {l} -20 -1",
    "LSET {l} 0 {v}",
    "LREM {l} 0 {m}",
    "LINSERT {l} BEFORE {m} {v}",
    "HSET {h} {m} {v} {m} {n}",
    "HSETNX {h} {m} {v}",
    "HDEL {h} {m} {m}",
    "HINCRBY {h} {n} {n}",
    "HINCRBYFLOAT {h} {n} {f}",
    "SADD {e} {m} {m} {n}",
    "SREM {e} {m}",
    "SPOP {e}",
    "SPOP {e} 3",
    "SMOVE {e} {e} {m}",
    "SUNIONSTORE {e} {e} {e}",
    "SDIFFSTORE {e} {e} {e}",
    "SINTERSTORE {e} {e} {e}",
    "ZADD {z} {f} {m} {n} {m}",
    "ZADD {z} GT CH {f} {m}",
    "ZINCRBY {z} {f} {m}",
    "ZREM {z} {m}",
    "ZPOPMIN {z}",
    "BZPOPMAX {z} 0.001",
    "ZREMRANGEBYRANK {z} 20 -1",
    "ZUNIONSTORE {z} 2 {z} {z} WEIGHTS 2 0.5",
    "ZRANGESTORE {z} {z} 0 5",
    "GEOADD {z} 13.361389 38.115556 {m}",
    "SORT {e} ALPHA STORE {l}",
    "SORT {l} BY nosort STORE {l}",
    "XADD {x} * {m} {v}",
    "XADD {x} MAXLEN 30 * {m} {v} {m} {n}",
    "XADD {x} MAXLEN ~ 30 * {m} {v}",
    "XTRIM {x} MAXLEN 20",
    "XGROUP CREATE {x} readers 0 MKSTREAM",
    "XGROUP SETID {x} readers 0",
    "XGROUP DESTROY {x} readers",
    "XREADGROUP GROUP readers one COUNT 3 STREAMS {x} >",
    "XREADGROUP GROUP readers two COUNT 3 NOACK STREAMS {x} >",
    "XAUTOCLAIM {x} readers two 0 0 COUNT 2",
    "DEL {k} {k}",
    "UNLINK {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k} DB {db} REPLACE",
    "MOVE {k} {db}",
    "SELECT {db}",
    "SELECT {db}",
    "PUBLISH news {v}",
    "FCALL several 2 {s} {l} {v}",
    "FCALL several 2 {s} {l} {v}",
];

/// What changes much at once.
const SELDOM: &[&str] = &["FLUSHDB", "FLUSHDB ASYNC", "SWAPDB {db} {db}", "SWAPDB {db} {db}", "FLUSHALL"];

/// Several effects, in more than one database, one of which is gone soon, and sometimes an error
/// in the middle.
const SCRIPTS: &[&str] = &[
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', 20) redis.call('PERSIST', KEYS[1]) \
     redis.call('RPUSH', KEYS[2], ARGV[1], ARGV[1]) redis.call('SELECT', 5) \
     redis.call('INCR', 'c:scripted') return 1",
    "redis.call('INCRBYFLOAT', 'c:scripted', 0.25) redis.call('SPOP', 'e:1') \
     redis.call('SET', KEYS[1], redis.call('TIME')[1]) redis.call('LTRIM', KEYS[2], 0, 9)",
    "redis.call('SET', KEYS[1], ARGV[1]) redis.call('HSET', KEYS[1], 'no', 'hash') \
     redis.call('SET', 'never', 'reached')",
    "for i = 1, 40 do redis.call('HSET', 'h:scripted', i, ARGV[1]) end \
     redis.call('UNLINK', 'h:scripted') redis.call('SADD', 'e:2', KEYS[1])",
];

/// The library is replaced now and then: it is a part of the data, of no database.
fn library(number: usize) -> String {
    format!(
        "#!lua name=torture\nredis.register_function('several', function(keys, args)\n\
         redis.call('SET', keys[1], args[1]) redis.call('PEXPIRE', keys[1], {}) \
         redis.call('LPUSH', keys[2], args[1]) redis.call('SELECT', {}) redis.call('INCR', 'c:called') \
         return {number} end)",
        20 + number,
        number % DATABASES
    )
}

pub type Words = Vec<Vec<u8>>;

pub fn words(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

pub fn load_library(number: usize) -> Words {
    ["FUNCTION", "LOAD", "REPLACE", &library(number)].map(|word| word.as_bytes().to_vec()).to_vec()
}

/// One command, or those of a transaction.
pub fn some(chance: &mut Chance) -> Vec<Words> {
    match chance.below(4000) {
        0..=3 => vec![seldom(chance)],
        4..=13 => vec![load_library(chance.below(100))],
        14 => vec![words("FUNCTION FLUSH")],
        15..=214 => transaction(chance),
        215..=414 => vec![script(chance)],
        _ => vec![one(chance)],
    }
}

fn seldom(chance: &mut Chance) -> Words {
    let text = SELDOM.get(chance.below(SELDOM.len())).copied().unwrap_or_default();
    filled(text, chance)
}

fn one(chance: &mut Chance) -> Words {
    let text = COMMANDS.get(chance.below(COMMANDS.len())).copied().unwrap_or_default();
    filled(text, chance)
}

fn script(chance: &mut Chance) -> Words {
    let text = SCRIPTS.get(chance.below(SCRIPTS.len())).copied().unwrap_or_default();
    let mut words = vec![b"EVAL".to_vec(), text.as_bytes().to_vec(), b"2".to_vec()];
    words.extend(filled("{s} {l} {v}", chance));
    words
}

fn transaction(chance: &mut Chance) -> Vec<Words> {
    let mut all = vec![words("MULTI")];
    for _ in 0..=chance.below(8) {
        all.push(match chance.below(6) {
            0 => filled("SELECT {db}", chance),
            1 => script(chance),
            _ => one(chance),
        });
    }
    all.push(words(if chance.below(10) == 0 { "DISCARD" } else { "EXEC" }));
    all
}

fn filled(text: &str, chance: &mut Chance) -> Words {
    text.split(' ').map(|word| placed(word, chance)).collect()
}

fn placed(word: &str, chance: &mut Chance) -> Vec<u8> {
    let number = |chance: &mut Chance, below: usize| chance.below(below).to_string().into_bytes();
    match word {
        "{k}" => {
            let kinds = ["s", "c", "l", "h", "e", "z", "x"];
            let kind = kinds.get(chance.below(kinds.len())).copied().unwrap_or("s");
            key(kind, chance)
        }
        "{s}" | "{c}" | "{l}" | "{h}" | "{e}" | "{z}" | "{x}" => key(word.trim_matches(['{', '}']), chance),
        "{m}" => member(chance),
        "{v}" => value(chance),
        "{n}" => number(chance, 100),
        "{f}" => format!("{}.{}", chance.below(100), chance.below(1000)).into_bytes(),
        "{ms}" => (1 + chance.below(400)).to_string().into_bytes(),
        "{db}" => number(chance, DATABASES),
        word => word.as_bytes().to_vec(),
    }
}

/// Some have names that end no line where they seem to.
fn key(kind: &str, chance: &mut Chance) -> Vec<u8> {
    let number = chance.below(KEYS);
    let mut key = format!("{kind}:{number}").into_bytes();
    if number.is_multiple_of(7) {
        key.extend_from_slice(b"\r\n*1\r\n$4\r\nEXEC\r\n\0\xff");
    }
    key
}

fn member(chance: &mut Chance) -> Vec<u8> {
    let number = chance.below(MEMBERS);
    match number % 5 {
        0 => vec![number as u8, 0, b'\r', b'\n', 255 - number as u8],
        _ => format!("member {number}").into_bytes(),
    }
}

fn value(chance: &mut Chance) -> Vec<u8> {
    match chance.below(1000) {
        0 => {
            let length = 100_000 + chance.below(300_000);
            chance.bytes(length)
        }
        1..=9 => (0..=255).cycle().take(256 * (1 + chance.below(32))).collect(),
        10..=299 => {
            let length = chance.below(600);
            chance.bytes(length)
        }
        300..=399 => number_of(chance),
        _ => {
            let length = chance.below(40);
            chance.bytes(length)
        }
    }
}

/// Kept by servers as a number, and as text again when something is appended.
fn number_of(chance: &mut Chance) -> Vec<u8> {
    (chance.below(1_000_000) as i64 - 500_000).to_string().into_bytes()
}
