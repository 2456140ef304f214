//! backstay-daemon
