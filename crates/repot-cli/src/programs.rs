//! Which program of a root would run, and whether it can: there, executable, of the right architecture, with
//! its interpreter.

use crate::elf::{Machine, Program};
use crate::image::config;
use crate::init_binary;
use crate::tree::{Id, Kind, Tree};

/// What repot tries when neither the command line nor the configuration names an init, in this order.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// As the kernel: a script's interpreter may be a script, but not for ever.
const SCRIPT_DEPTH: usize = 4;

/// A root whose programs can be looked at.
pub struct Programs<'a> {
    /// The names and links.
    pub tree: &'a Tree,
    /// What a file is as a program.
    pub program: &'a dyn Fn(Id) -> Program,
    /// Its `/etc/repot.conf`.
    pub config: &'a str,
    /// Whether `/init` is repot.
    pub repot: bool,
}

/// What runs, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The path of the program that runs in the end.
    pub init: Option<String>,
    /// What keeps the system from booting, or would surprise.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for Programs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Programs")
    }
}

impl Programs<'_> {
    /// Follows the boot from `/init` to the program that stays.
    #[must_use]
    pub fn boot(&self) -> Boot {
        let mut boot = Boot::default();
        if let Err(problem) = self.can_run("/init", None, SCRIPT_DEPTH) {
            boot.problems.push(format!("{problem}: the kernel will look for a root file system elsewhere"));
            return boot;
        }
        if !self.repot {
            boot.init = Some("/init".into());
            return boot;
        }
        let machine = self.machine("/init");
        if let Some(init) = config::get(self.config, "init") {
            match self.can_run(init, machine, SCRIPT_DEPTH) {
                Ok(()) => boot.init = Some(init.to_string()),
                Err(problem) => boot.problems.push(format!("{problem} (init= in /etc/repot.conf)")),
            }
        }
        let mut reasons = Vec::new();
        for init in INITS {
            if boot.init.is_some() {
                break;
            }
            match self.can_run(init, machine, SCRIPT_DEPTH) {
                Ok(()) => boot.init = Some(init.to_string()),
                Err(problem) => reasons.push(problem),
            }
        }
        if boot.init.is_none() {
            boot.problems.push(format!("no init can run: {}", reasons.join("; ")));
        }
        boot
    }

    fn can_run(&self, path: &str, machine: Option<Machine>, depth: usize) -> Result<(), String> {
        let id = self.tree.resolve(path.as_bytes()).ok_or_else(|| format!("{path} is missing"))?;
        let inode = self.tree.inode(id);
        if !matches!(inode.kind, Kind::File(_)) {
            return Err(format!("{path} is no regular file"));
        }
        if inode.attributes.permissions & 0o111 == 0 {
            return Err(format!("{path} is not executable"));
        }
        let interpreter = match (self.program)(id) {
            Program::Elf { machine: own, interpreter } => {
                if let Some(other) = machine.filter(|machine| !runs_on(own, *machine)) {
                    return Err(format!("{path} is a program for {}, not {}", own.name(), other.name()));
                }
                interpreter
            }
            Program::Script(interpreter) => Some(interpreter),
            Program::Unknown => return Err(format!("{path} is neither an ELF program nor a script")),
        };
        let Some(interpreter) = interpreter else { return Ok(()) };
        let interpreter = String::from_utf8_lossy(&interpreter).into_owned();
        if depth == 0 {
            return Err(format!("{path} has too many interpreters of interpreters"));
        }
        self.can_run(&interpreter, machine, depth - 1)
            .map_err(|problem| format!("{path} cannot run: {problem}"))
    }

    fn machine(&self, path: &str) -> Option<Machine> {
        let id = self.tree.resolve(path.as_bytes())?;
        if let Program::Elf { machine, .. } = (self.program)(id) { Some(machine) } else { None }
    }
}

/// What is wrong with a root apart from its programs.
#[must_use]
pub fn nodes(tree: &Tree) -> Vec<String> {
    let is = |path: &str, major: u32, minor: u32| {
        let kind = tree.resolve(path.as_bytes()).map(|id| &tree.inode(id).kind);
        matches!(kind, Some(Kind::Character(has_major, has_minor)) if (*has_major, *has_minor) == (major, minor))
    };
    let mut problems = Vec::new();
    if !is("/dev/console", 5, 1) {
        problems.push(
            "/dev/console (5:1) is missing: unless the kernel brings its own, init has no input or output"
                .into(),
        );
    }
    problems
}

/// What a file of a tree is as a program, read from its contents.
pub fn of_tree(tree: &Tree) -> impl Fn(Id) -> Program {
    |id| {
        let Kind::File(contents) = &tree.inode(id).kind else { return Program::Unknown };
        contents.head(crate::elf::HEAD as u64).map_or(Program::Unknown, |head| Program::parse(&head))
    }
}

/// Whether a tree's `/init` is repot.
#[must_use]
pub fn tree_has_repot(tree: &Tree) -> bool {
    let Some(id) = tree.resolve(b"init") else { return false };
    let Kind::File(contents) = &tree.inode(id).kind else { return false };
    contents.read().is_ok_and(|bytes| init_binary::is_repot(&bytes))
}

fn runs_on(program: Machine, machine: Machine) -> bool {
    const I386: u16 = 3;
    const X86_64: u16 = 62;
    program == machine || (program.number == I386 && machine.number == X86_64)
}
