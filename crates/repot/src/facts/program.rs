//! Whether a program can be executed: asked before anything is changed, because an exec that fails later is a machine that
//! does not boot.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, pread};

use crate::display::Quoted;
use crate::error::name_of;
use crate::metadata::{At, Meta};

/// Why a program cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It cannot be opened.
    Open(Errno),
    /// It is no regular file.
    Kind(&'static str),
    /// It has no execute bit.
    Mode,
    /// It is the program that is running now.
    Itself,
    /// It is neither ELF nor a script.
    Format,
    /// It is for another machine, with this number in its ELF header (`e_machine`).
    Machine(u16),
    /// What it needs to run cannot be executed.
    Interpreter(Vec<u8>, alloc::boxed::Box<Why>),
    /// Scripts upon scripts.
    Depth,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Open(Errno::NOENT) => f.write_str("does not exist"),
            Why::Open(errno) => write!(f, "cannot be opened: {} ({})", name_of(*errno).0, name_of(*errno).1),
            Why::Kind(kind) => write!(f, "is {kind}"),
            Why::Mode => f.write_str("is not executable"),
            Why::Itself => f.write_str("is repot itself"),
            Why::Format => f.write_str("is neither an ELF program nor a script"),
            Why::Machine(number) => write!(f, "is built for another architecture (ELF machine {number})"),
            Why::Interpreter(path, why) => write!(f, "needs {}, which {why}", Quoted(path)),
            Why::Depth => f.write_str("is a script with too many levels of interpreters"),
        }
    }
}

/// The architecture of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The ELF machine numbers of the programs that it can execute.
    elf: [u16; 2],
}

impl Machine {
    /// By the name that uname(2) gives; the second number is that of its 32-bit programs.
    pub fn named(name: &[u8]) -> Machine {
        let elf = match name {
            b"x86_64" => [62, 3],
            b"aarch64" => [183, 40],
            b"riscv64" | b"riscv32" => [243, 243],
            b"ppc64" | b"ppc64le" => [21, 20],
            b"s390x" => [22, 22],
            b"loongarch64" => [258, 258],
            b"mips" | b"mips64" => [8, 8],
            [b'i', _, b'8', b'6'] => [3, 3],
            [b'a', b'r', b'm', ..] => [40, 40],
            // What is not known is not refused.
            _ => [0, 0],
        };
        Machine { elf }
    }

    /// That of the running kernel.
    pub fn running() -> Machine {
        Machine::named(rustix::system::uname().machine().to_bytes())
    }

    fn runs(self, number: u16) -> bool {
        self.elf == [0, 0] || self.elf.contains(&number)
    }
}

/// The kernel follows `#!` four times at most (`exec_binprm`, since 5.8 five loads).
const DEPTH: u32 = 5;

/// Tests the program at `path`, symbolic links resolved inside `root`. `running` is the program that must not be executed again.
///
/// # Errors
/// The reason why it cannot be executed.
pub fn test(
    root: BorrowedFd<'_>,
    path: &[u8],
    running: Option<((u32, u32), u64)>,
    machine: Machine,
) -> Result<(), Why> {
    test_at(root, path, running, machine, 0)
}

fn test_at(
    root: BorrowedFd<'_>,
    path: &[u8],
    running: Option<((u32, u32), u64)>,
    machine: Machine,
    depth: u32,
) -> Result<(), Why> {
    if depth == DEPTH {
        return Err(Why::Depth);
    }
    // First without opening it for real, which on a device or a fifo has effects.
    let there = open(root, path, OFlags::PATH)?;
    let meta = Meta::read(At::Open(there.as_fd())).map_err(|fault| Why::Open(fault.errno))?;
    const OTHERS: [(FileType, &str); 3] =
        [(FileType::Directory, "a directory"), (FileType::Fifo, "a fifo"), (FileType::Socket, "a socket")];
    if meta.kind != FileType::RegularFile {
        let known = OTHERS.iter().find(|(kind, _)| *kind == meta.kind);
        return Err(Why::Kind(known.map_or("a device", |(_, name)| name)));
    }
    if !meta.mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
        return Err(Why::Mode);
    }
    if running == Some((meta.device, meta.inode)) {
        return Err(Why::Itself);
    }
    let file = open(root, path, OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK)?;
    let head = read(&file, 0, 512).map_err(Why::Open)?;
    let interpreter = if head.starts_with(b"\x7fELF") {
        elf(&file, &head, machine)?
    } else if let Some(line) = head.strip_prefix(b"#!") {
        Some(script(line).ok_or(Why::Format)?)
    } else {
        return Err(Why::Format);
    };
    let Some(interpreter) = interpreter else { return Ok(()) };
    test_at(root, &interpreter, None, machine, depth + 1)
        .map_err(|why| Why::Interpreter(interpreter, why.into()))
}

fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Why> {
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).map_err(Why::Open)
}

fn read(file: &OwnedFd, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match pread(file, &mut bytes[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The interpreter on the line behind `#!`, as `load_script` finds it.
fn script(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?.trim_ascii();
    let path = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    if path.is_empty() { None } else { Some(path.to_vec()) }
}

/// The interpreter that an ELF program names, where it names one.
fn elf(file: &OwnedFd, head: &[u8], machine: Machine) -> Result<Option<Vec<u8>>, Why> {
    let little = if cfg!(target_endian = "little") { 1 } else { 2 };
    let (class, order) = (head.get(4), head.get(5));
    let wide = match class {
        Some(1) => false,
        Some(2) => true,
        _ => return Err(Why::Format),
    };
    let field = |bytes: &[u8], at: usize, size: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + size)?;
        let value = match size {
            2 => u16::from_ne_bytes(bytes.try_into().ok()?).into(),
            4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        };
        Some(value)
    };
    let number = field(head, 18, 2).ok_or(Why::Format)?;
    let number = u16::try_from(number).unwrap_or(0);
    if order != Some(&little) || !machine.runs(number) {
        return Err(Why::Machine(number));
    }
    // Offsets of e_phoff, e_phentsize, e_phnum, and in a program header p_offset and p_filesz; elf(5).
    let (phoff, phentsize, phnum, offset, filesz, word) =
        if wide { (32, 54, 56, 8, 32, 8) } else { (28, 42, 44, 4, 16, 4) };
    let headers = || -> Option<(u64, u64, u64)> {
        Some((field(head, phoff, word)?, field(head, phentsize, 2)?, field(head, phnum, 2)?))
    };
    let (table, entry, count) = headers().ok_or(Why::Format)?;
    for index in 0..count {
        let at = table.saturating_add(index * entry);
        let header = read(file, at, 56).map_err(Why::Open)?;
        if field(&header, 0, 4) != Some(3) {
            continue;
        }
        let (Some(start), Some(size)) = (field(&header, offset, word), field(&header, filesz, word)) else {
            return Err(Why::Format);
        };
        // A path, which the kernel too takes no longer than that.
        let size = usize::try_from(size).ok().filter(|size| (2..=4096).contains(size)).ok_or(Why::Format)?;
        let mut path = read(file, start, size).map_err(Why::Open)?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        return Ok(Some(path));
    }
    Ok(None)
}

/// One program that might be the init, and what testing it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Why it cannot be executed, where it cannot.
    pub why: Option<Why>,
}

impl Candidate {
    /// In one clause, for messages.
    pub fn account(&self) -> String {
        match &self.why {
            Some(why) => alloc::format!("{} {why}", Quoted(&self.path)),
            None => alloc::format!("{} is executable", Quoted(&self.path)),
        }
    }
}
