//! Runs the real `/init` as PID 1 of new namespaces on a prepared file system.
//!
//! Nothing waits by the clock: one poll waits for the helper's message, the end of the process, its output,
//! and, if calls are intercepted, the next call. The deadline is only for an init that hangs.
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::intercept::{self, Calls, Decide, Interceptor};
use crate::mounts::{self, Table};
use crate::namespace;
use crate::stage::{Prepared, STAGING, text};
use crate::sys;

/// How to start the init.
#[derive(Debug)]
pub struct Setup {
    /// The program to execute.
    pub program: String,
    /// Its arguments, the program name included.
    pub argv: Vec<String>,
    /// Its environment. The name of the helper's socket is added.
    pub env: Vec<String>,
    /// The maximum number of open descriptors.
    pub nofile: Option<u64>,
    /// The maximum of memory that it may map, in bytes. The limit ends with the next program. Only with
    /// intercepted calls.
    pub memory: Option<u64>,
    /// Whether one more descriptor is open, as an earlier program may leave it.
    pub stray: bool,
    /// Whether standard input, output and error are closed, as by the kernel without `/dev/console`.
    pub closed: bool,
    /// Whether its root mount is shared.
    pub shared: bool,
    /// A directory to which its root is changed by chroot.
    pub chroot: Option<String>,
    /// The calls to intercept.
    pub calls: Calls,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            program: "/init".into(),
            argv: vec!["/init".into()],
            env: vec!["HOME=/".into(), "TERM=linux".into()],
            nofile: None,
            memory: None,
            stray: false,
            closed: false,
            shared: false,
            chroot: None,
            calls: Calls::None,
        }
    }
}

/// How a run ended, or why the waiting did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// The helper was executed and sent this message.
    Init(String),
    /// The process exited with this code.
    Exited(i32),
    /// The process was ended by this signal. For PID 1 of a PID namespace, 1 (SIGHUP) means that it requested
    /// a reboot, and 2 (SIGINT) power-off or halt.
    Killed(i32),
    /// It printed the expected text.
    Printed,
    /// Nothing of this happened in time.
    Late,
}

/// A running init. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    process: OwnedFd,
    output: File,
    log: Vec<u8>,
    door: UnixListener,
    helper: Option<UnixStream>,
    word: Vec<u8>,
    interceptor: Option<Interceptor>,
    ended: Option<End>,
}

impl Prepared {
    /// Starts the init. A file system can be used once.
    ///
    /// # Panics
    /// If the sandbox cannot be created.
    pub fn start(&self, setup: &Setup) -> Running {
        let name = format!("repot-test-{}-{}", std::process::id(), unique());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let door = UnixListener::bind_addr(&address).expect("a socket");
        door.set_nonblocking(true).expect("a socket that does not block");
        let (output, printed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let (failed, fails) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let nothing = File::open("/dev/null").expect("/dev/null");
        let env = setup.env.iter().map(|word| text(word));
        let child = sys::Child {
            tree: self.tree.as_fd(),
            staging: text(STAGING),
            program: text(&setup.program),
            argv: setup.argv.iter().map(|word| text(word)).collect::<Vec<CString>>(),
            envp: env.chain([text(&format!("REPOT_TEST_SOCKET={name}"))]).collect(),
            stdio: [nothing.as_fd(), printed.as_fd(), printed.as_fd()],
            stray: setup.stray,
            closed: setup.closed,
            shared: setup.shared,
            chroot: setup.chroot.as_deref().map(text),
            nofile: setup.nofile,
            memory: setup.memory,
            filter: intercept::filter(&setup.calls),
            failed: fails.as_fd(),
        };
        let (pid, process) = sys::spawn(&child).expect("clone3");
        drop((fails, printed));
        // The pipe is closed when the program is executed. Before that, the child reports a failed step, or
        // that the listener exists.
        let mut told = Vec::new();
        let mut first = [0];
        let mut failed = File::from(failed);
        if failed.read(&mut first).expect("word from the child") == 1 {
            told.push(first[0]);
        }
        let interceptor = match told.first() {
            Some(&sys::LISTENING) => Some(Interceptor::of(&process, pid).expect("the listener")),
            _ => None,
        };
        if interceptor.is_none() && !told.is_empty() {
            failed.read_to_end(&mut told).expect("word from the child");
            let error = i32::from_ne_bytes([told[1], told[2], told[3], told[4]]);
            let error = io::Error::from_raw_os_error(error);
            panic!("cannot create the sandbox: {}: {error}", sys::STEPS[usize::from(told[0])]);
        }
        let (log, word) = (vec![], vec![]);
        Running {
            pid,
            process,
            output: output.into(),
            log,
            door,
            helper: None,
            word,
            interceptor,
            ended: None,
        }
    }
}

fn unique() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// The time limit of everything: much more than any test needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

impl Running {
    /// Waits until the helper reports or the process ends.
    ///
    /// # Panics
    /// If the test itself fails.
    pub fn wait(&mut self) -> End {
        self.wait_until(DEADLINE, None, &mut |_| intercept::Verdict::Continue)
    }

    /// The same with a deadline, a text to wait for in the output, and decisions about intercepted calls.
    ///
    /// # Panics
    /// If the test itself fails.
    pub fn wait_until(&mut self, deadline: Duration, said: Option<&str>, decide: Decide<'_>) -> End {
        let started = Instant::now();
        loop {
            if let Some(end) = self.ended.clone() {
                return end;
            }
            if self.word.ends_with(b"\n") {
                let word = String::from_utf8_lossy(&self.word).trim_end().to_owned();
                return End::Init(word);
            }
            if said.is_some_and(|said| self.log().contains(said)) {
                return End::Printed;
            }
            let Some(left) = deadline.checked_sub(started.elapsed()) else { return End::Late };
            self.step(left, decide).expect("poll");
        }
    }

    /// Waits for one event and handles it.
    fn step(&mut self, left: Duration, decide: Decide<'_>) -> io::Result<()> {
        let mut fds = vec![
            PollFd::new(&self.process, PollFlags::IN),
            PollFd::new(&self.output, PollFlags::IN),
            match &self.helper {
                Some(helper) => PollFd::new(helper, PollFlags::IN),
                None => PollFd::new(&self.door, PollFlags::IN),
            },
        ];
        fds.extend(self.interceptor.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        poll(&mut fds, Some(&Timespec::try_from(left).expect("a short time")))?;
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        if ready[1].intersects(PollFlags::IN) {
            self.read_output()?;
        }
        if !ready[2].is_empty() {
            self.hear()?;
        }
        if let (Some(interceptor), Some(call)) = (&mut self.interceptor, ready.get(3)) {
            if call.contains(PollFlags::IN) {
                interceptor.serve(&self.process, decide)?;
            } else if !call.is_empty() {
                self.interceptor = None;
            }
        }
        if !ready[0].is_empty() {
            while self.read_output()? > 0 {}
            self.ended = Some(self.reap(WaitIdOptions::EXITED)?);
        }
        Ok(())
    }

    fn read_output(&mut self) -> io::Result<usize> {
        let mut fds = [PollFd::new(&self.output, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if !fds[0].revents().contains(PollFlags::IN) {
            return Ok(0);
        }
        let mut buffer = [0; 1 << 16];
        let read = self.output.read(&mut buffer)?;
        self.log.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    fn hear(&mut self) -> io::Result<()> {
        let Some(helper) = &mut self.helper else {
            let (helper, _) = self.door.accept()?;
            self.helper = Some(helper);
            return Ok(());
        };
        let mut buffer = [0; 256];
        let read = helper.read(&mut buffer)?;
        self.word.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    fn reap(&self, how: WaitIdOptions) -> io::Result<End> {
        let status: WaitIdStatus = waitid(WaitId::PidFd(self.process.as_fd()), how)?.expect("it has ended");
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => End::Exited(code),
            (_, Some(signal)) => End::Killed(signal),
            _ => unreachable!("asked for ends only"),
        })
    }

    /// Its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    /// Its PID in the machine's PID namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The process itself.
    #[must_use]
    pub fn process(&self) -> &OwnedFd {
        &self.process
    }

    /// The peak of its memory in KiB up to the execution of the real init, if calls are intercepted.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        self.interceptor.as_ref().and_then(Interceptor::peak)
    }

    /// Its root directory: this mount alone.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn root(&self) -> OwnedFd {
        namespace::root_of(self.pid).expect("the root of the sandbox")
    }

    /// The topmost mount at `path` in its namespace, alone.
    ///
    /// # Panics
    /// If the process has ended or the path does not exist.
    #[must_use]
    pub fn mounted(&self, path: &str) -> OwnedFd {
        namespace::mount_of(self.pid, path).unwrap_or_else(|error| panic!("the mount at {path}: {error}"))
    }

    /// Its mount table.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn mounts(&self) -> Table {
        mounts::table_of(self.pid).expect("the mount table of the sandbox")
    }

    /// A file of its directory in `/proc`.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn proc(&self, file: &str) -> Vec<u8> {
        let path = format!("/proc/{}/{file}", self.pid.as_raw_pid());
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The target of a symlink in its directory in `/proc`.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn proc_link(&self, link: &str) -> String {
        let path = format!("/proc/{}/{link}", self.pid.as_raw_pid());
        let target = std::fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        target.to_string_lossy().into_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If the process has been reaped.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).expect("signal");
    }
}

impl Running {
    /// Stops all threads of the process.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let stopped = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::STOPPED).expect("waitid");
        assert!(stopped.is_some_and(|status| status.stopped()), "it stopped");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            // Pending calls end with the process, without an answer.
            let _ = self.reap(WaitIdOptions::EXITED);
        }
    }
}
