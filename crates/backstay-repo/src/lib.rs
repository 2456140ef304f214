//! backstay-repo
