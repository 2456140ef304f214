//! A base backup over the replication protocol.
