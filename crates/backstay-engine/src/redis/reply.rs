//! Commands and answers as bytes (RESP 2).
//!
//! Refuses lengths that make no sense: none must become an allocation.

use bytes::{Buf, Bytes, BytesMut};

/// The largest answer that is taken whole: a listing of settings has some hundred KiB.
const BULK_MAX: usize = 64 << 20;
const ARRAY_MAX: usize = 1 << 20;
const LINE_MAX: usize = 64 << 10;
/// Arrays within arrays, at most.
const DEPTH_MAX: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Nothing,
    Array(Vec<Reply>),
}

impl Reply {
    /// What is a text, as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Status(text) => Some(text.clone()),
            Reply::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Reply::Integer(number) => Some(number.to_string()),
            Reply::Error(_) | Reply::Nothing | Reply::Array(_) => None,
        }
    }

    pub fn array(self) -> Option<Vec<Reply>> {
        match self {
            Reply::Array(parts) => Some(parts),
            _ => None,
        }
    }
}

/// What no server would send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Behind what is there in `into`.
pub fn encode<T: AsRef<[u8]>>(words: &[T], into: &mut BytesMut) {
    into.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        into.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        into.extend_from_slice(word);
        into.extend_from_slice(b"\r\n");
    }
}

/// Takes one answer off the front; nothing while it is not complete.
///
/// # Errors
///
/// Where it can never become one.
pub fn decode(input: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
    let Some(end) = extent(input, 0, 0)? else { return Ok(None) };
    let mut whole = input.split_to(end).freeze();
    take(&mut whole).map(Some)
}

/// Where the answer that begins here ends, if that is there.
fn extent(input: &[u8], at: usize, depth: u32) -> Result<Option<usize>, Malformed> {
    let Some((line, behind)) = line_at(input, at)? else { return Ok(None) };
    match line.first() {
        Some(b'+' | b'-' | b':') => Ok(Some(behind)),
        Some(b'$') => match length(line, BULK_MAX)? {
            None => Ok(Some(behind)),
            Some(length) => Ok(Some(behind + length + 2).filter(|end| *end <= input.len())),
        },
        Some(b'*') if depth < DEPTH_MAX => {
            let mut end = behind;
            for _ in 0..length(line, ARRAY_MAX)?.unwrap_or(0) {
                match extent(input, end, depth + 1)? {
                    Some(next) => end = next,
                    None => return Ok(None),
                }
            }
            Ok(Some(end))
        }
        _ => Err(Malformed(format!("an answer begins with {:?}", String::from_utf8_lossy(line)))),
    }
}

fn line_at(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    let rest = input.get(at..).unwrap_or_default();
    match memchr::memchr(b'\n', rest) {
        Some(end) => {
            let line = rest.get(..end).unwrap_or_default();
            let line =
                line.strip_suffix(b"\r").ok_or_else(|| Malformed("a line ends without CR".to_owned()))?;
            Ok(Some((line, at + end + 1)))
        }
        None if rest.len() > LINE_MAX => Err(Malformed("a line does not end".to_owned())),
        None => Ok(None),
    }
}

/// Nothing stands for no value at all.
fn length(line: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
    let text = std::str::from_utf8(line.get(1..).unwrap_or_default()).unwrap_or_default();
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(Malformed(format!("a length of {length}"))),
        },
        Err(_) => Err(Malformed(format!("a length of {text:?}"))),
    }
}

/// Of bytes that hold a whole one.
fn take(input: &mut Bytes) -> Result<Reply, Malformed> {
    let Some((line, behind)) = line_at(input, 0)? else {
        return Err(Malformed("an answer is cut".to_owned()));
    };
    let text = || String::from_utf8_lossy(line.get(1..).unwrap_or_default()).into_owned();
    let reply = match line.first() {
        Some(b'+') => Reply::Status(text()),
        Some(b'-') => Reply::Error(text()),
        Some(b':') => {
            Reply::Integer(text().parse().map_err(|_| Malformed(format!("a number {:?}", text())))?)
        }
        Some(b'$') => match length(line, BULK_MAX)? {
            None => Reply::Nothing,
            Some(length) => {
                let bytes = input.slice(behind..behind + length);
                input.advance(behind + length + 2);
                return Ok(Reply::Bulk(bytes));
            }
        },
        _ => match length(line, ARRAY_MAX)? {
            None => Reply::Nothing,
            Some(count) => {
                input.advance(behind);
                return (0..count).map(|_| take(input)).collect::<Result<_, _>>().map(Reply::Array);
            }
        },
    };
    input.advance(behind);
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Option<Reply>, Malformed> {
        decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn an_answer_is_taken_when_its_last_byte_is_there_and_not_before() {
        let bytes = b"*5\r\n+OK\r\n:-7\r\n$3\r\na\0\n\r\n$-1\r\n*1\r\n$0\r\n\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(all(&bytes[..cut]), Ok(None), "{cut}");
        }
        let mut input = BytesMut::from(&bytes[..]);
        input.extend_from_slice(b"-ERR next");
        let expected = Reply::Array(vec![
            Reply::Status("OK".into()),
            Reply::Integer(-7),
            Reply::Bulk(Bytes::from_static(b"a\0\n")),
            Reply::Nothing,
            Reply::Array(vec![Reply::Bulk(Bytes::new())]),
        ]);
        assert_eq!(decode(&mut input), Ok(Some(expected)));
        assert_eq!(&input[..], b"-ERR next");
    }

    #[test]
    fn what_no_server_sends_is_refused_before_it_is_waited_for() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"$99999999999\r\n",
            b"$-2\r\n",
            b"*x\r\n",
            b"*1048577\r\n",
            b":x\r\n",
            b"+OK\n",
        ] {
            assert!(all(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(all(&[b'+'; LINE_MAX + 2]).is_err());
        let deep = b"*1\r\n".repeat(40);
        assert!(all(&deep).is_err());
    }

    #[test]
    fn a_command_is_read_as_it_was_written() {
        let mut bytes = BytesMut::new();
        encode(&[&b"SET"[..], b"k\r\n", b""], &mut bytes);
        assert_eq!(&bytes[..], b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n");
        let words: Vec<_> = decode(&mut bytes).unwrap().unwrap().array().unwrap();
        assert_eq!(words, [&b"SET"[..], b"k\r\n", b""].map(|word| Reply::Bulk(Bytes::copy_from_slice(word))));
    }
}
