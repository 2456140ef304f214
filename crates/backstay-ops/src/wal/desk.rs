//! Files of the log for a server that this process has started: it opened the repository
//! already, and the server's user need not be able to.
//!
//! A server calls this program for each file; with a socket for an address, that one asks
//! here. One request is a name and a line end; one answer is a letter, and for a file that
//! is there its length and its bytes. Whatever is not an answer is a failure: only the
//! letter for an absence is one.
//!
//! The socket lies in a directory that nobody but the server's user may enter.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_repo::large_buffer::large_buffer;
use backstay_repo::large_write;
use rustix::fs::{Gid, Uid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::foresight::{Foreseen, Foresight};
use super::{Answer, Fetched, LogFileName, LogSource};
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

pub(super) const THERE: u8 = b'T';
/// It lies where the server takes it.
const PLACED: u8 = b'P';
const ABSENT: u8 = b'A';
pub(super) const FAILED: u8 = b'F';
const NAME_MAX: u64 = 128;
/// A file comes from a store that may be far away.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);

/// Answers as long as it lives.
pub(crate) struct Desk {
    socket: PathBuf,
    /// Why the last file was not given out.
    failure: Arc<Mutex<Option<Error>>>,
    _answering: JoinSet<()>,
}

impl Desk {
    pub fn open(
        context: &Context,
        source: LogSource,
        directory: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<Desk> {
        let socket = directory.join("log-desk");
        let failed = |source| backstay_engine::Error::Write { path: socket.clone(), source };
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        if let Some((user, group)) = owner {
            rustix::fs::chown(&socket, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(|error| failed(error.into()))?;
        }
        let failure = Arc::new(Mutex::new(None));
        let mut answering = JoinSet::new();
        let (context, noted) = (context.clone(), Arc::clone(&failure));
        answering.spawn(async move {
            let mut foresight = Foresight::new(&context, source, None);
            // A server asks for one file after the other.
            while let Ok((stream, _)) = listener.accept().await {
                if let Err(error) = serve(&mut foresight, stream, &Serves::Everything).await {
                    tracing::debug!(%error, "a file of the log was not given out");
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        });
        Ok(Desk { socket, failure, _answering: answering })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The reason why a server did not get what it asked for.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn broken(error: io::Error) -> Error {
    Error::broken(format!("the desk of the log: {error}"))
}

/// What is asked for, and where the answer goes. Nothing is asked by who only looks whether
/// somebody is there.
pub(super) async fn question(stream: UnixStream) -> Result<(String, OwnedWriteHalf)> {
    let (reading, writing) = stream.into_split();
    let mut name = String::new();
    BufReader::new(reading.take(NAME_MAX)).read_line(&mut name).await.map_err(broken)?;
    name.truncate(name.trim_end().len());
    Ok((name, writing))
}

/// What is given out without a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serves {
    Everything,
    /// That there is nothing, or nothing behind, is for whoever asks to find out. One that is
    /// written already gets this name.
    WholeSegments(PathBuf),
}

pub(super) async fn serve(foresight: &mut Foresight, stream: UnixStream, serves: &Serves) -> Result<()> {
    let (name, mut writing) = question(stream).await?;
    if name.is_empty() {
        return Ok(());
    }
    let Ok(name) = name.parse::<LogFileName>() else {
        // Nothing of such a name is ever archived.
        return writing.write_all(&[ABSENT]).await.map_err(broken);
    };
    let foreseen = foresight.answer(&name).await;
    let answer = match (foreseen, serves) {
        (Ok(Foreseen::File(file)), Serves::WholeSegments(to)) => {
            // Whoever asked may have been stopped, and another one may write there by now.
            let ready =
                AsRef::<UnixStream>::as_ref(&writing).ready(Interest::WRITABLE).await.map_err(broken)?;
            if ready.is_write_closed() {
                return Ok(());
            }
            let to = to.clone();
            let placed = off_thread(move || Ok(file.name(&to).is_ok())).await?;
            return writing.write_all(&[if placed { PLACED } else { FAILED }]).await.map_err(broken);
        }
        (Ok(Foreseen::File(_)), Serves::Everything) => Err(Error::broken("a file that nobody asked for")),
        (Ok(Foreseen::Answer(answer)), _) => Ok(answer),
        (Err(error), _) => Err(error),
    };
    match answer {
        Ok(Answer::Absent | Answer::There { end: Some(_), .. }) if *serves != Serves::Everything => {
            writing.write_all(&[FAILED]).await.map_err(broken)
        }
        Ok(Answer::There { bytes, .. }) => {
            let mut head = vec![THERE];
            head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            writing.write_all(&head).await.map_err(broken)?;
            writing.write_all(&bytes).await.map_err(broken)
        }
        Ok(Answer::Absent) => writing.write_all(&[ABSENT]).await.map_err(broken),
        Err(error) => {
            // Its end of the connection tells it as well.
            let _ = writing.write_all(&[FAILED]).await;
            Err(error)
        }
    }
}

/// The first letter of the answer, and where the rest comes from.
pub(super) fn ask_letter(
    mut stream: BlockingStream,
    name: &str,
    patience: Duration,
) -> io::Result<(u8, BlockingStream)> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut letter = [0];
    stream.read_exact(&mut letter)?;
    Ok((letter[0], stream))
}

/// For a server that was started with this address of a desk. Blocks.
pub fn ask_desk(socket: &Path, name: &str, to: &Path) -> Result<Fetched> {
    ask(socket, name, to, ANSWER_LIMIT)
}

/// The other side: asks for a file, and writes it. Blocks.
pub(super) fn ask(socket: &Path, name: &str, to: &Path, patience: Duration) -> Result<Fetched> {
    let read = |source| Error::ReadLogFile { path: socket.to_owned(), source };
    let stream = BlockingStream::connect(socket).map_err(read)?;
    let (letter, mut stream) = ask_letter(stream, name, patience).map_err(read)?;
    match letter {
        ABSENT => Ok(Fetched::Absent),
        PLACED => Ok(Fetched::Written),
        THERE => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).map_err(read)?;
            let length = u64::from_le_bytes(length);
            let mut bytes = large_buffer(length as usize);
            stream.take(length).read_to_end(&mut bytes).map_err(read)?;
            if bytes.len() as u64 != length {
                return Err(read(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            large_write::write(to, &bytes)
                .map_err(|source| Error::WriteLogFile { path: to.to_owned(), source })?;
            Ok(Fetched::Written)
        }
        _ => Err(read(io::Error::other("the file could not be fetched"))),
    }
}
