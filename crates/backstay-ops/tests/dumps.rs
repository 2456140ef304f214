//! Dumps on a shelf, taken from a real PostgreSQL: what is known of them, what a
//! verification finds, and what retention lets go.
#![allow(clippy::unwrap_used, reason = "all of this is test code, also the functions that tests share")]

#[path = "dumps/expiring.rs"]
mod expiring;
#[path = "dumps/held.rs"]
mod held;
#[path = "dumps/interrupted.rs"]
mod interrupted;
#[path = "dumps/known.rs"]
mod known;
#[path = "dumps/named.rs"]
mod named;
#[path = "dumps/shelf.rs"]
mod shelf;
#[path = "dumps/verifying.rs"]
mod verifying;
