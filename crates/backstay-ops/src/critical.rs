//! What must not be left in the middle, however often somebody asks: the moments in which
//! a database that others use lets nobody in.
//!
//! One for the whole process, because a signal is for the whole process. Whoever is inside
//! has limits of his own; nothing waits here for longer than these.

use std::sync::LazyLock;

use tokio::sync::watch;

static INSIDE: LazyLock<watch::Sender<u32>> = LazyLock::new(|| watch::Sender::new(0));

/// The process is not ended as long as this lives.
#[derive(Debug)]
pub(crate) struct Section(());

impl Section {
    pub fn enter() -> Section {
        INSIDE.send_modify(|inside| *inside += 1);
        Section(())
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        INSIDE.send_modify(|inside| *inside -= 1);
    }
}

pub fn is_inside() -> bool {
    *INSIDE.borrow() > 0
}

/// Waits until nothing is in the middle.
pub async fn left() {
    // The sender lives as long as the process.
    let _ = INSIDE.subscribe().wait_for(|inside| *inside == 0).await;
}
