//! What the contract of [`Store`] says, as a suite that any store can be held to.
//!
//! It is public, so that every implementation, every wrapper and every real
//! server is measured by the same sentences. It returns what was violated and
//! never stops at the first; the caller decides what that means.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::{Store, StoreError};
use crate::layout::{ObjectName, Prefix};

/// Enough for several pages of every store.
const LISTED_OBJECTS: usize = 2300;
const CONCURRENT_WRITERS: usize = 16;
/// Larger than any store's inner buffer, and odd.
const LARGE_BYTES: usize = (9 << 20) + 17;

type Outcome = Result<(), String>;

/// Runs all sentences, each on a fresh store, and returns those that do not hold.
pub async fn run<F, Fut>(make: F) -> Vec<String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    let mut violations = Vec::new();
    macro_rules! sentences {
        ($($sentence:ident),* $(,)?) => {$(
            if let Err(why) = $sentence(&*make().await).await {
                violations.push(format!("{}: {why}", stringify!($sentence)));
            }
        )*};
    }
    sentences!(
        what_was_put_is_read_back,
        a_taken_name_is_refused_and_nothing_changes,
        one_of_many_concurrent_puts_wins,
        what_is_absent_is_not_found,
        a_range_is_exactly_as_long_as_asked,
        a_read_is_bounded,
        an_upload_is_invisible_until_its_commit,
        an_upload_dropped_or_aborted_leaves_nothing,
        an_empty_upload_is_an_empty_object,
        a_listing_shows_every_object_once,
        a_prefix_ends_at_a_segment,
        directories_are_the_next_segments,
        a_deleted_object_is_gone_and_its_name_free,
        a_directory_may_empty_while_others_write_into_it,
        sweeping_touches_no_object,
    );
    violations
}

fn name(text: &str) -> Result<ObjectName, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn ok<T>(what: &str, result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

fn holds(fact: bool, otherwise: impl Into<String>) -> Outcome {
    if fact { Ok(()) } else { Err(otherwise.into()) }
}

fn pattern(length: usize, seed: u32) -> Bytes {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect::<Vec<u8>>().into()
}

async fn names_under(store: &dyn Store, under: &str) -> Result<Vec<String>, String> {
    let listed = ok("list", store.list_all(&prefix(under)?).await)?;
    let mut names: Vec<String> = listed.into_iter().map(|meta| meta.name.to_string()).collect();
    names.sort_unstable();
    Ok(names)
}

async fn what_was_put_is_read_back(store: &dyn Store) -> Outcome {
    for (text, length) in [("a", 0), ("b/c.json", 1), ("b/d/e-f_1", 70_000)] {
        let (name, bytes) = (name(text)?, pattern(length, 7));
        ok("put", store.put_if_absent(&name, bytes.clone()).await)?;
        holds(ok("get", store.get(&name, 1 << 20).await)? == bytes, "other bytes came back")?;
        ok("settle", store.settle(&name).await)?;
        let meta = ok("head", store.head(&name).await)?;
        holds(meta.name == name && meta.size_bytes == length as u64, format!("head says {meta:?}"))?;
        holds(names_under(store, "").await?.contains(&text.to_owned()), "not in the listing at once")?;
    }
    Ok(())
}

async fn a_taken_name_is_refused_and_nothing_changes(store: &dyn Store) -> Outcome {
    let name = name("x/y")?;
    ok("put", store.put_if_absent(&name, Bytes::from_static(b"first")).await)?;
    for again in [&b"first"[..], b"second", b""] {
        let second = store.put_if_absent(&name, Bytes::from_static(again)).await;
        holds(matches!(second, Err(StoreError::AlreadyExists { .. })), format!("{second:?}"))?;
        holds(ok("get", store.get(&name, 100).await)? == b"first"[..], "the first object changed")?;
    }
    Ok(())
}

async fn one_of_many_concurrent_puts_wins(store: &dyn Store) -> Outcome {
    for round in 0..8 {
        let name = name(&format!("race/{round}/winner"))?;
        let bodies: Vec<Bytes> = (0..CONCURRENT_WRITERS).map(|i| pattern(1000 + i, i as u32)).collect();
        let puts = bodies.iter().map(|body| store.put_if_absent(&name, body.clone()));
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..CONCURRENT_WRITERS).filter(|i| results[*i].is_ok()).collect();
        holds(winners.len() == 1, format!("winners: {winners:?}"))?;
        let refused = results.iter().filter(|r| matches!(r, Err(StoreError::AlreadyExists { .. }))).count();
        holds(refused == CONCURRENT_WRITERS - 1, format!("{results:?}"))?;
        let there = ok("get", store.get(&name, 1 << 20).await)?;
        holds(there == bodies[winners[0]], "the object is not the winner's")?;
    }
    Ok(())
}

async fn what_is_absent_is_not_found(store: &dyn Store) -> Outcome {
    ok("put", store.put_if_absent(&name("d/there")?, Bytes::from_static(b"x")).await)?;
    // A directory is not an object, and an object is not a directory.
    for text in ["absent", "no/such/object", "d", "d/there/below"] {
        let name = name(text)?;
        let got = store.get(&name, 10).await;
        holds(matches!(got, Err(StoreError::NotFound { .. })), format!("get {text}: {got:?}"))?;
        let got = store.get_range(&name, 0, 1).await;
        holds(matches!(got, Err(StoreError::NotFound { .. })), format!("get_range {text}: {got:?}"))?;
        let got = store.head(&name).await;
        holds(matches!(got, Err(StoreError::NotFound { .. })), format!("head {text}: {got:?}"))?;
        let got = store.settle(&name).await;
        holds(matches!(got, Err(StoreError::NotFound { .. })), format!("settle {text}: {got:?}"))?;
        holds(!ok("exists", store.exists(&name).await)?, format!("{text} exists"))?;
        ok("delete", store.delete(&name).await)?;
    }
    holds(names_under(store, "no/such").await?.is_empty(), "an absent prefix has objects")?;
    holds(names_under(store, "d/there").await?.is_empty(), "an object was listed below itself")?;
    holds(ok("get", store.get(&name("d/there")?, 10).await)? == b"x"[..], "an object was harmed")
}

async fn a_range_is_exactly_as_long_as_asked(store: &dyn Store) -> Outcome {
    let (name, bytes) = (name("ranges")?, pattern(10_000, 3));
    ok("put", store.put_if_absent(&name, bytes.clone()).await)?;
    for (offset, length) in [(0, 10_000), (0, 0), (9_999, 1), (10_000, 0), (123, 4_567)] {
        let got = ok("get_range", store.get_range(&name, offset, length).await)?;
        let expected = bytes.slice(offset as usize..(offset + length) as usize);
        holds(got == expected, format!("range {offset}+{length} is wrong"))?;
    }
    for (offset, length) in [(0, 10_001), (9_999, 2), (10_000, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let got = store.get_range(&name, offset, length).await;
        let fact = matches!(got, Err(StoreError::WrongRange { .. }));
        holds(fact, format!("range {offset}+{length}: {:?}", got.map(|b| b.len())))?;
    }
    Ok(())
}

async fn a_read_is_bounded(store: &dyn Store) -> Outcome {
    let name = name("bounded")?;
    ok("put", store.put_if_absent(&name, pattern(1000, 1)).await)?;
    holds(ok("get", store.get(&name, 1000).await)?.len() == 1000, "cut")?;
    let got = store.get(&name, 999).await;
    holds(matches!(got, Err(StoreError::TooLarge { .. })), format!("{:?}", got.map(|b| b.len())))
}

async fn an_upload_is_invisible_until_its_commit(store: &dyn Store) -> Outcome {
    let (name, bytes) = (name("packs/large")?, pattern(LARGE_BYTES, 5));
    let mut upload = ok("create", store.create(&name).await)?;
    for piece in [0..1, 1..100_000, 100_000..LARGE_BYTES] {
        ok("write", upload.write(bytes.slice(piece)).await)?;
        holds(!ok("exists", store.exists(&name).await)?, "visible before the commit")?;
        holds(names_under(store, "").await?.is_empty(), "listed before the commit")?;
    }
    let size = ok("commit", upload.commit().await)?;
    holds(size == LARGE_BYTES as u64, format!("commit says {size} bytes"))?;
    holds(ok("get", store.get(&name, u64::MAX).await)? == bytes, "other bytes came back")?;
    holds(names_under(store, "packs").await? == ["packs/large"], "not listed after the commit")
}

async fn an_upload_dropped_or_aborted_leaves_nothing(store: &dyn Store) -> Outcome {
    let name = name("packs/given-up")?;
    let mut dropped = ok("create", store.create(&name).await)?;
    ok("write", dropped.write(pattern(100_000, 1)).await)?;
    drop(dropped);
    let mut aborted = ok("create", store.create(&name).await)?;
    ok("write", aborted.write(pattern(100_000, 2)).await)?;
    ok("abort", aborted.abort().await)?;
    drop(aborted);
    holds(names_under(store, "").await?.is_empty(), "something is left")?;
    ok("put", store.put_if_absent(&name, Bytes::from_static(b"x")).await)
}

async fn an_empty_upload_is_an_empty_object(store: &dyn Store) -> Outcome {
    let name = name("packs/empty")?;
    let mut upload = ok("create", store.create(&name).await)?;
    holds(ok("commit", upload.commit().await)? == 0, "not empty")?;
    holds(ok("get", store.get(&name, 0).await)?.is_empty(), "not empty")
}

async fn a_listing_shows_every_object_once(store: &dyn Store) -> Outcome {
    let mut expected = BTreeSet::new();
    for i in 0..LISTED_OBJECTS {
        let text = format!("many/{}/{i:05}", i % 7);
        ok("put", store.put_if_absent(&name(&text)?, pattern(i % 5, 1)).await)?;
        expected.insert((text, (i % 5) as u64));
    }
    let mut listing = ok("list", store.list(&prefix("many")?).await)?;
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    while let Some(page) = ok("next page", listing.next_page().await)? {
        holds(page.len() <= 5000, format!("a page of {}", page.len()))?;
        count += page.len();
        seen.extend(page.into_iter().map(|meta| (meta.name.to_string(), meta.size_bytes)));
    }
    holds(count == LISTED_OBJECTS, format!("{count} objects listed"))?;
    holds(seen == expected, "the listing shows other objects")
}

async fn a_prefix_ends_at_a_segment(store: &dyn Store) -> Outcome {
    for text in ["in/packs/1", "in/packs2/1", "in/pack", "in/packs/s/2", "inn/packs/1"] {
        ok("put", store.put_if_absent(&name(text)?, Bytes::new()).await)?;
    }
    holds(names_under(store, "in/packs").await? == ["in/packs/1", "in/packs/s/2"], "wrong objects")?;
    holds(names_under(store, "").await?.len() == 5, "the empty prefix is not everything")
}

async fn directories_are_the_next_segments(store: &dyn Store) -> Outcome {
    for text in ["a/1", "a/2", "b-1/x/y", "file", "c/d/e/f"] {
        ok("put", store.put_if_absent(&name(text)?, Bytes::new()).await)?;
    }
    let top = ok("directories", store.list_directories(&Prefix::root()).await)?;
    holds(top == ["a", "b-1", "c"], format!("{top:?}"))?;
    let inner = ok("directories", store.list_directories(&prefix("c/d")?).await)?;
    holds(inner == ["e"], format!("{inner:?}"))?;
    let none = ok("directories", store.list_directories(&prefix("a")?).await)?;
    holds(none.is_empty(), format!("{none:?}"))
}

async fn a_deleted_object_is_gone_and_its_name_free(store: &dyn Store) -> Outcome {
    let (one, two) = (name("del/s/1")?, name("del/s/2")?);
    for name in [&one, &two] {
        ok("put", store.put_if_absent(name, Bytes::from_static(b"old")).await)?;
    }
    ok("delete", store.delete(&one).await)?;
    ok("delete again", store.delete(&one).await)?;
    holds(!ok("exists", store.exists(&one).await)?, "still there")?;
    holds(names_under(store, "del").await? == ["del/s/2"], "the listing is wrong")?;
    ok("delete", store.delete(&two).await)?;
    ok("put", store.put_if_absent(&one, Bytes::from_static(b"new")).await)?;
    holds(ok("get", store.get(&one, 10).await)? == b"new"[..], "the old content is back")
}

async fn a_directory_may_empty_while_others_write_into_it(store: &dyn Store) -> Outcome {
    let (first, late) = (name("packs/first")?, name("packs/late")?);
    ok("put", store.put_if_absent(&first, Bytes::new()).await)?;
    let mut upload = ok("create", store.create(&late).await)?;
    ok("write", upload.write(Bytes::from_static(b"late")).await)?;
    ok("delete", store.delete(&first).await)?;
    ok("commit", upload.commit().await)?;
    holds(ok("get", store.get(&late, 10).await)? == b"late"[..], "the upload is lost")
}

async fn sweeping_touches_no_object(store: &dyn Store) -> Outcome {
    let name = name("kept/object")?;
    ok("put", store.put_if_absent(&name, Bytes::from_static(b"kept")).await)?;
    ok("sweep", store.sweep_unfinished(Timestamp::MAX).await)?;
    holds(ok("get", store.get(&name, 10).await)? == b"kept"[..], "an object was swept")
}
