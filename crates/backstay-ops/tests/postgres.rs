//! The operations on a real PostgreSQL and a real repository on disk.
#![allow(clippy::unwrap_used, reason = "all of this is test code, also the functions that tests share")]

#[path = "postgres/bad_days.rs"]
mod bad_days;
#[path = "postgres/bad_input.rs"]
mod bad_input;
#[path = "postgres/clock_jumps.rs"]
mod clock_jumps;
#[path = "postgres/damage.rs"]
mod damage;
#[path = "postgres/held.rs"]
mod held;
#[path = "postgres/house.rs"]
mod house;
#[path = "postgres/judges.rs"]
mod judges;
#[path = "postgres/late_tablespaces.rs"]
mod late_tablespaces;
#[path = "postgres/leftovers.rs"]
mod leftovers;
#[path = "postgres/notes.rs"]
mod notes;
#[path = "postgres/old_copy.rs"]
mod old_copy;
#[path = "postgres/retention.rs"]
mod retention;
#[path = "postgres/same_schema.rs"]
mod same_schema;
#[path = "postgres/shared_damage.rs"]
mod shared_damage;
#[path = "postgres/silent_store.rs"]
mod silent_store;
#[path = "postgres/story.rs"]
mod story;
#[path = "postgres/wrong_pages.rs"]
mod wrong_pages;
