//! Rules that a person sets once and that hold every day.

pub mod retention;

pub use retention::{ExpirePlan, KeepReason, RetentionPolicy, plan_expire};
