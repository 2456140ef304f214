//! A reader whose first bytes can be looked at before they are read.

use std::io::{self, Read};

pub(super) struct Peeked<R> {
    head: Vec<u8>,
    given: usize,
    /// What happened while looking is told to whoever reads as far.
    failed: Option<io::Error>,
    is_whole: bool,
    inner: R,
}

impl<R: Read> Peeked<R> {
    /// Looks at the first `bytes`, or at fewer where it ends or fails before.
    pub fn look(mut inner: R, bytes: usize) -> Self {
        let mut head = Vec::new();
        let read = inner.by_ref().take(bytes as u64).read_to_end(&mut head);
        let is_whole = read.is_ok() && head.len() < bytes;
        Self { head, given: 0, failed: read.err(), is_whole, inner }
    }

    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Nothing comes after the head.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.head[self.given..];
        if !left.is_empty() {
            let length = left.len().min(buffer.len());
            buffer[..length].copy_from_slice(&left[..length]);
            self.given += length;
            return Ok(length);
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None if self.is_whole => Ok(0),
            None => self.inner.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails;

    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no more"))
        }
    }

    #[test]
    fn what_was_looked_at_is_read_and_an_error_comes_after_it() {
        let mut peeked = Peeked::look(b"abcdef".as_slice(), 4);
        assert_eq!((peeked.head(), peeked.is_whole()), (&b"abcd"[..], false));
        let mut all = Vec::new();
        peeked.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abcdef");

        let mut peeked = Peeked::look(b"abc".as_slice().chain(Fails), 8);
        assert!(peeked.has_failed() && !peeked.is_whole());
        let mut all = Vec::new();
        assert!(peeked.read_to_end(&mut all).is_err());
        assert_eq!(all, b"abc");
    }
}
