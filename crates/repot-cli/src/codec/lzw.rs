//! The format of compress(1), `.Z`: LZW with codes of 9 to 16 bits.
//!
//! The writer fills codes in groups of eight. Where their width changes, the rest of a group is padding.

use std::io::{self, BufRead, Read};

/// The code that empties the table.
const CLEAR: usize = 256;
/// Width of the first codes in bits.
const FIRST_WIDTH: u32 = 9;

#[derive(Debug)]
pub(super) struct Decoder<R> {
    input: R,
    max_width: u32,
    /// Whether code 256 empties the table.
    clears: bool,
    width: u32,
    /// Codes of the current group that were read.
    group: u32,
    bits: u64,
    held: u32,
    /// What each code stands for: an earlier code, and a byte.
    table: Vec<(u16, u8)>,
    previous: Option<usize>,
    first: u8,
    /// Bytes of one code to return. They are decoded from the last to the first.
    out: Vec<u8>,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(mut input: R) -> io::Result<Decoder<R>> {
        let mut head = [0; 3];
        input.read_exact(&mut head)?;
        let (max_width, clears) = (u32::from(head[2] & 0x1f), head[2] & 0x80 != 0);
        if head[..2] != [0x1f, 0x9d] || !(FIRST_WIDTH..=16).contains(&max_width) {
            return Err(corrupt());
        }
        let mut table: Vec<(u16, u8)> = (0..=255).map(|byte| (0, byte)).collect();
        if clears {
            table.push((0, 0));
        }
        Ok(Decoder {
            input,
            max_width,
            clears,
            width: FIRST_WIDTH,
            group: 0,
            bits: 0,
            held: 0,
            table,
            previous: None,
            first: 0,
            out: Vec::new(),
        })
    }

    /// Decodes one code into `out`. Returns false at the end of the input.
    fn step(&mut self) -> io::Result<bool> {
        if self.table.len() >= 1 << self.width && self.width < self.max_width {
            self.end_group()?;
            self.width += 1;
        }
        let Some(code) = self.code()? else { return Ok(false) };
        let Some(previous) = self.previous else {
            let byte = u8::try_from(code).map_err(|_| corrupt())?;
            (self.previous, self.first) = (Some(code), byte);
            self.out.push(byte);
            return Ok(true);
        };
        if code == CLEAR && self.clears {
            self.table.truncate(CLEAR);
            self.end_group()?;
            self.width = FIRST_WIDTH;
            return Ok(true);
        }
        let mut at = code;
        if code >= self.table.len() {
            if code > self.table.len() {
                return Err(corrupt());
            }
            self.out.push(self.first);
            at = previous;
        }
        while at > 255 {
            // After the table was emptied, the previous code may have no entry.
            let (before, byte) = *self.table.get(at).ok_or_else(corrupt)?;
            self.out.push(byte);
            at = usize::from(before);
        }
        self.first = u8::try_from(at).map_err(|_| corrupt())?;
        self.out.push(self.first);
        if self.table.len() < 1 << self.max_width {
            self.table.push((u16::try_from(previous).map_err(|_| corrupt())?, self.first));
        }
        self.previous = Some(code);
        Ok(true)
    }

    fn code(&mut self) -> io::Result<Option<usize>> {
        if !self.fill(self.width)? {
            return Ok(None);
        }
        let code = self.bits & ((1 << self.width) - 1);
        self.drop_bits(self.width);
        self.group = (self.group + 1) % 8;
        Ok(usize::try_from(code).ok())
    }

    fn end_group(&mut self) -> io::Result<()> {
        let rest = if self.group == 0 { 0 } else { 8 - self.group };
        for _ in 0..rest {
            if self.fill(self.width)? {
                self.drop_bits(self.width);
            }
        }
        self.group = 0;
        Ok(())
    }

    fn fill(&mut self, width: u32) -> io::Result<bool> {
        while self.held < width {
            let mut byte = [0];
            match self.input.read_exact(&mut byte) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
            self.bits |= u64::from(byte[0]) << self.held;
            self.held += 8;
        }
        Ok(true)
    }

    fn drop_bits(&mut self, count: u32) {
        self.bits >>= count;
        self.held -= count;
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out.is_empty() {
            if !self.step()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.out.len());
        let rest = self.out.len() - count;
        for (to, byte) in buffer.iter_mut().zip(self.out.drain(rest..).rev()) {
            *to = byte;
        }
        Ok(count)
    }
}

fn corrupt() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "corrupt: this is no code of compress(1)")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Writes as compress(1) does; `clear` empties the table after that many codes.
    fn compress(bytes: &[u8], max_width: u32, clear: usize) -> Vec<u8> {
        let mut out = vec![0x1f, 0x9d, 0x80 | u8::try_from(max_width).unwrap()];
        let (mut bits, mut held, mut width, mut group, mut next) = (0u64, 0, FIRST_WIDTH, 0, CLEAR + 1);
        let mut table: HashMap<(usize, u8), usize> = HashMap::new();
        let mut codes = Vec::new();
        let mut current: Option<usize> = None;
        for &byte in bytes {
            let Some(prefix) = current else {
                current = Some(usize::from(byte));
                continue;
            };
            if let Some(&code) = table.get(&(prefix, byte)) {
                current = Some(code);
                continue;
            }
            codes.push(prefix);
            if table.len() + CLEAR + 1 < 1 << max_width {
                table.insert((prefix, byte), table.len() + CLEAR + 1);
            }
            current = Some(usize::from(byte));
            if codes.len().is_multiple_of(clear) {
                codes.push(CLEAR);
                table.clear();
            }
        }
        codes.extend(current);
        for (number, code) in codes.iter().enumerate() {
            let mut emit = |code: usize, width: u32| {
                bits |= (code as u64) << held;
                held += width;
                while held >= 8 {
                    out.push((bits & 0xff) as u8);
                    bits >>= 8;
                    held -= 8;
                }
                group = (group + 1) % 8;
                group
            };
            let mut in_group = emit(*code, width);
            let pad = |in_group: &mut u32, emit: &mut dyn FnMut(usize, u32) -> u32, width| {
                while *in_group != 0 {
                    *in_group = emit(0, width);
                }
            };
            if *code == CLEAR {
                pad(&mut in_group, &mut emit, width);
                (width, next) = (FIRST_WIDTH, CLEAR);
                continue;
            }
            // The reader adds an entry with every code but the first.
            if number > 0 && next < 1 << max_width {
                next += 1;
            }
            if next >= 1 << width && width < max_width {
                pad(&mut in_group, &mut emit, width);
                width += 1;
            }
        }
        if held > 0 {
            out.push((bits & 0xff) as u8);
        }
        out
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_compress_writes_is_read() {
        let text: Vec<u8> = (0..60_000u32).flat_map(|n| format!("{} ", n * n % 977).into_bytes()).collect();
        for (width, clear) in [(16, usize::MAX), (12, usize::MAX), (9, usize::MAX), (16, 700), (12, 5000)] {
            for bytes in [&text[..], b"a", b"aaaaaaaaaaaaaaaaaaaa"] {
                let packed = compress(bytes, width, clear);
                assert!(read(&packed).unwrap() == bytes, "{width} {clear} {}", bytes.len());
            }
        }
    }

    #[test]
    fn corrupt_codes_are_errors() {
        assert!(read(b"\x1f\x9d\x88").is_err());
        assert!(read(b"\x1f\x9d\x90\xff\xff\xff").is_err());
        assert_eq!(read(b"\x1f\x9d\x90").unwrap(), b"");
    }
}
