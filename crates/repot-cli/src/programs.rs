//! Follows the boot of a root: which init runs, and why others do not.
//!
//! The library tests the programs, as it does in the init. Here is its view of a tree.

use std::io::{self, Read};

use repot::facts::INITS;
use repot::facts::program::{self, Architecture, Candidate, Machine, Node, Program, Root, Why};
use repot::options::Options;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::architecture::machine_name;
use crate::init_binary;
use crate::tree::{Contents, Id, Kind, Tree};

/// A root whose programs are tested.
pub struct Programs<'a> {
    /// Its names and attributes.
    pub tree: &'a Tree,
    /// The format of a file.
    pub program: &'a dyn Fn(Id) -> Result<Program, Why>,
    /// Its `/etc/repot.conf`.
    pub config: &'a str,
    /// Whether `/init` is repot.
    pub repot: bool,
}

/// The result of following the boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The path of the real init.
    pub init: Option<String>,
    /// What keeps the system from booting, or would surprise.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for Programs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Programs")
    }
}

impl Root for Programs<'_> {
    fn look(&self, path: &[u8]) -> Result<Node, Why> {
        let inode = self.tree.inode(self.find(path)?);
        let mode = inode.mode();
        Ok(Node { kind: FileType::from_raw_mode(mode), mode: Mode::from_raw_mode(mode), identity: None })
    }

    fn program(&self, path: &[u8]) -> Result<Program, Why> {
        (self.program)(self.find(path)?)
    }
}

impl Programs<'_> {
    /// Follows the boot from `/init` to the real init.
    #[must_use]
    pub fn boot(&self) -> Boot {
        let mut boot = Boot::default();
        let own = self.program(b"/init").ok().and_then(|program| program.architecture);
        let machine = own.map_or(Machine::UNKNOWN, Machine::of);
        let test = |path: &[u8]| match program::test(self, path, None, machine) {
            Ok(()) => Ok(String::from_utf8_lossy(path).into_owned()),
            Err(why) => {
                let other = foreign(&why).zip(own).map(|(other, own)| {
                    format!(": {}, but /init is for {}", machine_name(other), machine_name(own.number))
                });
                let account = Candidate { path: path.to_vec(), why: Some(why) }.account();
                Err(account + &other.unwrap_or_default())
            }
        };
        if let Err(problem) = test(b"/init") {
            boot.problems.push(format!("{problem}: the kernel will look for a root file system elsewhere"));
            return boot;
        }
        if !self.repot {
            boot.init = Some("/init".into());
            return boot;
        }
        let options = Options::read(Some(self.config.as_bytes()), &[]);
        for (key, init) in [("chain", options.chain), ("init", options.init)] {
            match init.as_deref().filter(|_| boot.init.is_none()).map(test) {
                Some(Ok(init)) => boot.init = Some(init),
                Some(Err(problem)) => boot.problems.push(format!("{problem} ({key}= in /etc/repot.conf)")),
                None => {}
            }
        }
        let mut reasons = Vec::new();
        for init in INITS {
            if boot.init.is_some() {
                break;
            }
            match test(init.to_bytes()) {
                Ok(init) => boot.init = Some(init),
                Err(problem) => reasons.push(problem),
            }
        }
        if boot.init.is_none() {
            boot.problems.push(format!("no init can run: {}", reasons.join("; ")));
        }
        boot
    }

    /// Whether repot, as `/init`, would find another init: that of init=, or one of the usual ones.
    #[must_use]
    pub fn finds_init(&self) -> bool {
        let configured = Options::read(Some(self.config.as_bytes()), &[]).init;
        let runs = |path: &[u8]| program::test(self, path, None, Machine::UNKNOWN).is_ok();
        configured.is_some_and(|path| runs(&path)) || INITS.iter().any(|path| runs(path.to_bytes()))
    }

    fn find(&self, path: &[u8]) -> Result<Id, Why> {
        self.tree.resolve(path).ok_or(Why::Open(Errno::NOENT))
    }
}

/// The first init of a root that can run: its own `/init`, or one of those that `/init` of repot looks for. A
/// shell is none.
#[must_use]
pub fn init_of(tree: &Tree) -> Option<String> {
    let format = of_tree(tree);
    let root = Programs { tree, program: &format, config: "", repot: true };
    let inits = [c"/init"].into_iter().chain(INITS).filter(|path| *path != c"/bin/sh");
    let mut able = inits.filter(|path| program::test(&root, path.to_bytes(), None, Machine::UNKNOWN).is_ok());
    able.next().map(|path| path.to_string_lossy().into_owned())
}

/// The architecture of a root: of its first init that is a program, or a script for one; else of any program
/// in it. `first` is looked at before all. Its `/init` may be repot of another architecture.
pub fn architecture_of(
    tree: &Tree,
    read: &dyn Fn(Id) -> Result<Program, Why>,
    repot: bool,
    first: Option<&str>,
) -> Option<Architecture> {
    let inits = INITS.into_iter().map(|path| path.to_bytes());
    let own = Some(&b"/init"[..]).filter(|_| !repot);
    let candidates = first.map(str::as_bytes).into_iter().chain(own).chain(inits);
    for path in candidates {
        let mut path = path.to_vec();
        // A script may have a script as its interpreter, as often as the kernel follows.
        for _ in 0..6 {
            let Some(Ok(program)) = tree.resolve(&path).map(read) else { break };
            if program.architecture.is_some() {
                return program.architecture;
            }
            let Some(interpreter) = program.interpreter else { break };
            path = interpreter;
        }
    }
    let mut found = None;
    tree.each_inode(&mut |id| {
        let executable = tree.inode(id).attributes.permissions & 0o111 != 0;
        if found.is_none() && executable && matches!(tree.inode(id).kind, Kind::File(_)) {
            found = read(id).ok().and_then(|program| program.architecture);
        }
    });
    found
}

/// The ELF machine of a program for another machine, which may be the interpreter of the one that was tested.
fn foreign(why: &Why) -> Option<u16> {
    match why {
        Why::Machine(number) => Some(*number),
        Why::Interpreter(_, why) => foreign(why),
        Why::Open(_) | Why::Kind(_) | Why::Mode | Why::Itself | Why::Format | Why::Depth => None,
    }
}

/// What is wrong with a root apart from its programs.
#[must_use]
pub fn surroundings(tree: &Tree) -> Vec<String> {
    let is = |path: &str, major: u32, minor: u32| {
        let kind = tree.resolve(path.as_bytes()).map(|id| &tree.inode(id).kind);
        matches!(kind, Some(Kind::Character(has_major, has_minor)) if (*has_major, *has_minor) == (major, minor))
    };
    let mut problems = Vec::new();
    let mode = tree.inode(Tree::ROOT).attributes.permissions;
    if mode & 0o001 == 0 {
        problems
            .push(format!("the root directory has mode {mode:04o}: only its owner can enter / (chmod 755)"));
    }
    if !is("/dev/console", 5, 1) {
        problems.push(
            "/dev/console (5:1) is missing: unless the kernel brings its own, init has no input or output"
                .into(),
        );
    }
    problems
}

/// The format of a file of a tree, read from its contents.
pub fn of_tree(tree: &Tree) -> impl Fn(Id) -> Result<Program, Why> {
    |id| {
        let Kind::File(contents) = &tree.inode(id).kind else { return Err(Why::Format) };
        Program::read(&mut |offset, buffer| {
            let read = read_at(contents, offset, buffer);
            read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })
    }
}

fn read_at(contents: &Contents, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let left = contents.len().saturating_sub(offset);
    if left == 0 {
        return Ok(0);
    }
    contents.open_at(offset)?.take(left).read(buffer)
}

/// The format of a program in memory.
pub fn of_bytes(bytes: &[u8]) -> Result<Program, Why> {
    of_head(bytes, &mut false)
}

/// The format of a program that begins with `head`. Sets `beyond` if more of the file is needed.
pub fn of_head(head: &[u8], beyond: &mut bool) -> Result<Program, Why> {
    Program::read(&mut |offset, buffer| {
        let rest = usize::try_from(offset).ok().and_then(|offset| head.get(offset..)).unwrap_or_default();
        *beyond |= rest.len() < buffer.len();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    })
}

/// Whether a tree's `/init` is repot.
#[must_use]
pub fn tree_has_repot(tree: &Tree) -> bool {
    let Some(id) = tree.resolve(b"init") else { return false };
    let Kind::File(contents) = &tree.inode(id).kind else { return false };
    contents.read().is_ok_and(|bytes| init_binary::is_repot(&bytes))
}
