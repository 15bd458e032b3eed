//! This process: its arguments, its standard streams, its CPUs.

use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::last_error;

/// The number of CPUs that this process may run on.
pub(crate) fn cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1))
}

/// This program's arguments and environment, which the real init gets.
#[derive(Debug)]
pub struct Invocation {
    /// The kernel's own array. `execute` replaces its first element.
    argv: *mut *const c_char,
    /// What that element was: null if there was none.
    name: *const c_char,
    envp: *const *const c_char,
}

impl Invocation {
    /// Takes the arguments of a C `main`. They are not copied, since memory may be short.
    ///
    /// # Safety
    /// Both must be arrays of C strings that end with a null pointer, live as long as the process, and are
    /// used by nothing else.
    pub unsafe fn of_main(argv: *mut *const c_char, envp: *const *const c_char) -> Self {
        // SAFETY: null, or an array that ends with a null pointer.
        let name = if argv.is_null() { ptr::null() } else { unsafe { *argv } };
        Invocation { argv, name, envp }
    }

    /// The arguments and environment that a program with the standard library has now. Leaks a copy of both
    /// that lives as long as the process, so call it once.
    #[cfg(feature = "std")]
    pub fn of_process() -> Self {
        use alloc::boxed::Box;
        use alloc::ffi::CString;
        use alloc::vec::Vec;
        use std::os::unix::ffi::OsStringExt;

        let leak = |strings: Vec<Vec<u8>>| {
            let strings = strings
                .into_iter()
                .map(|text| CString::new(text).unwrap_or_default().into_raw().cast_const());
            let array: Vec<*const c_char> = strings.chain([ptr::null()]).collect();
            Box::leak(array.into_boxed_slice()).as_mut_ptr()
        };
        let arguments = std::env::args_os().map(OsStringExt::into_vec).collect();
        // Copied too: `std::env::set_var` frees what the C library's `environ` pointed to before.
        let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            [name.into_vec(), value.into_vec()].join(&b'=')
        };
        let variables = std::env::vars_os().map(variable).collect();
        // SAFETY: both arrays were made just above, end with a null pointer and are never freed.
        unsafe { Invocation::of_main(leak(arguments), leak(variables)) }
    }

    /// The same environment without arguments, for programs that would misunderstand those of an init.
    #[must_use]
    pub fn without_arguments(&self) -> Self {
        Invocation { argv: ptr::null_mut(), name: ptr::null(), envp: self.envp }
    }

    /// The name that this program was called by (`argv[0]`).
    pub fn name(&self) -> Option<&CStr> {
        // SAFETY: `of_main` requires null pointers or C strings that live as long as the process.
        (!self.name.is_null()).then(|| unsafe { CStr::from_ptr(self.name) })
    }

    /// The first argument after `argv[0]`.
    pub fn argument(&self) -> Option<&CStr> {
        // SAFETY: `of_main` requires null pointers or C strings that live as long as the process.
        unsafe {
            if self.argv.is_null() || (*self.argv).is_null() || (*self.argv.add(1)).is_null() {
                return None;
            }
            Some(CStr::from_ptr(*self.argv.add(1)))
        }
    }

    /// Executes `path` with this program's arguments and environment; `argv[0]` becomes `path`. Closes every
    /// descriptor above 2. Returns only if that fails; on 5.10 the descriptors are closed even then.
    pub fn execute(&self, path: &CStr) -> Errno {
        self.execute_as(path, path)
    }

    /// As [`execute`](Invocation::execute), with another `argv[0]`.
    pub fn execute_as(&self, path: &CStr, name: &CStr) -> Errno {
        const ON_EXEC: u32 = 4;
        restore_descriptors();
        // SAFETY: CLOSE_RANGE_CLOEXEC (5.11) changes no descriptor until an exec succeeds. The wrapper is not
        // in every C library.
        if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, ON_EXEC) } != 0 {
            // SAFETY: an exec follows. If it fails, an OwnedFd may be closed twice, which is harmless:
            // nothing opens descriptors in between.
            unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
        }
        // `std` ignores SIGPIPE from its start on, and the real init would inherit that.
        // SAFETY: no handler of ours is involved.
        #[cfg(feature = "std")]
        let ignored = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: `of_main` requires that both arrays end with a null pointer and belong to this program.
        unsafe {
            if self.argv.is_null() || (*self.argv).is_null() {
                libc::execve(path.as_ptr(), [name.as_ptr(), ptr::null()].as_ptr(), self.envp);
            } else {
                *self.argv = name.as_ptr();
                libc::execve(path.as_ptr(), self.argv, self.envp);
            }
        }
        let error = last_error();
        // SAFETY: as above; it is what was set before.
        #[cfg(feature = "std")]
        unsafe {
            libc::signal(libc::SIGPIPE, ignored)
        };
        error
    }
}

/// The limit of open descriptors that this program was started with; 0 if it was not changed.
static ORIGINAL: AtomicU64 = AtomicU64::new(0);

/// Raises the limit of open descriptors as far as it goes. An exec lowers it again.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    if let Some(current) = limit.current.filter(|current| limit.maximum.is_none_or(|most| *current < most)) {
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_ok() {
            ORIGINAL.store(current, Ordering::Relaxed);
        }
    }
}

/// Restores the limit of open descriptors.
fn restore_descriptors() {
    let current = ORIGINAL.swap(0, Ordering::Relaxed);
    if current != 0 {
        let limit = Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) };
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// How many descriptors may be open.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes standard stream `number` a copy of `file` (dup2).
pub(crate) fn redirect(file: BorrowedFd<'_>, number: c_int) -> Result<(), Errno> {
    // SAFETY: dup2 on plain numbers. Descriptors 0, 1 and 2 never belong to an OwnedFd.
    if unsafe { libc::dup2(file.as_raw_fd(), number) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Standard stream 0, 1 or 2. If it is closed, calls on it fail with EBADF.
pub(crate) fn stream(number: c_int) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes 0, 1 or 2. If one is closed, calls on it fail with EBADF.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}
