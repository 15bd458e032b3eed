//! Tests whether a program is executable, before anything changes: if the exec failed later, the machine
//! would not boot.
//!
//! The init tests the programs of a directory, `repot inspect` those of an image: both are a [`Root`].

mod format;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, pread};

use crate::display::Quoted;
use crate::error::name_of;
use crate::metadata::{At, Meta};
use crate::site::open_in_root;

pub use format::{Architecture, Program, ReadAt};

/// Why a program is not executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It cannot be opened.
    Open(Errno),
    /// It is not a regular file.
    Kind(&'static str),
    /// It has no execute bit.
    Mode,
    /// It is the program that runs now.
    Itself,
    /// It is neither ELF nor a script.
    Format,
    /// It is for another machine: the number in its ELF header (`e_machine`).
    Machine(u16),
    /// Its interpreter is not executable.
    Interpreter(Vec<u8>, alloc::boxed::Box<Why>),
    /// The chain of interpreters is too long.
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

/// The architecture of a kernel, by the ELF programs that it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine` of its native programs and of its 32-bit ones. Both are 0 if it is unknown: then no number
    /// is refused.
    elf: [u16; 2],
    /// Whether its programs are big-endian; `None` if that is unknown.
    big: Option<bool>,
}

impl Machine {
    /// A machine that refuses no program.
    pub const UNKNOWN: Machine = Machine { elf: [0, 0], big: None };

    /// The machine that uname(2) calls `name`, in the byte order of this program.
    pub fn named(name: &[u8]) -> Machine {
        let native = match name {
            b"x86_64" => 62,
            b"aarch64" => 183,
            b"riscv64" | b"riscv32" => 243,
            b"ppc64" | b"ppc64le" => 21,
            b"s390x" => 22,
            b"loongarch64" => 258,
            b"mips" | b"mips64" => 8,
            [b'i', _, b'8', b'6'] => 3,
            [b'a', b'r', b'm', ..] => 40,
            _ => 0,
        };
        Machine::native(native, cfg!(target_endian = "big"))
    }

    /// The machine of the running kernel.
    pub fn running() -> Machine {
        Machine::named(rustix::system::uname().machine().to_bytes())
    }

    /// The machine whose native programs have this architecture.
    pub fn of(architecture: Architecture) -> Machine {
        Machine::native(architecture.number, architecture.big)
    }

    fn native(number: u16, big: bool) -> Machine {
        let narrow = match number {
            62 => 3,
            183 => 40,
            21 => 20,
            other => other,
        };
        Machine { elf: [number, narrow], big: Some(big) }
    }

    fn runs(self, program: Architecture) -> bool {
        (self.elf == [0, 0] || self.elf.contains(&program.number))
            && self.big.is_none_or(|big| big == program.big)
    }
}

/// A file in a root, as far as it matters before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub kind: FileType,
    /// Its permission bits.
    pub mode: Mode,
    /// Device and inode, if the root has them.
    pub identity: Option<((u32, u32), u64)>,
}

/// A root file system that programs are tested in. Paths are resolved inside it, symbolic links included.
pub trait Root {
    /// Looks at the file at `path` without opening it: opening a device or a fifo has effects.
    ///
    /// # Errors
    /// [`Why::Open`], usually because it does not exist.
    fn look(&self, path: &[u8]) -> Result<Node, Why>;

    /// Reads the format of the regular file at `path`, usually by [`Program::read`].
    ///
    /// # Errors
    /// Those of [`Program::read`], and [`Why::Open`].
    fn program(&self, path: &[u8]) -> Result<Program, Why>;
}

/// A directory is a root.
impl Root for BorrowedFd<'_> {
    fn look(&self, path: &[u8]) -> Result<Node, Why> {
        let file = open(*self, path, OFlags::PATH)?;
        let meta = Meta::read(At::Open(file.as_fd())).map_err(|fault| Why::Open(fault.errno))?;
        Ok(Node { kind: meta.kind, mode: meta.mode, identity: Some((meta.device, meta.inode)) })
    }

    fn program(&self, path: &[u8]) -> Result<Program, Why> {
        let file = open(*self, path, OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK)?;
        Program::read(&mut |offset, buffer| pread(&file, buffer, offset))
    }
}

fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Why> {
    open_in_root(root, path, flags).map_err(Why::Open)
}

/// Programs in a chain of interpreters, the ELF program at its end included (`exec_binprm` since 5.8).
const DEPTH: u32 = 5;

/// Tests whether a kernel on `machine` executes the program at `path` in `root`.
///
/// `running` is the identity of a program that must not be executed again.
///
/// # Errors
/// The reason why it does not.
pub fn test(
    root: &dyn Root,
    path: &[u8],
    running: Option<((u32, u32), u64)>,
    machine: Machine,
) -> Result<(), Why> {
    test_at(root, path, running, machine, 0)
}

fn test_at(
    root: &dyn Root,
    path: &[u8],
    running: Option<((u32, u32), u64)>,
    machine: Machine,
    depth: u32,
) -> Result<(), Why> {
    if depth == DEPTH {
        return Err(Why::Depth);
    }
    let node = root.look(path)?;
    const OTHERS: [(FileType, &str); 3] =
        [(FileType::Directory, "a directory"), (FileType::Fifo, "a fifo"), (FileType::Socket, "a socket")];
    if node.kind != FileType::RegularFile {
        let known = OTHERS.iter().find(|(kind, _)| *kind == node.kind);
        return Err(Why::Kind(known.map_or("a device", |(_, name)| name)));
    }
    if !node.mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
        return Err(Why::Mode);
    }
    if running.is_some() && running == node.identity {
        return Err(Why::Itself);
    }
    let program = root.program(path)?;
    if let Some(architecture) = program.architecture.filter(|own| !machine.runs(*own)) {
        return Err(Why::Machine(architecture.number));
    }
    let Some(interpreter) = program.interpreter else { return Ok(()) };
    test_at(root, &interpreter, None, machine, depth + 1)
        .map_err(|why| Why::Interpreter(interpreter, why.into()))
}

/// A program that may become the real init, with the result of its test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Why it is not executable; `None` if it is.
    pub why: Option<Why>,
}

impl Candidate {
    /// Whether it is worth a try: it is executable, or could not be tested. A lack of memory or of
    /// descriptors, or a system call that this kernel lacks, says nothing about the program.
    pub fn may_run(&self) -> bool {
        let mut why = self.why.as_ref();
        while let Some(Why::Interpreter(_, inner)) = why {
            why = Some(inner);
        }
        let definite = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::ACCESS, Errno::NAMETOOLONG];
        match why {
            None => true,
            Some(Why::Open(errno)) => !definite.contains(errno),
            Some(_) => false,
        }
    }

    /// A clause for messages.
    pub fn account(&self) -> String {
        match &self.why {
            Some(why) => alloc::format!("{} {why}", Quoted(&self.path)),
            None => alloc::format!("{} is executable", Quoted(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_could_not_be_made_says_nothing_about_the_program() {
        let may_run = |why| Candidate { path: b"/init".to_vec(), why }.may_run();
        assert!(may_run(None) && may_run(Some(Why::Open(Errno::NOSYS))));
        let interpreter = |errno| Some(Why::Interpreter(b"/ld.so".to_vec(), Why::Open(errno).into()));
        assert!(may_run(interpreter(Errno::MFILE)) && !may_run(interpreter(Errno::NOENT)));
        assert!(!may_run(Some(Why::Mode)) && !may_run(Some(Why::Open(Errno::LOOP))));
    }
}
