//! The one error: which step, which call, on which path, and what the kernel said.
//!
//! It reads `relocate: unlinkat "usr/lib/x": EBUSY (resource busy)`.

use alloc::vec::Vec;
use core::fmt;

use rustix::io::Errno;

use crate::display::Quoted;

/// A step of the story, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looking at the system.
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

/// What a [`Fault`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A system call, by the kernel's name, or `malloc`.
    Call(&'static str),
    /// Something that was read is not what it must be.
    Flaw(&'static str),
    /// A worker thread panicked, which the log has told of.
    LostWorker,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Call(name) | What::Flaw(name) => name,
            What::LostWorker => "panic",
        })
    }
}

/// What failed and on what, not yet placed in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What failed.
    pub what: What,
    /// The path, or whatever else it was called on, as far as that is known.
    pub path: Vec<u8>,
    /// The kernel's answer; `EBADMSG` for a flaw.
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

    /// The same, on another path.
    pub(crate) fn on(self, path: Vec<u8>) -> Fault {
        Fault { path, ..self }
    }

    /// Places the fault in a step.
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

/// What went wrong, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The step that failed.
    pub step: Step,
    /// What failed in it.
    pub fault: Fault,
    /// Why the system is not as it was before. `None`: it is.
    pub torn: Option<Torn>,
}

/// Why there is no complete root any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Rolling back failed as well: the tree is in two halves.
    Undo(Fault),
    /// There is nothing to roll back to: parts of the payload are gone.
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

/// Calls `call` a second time if it fails: for the calls whose failure could not be rolled back, since
/// `ENOMEM` may be transient.
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

/// The name of an errno and what it means, for those that our calls can return.
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
        (Errno::DQUOT, "EDQUOT", "quota exceeded"),
    ];
    NAMES
        .iter()
        .find(|(known, ..)| *known == errno)
        .map_or(("errno", "see errno(3)"), |(_, name, meaning)| (name, meaning))
}
