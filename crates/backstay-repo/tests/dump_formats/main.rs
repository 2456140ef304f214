//! Dumps against the programs that other people open and make them with, both ways, and
//! against damage of every layer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "functions of a test that are not tests themselves")]

mod damage;
mod material;
mod ours;
mod programs;
mod theirs;
