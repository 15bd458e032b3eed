//! The initramfs that is built into a kernel: an archive between its other data, with its length behind it.
//!
//! A kernel file has no table that names it. The kernel's build puts the length, as a number of the machine,
//! at the next multiple of 8 behind the archive (`usr/initramfs_data.S`). So the place is found from both
//! sides: a magic of an archive, and a number that is the distance to it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::Part;
use crate::codec::{Compression, ahead, any};
use crate::newc::Item;
use crate::source::tarball::Range;
use crate::survey::segments::{self, Segment, Visit};
use crate::survey::window::Window;

/// Bytes of an unpacked kernel at most.
const LARGEST: u64 = 1 << 30;
/// Bytes that are searched at once. The next ones begin at a multiple of 8.
const BLOCK: usize = 1 << 20;
/// Bytes of the longest magic that is looked for.
const MAGIC: usize = 6;

/// Places that may begin an archive, at most. A file of nothing but magics has millions.
const PLACES: usize = 1 << 16;
/// How many of those that a length fits are read.
const TRIES: usize = 1 << 10;

/// What a file is that has such an archive.
pub(super) const FORMAT: &str = "a kernel with a built-in initramfs";

/// The unpacked kernel and the archive in it; `None` if the file is no kernel, or none with an archive.
pub(super) fn built_in(file: &Arc<File>, head: &[u8], bytes: u64) -> Result<Option<(Arc<File>, Part)>> {
    let Some(unpacked) = unpacked(file, head, bytes).context("cannot unpack the kernel")? else {
        return Ok(None);
    };
    let Some((start, end)) = search(&unpacked).context("cannot read the kernel")? else { return Ok(None) };
    Ok(Some((unpacked, Part { name: "the initramfs that is built into the kernel".into(), start, end })))
}

/// Whether an archive has only what every kernel has that is built without one (`usr/default_cpio_list`).
pub(super) fn is_default(file: &Arc<File>, part: &Part) -> bool {
    let mut names = Names(true);
    let read = segments::read_window(&mut Window::new(file.clone(), part.start, part.end), &mut names);
    read.is_ok() && names.0
}

/// Whether all names are those of the default.
struct Names(bool);

impl Visit for Names {
    fn segment(&mut self, _: Segment) -> Result<()> {
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, _: &mut dyn Read) -> Result<()> {
        if let Item::Member(header) = item {
            self.0 &= matches!(&header.name[..], b"dev" | b"dev/console" | b"root");
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

/// The kernel as it lies in memory; `None` if the file is none.
fn unpacked(file: &Arc<File>, head: &[u8], bytes: u64) -> Result<Option<Arc<File>>> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let word = |offset: usize| {
        let bytes = head.get(offset..offset + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    if at(0x202, b"HdrS") {
        // Documentation/arch/x86/boot.rst: setup_sects, payload_offset and payload_length.
        let sectors = u64::from(head.get(0x1f1).copied().filter(|count| *count > 0).unwrap_or(4));
        let (Some(offset), Some(length)) = (word(0x248), word(0x24c)) else { return Ok(None) };
        // The build adds the unpacked size. Only gzip has that anyway.
        return stream(file, (sectors + 1) * 512 + offset, length, bytes, 4);
    }
    if at(4, b"zimg") {
        let (Some(offset), Some(length)) = (word(8), word(12)) else { return Ok(None) };
        return stream(file, offset, length, bytes, 0);
    }
    if at(0, &[0x1f, 0x8b]) {
        // Image.gz of arm64 and riscv.
        let mut start = [0; 64];
        let mut input = BufReader::new(Range::new(file.clone(), 0, bytes));
        let read = Compression::Gzip
            .decoder(&mut input)
            .and_then(|inner| ahead::of(inner, |inner| inner.read_exact(&mut start)));
        return if read.is_ok() && is_flat(&start) { stream(file, 0, bytes, bytes, 0) } else { Ok(None) };
    }
    Ok((is_flat(head) || at(0, b"\x7fELF")).then(|| file.clone()))
}

/// Takes the kernel out of the EFI program that unpacks it (zboot); `None` if the file is no such program.
pub(crate) fn in_zboot(file: &Arc<File>) -> Result<Option<Arc<File>>> {
    let mut head = [0; 16];
    if file.read_exact_at(&mut head, 0).is_err() || !head[4..].starts_with(b"zimg") {
        return Ok(None);
    }
    unpacked(file, &head, file.metadata()?.len())
}

/// Whether it is the kernel itself, without a program that unpacks it.
fn is_flat(head: &[u8]) -> bool {
    // arm64, riscv, and what loongarch has there.
    let magics = [&b"ARM\x64"[..], b"RSC\x05", &[0xcd, 0x23, 0x82, 0x81]];
    head.get(0x38..).is_some_and(|rest| magics.iter().any(|magic| rest.starts_with(magic)))
}

/// Decompresses a stream into an unnamed file; `None` if it is compressed by nothing that is known. Behind
/// one that is not gzip are `appended` bytes.
fn stream(file: &Arc<File>, start: u64, length: u64, bytes: u64, appended: u64) -> Result<Option<Arc<File>>> {
    ensure!(
        start.checked_add(length).is_some_and(|end| end <= bytes),
        "truncated: its compressed part is {length} bytes long at byte {start} of {bytes}"
    );
    let mut magic = [0; 4];
    if length < magic.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut magic, start)?;
    let compression = match any::detect(&magic) {
        Some(any::Format::Kernel(compression)) => compression,
        _ => match Compression::detect(&magic) {
            Ok(compression) => compression,
            Err(_) => return Ok(None),
        },
    };
    let length = if compression == Compression::Gzip { length } else { length.saturating_sub(appended) };
    let mut input = BufReader::new(Range::new(file.clone(), start, length));
    let mut output = tempfile::tempfile().context("cannot create a temporary file")?;
    let unpacked = compression
        .decoder(&mut input)
        .and_then(|inner| ahead::of(inner, |inner| io::copy(&mut inner.take(LARGEST + 1), &mut output)))
        .with_context(|| compression.to_string())?;
    ensure!(unpacked <= LARGEST, "it is larger than 1 GiB: this looks like a decompression bomb");
    output.flush()?;
    Ok(Some(Arc::new(output)))
}

/// The first and the last byte of the archive.
fn search(file: &Arc<File>) -> io::Result<Option<(u64, u64)>> {
    let mut magics = Vec::new();
    blocks(file, MAGIC, &mut |base, bytes, count| {
        for (offset, window) in bytes.windows(MAGIC).take(count).enumerate().step_by(4) {
            if begins(window) && magics.len() < PLACES {
                magics.push(base + offset as u64);
            }
        }
        None
    })?;
    let mut tries = TRIES;
    blocks(file, 8, &mut |base, bytes, count| {
        let words = bytes.chunks_exact(8).take(count / 8).enumerate();
        words.map(|(number, word)| (base + 8 * number as u64, word)).find_map(|(at, word)| {
            lengths(word).filter(|is| (1..=at).contains(is)).find_map(|is| {
                let last = at - is;
                let next = magics.partition_point(|start| *start <= last);
                let start = magics[..next].last().filter(|start| last - **start < 8)?;
                tries = tries.checked_sub(1)?;
                Some((*start, start + is)).filter(|place| is_archive(file, *place))
            })
        })
    })
}

/// Whether a piece of the file is an archive, compressed or not: the kernel's own code has the magics too.
fn is_archive(file: &Arc<File>, (start, end): (u64, u64)) -> bool {
    let mut members = Members(0);
    segments::read_window(&mut Window::new(file.clone(), start, end), &mut members).is_ok() && members.0 > 0
}

/// Counts members.
struct Members(u64);

impl Visit for Members {
    fn segment(&mut self, _: Segment) -> Result<()> {
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, _: &mut dyn Read) -> Result<()> {
        self.0 += u64::from(matches!(item, Item::Member(_)));
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

/// What a number of the machine says, with 4 or 8 bytes, in both byte orders.
fn lengths(word: &[u8]) -> impl Iterator<Item = u64> {
    let number = |at: usize| word.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 4]);
    let little = u32::from_le_bytes(number(0));
    let (narrow, wide) = (u32::from_be_bytes(number(0)), u32::from_be_bytes(number(4)));
    [little, narrow, wide].into_iter().map(u64::from)
}

/// Whether an archive, or a compressed stream, begins here.
fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701")
        || bytes.starts_with(b"070702")
        || matches!(any::detect(bytes), Some(any::Format::Kernel(_)))
}

/// Where something was found.
type Found = Option<(u64, u64)>;

/// Passes the file in blocks, each with some bytes of the next one, until something is found.
fn blocks(file: &File, more: usize, look: &mut dyn FnMut(u64, &[u8], usize) -> Found) -> io::Result<Found> {
    let mut buffer = vec![0; BLOCK + more];
    let mut base = 0;
    loop {
        let mut filled = 0;
        while let got @ 1.. = file.read_at(&mut buffer[filled..], base + filled as u64)? {
            filled += got;
        }
        let found = look(base, &buffer[..filled], filled.min(BLOCK));
        if found.is_some() || filled < buffer.len() {
            return Ok(found);
        }
        base += BLOCK as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newc::{Header, Writer};

    #[test]
    fn the_kernel_in_zboot_ends_with_its_stream() {
        let stream = zstd::encode_all(&b"a kernel"[..], 3).unwrap();
        let length = u32::try_from(stream.len()).unwrap().to_le_bytes();
        let head = [b"MZ\0\0zimg", &16_u32.to_le_bytes()[..], &length];
        let file = Arc::new(tempfile::tempfile().unwrap());
        (&*file).write_all(&[&head.concat(), &stream, &b"the rest of the program"[..]].concat()).unwrap();
        let mut kernel = [0; 8];
        in_zboot(&file).unwrap().expect("zboot").read_exact_at(&mut kernel, 0).unwrap();
        assert_eq!(&kernel, b"a kernel");
        file.write_all_at(b"no", 4).unwrap();
        assert!(in_zboot(&file).unwrap().is_none());
    }

    #[test]
    fn a_file_of_magics_is_not_searched_to_its_end() {
        let mut writer = Writer::new(Vec::new());
        let header = Header { name: b"dev".to_vec(), mode: 0o040_755, nlink: 1, ..Header::default() };
        writer.append(&header, b"").unwrap();
        let mut archive = writer.finish().unwrap();
        let length = archive.len();
        archive.resize(length.next_multiple_of(8), 0);
        archive.extend((length as u64).to_le_bytes());
        // A magic, and a length that leads to another one.
        let word = [&[0x1f, 0x8b, 8, 0][..], &8_u32.to_be_bytes()].concat();
        for (words, found) in [(TRIES / 4, true), (4 * TRIES, false)] {
            let file = Arc::new(tempfile::tempfile().unwrap());
            (&*file).write_all(&[word.repeat(words), archive.clone()].concat()).unwrap();
            assert_eq!(search(&file).unwrap().is_some(), found, "{words}");
        }
    }

    #[test]
    fn the_archive_is_between_a_magic_and_its_length() {
        let mut writer = Writer::new(Vec::new());
        let header = Header { name: b"dev".to_vec(), mode: 0o040_755, nlink: 1, ..Header::default() };
        writer.append(&header, b"").unwrap();
        let mut archive = writer.finish().unwrap();
        archive.push(0);
        for (before, wide, big) in
            [(4, true, false), (BLOCK - 2, false, false), (BLOCK + 12, true, true), (0, false, true)]
        {
            let before = before / 4 * 4;
            let mut bytes = vec![0x55; before];
            bytes.extend(&archive);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let length = u32::try_from(archive.len()).unwrap();
            bytes.extend(match (wide, big) {
                (true, false) => u64::from(length).to_le_bytes().to_vec(),
                (true, true) => u64::from(length).to_be_bytes().to_vec(),
                (false, false) => [length.to_le_bytes(), [9; 4]].concat(),
                (false, true) => [length.to_be_bytes(), [9; 4]].concat(),
            });
            bytes.extend([7; 100]);
            let file = Arc::new(tempfile::tempfile().unwrap());
            (&*file).write_all(&bytes).unwrap();
            let expected = (before as u64, (before + archive.len()) as u64);
            assert_eq!(search(&file).unwrap(), Some(expected), "{before} {wide} {big}");
            file.set_len((before + archive.len()) as u64).unwrap();
            assert_eq!(search(&file).unwrap(), None);
        }
    }
}
