//! Checks the entries of a payload, frame by frame, with the parser that the init uses.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, anyhow, ensure};
use repot::error::Fault;
use repot::payload::archive::{Kind, Source, contents, entry};
use repot::payload::index::Index;
use rustix::io::Errno;

/// Checks every frame of an archive. An error names the frame.
pub(crate) fn check(archive: &File, index: &Index) -> Result<()> {
    let last = index.frames.len() - 1;
    let mut start = 0;
    for (number, frame) in index.frames.iter().enumerate() {
        let mut source =
            Range { file: archive, at: start, end: start + frame.content, buffer: vec![0; 64 << 10] };
        start = source.end;
        // A piece of a file: its header was checked in an earlier frame.
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
            ensure!(belongs, "frame {number} of the payload: wrong frame for {path}");
            root |= entry.path.is_empty();
            names += 1;
            if pieces == 0 {
                contents(&mut source, entry.size, |_| Ok(())).map_err(flaw)?;
                continue;
            }
            let size = entry.size.checked_next_multiple_of(512);
            let whole = names == 1 && entry.kind == Kind::File && size == Some(pieces);
            ensure!(whole, "frame {number} of the payload: the pieces do not match the size of {path}");
        }
        ensure!(number != 0 || root, "frame 0 of the payload has no root directory");
        ensure!(pieces == 0 || names == 1, "frame {number} of the payload: no header for its pieces");
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
    fn next(&mut self, limit: usize) -> Result<&[u8], Fault> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = limit.min(left).min(self.buffer.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{self, Payload};
    use crate::tree::{Attributes, Contents, Inode, Kind as Node, Tree};

    /// Bytes of archive in one frame.
    const FRAME: u64 = 4 << 20;

    /// A root with a file in two pieces and one in none, as the archive and its index.
    fn packed() -> (File, Index) {
        let mut tree = Tree::new(Attributes { permissions: 0o755, ..Attributes::default() });
        for (name, size) in [(&b"large"[..], FRAME + 700), (b"small", 700)] {
            let bytes = vec![b'x'; usize::try_from(size).unwrap()];
            let kind = Node::File(Contents::Bytes(bytes.into()));
            let id = tree.add(Inode { attributes: Attributes::default(), kind });
            tree.link(Tree::ROOT, name, id);
            tree.link(Tree::ROOT, &[name, b"-2"].concat(), id);
        }
        let (mut bytes, scratch) = (0, std::env::temp_dir());
        let packed = payload::write(&tree, 1, &scratch, &mut |more| bytes += more);
        let Payload { index, file: chunks } = packed.unwrap();
        assert_eq!((bytes, index.bytes), (FRAME + 1400, FRAME + 1400));
        let mut archive = tempfile::tempfile().unwrap();
        zstd::stream::copy_decode(Contents::Range(chunks.into(), 0, 0).open().unwrap(), &mut archive)
            .unwrap();
        (archive, index)
    }

    #[test]
    fn the_header_of_a_large_file_and_each_piece_are_frames() {
        let (archive, index) = packed();
        let contents: Vec<_> = index.frames.iter().map(|frame| (frame.content, frame.more)).collect();
        assert_eq!(
            contents,
            [(512, false), (512, false), (FRAME, true), (1024, true), (1536, false), (2048, false)]
        );
        check(&archive, &index).unwrap();
    }

    #[test]
    fn an_index_that_does_not_match_is_an_error() {
        let (archive, index) = packed();
        type Lie = fn(&mut Index);
        let lies: [(Lie, &str); 5] = [
            (
                |index| index.frames[4].more = true,
                "frame 1 of the payload: the pieces do not match the size of large",
            ),
            (
                |index| index.frames[3].more = false,
                "frame 1 of the payload: the pieces do not match the size of large",
            ),
            (|index| index.frames[2].more = false, "frame 1 of the payload: archive truncated within entry"),
            (|index| index.frames[0].content = 1024, "frame 0 of the payload: wrong frame for large"),
            (|index| index.frames.truncate(5), "frame 4 of the payload: wrong frame for small"),
        ];
        for (lie, expected) in lies {
            let mut index = index.clone();
            lie(&mut index);
            let error = check(&archive, &index).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{expected}: {error}");
        }
    }
}
