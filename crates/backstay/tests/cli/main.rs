//! The real program, as a person runs it: words in, exit code, standard output and
//! standard error out. Real PostgreSQL servers, no mocks.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "all of this is test code, also the functions that tests share"
)]

mod adopted;
mod archive_refusals;
mod archives;
mod attendants;
mod bad_configuration;
mod bad_input;
mod broken_redis_dumps;
mod broken_restore;
mod by_hand;
mod chosen_statements;
mod closed_places;
mod cluster_dumps;
mod cut_collections;
mod cut_dumps;
mod cut_leashes;
mod damaged_restore;
mod deadlocks;
mod dump_lacks;
mod dump_phrases;
mod dumps;
mod dumps_kept;
mod during_backup;
mod exports;
mod failed_drills;
mod failing_disk;
mod fifty_kills;
mod foreign_owner;
mod foreign_statements;
mod full_disks;
mod globals;
mod help;
mod holds;
mod hooks;
mod hypertable_reloads;
mod in_place;
mod init;
mod killed_swaps;
mod lasting;
mod leash;
mod linked_log;
mod log_kept;
mod lost_servers;
mod other_engines;
mod packed_dumps;
mod pointers;
mod points_in_time;
mod program;
mod proxy;
mod pushes;
mod quiet;
mod rates;
mod recovery_kit;
mod redis_append_only_sets;
mod redis_bad_input;
mod redis_bases;
mod redis_beginnings;
mod redis_breaks;
mod redis_clocks;
mod redis_cut_restores;
mod redis_damage;
mod redis_dumps;
mod redis_failovers;
mod redis_idle;
mod redis_lineages;
mod redis_programs;
mod redis_replicas;
mod redis_saved;
mod redis_set_aside;
mod redis_set_expiry;
mod redis_slow_stores;
mod redis_spools;
mod redis_streams;
mod reloads;
mod second_life;
mod second_signal;
mod settings;
mod several;
mod space;
mod spoiled_copies;
mod starting;
mod stopped_drills;
mod story;
mod synchronous;
mod tablespaces;
mod takeovers;
mod torture;
mod unharmed;
mod windows;
