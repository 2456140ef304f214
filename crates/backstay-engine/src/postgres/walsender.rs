//! The replication protocol: an own client, since no driver speaks it whole.
