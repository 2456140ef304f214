//! A way to a server that breaks where a test wants it: at the first statement with
//! certain words in it, which it sees because the way is not encrypted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use testkit::Postgres;

use super::program::Home;

/// What becomes of the connection with the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// It ends, and the server never hears the words.
    Before,
    /// The server hears them, and its answer is lost with the connection.
    After,
    /// Nothing is passed on to the server any more; what it says still is, also its end.
    Hold,
    /// Nothing comes through this connection or any other, and none ends.
    Stall,
}

struct Way {
    /// One after the other, in one connection.
    words: Vec<String>,
    how: Break,
    /// The words came.
    is_broken: bool,
    /// All connections hang from now on.
    is_stalled: bool,
}

struct Shared {
    way: Mutex<Way>,
    broken: Condvar,
    server: u16,
}

/// Lives as long as the test; its threads end with their connections.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn to(server: &Postgres) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Way { words: Vec::new(), how: Break::Before, is_broken: false, is_stalled: false };
        let shared = Arc::new(Shared { way: Mutex::new(way), broken: Condvar::new(), server: server.port() });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Proxy { port, shared }
    }

    /// Breaks once, at the next statement with these words; of several, with `…` between
    /// them, at the last when the others came before it.
    pub fn break_at(&self, words: &str, how: Break) {
        let mut way = self.shared.way.lock().unwrap();
        let words = words.split(" … ").map(str::to_owned).collect();
        *way = Way { words, how, is_broken: false, is_stalled: false };
    }

    /// Waits until the words came; whether they did.
    pub fn is_broken_within(&self, limit: Duration) -> bool {
        let way = self.shared.way.lock().unwrap();
        let (way, _) = self.shared.broken.wait_timeout_while(way, limit, |way| !way.is_broken).unwrap();
        way.is_broken
    }
}

impl Shared {
    fn connect(self: Arc<Shared>, client: TcpStream) {
        if self.way.lock().unwrap().is_stalled {
            self.hang();
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let is_deaf = Arc::new(Mutex::new(false));
        let (shared, deaf) = (Arc::clone(&self), Arc::clone(&is_deaf));
        std::thread::spawn(move || shared.down(from, to, &deaf));
        self.up(client, server, &is_deaf);
    }

    /// From the client to the server, and looks for the words.
    fn up(&self, mut client: TcpStream, mut server: TcpStream, is_deaf: &Mutex<bool>) {
        let mut piece = vec![0; 64 << 10];
        let mut seen: Vec<u8> = Vec::new();
        let mut known = 0;
        loop {
            let count = client.read(&mut piece).unwrap_or(0);
            let how = {
                let mut way = self.way.lock().unwrap();
                seen.extend_from_slice(&piece[..count]);
                while let Some(words) = way.words.get(known).map(String::as_bytes)
                    && let Some(at) = seen.windows(words.len()).position(|part| part == words)
                {
                    seen.drain(..at + words.len());
                    known += 1;
                }
                let is_there = known > 0 && known == way.words.len();
                let longest = way.words.iter().map(String::len).max().unwrap_or(0);
                seen.drain(..seen.len().saturating_sub(longest));
                (is_there && !way.is_broken).then(|| {
                    way.is_broken = true;
                    way.is_stalled = way.how == Break::Stall;
                    self.broken.notify_all();
                    way.how
                })
            };
            match how {
                None if self.way.lock().unwrap().is_stalled => {
                    self.hang();
                    break;
                }
                None => {}
                Some(Break::Before) => break,
                Some(Break::After) => *is_deaf.lock().unwrap() = true,
                Some(Break::Hold) => {
                    // Until its client gives it up.
                    while client.read(&mut piece).is_ok_and(|count| count > 0) {}
                    break;
                }
                Some(Break::Stall) => {
                    self.hang();
                    break;
                }
            }
            if count == 0 || server.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }

    /// From the server to the client.
    fn down(&self, mut server: TcpStream, mut client: TcpStream, is_deaf: &Mutex<bool>) {
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = server.read(&mut piece).unwrap_or(0);
            if self.way.lock().unwrap().is_stalled {
                self.hang();
                break;
            }
            if count == 0 || *is_deaf.lock().unwrap() || client.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }

    /// Whoever waits here keeps his connections open for as long as the way is stalled.
    fn hang(&self) {
        let way = self.way.lock().unwrap();
        let limit = Duration::from_secs(600);
        drop(self.broken.wait_timeout_while(way, limit, |way| way.is_stalled).unwrap());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Ok(mut way) = self.shared.way.lock() {
            way.is_stalled = false;
        }
        self.shared.broken.notify_all();
    }
}

/// A proxy, and the home whose instance goes through it from now on.
pub fn between(server: &Postgres, home: &Home) -> Proxy {
    let proxy = Proxy::to(server);
    let text = std::fs::read_to_string(home.config()).unwrap();
    let url = server.url_as(testkit::postgres::SUPERUSER);
    assert!(text.contains(&url), "{url} in {text}");
    let through = url.replace(&format!(":{}", server.port()), &format!(":{}", proxy.port));
    std::fs::write(home.config(), text.replace(&url, &format!("{through}?connect_timeout=2"))).unwrap();
    proxy
}
