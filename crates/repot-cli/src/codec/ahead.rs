//! Decompressing ahead in a thread: while one piece is read, the next is made.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes of a piece of what fills buffers.
const PIECE: usize = 256 << 10;
/// Its buffers.
const BUFFERS: usize = 4;
/// Pieces that wait for the reader.
const WAITING: usize = 8;

/// Bytes that can be read while more are made.
pub(crate) type Piece = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What comes in pieces.
pub(crate) trait Pieces: Send {
    /// The next piece, which is not empty; `None` at the end. Everything before an error comes before it.
    ///
    /// Its memory can be used again when the piece has been dropped. `wait` waits for that where there is no
    /// room, and returns false if nobody wants more.
    fn next(&mut self, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Piece>>;
}

impl<P: Pieces + ?Sized> Pieces for Box<P> {
    fn next(&mut self, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Piece>> {
        (**self).next(wait)
    }
}

/// Calls `work` with a reader of what a thread makes ahead of it.
pub(crate) fn of<T>(from: impl Pieces, work: impl FnOnce(&mut Ahead) -> T) -> T {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel(WAITING);
        // One message is enough: it says that something has been dropped since the last look.
        let (used, dropped) = sync_channel(1);
        scope.spawn(move || make(from, &dropped, &full));
        let mut ahead = Ahead { pieces, used, piece: None, at: 0 };
        // When the reader is gone, the thread ends.
        work(&mut ahead)
    })
}

/// Makes pieces until the end, or until nobody wants them.
fn make(mut from: impl Pieces, dropped: &Receiver<()>, full: &SyncSender<io::Result<Piece>>) {
    while let Some(next) = from.next(&mut || dropped.recv().is_ok()).transpose() {
        let failed = next.is_err();
        if full.send(next).is_err() || failed {
            return;
        }
    }
}

/// Fills buffers from a reader.
pub(super) struct Filled<R> {
    input: R,
    /// Those that somebody may still read, in their order.
    read: VecDeque<Arc<Vec<u8>>>,
    /// What follows the last piece.
    end: Option<io::Result<()>>,
}

impl<R: Read> Filled<R> {
    pub(super) fn new(input: R) -> Filled<R> {
        Filled { input, read: VecDeque::new(), end: None }
    }

    /// A buffer that nobody reads.
    fn buffer(&mut self, wait: &mut dyn FnMut() -> bool) -> Option<Arc<Vec<u8>>> {
        if self.read.len() < BUFFERS {
            return Some(Arc::default());
        }
        loop {
            if Arc::get_mut(self.read.front_mut()?).is_some() {
                return self.read.pop_front();
            }
            if !wait() {
                return None;
            }
        }
    }

    /// Fills a buffer, as far as there is something.
    fn fill(&mut self, buffer: &mut Vec<u8>) {
        buffer.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE && self.end.is_none() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => self.end = Some(Ok(())),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end = Some(Err(error)),
            }
        }
        buffer.truncate(filled);
    }
}

impl<R: Read + Send> Pieces for Filled<R> {
    fn next(&mut self, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Piece>> {
        if self.end.is_none() {
            let Some(mut buffer) = self.buffer(wait) else { return Ok(None) };
            // Nobody else has it.
            if let Some(bytes) = Arc::get_mut(&mut buffer) {
                self.fill(bytes);
            }
            if !buffer.is_empty() {
                self.read.push_back(buffer.clone());
                return Ok(Some(buffer));
            }
        }
        self.end.take().unwrap_or(Ok(())).map(|()| None)
    }
}

/// Reads from what is buffered, for a reader that has its own buffer.
pub(crate) fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let here = reader.fill_buf()?;
    let count = here.len().min(buffer.len());
    buffer[..count].copy_from_slice(&here[..count]);
    reader.consume(count);
    Ok(count)
}

/// Reads what the thread has made.
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Piece>>,
    used: SyncSender<()>,
    piece: Option<Piece>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_none() {
            self.at = 0;
            // After the end, the thread is gone, and there is nothing more.
            self.piece = self.pieces.recv().ok().transpose()?;
        }
        let bytes = self.piece.as_ref().map_or(&[][..], |piece| (**piece).as_ref());
        Ok(&bytes[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        if self.piece.as_ref().is_some_and(|piece| self.at >= (**piece).as_ref().len()) {
            self.piece = None;
            // If there is a message already, it says the same.
            let _ = self.used.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes, then an error.
    struct Breaks(usize);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("broken"));
            }
            let count = self.0.min(buffer.len()).min(1000);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn everything_before_an_error_arrives() {
        for size in [0, 1, PIECE - 1, PIECE, 9 * PIECE + 5] {
            let (mut bytes, mut error) = (Vec::new(), String::new());
            of(Filled::new(Breaks(size)), |input| {
                error = input.read_to_end(&mut bytes).unwrap_err().to_string()
            });
            assert_eq!((bytes.len(), error.as_str()), (size, "broken"));
            let (mut bytes, input) = (Vec::new(), vec![3; size]);
            of(Filled::new(&input[..]), |reader| reader.read_to_end(&mut bytes)).unwrap();
            assert!(bytes == input);
        }
    }

    #[test]
    fn a_reader_that_stops_early_ends_the_thread() {
        let first = of(Filled::new(io::repeat(1)), |input| {
            let mut first = [0; 10];
            input.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), [1; 10]);
    }
}
