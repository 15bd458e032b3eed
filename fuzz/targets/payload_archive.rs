//! The archive in a payload: headers, PAX records, contents. The checksum of each block that looks like a
//! header is made to fit. The first byte decides how large the pieces are that the source gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repot::error::Fault;
use repot::payload::archive::{self, Kind, Source};

struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl Source for Pieces<'_> {
    fn next(&mut self, most: usize) -> Result<&[u8], Fault> {
        let (piece, rest) = self.rest.split_at(most.min(self.size).min(self.rest.len()));
        self.rest = rest;
        Ok(piece)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..265] == *b"ustar\x0000") {
        let sum = |at: usize| if (148..156).contains(&at) { 32 } else { u32::from(block[at]) };
        let sum: u32 = (0..512).map(sum).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut source = Pieces { rest: &bytes, size: usize::from(first) + 1 };
    while let Ok(Some(entry)) = archive::entry(&mut source) {
        let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
        let inside = |path: &[u8]| path.split(|&byte| byte == b'/').all(plain);
        assert!(entry.path.is_empty() && entry.kind == Kind::Directory || inside(&entry.path), "{entry:?}");
        assert!(entry.kind != Kind::Link || inside(&entry.target), "{entry:?}");
        assert!(entry.mode <= 0o7777, "{entry:?}");
        let mut read = 0;
        let whole = archive::contents(&mut source, entry.size, |piece| {
            read += piece.len() as u64;
            Ok(())
        });
        if whole.is_err() {
            break;
        }
        assert_eq!(read, entry.size);
    }
});
