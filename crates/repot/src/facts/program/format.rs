//! Reads what the kernel reads of a program: the `#!` line of a script, or the headers of an ELF file.

use alloc::vec;
use alloc::vec::Vec;

use rustix::io::Errno;

use super::Why;

/// Reads a file at an offset into a buffer, like pread(2). Returns 0 at the end.
pub type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize, Errno> + 'a;

/// Bytes of the file that are read first. The ELF header and a `#!` line fit.
const HEAD: usize = 512;
/// `PATH_MAX`: the kernel refuses a longer path of an ELF interpreter.
const PATH: usize = 4096;
/// Bytes of a program header of a 64-bit ELF file.
const ENTRY: usize = 56;
/// `PT_INTERP`
const INTERPRETER: u64 = 3;

/// What the kernel needs to execute a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The architecture of an ELF program; `None` for a script.
    pub architecture: Option<Architecture>,
    /// The interpreter of a script, or the dynamic linker of an ELF program.
    pub interpreter: Option<Vec<u8>>,
}

/// The architecture of an ELF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// `e_machine`, in the byte order of the file.
    pub number: u16,
    /// 64-bit, otherwise 32-bit.
    pub wide: bool,
    /// Big-endian, otherwise little-endian.
    pub big: bool,
}

impl Program {
    /// Reads the format of a program.
    ///
    /// # Errors
    /// [`Why::Format`] if it is neither ELF nor a script, [`Why::Open`] if `read_at` fails.
    pub fn read(read_at: &mut ReadAt<'_>) -> Result<Program, Why> {
        let head = read(read_at, 0, HEAD)?;
        if let Some(line) = head.strip_prefix(b"#!") {
            let interpreter = script(line).ok_or(Why::Format)?;
            return Ok(Program { architecture: None, interpreter: Some(interpreter) });
        }
        let (wide, big) = match head.as_slice() {
            [0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2, ..] => (*class == 2, *order == 2),
            _ => return Err(Why::Format),
        };
        let number = field(&head, 18, 2, big).and_then(|number| u16::try_from(number).ok());
        let architecture = Architecture { number: number.ok_or(Why::Format)?, wide, big };
        Ok(Program { architecture: Some(architecture), interpreter: linker(read_at, &head, architecture)? })
    }
}

/// Reads up to `length` bytes; fewer only at the end of the file.
fn read(read_at: &mut ReadAt<'_>, offset: u64, length: usize) -> Result<Vec<u8>, Why> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read_at(offset.saturating_add(filled as u64), &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Why::Open(error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The interpreter on the line after `#!`, as `load_script` finds it.
fn script(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?.trim_ascii();
    let path = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    if path.is_empty() { None } else { Some(path.to_vec()) }
}

/// An integer of 1 to 8 bytes at an offset.
#[inline(never)]
fn field(bytes: &[u8], at: usize, size: usize, big: bool) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    let number = bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    Some(if big { number } else { number.swap_bytes() >> (64 - 8 * size) })
}

/// The dynamic linker that an ELF program names in `PT_INTERP`, if it names one.
fn linker(read_at: &mut ReadAt<'_>, head: &[u8], architecture: Architecture) -> Result<Option<Vec<u8>>, Why> {
    let Architecture { wide, big, .. } = architecture;
    // Offsets of e_phoff, e_phentsize, e_phnum, and in a program header p_offset and p_filesz; elf(5).
    let (phoff, phentsize, phnum, offset, filesz, word) =
        if wide { (32, 54, 56, 8, 32, 8) } else { (28, 42, 44, 4, 16, 4) };
    let header = |at, size| field(head, at, size, big).ok_or(Why::Format);
    let (table, entry, count) = (header(phoff, word)?, header(phentsize, 2)?, header(phnum, 2)?);
    for index in 0..count {
        let header = read(read_at, table.saturating_add(index * entry), ENTRY)?;
        if field(&header, 0, 4, big) != Some(INTERPRETER) {
            continue;
        }
        let number = |at| field(&header, at, word, big).ok_or(Why::Format);
        let (start, size) = (number(offset)?, number(filesz)?);
        let size = usize::try_from(size).ok().filter(|size| (2..=PATH).contains(size)).ok_or(Why::Format)?;
        let mut path = read(read_at, start, size)?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        return Ok(Some(path));
    }
    Ok(None)
}
