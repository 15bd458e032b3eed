//! The error type: step, call, path and errno.
//!
//! Example: `relocate: unlinkat "usr/lib/x": EBUSY (resource busy, 16)`.

use alloc::vec::Vec;
use core::fmt;

use rustix::io::Errno;

use crate::display::Quoted;

/// A step, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Inspecting the system.
    Facts,
    /// Making the new root.
    NewRoot,
    /// Moving the tree.
    Relocate,
    /// Unpacking the payload.
    Payload,
    /// Moving the tree back.
    Undo,
    /// Moving the mounts.
    Carry,
    /// Making the new root `/`.
    Switch,
    /// Executing the real init.
    Handoff,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Facts => "facts",
            Step::NewRoot => "newroot",
            Step::Relocate => "relocate",
            Step::Payload => "payload",
            Step::Undo => "undo",
            Step::Carry => "carry",
            Step::Switch => "switch",
            Step::Handoff => "handoff",
        })
    }
}

/// What failed in a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A system call, by its name in the kernel, or `malloc`.
    Call(&'static str),
    /// Data that was read is corrupt.
    Flaw(&'static str),
    /// A worker thread panicked. The panic handler has logged it.
    LostWorker,
    /// Another process was started, which uses the root that is being moved.
    NewProcess,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Call(name) | What::Flaw(name) => name,
            What::LostWorker => "panic",
            What::NewProcess => "started by somebody else:",
        })
    }
}

/// A failed call and its path, without a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What failed.
    pub what: What,
    /// The path or other object of the call; empty if unknown.
    pub path: Vec<u8>,
    /// The errno; `EBADMSG` for a flaw.
    pub errno: Errno,
}

impl Fault {
    #[cfg(feature = "index")]
    pub(crate) fn flaw(what: &'static str, path: &[u8]) -> Fault {
        Fault { what: What::Flaw(what), path: path.to_vec(), errno: Errno::BADMSG }
    }

    pub(crate) fn lost_worker() -> Fault {
        Fault { what: What::LostWorker, path: Vec::new(), errno: Errno::CANCELED }
    }

    /// The same fault with this path.
    pub(crate) fn on(self, path: Vec<u8>) -> Fault {
        Fault { path, ..self }
    }

    /// Adds the step.
    pub fn at(self, step: Step) -> Error {
        Error { step, fault: self, torn: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.what)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", Quoted(&self.path))?;
        }
        let (name, meaning) = name_of(self.errno);
        write!(f, "{name} ({meaning}, {})", self.errno.raw_os_error())
    }
}

impl core::error::Error for Fault {}

/// A fault and its step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The step that failed.
    pub step: Step,
    /// What failed in it.
    pub fault: Fault,
    /// Why the system is not as it was before; `None` if it is.
    pub torn: Option<Torn>,
}

/// Why no complete root exists any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Torn {
    /// The rollback failed too: the tree is split between the old root and the new one.
    Undo(Fault),
    /// Past the point of no return: chunks of the payload are already freed.
    Spent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.fault)?;
        match &self.torn {
            None => Ok(()),
            Some(Torn::Spent) => {
                f.write_str("; past the point of no return: chunks of the payload are already freed")
            }
            Some(Torn::Undo(fault)) => write!(f, "; the rollback failed too: {fault}"),
        }
    }
}

impl core::error::Error for Error {}

/// Calls `call` again if it fails. For calls whose failure could not be rolled back: `ENOMEM` may be
/// transient.
pub(crate) fn retry_once<T, E>(mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    call().or_else(|_| call())
}

/// Turns an errno into a [`Fault`] with its call and path.
pub trait Call<T> {
    /// Names the call that failed.
    fn call(self, call: &'static str) -> Result<T, Fault>;
    /// Names the call that failed and its path.
    fn on(self, call: &'static str, path: &[u8]) -> Result<T, Fault>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, Fault> {
        self.on(call, b"")
    }
    fn on(self, call: &'static str, path: &[u8]) -> Result<T, Fault> {
        self.map_err(|errno| Fault { what: What::Call(call), path: path.to_vec(), errno })
    }
}

/// The name of an errno and its meaning, for every errno that our calls return.
pub fn name_of(errno: Errno) -> (&'static str, &'static str) {
    const NAMES: &[(Errno, &str, &str)] = &[
        (Errno::PERM, "EPERM", "operation not permitted"),
        (Errno::NOENT, "ENOENT", "no such file or directory"),
        (Errno::INTR, "EINTR", "interrupted"),
        (Errno::IO, "EIO", "input/output error"),
        (Errno::NXIO, "ENXIO", "no such device or address"),
        (Errno::TOOBIG, "E2BIG", "argument list too long"),
        (Errno::NOEXEC, "ENOEXEC", "not an executable format"),
        (Errno::BADF, "EBADF", "bad file descriptor"),
        (Errno::AGAIN, "EAGAIN", "try again"),
        (Errno::NOMEM, "ENOMEM", "out of memory"),
        (Errno::ACCESS, "EACCES", "permission denied"),
        (Errno::BUSY, "EBUSY", "resource busy"),
        (Errno::EXIST, "EEXIST", "file exists"),
        (Errno::XDEV, "EXDEV", "cross-device link"),
        (Errno::NODEV, "ENODEV", "no such device"),
        (Errno::NOTDIR, "ENOTDIR", "not a directory"),
        (Errno::ISDIR, "EISDIR", "is a directory"),
        (Errno::INVAL, "EINVAL", "invalid argument"),
        (Errno::NFILE, "ENFILE", "file table full"),
        (Errno::MFILE, "EMFILE", "too many open files"),
        (Errno::NOTTY, "ENOTTY", "not supported by this file system"),
        (Errno::TXTBSY, "ETXTBSY", "program is running"),
        (Errno::FBIG, "EFBIG", "file too large"),
        (Errno::NOSPC, "ENOSPC", "no space left"),
        (Errno::ROFS, "EROFS", "read-only file system"),
        (Errno::MLINK, "EMLINK", "too many links"),
        (Errno::RANGE, "ERANGE", "result too large"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG", "name too long"),
        (Errno::NOSYS, "ENOSYS", "not implemented by this kernel"),
        (Errno::NOTEMPTY, "ENOTEMPTY", "directory not empty"),
        (Errno::LOOP, "ELOOP", "too many symbolic links"),
        (Errno::NODATA, "ENODATA", "no data"),
        (Errno::BADMSG, "EBADMSG", "corrupt"),
        (Errno::CANCELED, "ECANCELED", "canceled"),
        (Errno::OVERFLOW, "EOVERFLOW", "value too large"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP", "not supported by this file system"),
        (Errno::STALE, "ESTALE", "changed while it was moved"),
        (Errno::DQUOT, "EDQUOT", "quota exceeded"),
    ];
    NAMES
        .iter()
        .find(|(number, ..)| *number == errno)
        .map_or(("errno", "see errno(3)"), |(_, name, meaning)| (name, meaning))
}
