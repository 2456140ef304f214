//! What the user of a backup must be allowed to do.
//!
//! All of these only read. `psync` gives everything that a server holds to whoever may call it:
//! the password is worth as much as the data.

/// The commands that are called, as rules of an access list.
pub const RULES: &str = "+psync +replconf +ping +info +role +config|get +acl|list +module|list +cluster|shards \
                         +client|setname";

/// What the user needs besides where the server is to save its snapshot itself. It writes no key, and
/// the server's own file.
pub const SAVE_STATEMENT: &str = "ACL SETUSER backstay +bgsave";

/// Makes such a user. The password is put in by whoever runs it.
pub const STATEMENT: &str = "ACL SETUSER backstay on >PASSWORD resetkeys resetchannels -@all +psync +replconf +ping \
                             +info +role +config|get +acl|list +module|list +cluster|shards +client|setname";

/// The same of a Sentinel, which has an access list of its own.
pub const SENTINEL_STATEMENT: &str = "ACL SETUSER backstay on >PASSWORD resetkeys resetchannels -@all +ping \
                                      +client|setname +sentinel|get-master-addr-by-name +sentinel|masters \
                                      +sentinel|replicas";
