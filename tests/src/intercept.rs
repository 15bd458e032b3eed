//! Decides about single system calls of the process under test.
//!
//! The kernel passes chosen calls to the test (seccomp user notification) and waits for the answer: continue,
//! or fail with an error. That needs no debugger and no second process, and all other calls run at full
//! speed.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdGetfdFlags, Resource, Rlimit, Signal, pidfd_getfd, pidfd_send_signal, prlimit,
};

use crate::sys::{self, Answer};

/// Which calls to decide about. If there are any, the execution of programs is one of them.
#[derive(Clone, Debug, Default)]
pub enum Calls {
    /// None. No filter is installed.
    #[default]
    None,
    /// Calls with these numbers.
    These(Vec<i64>),
    /// All calls.
    All,
}

/// A call that waits for a decision.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number, as in `<asm/unistd.h>`.
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
    /// How many calls were decided before.
    pub nth: u64,
    /// How many programs were executed before: 1 is the init under test, 2 the program that it executed.
    pub program: u32,
    /// The thread that makes the call.
    pub thread: Pid,
}

impl Call {
    /// The string that an argument points to, read from the memory of the waiting caller.
    #[must_use]
    pub fn text(&self, argument: usize) -> Vec<u8> {
        let Ok(memory) = File::open(format!("/proc/{}/mem", self.thread.as_raw_pid())) else { return vec![] };
        let mut text = vec![];
        // One page at a time, because the page after the end of the string may not exist.
        let mut at = self.args[argument];
        loop {
            let mut page = vec![0; usize::try_from(4096 - at % 4096).expect("below a page")];
            if memory.read_exact_at(&mut page, at).is_err() {
                return text;
            }
            if let Some(end) = page.iter().position(|&byte| byte == 0) {
                text.extend_from_slice(&page[..end]);
                return text;
            }
            text.append(&mut page);
            at = (at / 4096 + 1) * 4096;
        }
    }

    /// Writes to where an argument points, in the memory of the waiting caller.
    ///
    /// # Errors
    /// If that memory cannot be written.
    pub fn put(&self, argument: usize, bytes: &[u8]) -> io::Result<()> {
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.thread.as_raw_pid()))?;
        memory.write_all_at(bytes, self.args[argument])
    }
}

/// The decision about a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The kernel executes it.
    Continue,
    /// It fails.
    Fail(Errno),
    /// It is not executed and returns this value, which no kernel would return.
    Return(i64),
    /// It is not executed and returns a duplicate of this descriptor of the test.
    Give(i32),
    /// It is not executed: the process is killed.
    Kill,
}

/// Decides about one call.
pub type Decide<'a> = &'a mut dyn FnMut(&Call) -> Verdict;

/// The test's end of the interception.
#[derive(Debug)]
pub struct Interceptor {
    listener: OwnedFd,
    pid: Pid,
    nth: u64,
    program: u32,
    peak: Option<u64>,
}

impl AsFd for Interceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Interceptor {
    /// Takes the listener from the process, which waits before it executes its program.
    pub(crate) fn of(process: &OwnedFd, pid: Pid) -> io::Result<Interceptor> {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid()))? {
            let entry = entry?;
            if std::fs::read_link(entry.path())?.as_os_str() == "anon_inode:seccomp notify" {
                let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
                let listener = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
                return Ok(Interceptor { listener, pid, nth: 0, program: 0, peak: None });
            }
        }
        Err(io::Error::other("no listener among the descriptors"))
    }

    /// Answers the next call.
    pub(crate) fn serve(&mut self, process: &OwnedFd, decide: Decide<'_>) -> io::Result<()> {
        let Some(waiting) = sys::next_call(self.listener.as_fd())? else { return Ok(()) };
        let number = i64::from(waiting.data.nr);
        let thread = i32::try_from(waiting.pid).ok().and_then(Pid::from_raw).expect("a thread");
        let executes = number == libc::SYS_execve;
        // Executing another program resets the peak, so it is read before.
        if executes && self.program > 0 {
            self.peak = peak_of(self.pid).or(self.peak);
            // A memory limit for the init must not affect the next program.
            let unlimited = Rlimit { current: None, maximum: None };
            let _ = prlimit(Some(self.pid), Resource::As, unlimited);
        }
        let call = Call { number, args: waiting.data.args, nth: self.nth, program: self.program, thread };
        let verdict = if self.program == 0 { Verdict::Continue } else { decide(&call) };
        if self.program > 0 {
            self.nth += 1;
        }
        match verdict {
            Verdict::Continue => {
                // Failed executions count too: only the order matters.
                self.program += u32::from(executes);
                sys::answer(self.listener.as_fd(), waiting.id, Answer::GoOn)
            }
            Verdict::Fail(error) => sys::answer(self.listener.as_fd(), waiting.id, Answer::Fail(error)),
            Verdict::Return(value) => sys::answer(self.listener.as_fd(), waiting.id, Answer::Return(value)),
            Verdict::Give(descriptor) => sys::give(self.listener.as_fd(), waiting.id, descriptor),
            Verdict::Kill => Ok(pidfd_send_signal(process, Signal::KILL)?),
        }
    }

    pub(crate) fn peak(&self) -> Option<u64> {
        self.peak
    }
}

fn peak_of(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The filter in BPF: load the number, compare, notify or allow.
pub(crate) fn filter(calls: &Calls) -> Vec<libc::sock_filter> {
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let one = |code: u32, value: u32, yes: u8, no: u8| libc::sock_filter {
        code: code.try_into().expect("a code has 16 bits"),
        jt: yes,
        jf: no,
        k: value,
    };
    let number = |call: i64| u32::try_from(call).expect("numbers of calls are small");
    let (notify, allow) =
        (one(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0), one(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    // The child's message to the test passes (see `sys::TOLD_AT`). Every other write is intercepted.
    let write = [
        one(IF_EQUAL, number(libc::SYS_write), 0, 4),
        one(LOAD, FIRST_ARGUMENT, 0, 0),
        one(IF_EQUAL, sys::TOLD_AT.cast_unsigned(), 0, 1),
        allow,
        notify,
    ];
    let mut filter = vec![one(LOAD, 0, 0, 0)];
    match calls {
        Calls::None => return vec![],
        Calls::These(calls) => {
            if calls.contains(&libc::SYS_write) {
                filter.extend(write);
            }
            for &call in calls.iter().chain([&libc::SYS_execve]) {
                filter.extend([one(IF_EQUAL, number(call), 0, 1), notify]);
            }
            filter.push(allow);
        }
        Calls::All => {
            filter.extend(write);
            filter.push(notify);
        }
    }
    filter
}
