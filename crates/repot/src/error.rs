//! The one error: which step, which call, on which path, and what the kernel said.
//!
//! It reads `relocate: unlinkat "usr/lib/x": EBUSY (resource busy)`.

use alloc::vec::Vec;
use core::fmt;

use rustix::io::Errno;

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

/// A call that failed and what it was called on, not yet placed in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The system call, by the kernel's name.
    pub call: &'static str,
    /// What it was called on, as far as that is known.
    pub path: Vec<u8>,
    /// The kernel's answer.
    pub errno: Errno,
}

/// What undoing fails with where there is nothing left to go back to.
const USED_UP: &str = "payload";

impl Fault {
    pub(crate) fn used_up() -> Fault {
        Fault { call: USED_UP, path: Vec::new(), errno: Errno::CANCELED }
    }

    /// Places the fault in a step.
    pub fn at(self, step: Step) -> Error {
        Error { step, fault: self, torn: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.call)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", Quoted(&self.path))?;
        }
        let (name, meaning) = name_of(self.errno);
        write!(f, "{name} ({meaning}, {})", self.errno.raw_os_error())
    }
}

/// What went wrong, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The step that failed.
    pub step: Step,
    /// The call that failed.
    pub fault: Fault,
    /// The call that failed when it was to be undone: the tree is in two halves.
    pub torn: Option<Fault>,
}

#[cfg(feature = "payload")]
impl Error {
    /// The same, where there is nothing left to go back to.
    pub(crate) fn used_up(self) -> Error {
        Error { torn: Some(Fault::used_up()), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.fault)?;
        match &self.torn {
            None => Ok(()),
            Some(Fault { call: USED_UP, .. }) => {
                f.write_str("; parts of the payload are gone, so there is no system to go back to")
            }
            Some(fault) => write!(f, "; undoing it failed as well: {fault}"),
        }
    }
}

impl core::error::Error for Error {}

/// Turns an errno into a [`Fault`] with its call and path.
pub trait Call<T> {
    /// Names the call that failed.
    fn call(self, call: &'static str) -> Result<T, Fault>;
    /// Names the call that failed and what it was called on.
    fn on(self, call: &'static str, path: &[u8]) -> Result<T, Fault>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, Fault> {
        self.on(call, b"")
    }
    fn on(self, call: &'static str, path: &[u8]) -> Result<T, Fault> {
        self.map_err(|errno| Fault { call, path: path.to_vec(), errno })
    }
}

/// Bytes in double quotes; what is not printable ASCII as `\xNN`.
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
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
        (Errno::XDEV, "EXDEV", "another file system"),
        (Errno::NODEV, "ENODEV", "no such device"),
        (Errno::NOTDIR, "ENOTDIR", "not a directory"),
        (Errno::ISDIR, "EISDIR", "is a directory"),
        (Errno::INVAL, "EINVAL", "invalid argument"),
        (Errno::NFILE, "ENFILE", "file table full"),
        (Errno::MFILE, "EMFILE", "too many open files"),
        (Errno::NOTTY, "ENOTTY", "not supported by this file system"),
        (Errno::TXTBSY, "ETXTBSY", "the program is running"),
        (Errno::FBIG, "EFBIG", "file too large"),
        (Errno::NOSPC, "ENOSPC", "no space left"),
        (Errno::ROFS, "EROFS", "read-only file system"),
        (Errno::MLINK, "EMLINK", "too many links"),
        (Errno::RANGE, "ERANGE", "result too large"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG", "name too long"),
        (Errno::NOSYS, "ENOSYS", "call not in this kernel"),
        (Errno::NOTEMPTY, "ENOTEMPTY", "directory not empty"),
        (Errno::LOOP, "ELOOP", "too many symbolic links"),
        (Errno::NODATA, "ENODATA", "no data"),
        (Errno::BADMSG, "EBADMSG", "damaged"),
        (Errno::CANCELED, "ECANCELED", "given up"),
        (Errno::OVERFLOW, "EOVERFLOW", "value too large"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP", "not supported by this file system"),
        (Errno::DQUOT, "EDQUOT", "quota exceeded"),
    ];
    NAMES
        .iter()
        .find(|(known, ..)| *known == errno)
        .map_or(("errno", "see errno(3)"), |(_, name, meaning)| (name, meaning))
}
