//! Whether a server that is ahead of what is stored has done anything there, or only said its own words.

use std::path::Path;
use std::time::{Duration, Instant};

use backstay_engine::redis::facts::StreamSource;
use backstay_model::status::ArchiveStatus;

use crate::archive::redis::quiet::Quiet;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// So much of such words may be on their way to the archive.
const ON_ITS_WAY: u64 = 1 << 10;
/// What the server has just said is known to the archive so soon.
const LIMIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);

/// Where an archive of this machine has received everything, and nothing behind what is stored changes any
/// data, nothing is missing.
pub(super) async fn settle(
    context: &Context,
    archive: &mut ArchiveStatus,
    source: &StreamSource,
    spool: &Path,
) -> Result<()> {
    let Some(lag) = archive.lag_bytes.filter(|lag| *lag > 0) else { return Ok(()) };
    let stored = source.offset - lag.min(source.offset);
    let begun = Instant::now();
    loop {
        let directory = spool.to_owned();
        let found = off_thread(move || Ok(Quiet::read(&directory))).await?;
        let is_behind =
            |quiet: &Quiet| quiet.replication_id == source.replication_id && quiet.since <= stored;
        let Some(quiet) = found.filter(is_behind) else { return Ok(()) };
        if quiet.until >= source.offset {
            archive.lag_bytes = Some(0);
            return Ok(());
        }
        let is_to_come = source.is_received && source.offset - quiet.until <= ON_ITS_WAY;
        if !is_to_come || begun.elapsed() > LIMIT {
            return Ok(());
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Err(Error::Cancelled),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
