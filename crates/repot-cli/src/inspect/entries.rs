//! The entries of a payload, frame by frame, read by the parser of the init: what that would refuse is no payload here either.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, anyhow, ensure};
use repot::error::Fault;
use repot::payload::archive::{Kind, Source, contents, entry};
use repot::payload::index::Index;
use rustix::io::Errno;

/// Reads every frame of the archive, which begins at the start of the file; an error names the frame.
pub(crate) fn check(archive: &File, index: &Index) -> Result<()> {
    let last = index.frames.len() - 1;
    let mut start = 0;
    for (number, frame) in index.frames.iter().enumerate() {
        let mut source =
            Range { file: archive, at: start, end: start + frame.content, buffer: vec![0; 64 << 10] };
        start = source.end;
        // What follows is a piece of a file whose header was read.
        if frame.more {
            continue;
        }
        let pieces = index.frames[number + 1..].iter().take_while(|frame| frame.more);
        let pieces: u64 = pieces.map(|frame| frame.content).sum();
        let flaw = |fault: Fault| anyhow!("frame {number} of the payload: {fault}");
        let (mut names, mut root) = (0u64, false);
        while let Some(entry) = entry(&mut source).map_err(flaw)? {
            let path = entry.path.escape_ascii();
            let belongs = match entry.kind {
                Kind::Directory => number == 0,
                Kind::Link => number == last,
                Kind::File | Kind::Symlink | Kind::Character | Kind::Block | Kind::Fifo | Kind::Socket => {
                    number != 0 && number != last
                }
            };
            ensure!(belongs, "frame {number} of the payload: an entry in the wrong frame: {path}");
            root |= entry.path.is_empty();
            names += 1;
            if pieces == 0 {
                contents(&mut source, entry.size, |_| Ok(())).map_err(flaw)?;
                continue;
            }
            let size = entry.size.checked_next_multiple_of(512);
            let whole = names == 1 && entry.kind == Kind::File && size == Some(pieces);
            ensure!(whole, "frame {number} of the payload: not the file of its pieces: {path}");
        }
        ensure!(number != 0 || root, "frame 0 of the payload has no root directory");
        ensure!(pieces == 0 || names == 1, "frame {number} of the payload: no header of its pieces");
    }
    Ok(())
}

/// A part of a file.
struct Range<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl Source for Range<'_> {
    fn next(&mut self, most: usize) -> Result<&[u8], Fault> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = most.min(left).min(self.buffer.len());
        let read = self.file.read_exact_at(&mut self.buffer[..want], self.at);
        read.map_err(|_| Fault {
            what: repot::error::What::Call("pread64"),
            path: Vec::new(),
            errno: Errno::IO,
        })?;
        self.at += want as u64;
        Ok(&self.buffer[..want])
    }
}
