//! backstay-ops
