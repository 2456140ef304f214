//! Rules that a person sets once and that hold every day.

pub mod log;
pub mod retention;

pub use log::{LogExpiry, LogReason, plan_log, superseded};
pub use retention::{ExpirePlan, KeepReason, RetentionPolicy, plan_expire};
