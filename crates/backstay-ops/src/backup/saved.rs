//! The way in that a base of Redis takes: the file that the server saves, where its directory is
//! named, and the network otherwise.
//!
//! Whatever is wrong with the one way, the backup is made on the other, and says so.

use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::base::RedisBase;
use backstay_engine::redis::saved::is_of_the_way;
use backstay_engine::redis::settings::Address;
use backstay_model::Finding;
use backstay_model::error::Classified;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::instance::Instance;
use crate::status::with_causes;

pub(super) async fn begin(
    address: &Address,
    instance: &Instance,
    settings: &RedisSettings,
    cancel: CancellationToken,
) -> Result<RedisBase> {
    let Some(directory) = &settings.data_directory else {
        return Ok(RedisBase::begin(address, cancel).await?);
    };
    let error = match RedisBase::saved(address, directory, cancel.clone()).await {
        Err(error) if is_of_the_way(&error) => error,
        ended => return Ok(ended?),
    };
    let base = RedisBase::begin(address, cancel).await?;
    let remedy = error.hints().into_iter().next().unwrap_or_else(|| {
        format!("run as a user who may read it, or take `data_directory` out of [instance.{}]", instance.id)
    });
    base.outcome.find(Finding::warning(
        directory.display().to_string(),
        format!(
            "no snapshot could be saved there, so the base came over the network: {}",
            with_causes(&error)
        ),
        remedy,
    ));
    Ok(base)
}
