//! The description of a program that `repot-run` runs as PID 1: the file `/.repot-run`, which the tool writes
//! from the configuration of a container image.
//!
//! One setting in each line, a key and its value separated by a space. In a value, `\n` is a line feed and
//! `\\` a backslash. Lines that begin with `#` are comments. The first line is the format and its version:
//!
//! ```text
//! repot-run 1
//! arg /usr/sbin/nginx
//! arg -g
//! arg daemon off;
//! env PATH=/usr/sbin:/usr/bin:/sbin:/bin
//! workdir /srv/www
//! user 101 101 4
//! stop 3
//! ```

mod share;

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::display::Quoted;
use crate::options::cmdline::{Param, same_key};

pub use share::{Share, Transport};

/// The path of the description in an image, without the leading slash.
pub const DESCRIPTION: &str = ".repot-run";
/// The path of the runner in an image, without the leading slash.
pub const RUNNER: &str = ".repot-runner";
/// The first line of a description.
const VERSION: &[u8] = b"repot-run 1";
/// `SIGTERM`, which is 15 on every architecture of Linux.
const SIGTERM: i32 = 15;

/// What happens when the program has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// The machine is powered off.
    #[default]
    Poweroff,
    /// The machine is rebooted.
    Reboot,
    /// PID 1 exits, and the kernel panics.
    Panic,
    /// A shell is started; the machine is powered off when it ends.
    Shell,
    /// The program is started again.
    Restart,
}

impl OnExit {
    /// The values of `onexit`.
    pub const NAMES: [(&'static str, OnExit); 5] = [
        ("poweroff", OnExit::Poweroff),
        ("reboot", OnExit::Reboot),
        ("panic", OnExit::Panic),
        ("shell", OnExit::Shell),
        ("restart", OnExit::Restart),
    ];

    /// Its name in a description.
    pub fn name(self) -> &'static str {
        OnExit::NAMES.iter().find(|(_, value)| *value == self).map_or("poweroff", |(name, _)| name)
    }
}

/// The owner of the program's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Supplementary group IDs.
    pub groups: Vec<u32>,
}

/// A program and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// The program and its arguments. Without a slash, the program is looked for in the `PATH` of `env`.
    pub args: Vec<CString>,
    /// Its environment, `NAME=VALUE` each.
    pub env: Vec<CString>,
    /// Its working directory.
    pub workdir: CString,
    /// Its owner.
    pub user: User,
    /// The host name, if it is set here.
    pub hostname: Option<Vec<u8>>,
    /// The number of the signal that asks it to end.
    pub stop: i32,
    /// Seconds between that signal and `SIGKILL`.
    pub grace: u32,
    /// What happens when it has ended.
    pub onexit: OnExit,
    /// Where its exit code is written; empty for nowhere.
    pub exit: Vec<u8>,
    /// The ports that it listens on, such as `80/tcp`. For people only.
    pub ports: Vec<Vec<u8>>,
    /// Directories of the host that are mounted before it starts.
    pub shares: Vec<Share>,
}

impl Default for Program {
    fn default() -> Self {
        Program {
            args: Vec::new(),
            env: Vec::new(),
            workdir: CString::from(c"/"),
            user: User::default(),
            hostname: None,
            stop: SIGTERM,
            grace: 10,
            onexit: OnExit::default(),
            exit: Vec::new(),
            ports: Vec::new(),
            shares: Vec::new(),
        }
    }
}

/// Why a description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{DESCRIPTION}:{}: {}", self.line, self.why)
    }
}

impl core::error::Error for Flaw {}

impl Program {
    /// Reads a description.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Program, Flaw> {
        let mut program = Program::default();
        let flaw = |number: usize, why: String| Flaw { line: number + 1, why };
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if number == 0 {
                if line != VERSION {
                    return Err(flaw(number, format!("expected \"repot-run 1\", found {}", Quoted(line))));
                }
            } else if !line.is_empty() && !line.starts_with(b"#") {
                program.set(line).map_err(|why| flaw(number, why))?;
            }
        }
        if program.args.is_empty() {
            return Err(flaw(0, String::from("names no program (arg)")));
        }
        Ok(program)
    }

    fn set(&mut self, line: &[u8]) -> Result<(), String> {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (key, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        let value = unescaped(value).ok_or_else(|| format!("wrong escape in {}", Quoted(value)))?;
        let wrong = || format!("invalid value {} for {}", Quoted(&value), key.escape_ascii());
        match key {
            b"arg" => self.args.push(CString::new(value.clone()).map_err(|_| wrong())?),
            b"env" => self.env.push(CString::new(value.clone()).map_err(|_| wrong())?),
            b"workdir" => self.workdir = CString::new(value.clone()).map_err(|_| wrong())?,
            b"user" => self.user = user(&value).ok_or_else(wrong)?,
            b"hostname" => self.hostname = Some(value),
            b"stop" => {
                self.stop = number(&value).filter(|signal| (1..=64).contains(signal)).ok_or_else(wrong)?;
            }
            b"grace" => self.grace = number(&value).ok_or_else(wrong)?,
            b"onexit" => self.onexit = onexit(&value).ok_or_else(wrong)?,
            b"exit" => self.exit = value,
            b"port" => self.ports.push(value),
            b"share" => self.shares.push(Share::parse(&value).ok_or_else(wrong)?),
            _ => return Err(format!("unknown key {}", Quoted(key))),
        }
        Ok(())
    }

    /// Applies `run.grace=`, `run.onexit=`, `run.exit=` and `run.share=` of the kernel command line. Returns
    /// a warning for each parameter that could not be applied.
    pub fn apply(&mut self, line: &[Param<'_>]) -> Vec<String> {
        let mut warnings = Vec::new();
        for param in line {
            let Some(key) = param.key.strip_prefix(b"run.") else { continue };
            let value = param.value.unwrap_or_default();
            let applied = if same_key(key, b"grace") {
                number(value).map(|grace| self.grace = grace)
            } else if same_key(key, b"onexit") {
                onexit(value).map(|onexit| self.onexit = onexit)
            } else if same_key(key, b"exit") {
                self.exit = value.to_vec();
                Some(())
            } else if same_key(key, b"share") {
                Share::parse(value).map(|share| self.shares.push(share))
            } else {
                warnings.push(format!("command line: unknown key run.{}", key.escape_ascii()));
                continue;
            };
            if applied.is_none() {
                let key = key.escape_ascii();
                warnings.push(format!("command line: invalid value {} for run.{key}", Quoted(value)));
            }
        }
        warnings
    }

    /// The text of the description.
    pub fn text(&self) -> Vec<u8> {
        let mut text = VERSION.to_vec();
        text.push(b'\n');
        let mut put = |key: &str, value: &[u8]| {
            text.extend_from_slice(key.as_bytes());
            text.push(b' ');
            escape(value, &mut text);
            text.push(b'\n');
        };
        for arg in &self.args {
            put("arg", arg.to_bytes());
        }
        for variable in &self.env {
            put("env", variable.to_bytes());
        }
        put("workdir", self.workdir.to_bytes());
        let mut user = format!("{} {}", self.user.uid, self.user.gid);
        for group in &self.user.groups {
            // Writing to a String cannot fail.
            let _ = write!(user, " {group}");
        }
        put("user", user.as_bytes());
        if let Some(hostname) = &self.hostname {
            put("hostname", hostname);
        }
        put("stop", format!("{}", self.stop).as_bytes());
        put("grace", format!("{}", self.grace).as_bytes());
        put("onexit", self.onexit.name().as_bytes());
        if !self.exit.is_empty() {
            put("exit", &self.exit);
        }
        for port in &self.ports {
            put("port", port);
        }
        for share in &self.shares {
            put("share", &share.text());
        }
        text
    }
}

fn onexit(value: &[u8]) -> Option<OnExit> {
    OnExit::NAMES.iter().find(|(name, _)| name.as_bytes() == value).map(|(_, onexit)| *onexit)
}

fn number<N: core::str::FromStr>(text: &[u8]) -> Option<N> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// A user ID, a group ID, and any number of supplementary group IDs.
fn user(text: &[u8]) -> Option<User> {
    let mut numbers = text.split(|byte| *byte == b' ').map(number);
    let (uid, gid) = (numbers.next()??, numbers.next()??);
    Some(User { uid, gid, groups: numbers.collect::<Option<_>>()? })
}

fn escape(value: &[u8], text: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\\' => text.extend_from_slice(b"\\\\"),
            byte => text.push(*byte),
        }
    }
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        value.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::cmdline;
    use alloc::vec;

    fn sample() -> Program {
        Program {
            args: vec![c"sh".into(), c"-c".into(), c"echo \\a\nb".into(), c"".into()],
            env: vec![c"PATH=/bin".into(), c"EMPTY=".into(), c"LINES=a\nb\\n".into()],
            workdir: c"/a b".into(),
            user: User { uid: 101, gid: 102, groups: vec![4, 5] },
            hostname: Some(b"web".to_vec()),
            stop: 3,
            grace: 0,
            onexit: OnExit::Restart,
            exit: b"/dev/vport0p1".to_vec(),
            ports: vec![b"80/tcp".to_vec()],
            shares: Share::parse(b"9p:share:/mnt").into_iter().collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Program::parse(&sample().text()), Ok(sample()));
    }

    #[test]
    fn only_a_program_is_needed() {
        let program = Program::parse(b"repot-run 1\n# comment\n\narg /bin/true").unwrap();
        let expected = Program { args: vec![c"/bin/true".into()], ..Program::default() };
        assert_eq!(program, expected);
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let flaw = |text: &str| Program::parse(text.as_bytes()).unwrap_err();
        assert_eq!(flaw("repot-run 2\narg x").line, 1);
        assert_eq!(flaw("").line, 1);
        assert_eq!(flaw("repot-run 1\n").why, "names no program (arg)");
        for wrong in
            ["colour red", "user 1", "user 1 -1", "user 1 1 ", "stop 0", "stop 65", "grace x", "arg \\x"]
        {
            assert_eq!(flaw(&format!("repot-run 1\narg x\n{wrong}\n")).line, 3, "{wrong}");
        }
        assert_eq!(flaw("repot-run 1\narg a\0b\n").line, 2);
    }

    #[test]
    fn the_command_line_overrides() {
        let mut program = sample();
        let line = cmdline::parse(b"quiet run.grace=5 run.onexit=fly run.exit=/dev/x run.color=red");
        let warnings = program.apply(&line);
        assert_eq!((program.grace, program.onexit), (5, OnExit::Restart));
        assert_eq!(program.exit, b"/dev/x");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
