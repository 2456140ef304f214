//! Somebody who stays behind when we are killed.
//!
//! A process that is killed runs no destructor, and its server would go on, holding
//! memory and a directory that nobody looks for. So a shell waits at a pipe whose
//! other end only we hold: the kernel closes it, however we end.
//!
//! Invariant: while the guard lives, the number it knows is the server's. It goes
//! before the server's end is collected by others, and so never kills a stranger.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Error, Result};

/// Nothing is ever written to the pipe: `read` returns when it is closed.
const WATCH: &str = r#"read -r _; kill -s "$1" "$2"; rm -rf -- "$3""#;

pub(crate) struct Guard(Child);

impl Guard {
    /// Watches over a server and its private directory, as their owner. The signal is
    /// the name of the one that ends the server at once.
    pub(crate) fn post(
        server: &Child,
        signal: &str,
        private: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<Guard> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "sh", signal]).arg(server.id().to_string()).arg(private);
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // What is sent to our whole group must not reach it.
        command.process_group(0);
        let watching =
            command.spawn().map_err(|source| Error::Program { program: "sh".to_owned(), source })?;
        Ok(Guard(watching))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // In this order: the wait closes the pipe. It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
