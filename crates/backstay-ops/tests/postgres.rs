//! The operations on a real PostgreSQL and a real repository on disk.

#[path = "postgres/bad_input.rs"]
mod bad_input;
#[path = "postgres/damage.rs"]
mod damage;
#[path = "postgres/house.rs"]
mod house;
#[path = "postgres/retention.rs"]
mod retention;
#[path = "postgres/story.rs"]
mod story;
