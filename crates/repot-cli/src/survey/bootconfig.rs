//! The boot configuration behind an image (Documentation/admin-guide/bootconfig.rst): a text, its size, its
//! checksum and a magic. The kernel removes it before it unpacks the image, whatever its command line says.

use std::io::{self, Read};

/// The last bytes of an image that has one.
const MAGIC: &[u8] = b"#BOOTCONFIG\n";
/// `XBC_DATA_MAX`: the text, its zeros included, is shorter.
const TEXT: usize = 32 << 10;
/// Bytes behind the text: its size, its checksum, the magic.
const FOOT: usize = 8 + MAGIC.len();
/// The kernel looks for the magic this far before the end too, because GRUB aligns images to 4 bytes.
const PADDING: usize = 3;
/// Bytes at the end of an image that may belong to the boot configuration.
pub(super) const HELD: usize = TEXT + FOOT + PADDING;

/// Finds the boot configuration at the end of an image: its first byte in `tail`. It reaches to the end.
pub(super) fn find(tail: &[u8]) -> Option<usize> {
    (0..=PADDING).find_map(|padding| {
        let end = tail.len().checked_sub(padding)?;
        let foot = tail.get(end.checked_sub(FOOT)?..end)?;
        let number = |at: usize| {
            let bytes = foot.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let size = usize::try_from(number(0)?).ok()?;
        let start = (end - FOOT).checked_sub(size)?;
        let sum = tail[start..end - FOOT].iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        (foot.ends_with(MAGIC) && size < TEXT && number(4)? == sum).then_some(start)
    })
}

/// Reads an image without its boot configuration.
#[derive(Debug)]
pub(super) struct Without<R> {
    input: R,
    /// Bytes that are read, but may belong to the boot configuration.
    held: Vec<u8>,
    /// How many of them have been passed on.
    passed: usize,
    ended: bool,
    /// The boot configuration, once the end is reached.
    pub(super) found: Option<Vec<u8>>,
}

impl<R: Read> Without<R> {
    pub(super) fn new(input: R) -> Without<R> {
        Without { input, held: Vec::new(), passed: 0, ended: false, found: None }
    }

    /// Reads until more is held than may belong to the boot configuration, or to the end.
    fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.passed);
        self.passed = 0;
        let limit = u64::try_from(8 * HELD - self.held.len()).unwrap_or(0);
        let got = (&mut self.input).take(limit).read_to_end(&mut self.held)?;
        if u64::try_from(got).unwrap_or(0) < limit {
            self.ended = true;
            if let Some(start) = find(&self.held) {
                self.found = Some(self.held.split_off(start));
            }
        }
        Ok(())
    }

    /// Bytes that certainly belong to the image.
    fn ready(&self) -> &[u8] {
        let end = if self.ended { self.held.len() } else { self.held.len().saturating_sub(HELD) };
        self.held.get(self.passed..end).unwrap_or_default()
    }
}

impl<R: Read> Read for Without<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready().is_empty() && !self.ended {
            self.fill()?;
        }
        let ready = self.ready();
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.passed += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(image: &[u8], text: &[u8], padding: usize) -> Vec<u8> {
        let sum: u32 = text.iter().map(|byte| u32::from(*byte)).sum();
        let size = u32::try_from(text.len()).unwrap();
        [image, text, &size.to_le_bytes(), &sum.to_le_bytes(), MAGIC, &[0; PADDING][..padding]].concat()
    }

    fn split(bytes: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut input, mut image) = (Without::new(bytes), Vec::new());
        input.read_to_end(&mut image).unwrap();
        (image, input.found)
    }

    #[test]
    fn it_is_taken_off_wherever_it_begins() {
        for length in [0, 5, HELD - 1, HELD, 8 * HELD, 9 * HELD + 3] {
            for padding in 0..=PADDING {
                let image = vec![7; length];
                let whole = with(&image, b"kernel.quiet\n\0\0\0", padding);
                let (found, text) = split(&whole);
                assert!(found == image, "{length} {padding}");
                assert_eq!(text.as_deref(), Some(&whole[length..]));
            }
        }
    }

    #[test]
    fn an_image_without_one_passes_unchanged() {
        let whole = with(b"image", b"kernel.quiet\n", 0);
        for bytes in [&b""[..], b"image", &whole[..whole.len() - 1], &[&whole[..], b"\0\0\0\0"].concat()] {
            assert_eq!(split(bytes), (bytes.to_vec(), None));
        }
        let mut wrong = whole;
        wrong[6] ^= 1;
        assert_eq!(split(&wrong).1, None);
    }
}
