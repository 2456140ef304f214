//! Threads that give way: work that may wait while somebody waits for other work.
//!
//! A server holds its log until an archive has it for good, so receiving goes before the
//! compression of what was received. The system's scheduler knows best when there is time for
//! that: these threads have a lower priority, and the whole machine when nobody else wants it.

use tokio::runtime::{Builder, Handle, Runtime};

/// Above what the whole program has: a third of the share of its other threads.
const NICE: i32 = 5;
/// They wait for calls only; what computes has threads of its own.
const WORKERS: usize = 1;

pub(crate) struct GivingWay(Option<Runtime>);

impl GivingWay {
    /// Tasks of this, and what they hand to blocking threads, have the lower priority.
    pub fn start() -> std::io::Result<GivingWay> {
        // Not of the thread that begins another one: that may give way already.
        let priority = rustix::process::getpriority_process(None).unwrap_or_default() + NICE;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("giving way")
            // Where it is not allowed, they are as the others.
            .on_thread_start(move || {
                let _ = rustix::process::setpriority_process(None, priority);
            })
            .enable_all()
            .build()?;
        Ok(GivingWay(Some(runtime)))
    }

    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for GivingWay {
    fn drop(&mut self) {
        // A task of the other runtime must not wait here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_have_the_lower_priority_and_others_keep_theirs() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let own = priority();
        let giving_way = GivingWay::start().unwrap();
        let mut there = tokio::task::JoinSet::new();
        let asked = async move {
            let blocking = tokio::task::spawn_blocking(priority).await.unwrap();
            (priority(), blocking)
        };
        there.spawn_on(asked, &giving_way.handle());
        assert_eq!(there.join_next().await.unwrap().unwrap(), (own + NICE, own + NICE));
        drop(giving_way);
        assert_eq!(priority(), own);
    }
}
