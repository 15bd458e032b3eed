//! Reading ahead in a thread: while one piece is used, the next is decompressed.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces in memory.
const PIECES: usize = 4;

/// Calls `work` with a reader of `input`, which a thread reads ahead of it.
pub(crate) fn of<T>(input: impl Read + Send, work: impl FnOnce(&mut Ahead) -> T) -> T {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel(PIECES);
        let (used, free) = channel();
        for _ in 0..PIECES {
            // The receiver is alive.
            let _ = used.send(Vec::new());
        }
        scope.spawn(move || read(input, &free, &full));
        let mut ahead = Ahead { pieces, used, piece: Vec::new(), at: 0 };
        // When the reader is gone, the thread ends.
        work(&mut ahead)
    })
}

/// Fills pieces until the input ends, or until nobody wants them.
fn read(mut input: impl Read, free: &Receiver<Vec<u8>>, full: &SyncSender<io::Result<Vec<u8>>>) {
    while let Ok(mut piece) = free.recv() {
        piece.resize(PIECE, 0);
        let mut filled = 0;
        let ended = loop {
            match input.read(&mut piece[filled..]) {
                Ok(0) => break Some(Ok(Vec::new())),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Err(error)),
            }
            if filled == PIECE {
                break None;
            }
        };
        piece.truncate(filled);
        let wanted = filled == 0 || full.send(Ok(piece)).is_ok();
        if let Some(end) = ended {
            let _ = full.send(end);
        } else if wanted {
            continue;
        }
        return;
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

/// Reads what the thread has read.
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            // After the end, the thread is gone, and there is nothing more.
            let next = self.pieces.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            let old = std::mem::replace(&mut self.piece, next);
            let _ = self.used.send(old);
            self.at = 0;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.piece.len());
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
            of(Breaks(size), |input| error = input.read_to_end(&mut bytes).unwrap_err().to_string());
            assert_eq!((bytes.len(), error.as_str()), (size, "broken"));
            let (mut bytes, input) = (Vec::new(), vec![3; size]);
            of(&input[..], |reader| reader.read_to_end(&mut bytes)).unwrap();
            assert!(bytes == input);
        }
    }

    #[test]
    fn a_reader_that_stops_early_ends_the_thread() {
        let first = of(io::repeat(1), |input| {
            let mut first = [0; 10];
            input.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), [1; 10]);
    }
}
