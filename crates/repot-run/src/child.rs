//! Starts the program as its user, with the console as its terminal.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use repot::display::Quoted;
use repot::error::name_of;
use repot::run::{Program, User};
use rustix::fd::AsFd;
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, chdir};
use rustix::termios::isatty;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::{sys, terminal};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

/// Variables that a program expects. Those of the description precede.
const DEFAULTS: [&CStr; 3] =
    [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", c"HOME=/", c"TERM=linux"];

/// Why the program was not started.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// The call.
    what: &'static str,
    /// Its path, or nothing.
    path: CString,
    errno: Errno,
}

impl NotStarted {
    /// The exit code that a shell would return.
    pub(crate) fn code(&self) -> i32 {
        if self.errno == Errno::NOENT { 127 } else { 126 }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = name_of(self.errno);
        write!(f, "{} {}: {name} ({meaning})", self.what, Quoted(self.path.to_bytes()))
    }
}

/// The calls of the child that can fail, by the number that it reports.
const CALLS: [&str; 5] = ["setgroups", "setgid", "setuid", "chdir", "execve"];

/// Starts the program.
pub(crate) fn start(program: &Program) -> Result<Pid, NotStarted> {
    let failed = |what, path: &CStr, errno| NotStarted { what, path: path.into(), errno };
    let env = environment(program);
    let path = program.args.first().map_or(c"", |path| path.as_c_str());
    let candidates = candidates(path, &env);
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("pipe2", c"", errno))?;
    let child = || {
        let (call, errno) = become_program(program, &candidates, &env);
        sys::report(writer.as_fd(), call, errno);
    };
    let pid = sys::fork(&child).map_err(|errno| failed("fork", path, errno))?;
    drop(writer);
    match sys::reported(reader.as_fd()) {
        None => Ok(pid),
        Some((call, errno)) => {
            sys::wait_for(pid);
            let call = CALLS[call.min(CALLS.len() - 1)];
            Err(failed(call, if call == "chdir" { &program.workdir } else { path }, errno))
        }
    }
}

/// The environment of the description, and the defaults of what it lacks.
fn environment(program: &Program) -> Vec<&CStr> {
    let mut env: Vec<&CStr> = program.env.iter().map(|variable| variable.as_c_str()).collect();
    for default in DEFAULTS {
        let name = name(default.to_bytes());
        if !env.iter().any(|variable| self::name(variable.to_bytes()) == name) {
            env.push(default);
        }
    }
    env
}

/// The name of a variable, with its `=`.
fn name(variable: &[u8]) -> &[u8] {
    variable.split_inclusive(|byte| *byte == b'=').next().unwrap_or_default()
}

/// The paths that are tried: a name without a slash is looked for in `PATH`.
fn candidates(program: &CStr, env: &[&CStr]) -> Vec<CString> {
    if program.to_bytes().contains(&b'/') {
        return [program.into()].into();
    }
    let path = env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let place = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        CString::new([dir, program.to_bytes()].join(&b'/')).ok()
    };
    path.split(|byte| *byte == b':').filter_map(place).collect()
}

/// Becomes the program. Returns only the call that failed, by its number in `CALLS`, and the error.
fn become_program(program: &Program, candidates: &[CString], env: &[&CStr]) -> (usize, Errno) {
    terminal::foreground();
    sys::unblock_signals();
    if let Err((call, errno)) = become_user(&program.user) {
        return (call, errno);
    }
    if let Err(errno) = chdir(&program.workdir) {
        return (3, errno);
    }
    (4, execute(candidates, &program.args, env))
}

fn become_user(user: &User) -> Result<(), (usize, Errno)> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if user.uid != 0 {
        // The console belongs to root, and a program that opens /dev/stdout opens it anew by its path.
        // Anything but a terminal, such as /dev/null, belongs to others too.
        for stream in sys::streams().into_iter().filter(|stream| isatty(stream)) {
            let _ = fchown(stream, Some(uid), None);
        }
    }
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    match set_thread_groups(&groups) {
        // In a user namespace without a mapping for groups there is nothing to drop.
        Err(Errno::PERM) if groups.is_empty() => {}
        other => other.map_err(|errno| (0, errno))?,
    }
    set_thread_res_gid(gid, gid, gid).map_err(|errno| (1, errno))?;
    set_thread_res_uid(uid, uid, uid).map_err(|errno| (2, errno))
}

/// Executes the first candidate that exists, as execvp(3) does.
fn execute(candidates: &[CString], args: &[CString], env: &[&CStr]) -> Errno {
    let mut answer = Errno::NOENT;
    for candidate in candidates {
        match sys::execve(candidate, args, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => answer = Errno::ACCESS,
            errno => return errno,
        }
    }
    answer
}
