//! Streams that follow each other in one file, as gzip and bzip2 read them: what follows the last one is not an
//! error.

use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;

/// A decoder of one stream.
pub(super) trait Stream<R>: Read {
    /// The first bytes of a stream.
    const MAGIC: [u8; 2];

    fn start(input: R) -> Self;
    fn input(&mut self) -> &mut R;
    fn into_input(self) -> R;
}

impl<R: BufRead> Stream<R> for GzDecoder<R> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];

    fn start(input: R) -> Self {
        GzDecoder::new(input)
    }

    fn input(&mut self) -> &mut R {
        self.get_mut()
    }

    fn into_input(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Stream<R> for BzDecoder<R> {
    const MAGIC: [u8; 2] = *b"BZ";

    fn start(input: R) -> Self {
        BzDecoder::new(input)
    }

    fn input(&mut self) -> &mut R {
        self.get_mut()
    }

    fn into_input(self) -> R {
        self.into_inner()
    }
}

/// All streams of a file.
#[derive(Debug)]
pub(super) struct Streams<D, R> {
    /// `None` at the end.
    current: Option<D>,
    input: std::marker::PhantomData<R>,
}

impl<R: BufRead, D: Stream<R>> Streams<D, R> {
    pub(super) fn new(input: R) -> Streams<D, R> {
        Streams { current: Some(D::start(input)), input: std::marker::PhantomData }
    }
}

impl<R: BufRead, D: Stream<R>> Read for Streams<D, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(stream) = &mut self.current {
            let got = stream.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            let next = match stream.input().fill_buf()? {
                [first] => *first == D::MAGIC[0],
                bytes => bytes.starts_with(&D::MAGIC),
            };
            self.current = self.current.take().filter(|_| next).map(|stream| D::start(stream.into_input()));
        }
        Ok(0)
    }
}
