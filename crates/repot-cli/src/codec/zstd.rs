//! One frame of zstd, of which no decompressed byte is copied.

use std::io::{self, BufRead};

use super::ahead::{Piece, Pieces};
use crate::sys::zstd::Frame;

/// The kernel's `ZSTD_WINDOWSIZE_MAX`, as a power of two.
pub(super) const WINDOW_LOG: u32 = 27;

/// Decompresses the frame that `input` begins with, and leaves what follows it.
pub(super) struct Decoder<R> {
    input: R,
    frame: Frame,
    /// Input that does not come in one piece.
    joined: Vec<u8>,
    /// What ends it, behind the last bytes before it.
    failed: Option<io::Error>,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(input: R) -> io::Result<Decoder<R>> {
        let frame = Frame::new(1 << WINDOW_LOG).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Decoder { input, frame, joined: Vec::new(), failed: None })
    }

    /// Gives the frame the next so many bytes.
    fn feed(&mut self, count: usize) -> io::Result<()> {
        let here = self.input.fill_buf()?;
        if let Some(bytes) = here.get(..count) {
            self.frame.decode(bytes)?;
            self.input.consume(count);
            return Ok(());
        }
        self.joined.resize(count, 0);
        self.input.read_exact(&mut self.joined).map_err(incomplete)?;
        self.frame.decode(&self.joined)
    }
}

impl<R: BufRead + Send> Pieces for Decoder<R> {
    fn next(&mut self, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Piece>> {
        loop {
            let wanted = self.frame.wants();
            let ends = wanted == 0 || self.failed.is_some();
            if let Some(piece) = self.frame.piece(ends) {
                return Ok(Some(piece));
            }
            if ends {
                return self.failed.take().map_or(Ok(None), Err);
            }
            while !self.frame.has_room() {
                if !wait() {
                    return Ok(None);
                }
            }
            match self.feed(wanted) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                fed => self.failed = fed.err(),
            }
        }
    }
}

fn incomplete(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(error.kind(), "incomplete frame");
    }
    error
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read, Write};

    use super::super::ahead;
    use super::*;

    /// Bytes that repeat what was far or near before them, or nothing.
    fn bytes(count: usize) -> Vec<u8> {
        let (mut bytes, mut state) = (Vec::with_capacity(count), 1u64);
        while bytes.len() < count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = usize::try_from(state >> 40).unwrap();
            let length = 1 + random % 300;
            let back = 1 + (random >> 3) % (1 << (8 + random % 15));
            match bytes.len().checked_sub(back) {
                Some(from) if random % 3 > 0 => {
                    (from..from + length).for_each(|at| bytes.push(bytes[at]));
                }
                _ => bytes.extend(state.to_le_bytes().iter().cycle().take(length % 24)),
            }
        }
        bytes.truncate(count);
        bytes
    }

    fn frame(bytes: &[u8], level: i32, window_log: u32, checksum: bool) -> Vec<u8> {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out, and the error behind it.
    fn decoded(input: &mut (impl BufRead + Send)) -> (Vec<u8>, Option<String>) {
        let mut out = Vec::new();
        let decoder = Decoder::new(input).unwrap();
        let read = ahead::of(decoder, |input| input.read_to_end(&mut out));
        (out, read.err().map(|error| error.to_string()))
    }

    #[test]
    fn every_window_gives_what_was_compressed_and_leaves_what_follows() {
        let all = bytes(9 << 20);
        for (count, level, window_log) in [
            (0, 3, 10),
            (1, 3, 10),
            (3_000_000, 1, 10),
            (5_000_000, 3, 17),
            (9 << 20, 3, 20),
            (9 << 20, 9, 22),
        ] {
            let wanted = &all[..count];
            let mut input = frame(wanted, level, window_log, true);
            input.extend(b"rest");
            for buffer in [7, 5000, 1 << 20] {
                let mut reader = BufReader::with_capacity(buffer, &input[..]);
                let (out, error) = decoded(&mut reader);
                assert!(error.is_none() && out == wanted, "{count} {level} {window_log} {buffer}: {error:?}");
                let mut rest = String::new();
                reader.read_to_string(&mut rest).unwrap();
                assert_eq!(rest, "rest");
            }
        }
    }

    #[test]
    fn everything_before_the_end_of_the_input_comes_out() {
        let wanted = bytes(1 << 20);
        let input = frame(&wanted, 3, 18, true);
        for end in (0..input.len()).step_by(input.len() / 50) {
            let (out, error) = decoded(&mut &input[..end]);
            assert_eq!(error.as_deref(), Some("incomplete frame"), "{end}");
            assert!(wanted.starts_with(&out));
        }
        let (out, _) = decoded(&mut &input[..input.len() - 1]);
        assert!(out == wanted);
    }

    #[test]
    fn a_damaged_frame_fails_as_with_the_streaming_functions() {
        let wanted = bytes(300_000);
        for checksum in [true, false] {
            let input = frame(&wanted, 3, 17, checksum);
            for at in (4..input.len()).step_by(input.len() / 100) {
                for flip in [1, 0x80] {
                    let mut damaged = input.clone();
                    damaged[at] ^= flip;
                    let mut expected = Vec::new();
                    let mut reference =
                        ::zstd::stream::read::Decoder::with_buffer(&damaged[..]).unwrap().single_frame();
                    reference.window_log_max(WINDOW_LOG).unwrap();
                    let failed = reference.read_to_end(&mut expected).err().map(|error| error.to_string());
                    let (out, error) = decoded(&mut &damaged[..]);
                    assert_eq!(error.is_some(), failed.is_some(), "{at} {flip}: {error:?}, {failed:?}");
                    assert!(failed.is_some() || out == expected, "{at} {flip}");
                }
            }
        }
    }

    #[test]
    fn a_window_that_the_kernel_refuses_is_refused() {
        // The magic, no content size, and a window of 256 MiB.
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0];
        let (_, error) = decoded(&mut &header[..]);
        assert_eq!(error.as_deref(), Some("Frame requires too much memory for decoding"));
    }
}
