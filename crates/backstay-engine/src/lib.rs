//! backstay-engine
