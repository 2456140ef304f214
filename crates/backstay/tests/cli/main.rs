//! The real program, as a person runs it: words in, exit code, standard output and
//! standard error out. Real PostgreSQL servers, no mocks.

mod bad_configuration;
mod bad_input;
mod during_backup;
mod help;
mod program;
mod settings;
mod space;
mod story;
