//! The way between the archive and its server, which can be led to another server, hang
//! and be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

const PIECE_BYTES: usize = 64 << 10;

struct State {
    server: u16,
    /// Nothing comes through, and nothing ends.
    is_stalled: bool,
    /// Connections with a lower number hang for ever.
    stranded_below: u64,
    /// What clients with a lower number say is lost.
    silent_below: u64,
    /// The first connection whose server says so much has one bit of it changed.
    spoiled_at: Option<usize>,
    next_number: u64,
    is_over: bool,
    open: Vec<TcpStream>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy. Its threads end with it.
pub struct Way {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Way {
    /// # Errors
    /// When there is no port to listen on.
    pub fn to(server: u16) -> Result<Way> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen for the archive")?;
        let port = listener.local_addr()?.port();
        let state = State {
            server,
            is_stalled: false,
            stranded_below: 0,
            silent_below: 0,
            spoiled_at: None,
            next_number: 0,
            is_over: false,
            open: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.state().is_over {
                    return;
                }
                let shared = Arc::clone(&own);
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Ok(Way { port, shared })
    }

    /// New connections go to this port.
    pub fn lead_to(&self, server: u16) {
        self.shared.state().server = server;
    }

    pub fn stall(&self) {
        self.shared.state().is_stalled = true;
    }

    pub fn resume(&self) {
        self.shared.state().is_stalled = false;
        self.shared.changed.notify_all();
    }

    /// The connections that there are hang for ever, as when a machine is gone: new ones come
    /// through.
    pub fn strand(&self) {
        let mut state = self.shared.state();
        state.stranded_below = state.next_number;
    }

    /// What the clients of the connections that there are say never arrives; they hear on.
    pub fn silence(&self) {
        let mut state = self.shared.state();
        state.silent_below = state.next_number;
    }

    /// Changes one bit of the byte at this place of what the server says, of the first connection that
    /// gets so far, and never again.
    pub fn spoil(&self, at: usize) {
        self.shared.state().spoiled_at = Some(at);
    }

    /// Whether a bit was changed since.
    pub fn has_spoiled(&self) -> bool {
        self.shared.state().spoiled_at.is_none()
    }

    /// Ends every connection that there is.
    pub fn cut(&self) {
        for stream in self.shared.state().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.resume();
        self.cut();
        // Whoever waits for the next one learns that there is none.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_stalled(&self, number: u64) {
        let stalled =
            |state: &mut State| (state.is_stalled || number < state.stranded_below) && !state.is_over;
        drop(self.changed.wait_while(self.state(), stalled));
    }

    fn connect(self: Arc<Shared>, client: TcpStream) {
        let number = {
            let mut state = self.state();
            state.next_number += 1;
            state.next_number - 1
        };
        self.wait_while_stalled(number);
        let port = self.state().server;
        // Where no server is, the connection ends, as one that was refused.
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let Ok(pairs) = (|| {
            self.state().open.extend([client.try_clone()?, server.try_clone()?]);
            std::io::Result::Ok((client.try_clone()?, server.try_clone()?))
        })() else {
            return;
        };
        let shared = Arc::clone(&self);
        std::thread::spawn(move || shared.pass(number, false, server, client));
        self.pass(number, true, pairs.0, pairs.1);
    }

    fn pass(&self, number: u64, is_of_client: bool, mut from: TcpStream, mut to: TcpStream) {
        let (mut piece, mut passed) = (vec![0; PIECE_BYTES], 0);
        loop {
            let count = from.read(&mut piece).unwrap_or(0);
            self.wait_while_stalled(number);
            if count > 0 && is_of_client && number < self.state().silent_below {
                continue;
            }
            if !is_of_client {
                let spoiled = &mut self.state().spoiled_at;
                if let Some(at) = spoiled.take_if(|at| (passed..passed + count).contains(at)) {
                    piece[at - passed] ^= 1;
                }
            }
            passed += count;
            if count == 0 || to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
