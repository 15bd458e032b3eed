//! Reads the files of a manifest in a thread, ahead of the writer.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::{mem, thread, vec};

use anyhow::{Context, Result, bail};

/// Bytes of a batch.
const BATCH: usize = 256 << 10;
/// Batches in memory.
const BATCHES: usize = 4;

/// A file to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// So many bytes of it.
    pub(super) length: u32,
    /// Whether that is its whole length.
    pub(super) whole: bool,
}

/// The contents of files, one after the other.
#[derive(Debug)]
pub(super) struct Files {
    full: Receiver<Batch>,
    free: Sender<Batch>,
    bytes: Vec<u8>,
    pieces: vec::IntoIter<Piece>,
}

/// Pieces of files, and their bytes.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// Its bytes in the batch.
    range: Range<usize>,
    /// Whether it is the last one of its file; or why there is none.
    last: Result<bool>,
}

/// Calls `work` with the contents of these files.
pub(super) fn ahead<T>(sources: &[Source<'_>], work: impl FnOnce(&mut Files) -> T) -> T {
    thread::scope(|scope| {
        let (to, full) = sync_channel(BATCHES);
        let (free, from) = channel();
        for _ in 0..BATCHES {
            // The receiver is alive.
            let _ = free.send(Batch::default());
        }
        scope.spawn(move || Reader { to, from, batch: Batch::default(), used: 0 }.read(sources));
        // When it is gone, the thread ends.
        work(&mut Files { full, free, bytes: Vec::new(), pieces: Vec::new().into_iter() })
    })
}

impl Files {
    /// Gives the contents of the next file to `write`, piece by piece.
    pub(super) fn next(&mut self, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        loop {
            let Some(Piece { range, last }) = self.pieces.next() else {
                let next = self.full.recv().context("the thread that reads has ended")?;
                let bytes = mem::replace(&mut self.bytes, next.bytes);
                self.pieces = next.pieces.into_iter();
                // The thread may be done.
                let _ = self.free.send(Batch { bytes, pieces: Vec::new() });
                continue;
            };
            let last = last?;
            write(&self.bytes[range])?;
            if last {
                return Ok(());
            }
        }
    }
}

/// The thread.
struct Reader {
    to: SyncSender<Batch>,
    from: Receiver<Batch>,
    batch: Batch,
    used: usize,
}

/// Nobody wants more.
struct Unwanted;

impl Reader {
    /// Reads everything, or until an error.
    fn read(mut self, sources: &[Source<'_>]) {
        if self.take().is_err() {
            return;
        }
        for source in sources {
            match self.file(source) {
                Err(Unwanted) => return,
                Ok(Ok(())) => {}
                Ok(error) => {
                    let last = error.map(|()| true);
                    self.batch.pieces.push(Piece { range: 0..0, last });
                    break;
                }
            }
        }
        let _ = self.to.send(self.batch);
    }

    fn take(&mut self) -> Result<(), Unwanted> {
        self.batch = self.from.recv().map_err(|_| Unwanted)?;
        self.batch.bytes.resize(BATCH, 0);
        self.used = 0;
        Ok(())
    }

    fn file(&mut self, source: &Source<'_>) -> Result<Result<()>, Unwanted> {
        let shown = || source.path.display().to_string();
        let mut file = match File::open(source.path).with_context(|| format!("cannot open {}", shown())) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let (mut left, mut start) = (source.length as usize, self.used);
        loop {
            if self.used == BATCH {
                self.batch.pieces.push(Piece { range: start..BATCH, last: Ok(false) });
                self.to.send(mem::take(&mut self.batch)).map_err(|_| Unwanted)?;
                self.take()?;
                start = 0;
            }
            let room = &mut self.batch.bytes[self.used..];
            // One byte more shows whether it has grown.
            let want = room.len().min(left + usize::from(source.whole));
            let got = match part(&mut file, &mut room[..want], left).with_context(shown) {
                Ok(got) => got,
                Err(error) => return Ok(Err(error)),
            };
            self.used += got;
            left -= got;
            if left == 0 && (got < want || !source.whole) {
                self.batch.pieces.push(Piece { range: start..self.used, last: Ok(true) });
                return Ok(Ok(()));
            }
        }
    }
}

/// Reads what comes next of a file of which `left` bytes are left.
fn part(file: &mut File, buffer: &mut [u8], left: usize) -> Result<usize> {
    let got = loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            got => break got?,
        }
    };
    if got > left || got == 0 && left > 0 {
        bail!("it has changed while it was read");
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn contents_come_in_order_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let sizes = [1, BATCH - 1, BATCH, BATCH + 1, 3, 9 * BATCH + 5, 7, 7, 7];
        let files = sizes.iter().enumerate().map(|(number, size)| {
            let path = directory.path().join(number.to_string());
            let letters = (0..=250u8).cycle().skip(number);
            let bytes: Vec<u8> = letters.take(*size).collect();
            std::fs::write(&path, &bytes).unwrap();
            (path, bytes)
        });
        let files: Vec<_> = files.collect();
        for whole in [true, false] {
            let source = |(path, bytes): &'_ (std::path::PathBuf, Vec<u8>)| {
                (path.clone(), u32::try_from(bytes.len()).unwrap() - u32::from(!whole && bytes.len() > 1))
            };
            let wanted: Vec<_> = files.iter().map(source).collect();
            let sources: Vec<_> =
                wanted.iter().map(|(path, length)| Source { path, length: *length, whole }).collect();
            ahead(&sources, |input| {
                for ((path, bytes), (_, length)) in files.iter().zip(&wanted) {
                    let mut found = Vec::new();
                    let mut put = |piece: &[u8]| found.write_all(piece);
                    input.next(&mut put).unwrap();
                    assert!(found == bytes[..*length as usize], "{} {whole}", path.display());
                }
            });
        }
    }

    #[test]
    fn a_file_that_changes_and_one_that_is_gone_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = &*directory.path().join("file");
        std::fs::write(path, "12345").unwrap();
        for (length, whole, good) in
            [(5, true, true), (4, false, true), (4, true, false), (6, true, false), (6, false, false)]
        {
            let read = ahead(&[Source { path, length, whole }], |input| input.next(&mut |_| Ok(())));
            assert_eq!(read.is_ok(), good, "{length} {whole}");
            if let Err(error) = read {
                assert!(
                    format!("{error:#}").ends_with("file: it has changed while it was read"),
                    "{error:#}"
                );
            }
        }
        let source = Source { path: Path::new("/nowhere"), length: 1, whole: true };
        let error = ahead(&[source], |input| input.next(&mut |_| Ok(()))).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /nowhere"), "{error:#}");
    }

    #[test]
    fn a_writer_that_fails_ends_the_thread() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("file");
        std::fs::write(path, vec![1; 20 * BATCH]).unwrap();
        let length = u32::try_from(20 * BATCH).unwrap();
        let source = Source { path, length, whole: true };
        let written = ahead(&[source; 5], |input| input.next(&mut |_| Err(io::Error::other("full"))));
        assert_eq!(written.unwrap_err().to_string(), "full");
    }
}
