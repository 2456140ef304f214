//! The copy: lanes around one planner and one assembler.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::assemble::{Assembler, Done};
use super::lane::{Lane, LaneShared};
use super::plan::{Planner, Work};
use crate::manifest::PackUse;
use crate::{Error, Result};

/// Work handed out and not yet assembled, per lane. One slow extent must not let
/// the others pile up results without bound.
const WINDOW_PER_LANE: u64 = 8;
/// How often a waiting thread looks whether it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

pub struct Copy<'a> {
    pub planner: Planner,
    pub assembler: Assembler,
    pub shared: std::sync::Arc<LaneShared>,
    pub lanes: usize,
    pub cancel: &'a CancellationToken,
}

/// What a copy leaves behind.
pub struct Copied {
    pub planner: Planner,
    pub assembler: Assembler,
    pub packs: Vec<PackUse>,
}

struct Desk<'a> {
    planner: Mutex<PlannerDesk>,
    assembler: Mutex<Assembler>,
    progressed: Condvar,
    failure: Mutex<Option<Error>>,
    stop: CancellationToken,
    cancel: &'a CancellationToken,
    window: u64,
}

struct PlannerDesk {
    planner: Planner,
    issued: u64,
    ended: bool,
}

impl Copy<'_> {
    /// Runs until the source ends, fails or is cancelled. Blocks the calling thread.
    pub fn run(self) -> Result<Copied> {
        let desk = Desk {
            planner: Mutex::new(PlannerDesk { planner: self.planner, issued: 0, ended: false }),
            assembler: Mutex::new(self.assembler),
            progressed: Condvar::new(),
            failure: Mutex::new(None),
            stop: self.cancel.child_token(),
            cancel: self.cancel,
            window: self.lanes as u64 * WINDOW_PER_LANE,
        };
        let mut packs = Vec::new();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..self.lanes {
                let shared = std::sync::Arc::clone(&self.shared);
                let desk = &desk;
                let thread = std::thread::Builder::new()
                    .name(format!("lane-{number}"))
                    .spawn_scoped(scope, move || desk.work(shared));
                match thread {
                    Ok(thread) => threads.push(thread),
                    Err(error) => desk.fail(Error::broken(format!("start a lane: {error}"))),
                }
            }
            for thread in threads {
                match thread.join() {
                    Ok(finished) => packs.extend(finished),
                    Err(_) => desk.fail(Error::broken("a lane panicked")),
                }
            }
        });
        if let Some(error) = unlock(desk.failure.into_inner()) {
            return Err(error);
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut assembler = unlock(desk.assembler.into_inner());
        assembler.close_file()?;
        Ok(Copied { planner: unlock(desk.planner.into_inner()).planner, assembler, packs })
    }
}

impl Desk<'_> {
    fn work(&self, shared: std::sync::Arc<LaneShared>) -> Vec<PackUse> {
        // A lane that panics must not leave the others waiting for its piece.
        let alarm = Alarm(self);
        let result = Lane::new(shared).and_then(|mut lane| {
            while let Some((sequence, work)) = self.take()? {
                let done = match work {
                    Work::Begin(job) => Done::Begin(job),
                    Work::Extent(extent) => Done::Extent(lane.process(*extent)?),
                    Work::Barrier => continue,
                };
                lock(&self.assembler).submit(sequence, done)?;
                self.progressed.notify_all();
            }
            lane.finish()
        });
        let packs = result.unwrap_or_else(|error| {
            self.fail(error);
            Vec::new()
        });
        std::mem::forget(alarm);
        packs
    }

    /// The first error counts; those that follow from it do not.
    fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            let cancelled = self.cancel.is_cancelled();
            *failure = Some(if cancelled { Error::Cancelled } else { error });
        }
        self.stop.cancel();
        self.progressed.notify_all();
    }

    /// The next piece of work with its place in the order.
    fn take(&self) -> Result<Option<(u64, Work)>> {
        let mut desk = lock(&self.planner);
        loop {
            if desk.ended {
                return Ok(None);
            }
            self.wait_until_completed(desk.issued.saturating_sub(self.window))?;
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let next = desk.planner.next();
            // Nothing is asked of a planner that failed: what it says then, half-way through
            // a file, would hide why it failed.
            desk.ended = next.is_err();
            match next? {
                None => desk.ended = true,
                Some(Work::Barrier) => self.wait_until_completed(desk.issued)?,
                Some(work) => {
                    let sequence = desk.issued;
                    desk.issued += 1;
                    return Ok(Some((sequence, work)));
                }
            }
        }
    }

    fn wait_until_completed(&self, pieces: u64) -> Result<()> {
        let mut assembler = lock(&self.assembler);
        while assembler.completed() < pieces {
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            assembler = match self.progressed.wait_timeout(assembler, CANCEL_CHECK) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Ok(())
    }
}

/// Ends the copy when the thread that holds it unwinds.
struct Alarm<'a>(&'a Desk<'a>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.fail(Error::broken("a lane panicked"));
    }
}

/// A lane that panicked has failed the copy already; its locks are only read for the end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unlock<T>(result: std::result::Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
