//! Recover: a private server on a restored directory replays the log in it.

use backstay_engine::postgres::facts::ServerFacts;
use backstay_engine::postgres::programs::Programs;
use backstay_engine::postgres::scratch::{Scratch, ScratchOptions};

use super::place::Placed;
use crate::context::Context;
use crate::error::Result;
use crate::instance::Instance;

/// What becomes of the directory afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterlife {
    /// It is going to be used: everything reaches the disk, nothing is added.
    Used,
    /// It is thrown away.
    Discarded,
}

/// Refuses where no server could be started on what is restored. Asked before the
/// first byte: hours of placing are too long a way to this answer.
pub(crate) fn check(instance: &Instance, server: &ServerFacts) -> Result<()> {
    Programs::find(server.major(), instance.postgres()?.bin_directory.as_deref())?;
    Ok(())
}

pub(crate) async fn start(
    context: &Context,
    instance: &Instance,
    placed: &Placed,
    afterlife: Afterlife,
) -> Result<Scratch> {
    context.progress.enter("recover");
    let options = ScratchOptions {
        bin_directory: instance.postgres()?.bin_directory.clone(),
        durable: afterlife == Afterlife::Used,
        ..ScratchOptions::default()
    };
    Ok(Scratch::start(&placed.directory, &placed.facts.server, &options, &context.cancel).await?)
}
