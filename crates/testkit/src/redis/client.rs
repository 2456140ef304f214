//! A client for tests, apart from the one that is tested: one connection, one thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LIMIT: Duration = Duration::from_secs(60);

/// What a server answers (RESP 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nothing,
    Array(Vec<Reply>),
}

impl Reply {
    /// A text or a number, as text.
    pub fn text(&self) -> String {
        match self {
            Reply::Status(text) | Reply::Error(text) => text.clone(),
            Reply::Integer(number) => number.to_string(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Nothing => String::new(),
            Reply::Array(parts) => parts.iter().map(Reply::text).collect::<Vec<_>>().join(" "),
        }
    }
}

#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// # Errors
    /// When nobody listens there.
    pub fn connect_socket(socket: &Path) -> Result<Client> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Client(BufReader::new(stream)))
    }

    /// Sends a command without waiting for its answer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        Ok(self.0.get_mut().write_all(&bytes)?)
    }

    /// The answer to a command that was sent.
    ///
    /// # Errors
    /// When the connection is gone, or what comes is no answer.
    pub fn receive(&mut self) -> Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        let line = line.trim_end_matches(['\r', '\n']);
        let (kind, rest) = line.split_at_checked(1).context("an empty line is no answer")?;
        Ok(match kind {
            "+" => Reply::Status(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(rest.parse()?),
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" => {
                let count = rest.parse::<usize>()?;
                Reply::Array((0..count).map(|_| self.receive()).collect::<Result<_>>()?)
            }
            _ => bail!("{line:?} is no answer"),
        })
    }

    /// # Errors
    /// When the connection is gone. An error of the server is an answer.
    pub fn call<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// # Errors
    /// When the connection is gone, or the server says no.
    pub fn run<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Result<Reply> {
        match self.call(words)? {
            Reply::Error(why) => {
                bail!("{}: {why}", String::from_utf8_lossy(words.first().map_or(b"", AsRef::as_ref)))
            }
            reply => Ok(reply),
        }
    }
}
