//! A part of a file, read through a small window. What is skipped is not read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::bootconfig::{self, Without};
use crate::codec::ahead::read_buffered;
use crate::newc::pass;

/// Bytes of the window after a jump. It doubles with each read that follows the last one.
const FIRST: usize = 4 << 10;
/// Bytes of the window at most.
const LAST: usize = 256 << 10;

/// An input that knows how to skip.
pub(super) trait Input: BufRead + Send {
    /// Skips bytes, and returns how many: fewer at the end.
    fn ahead(&mut self, count: u64) -> io::Result<u64>;
}

impl<R: Read + Send> Input for BufReader<Without<R>> {
    fn ahead(&mut self, count: u64) -> io::Result<u64> {
        pass(self, count)
    }
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<File>,
    /// The first byte behind the window, and behind the part.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    /// The unread bytes of the buffer.
    unread: std::ops::Range<usize>,
    /// Bytes of the next read.
    step: usize,
}

impl Window {
    pub(crate) fn new(file: Arc<File>, start: u64, end: u64) -> Window {
        Window { file, next: start, end, buffer: vec![0; LAST], unread: 0..0, step: FIRST }
    }

    /// The offset of the next byte in the file.
    pub(super) fn position(&self) -> u64 {
        self.next - self.unread.len() as u64
    }

    /// Cuts off the boot configuration at the end, and returns it.
    pub(super) fn without_bootconfig(&mut self) -> io::Result<Option<Vec<u8>>> {
        let held = (bootconfig::HELD as u64).min(self.end - self.position());
        let mut tail = vec![0; usize::try_from(held).unwrap_or(0)];
        self.file.read_exact_at(&mut tail, self.end - held)?;
        let Some(start) = bootconfig::find(&tail) else { return Ok(None) };
        self.end -= (tail.len() - start) as u64;
        Ok(Some(tail.split_off(start)))
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && buffer.len() >= LAST / 4 {
            // Not worth a copy: it fills what another read would.
            let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            let want = buffer.len().min(left);
            let got = self.file.read_at(&mut buffer[..want], self.next)?;
            self.next += got as u64;
            return Ok(got);
        }
        read_buffered(self, buffer)
    }
}

impl BufRead for Window {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            let want = self.step.min(left);
            let got = self.file.read_at(&mut self.buffer[..want], self.next)?;
            self.next += got as u64;
            self.unread = 0..got;
            self.step = (2 * self.step).min(LAST);
        }
        Ok(&self.buffer[self.unread.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.unread.start = (self.unread.start + count).min(self.unread.end);
    }
}

impl Input for Window {
    fn ahead(&mut self, count: u64) -> io::Result<u64> {
        let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.unread.len());
        self.consume(here);
        let rest = (count - here as u64).min(self.end - self.next);
        if rest > 0 {
            self.next += rest;
            self.step = FIRST;
        }
        Ok(here as u64 + rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn jumps_and_reads_give_the_same_bytes() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let file = Arc::new(file);
        for jump in [0, 1, 4095, 4096, 4097, 300_000] {
            let mut window = Window::new(file.clone(), 10, 900_000);
            let mut at = 10;
            while at < 900_000 {
                let mut piece = [0; 777];
                let got = window.read(&mut piece).unwrap();
                assert!(got > 0 && piece[..got] == bytes[at..at + got], "{jump} {at}");
                at += got;
                let skipped = usize::try_from(window.ahead(jump).unwrap()).unwrap();
                assert!(skipped as u64 == jump || at + skipped == 900_000, "{jump} {at}");
                at += skipped;
                assert_eq!(window.position(), at as u64);
            }
            assert!(window.fill_buf().unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_that_has_shrunk_ends_early() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut window = Window::new(Arc::new(file), 0, 5000);
        assert_eq!(window.ahead(4000).unwrap(), 4000);
        assert!(window.fill_buf().unwrap().is_empty());
    }
}
