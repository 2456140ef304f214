//! A file server that stops answering, at any call: every verb ends, in bounded time,
//! with one error that says the store is away.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstay_model::error::Classified;
use backstay_model::{ErrorKind, Progress, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Context, Error, backup, collect, expire, list, restore, verify};
use backstay_repo::key::read_key_file;
use backstay_repo::store::disk::DiskStore;
use backstay_repo::store::faulty::{FaultyStore, Injection};
use backstay_repo::store::retry::{Pace, RetryPolicy, RetryStore};
use backstay_repo::store::{Store, StoreError};
use jiff::SignedDuration;
use testkit::PostgresVersion;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::house::House;

/// No test waits for the limits of the product: they go by as soon as the store is silent.
const LIMIT: Duration = Duration::from_secs(60);
/// What one verb may wait by the limits of the product, all its waits added up.
const LONGEST: Duration = Duration::from_secs(1800);

/// Time that passes only while somebody waits for a store that does not answer.
#[derive(Debug)]
struct Turned {
    silent: watch::Receiver<bool>,
    now: Mutex<Duration>,
}

impl Pace for Turned {
    fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn wait<'a: 'b, 'b>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>> {
        let mut silent = self.silent.clone();
        Box::pin(async move {
            silent.wait_for(|silent| *silent).await.unwrap();
            *self.now.lock().unwrap() += duration;
        })
    }

    fn random(&self) -> f64 {
        0.5
    }
}

/// How the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Hangs,
    Stale,
}

/// A store that is away from this call on, and the time that its callers waited.
async fn away(house: &House, from: u64, how: Away) -> Result<(Context, Arc<Turned>), Error> {
    let (turn, silent) = watch::channel(false);
    let pace = Arc::new(Turned { silent, now: Mutex::default() });
    let disk: Arc<dyn Store> = Arc::new(DiskStore::new(house.repository()));
    let store = FaultyStore::new(disk, move |call| {
        if call.number < from {
            return Injection::Pass;
        }
        turn.send_replace(true);
        match how {
            Away::Hangs => Injection::After(Box::pin(std::future::pending())),
            Away::Stale => {
                let stale = std::io::Error::from_raw_os_error(116);
                Injection::Fail(StoreError::from_io(call.operation, &call.object, stale))
            }
        }
    });
    let cancel = CancellationToken::new();
    let retrying = RetryStore::new(Arc::new(store), RetryPolicy::default(), pace.clone(), cancel.clone());
    let (secret, _) = read_key_file(&house.place("repository.key")).unwrap();
    let repo = backstay_ops::open::repository_in(Arc::new(retrying), Some(&secret), None).await?;
    Ok((Context::new(repo, house.clock.clone(), cancel, Arc::new(Progress::new())), pace))
}

async fn run(verb: &str, house: &House, context: &Context, from: u64) -> Result<(), Error> {
    match verb {
        "list" => list::run(context, None).await.map(drop),
        "verify" => {
            let report = verify::run(context, &Subject::All, VerifyLevel::Digest).await?;
            // What could not be looked at is not what was found damaged.
            assert!(report.exit_code() != 20, "call {from}: {report:?}");
            if report.exit_code() == 0 { Ok(()) } else { Err(Error::Cancelled) }
        }
        "backup" => backup::run(context, &house.instance, &BackupOptions::default()).await.map(drop),
        "restore" => {
            let into = house.place(&format!("restored-{from}"));
            let options = RestoreOptions { into: into.clone(), ..RestoreOptions::default() };
            let plan = restore::plan(context, &house.instance, &options).await?;
            let ended = restore::run(context, &house.instance, &options, plan).await;
            assert_eq!(ended.is_ok(), into.join("global/pg_control").exists());
            let _ = std::fs::remove_dir_all(into);
            ended.map(drop)
        }
        "expire" => expire::run(context, &house.instance).await.map(drop),
        _ => collect::run(context, &CollectOptions::default()).await.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falls_silent_at_any_call_ends_every_verb_with_one_clear_error() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    for verb in ["list", "verify", "expire", "collect", "restore", "backup"] {
        let mut from = 1;
        let mut ended = 0;
        loop {
            // The sessions that ended before are dead by now: this process is not.
            house.clock.turn(SignedDuration::from_mins(20));
            let how = if from % 2 == 0 { Away::Stale } else { Away::Hangs };
            let attempt = async {
                let (context, pace) = away(&house, from, how).await?;
                let outcome = run(verb, &house, &context, from).await;
                assert!(pace.elapsed() < LONGEST, "{verb}, call {from}: {:?}", pace.elapsed());
                outcome
            };
            let outcome = tokio::time::timeout(LIMIT, attempt).await;
            match outcome.unwrap_or_else(|_| panic!("{verb} hangs at call {from}")) {
                Ok(()) => break,
                Err(Error::Cancelled) if verb == "verify" => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{verb}, call {from}: {error}");
                    assert!(!error.hints().is_empty(), "{verb}, call {from}: {error}");
                }
            }
            ended += 1;
            // Few calls are tried one by one, many in steps that grow.
            from += 1 + from / 5;
        }
        assert!(ended > 3, "{verb} was over after {ended} calls");
    }
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
}
