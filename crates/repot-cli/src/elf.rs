//! What a program needs in order to be executed, from its first bytes: its architecture, and the interpreter
//! it names.

/// Enough of a file's beginning to find the program headers and the interpreter's name.
pub const HEAD: usize = 4096;

/// What the kernel would make of a file it is told to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// An ELF program.
    Elf {
        /// Its machine.
        machine: Machine,
        /// The dynamic linker it asks for; none when it is static.
        interpreter: Option<Vec<u8>>,
    },
    /// A script and the interpreter of its first line.
    Script(Vec<u8>),
    /// Neither.
    Unknown,
}

/// An architecture: the number in an ELF header, and its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`.
    pub number: u16,
    /// 64 bits, else 32.
    pub wide: bool,
}

impl Machine {
    /// As `uname -m` calls it.
    #[must_use]
    pub fn name(self) -> String {
        let name = match (self.number, self.wide) {
            (3, _) => "i686",
            (8, _) => "mips",
            (20, _) => "ppc",
            (21, _) => "ppc64",
            (22, _) => "s390x",
            (40, _) => "armv7l",
            (62, true) => "x86_64",
            (62, false) => "x32",
            (183, _) => "aarch64",
            (243, true) => "riscv64",
            (243, false) => "riscv32",
            (258, _) => "loongarch64",
            (number, _) => return format!("machine {number}"),
        };
        name.to_string()
    }
}

impl Program {
    /// Looks at the first [`HEAD`] bytes of a file, or all of a shorter one.
    #[must_use]
    pub fn parse(head: &[u8]) -> Program {
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
            let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            return Program::Script(line[..end].to_vec());
        }
        elf(head).unwrap_or(Program::Unknown)
    }
}

/// Reads integers of either width and byte order at offsets that may lie.
struct Fields<'a> {
    bytes: &'a [u8],
    big: bool,
    wide: bool,
}

impl Fields<'_> {
    fn number(&self, offset: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(size)?)?;
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    }

    /// A field that is at one offset and size in 64-bit files and at another in 32-bit ones.
    fn either(&self, wide: (usize, usize), narrow: (usize, usize)) -> Option<usize> {
        let (offset, size) = if self.wide { wide } else { narrow };
        self.number(offset, size).and_then(|number| usize::try_from(number).ok())
    }
}

fn elf(head: &[u8]) -> Option<Program> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let fields = Fields { bytes: head, wide: *head.get(4)? == 2, big: *head.get(5)? == 2 };
    let machine = Machine { number: u16::try_from(fields.number(18, 2)?).ok()?, wide: fields.wide };
    let table = fields.either((32, 8), (28, 4))?;
    let size = fields.either((54, 2), (42, 2))?;
    let count = fields.either((56, 2), (44, 2))?;
    let mut interpreter = None;
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        // A table beyond the first page belongs to no ordinary program: then nothing is said about an
        // interpreter.
        let Some(kind) = fields.number(at, 4) else { break };
        if kind == 3 {
            let offset = fields.either((at + 8, 8), (at + 4, 4))?;
            let len = fields.either((at + 32, 8), (at + 16, 4))?;
            let name = head.get(offset..offset.checked_add(len)?)?;
            interpreter = Some(name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec());
        }
    }
    Some(Program::Elf { machine, interpreter })
}
