//! Deleting log that a plan lets go.
//!
//! Refuses nothing by itself: which log no base needs, only those know who know what it
//! means. What must be asked first is [`Repo::is_being_written`].

use backstay_model::{InstanceId, LogId, LogSpan};

use crate::Result;
use crate::layout::{InstanceLayout, ObjectName};
use crate::repo::Repo;

impl Repo {
    pub fn log_object_name(&self, instance: &InstanceId, log: &LogId, span: LogSpan) -> Result<ObjectName> {
        Ok(InstanceLayout::new(instance.clone()).log_object(log, span)?)
    }

    pub fn log_history_name(&self, instance: &InstanceId, log: &LogId) -> Result<ObjectName> {
        Ok(InstanceLayout::new(instance.clone()).log_history(log)?)
    }

    /// Deletes objects of the log one after the other, in this order: what is left after a
    /// stop in between is what a listing shows, without a hole where they lay in order.
    pub async fn delete_log(&self, objects: &[ObjectName], stop: impl Fn() -> Result<()>) -> Result<()> {
        for object in objects {
            stop()?;
            self.store().delete(object).await?;
        }
        Ok(())
    }
}
