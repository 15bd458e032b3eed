//! Everything that needs `unsafe`: threads, a lock, and the calls that rustix lacks.
//!
//! The library does without `std`, whose panic machinery alone is larger than the whole init may be,
//! so the C library gives the threads and the kernel's futex the lock.
#![allow(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::thread::futex;

/// A lock around a value; waiting threads sleep in the kernel.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    /// 0 free, 1 held, 2 held and awaited.
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, and `word` lets one guard exist at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Mutex { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits until the lock is free and takes it.
    pub fn lock(&self) -> Guard<'_, T> {
        if self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.word.swap(2, Ordering::Acquire) != 0 {
                wait(&self.word, 2);
            }
        }
        Guard(self)
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// The right to the value of a [`Mutex`], given back when dropped.
#[derive(Debug)]
pub struct Guard<'a, T>(&'a Mutex<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.0.word.swap(0, Ordering::Release) == 2 {
            wake(&self.0.word, 1);
        }
    }
}

/// A counter that can be waited on: whoever saw an older count is let through.
#[derive(Debug, Default)]
pub struct Event {
    count: AtomicU32,
    /// How many sleep in the kernel: where nobody does, nobody need be woken.
    asleep: AtomicU32,
}

/// How often a thread looks before it sleeps: a tenth of a millisecond. To be woken takes as long as half a chunk takes to be copied.
const LOOKS: u32 = 4000;

impl Event {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Event { count: AtomicU32::new(0), asleep: AtomicU32::new(0) }
    }
    /// The count so far; to be read before looking at what one would wait for.
    pub fn seen(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }
    /// Counts one more and lets all who wait go on.
    pub fn tell(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            wake(&self.count, i32::MAX as u32);
        }
    }
    /// Waits while the count is still `seen`.
    pub fn wait(&self, seen: u32) {
        for _ in 0..LOOKS {
            if self.seen() != seen {
                return;
            }
            core::hint::spin_loop();
        }
        self.sleep(|| wait(&self.count, seen));
    }
    /// Sleeps while the count is still `seen`, at most `seconds`; whether that much time went by.
    pub fn wait_for(&self, seen: u32, seconds: u32) -> bool {
        let limit = rustix::thread::Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        self.sleep(|| {
            futex::wait(&self.count, futex::Flags::PRIVATE, seen, Some(&limit)) == Err(Errno::TIMEDOUT)
        })
    }
    // Counted before the kernel compares, as `tell` counts before it looks: so one of the two sees the other.
    fn sleep<T>(&self, sleep: impl FnOnce() -> T) -> T {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let woken = sleep();
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        woken
    }
}

// A futex call that fails leaves the caller to look again, which is what a spurious wake-up is.
fn wait(word: &AtomicU32, value: u32) {
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
}

fn wake(word: &AtomicU32, count: u32) {
    if futex::wake(word, futex::Flags::PRIVATE, count).is_err() {
        let _ = futex::wake(word, futex::Flags::PRIVATE, count);
    }
}

/// How the threads of the running [`crew`] ended, and the event that tells of it.
static ENDED: AtomicU32 = AtomicU32::new(0);
static LOST: AtomicU32 = AtomicU32::new(0);
static TICK: Event = Event::new();

struct Post<'a> {
    work: &'a (dyn Fn(u32) + Sync),
    number: u32,
}

extern "C" fn man(post: *mut c_void) -> *mut c_void {
    // SAFETY: `crew` keeps the posts alive until each thread has counted itself in ENDED or LOST.
    let post = unsafe { &*post.cast::<Post<'_>>() };
    (post.work)(post.number);
    ENDED.fetch_add(1, Ordering::Release);
    TICK.tell();
    ptr::null_mut()
}

/// Runs `work(0)`, … `work(threads - 1)`, each on a thread of its own, and calls `meanwhile` once a second.
///
/// Where a thread panics (see [`worker_lost`]), `lost` is called, once, to make the others end. With no threads, or where none can
/// be started, `work(0)` runs on the caller's.
pub fn crew(threads: u32, work: &(dyn Fn(u32) + Sync), meanwhile: &dyn Fn(), lost: &dyn Fn()) {
    ENDED.store(0, Ordering::Relaxed);
    LOST.store(0, Ordering::Relaxed);
    let posts: Vec<Post<'_>> = (0..threads).map(|number| Post { work, number }).collect();
    let mut started = 0;
    for post in &posts {
        let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
        let post = ptr::from_ref(post).cast_mut().cast();
        // SAFETY: `man` reads the post only, which outlives the thread's use of it.
        if unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), man, post) } != 0 {
            break;
        }
        // SAFETY: pthread_create succeeded and has filled it in. Nobody joins: a lost thread would never come.
        unsafe { libc::pthread_detach(thread.assume_init()) };
        started += 1;
    }
    if started == 0 {
        return work(0);
    }
    let mut told = false;
    loop {
        let seen = TICK.seen();
        let gone = LOST.load(Ordering::Acquire);
        if gone > 0 && !told {
            told = true;
            lost();
        }
        if ENDED.load(Ordering::Acquire) + gone == started {
            return;
        }
        if TICK.wait_for(seen, 1) {
            meanwhile();
        }
    }
}

/// Whether the caller is the main thread of the process.
pub fn on_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// For a panic handler: counts the calling worker as lost and never returns, so that the main thread can undo the move.
pub fn worker_lost() -> ! {
    LOST.fetch_add(1, Ordering::Release);
    TICK.tell();
    loop {
        // SAFETY: pause has no arguments and only sleeps.
        unsafe { libc::pause() };
    }
}

static SHORT: AtomicBool = AtomicBool::new(false);

/// For an allocator that had to fall back on what it had set aside: a move that is under way is to be undone.
pub fn memory_is_short() {
    SHORT.store(true, Ordering::Relaxed);
}

/// Whether [`memory_is_short`] was called.
pub(crate) fn is_memory_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

static TORN: AtomicBool = AtomicBool::new(false);

/// While this is so, neither the old root nor the new one can be started from.
pub(crate) fn tear(torn: bool) {
    TORN.store(torn, Ordering::Relaxed);
}

/// For a panic handler: whether [`crate::rehome`] is under way, so that no init must be executed.
pub fn is_torn() -> bool {
    TORN.load(Ordering::Relaxed)
}

/// The size of a page in bytes.
pub fn page_size() -> u64 {
    // SAFETY: sysconf reads a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// How many processors this process may run on.
pub fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1))
}

/// Nanoseconds since the machine started.
///
/// rustix asks the vDSO, and to find it panics where neither `PR_GET_AUXV` (6.4) nor /proc exists; the C library knows the
/// auxiliary vector from the start.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that this thread has spent on a processor, in the kernel or not.
pub fn worked() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel fills the struct; zero is valid for it too.
    let time = unsafe {
        libc::clock_gettime(which, time.as_mut_ptr());
        time.assume_init()
    };
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    nanoseconds
}

/// Sleeps for so many seconds.
pub fn sleep(seconds: u32) {
    // SAFETY: sleep has no preconditions.
    unsafe { libc::sleep(seconds) };
}

/// Which pages of a file are in the page cache: one byte a page, bit 0. `offset` must be on a page boundary.
///
/// On ramfs a page that is not there is a hole, and reading it would create it (`simple_read_folio`).
///
/// # Errors
/// As mmap(2) and mincore(2).
pub fn resident(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
    let page = usize::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
    let mut pages = vec![0u8; length.div_ceil(page)];
    // SAFETY: a new shared read-only mapping at an address of the kernel's choice; nobody dereferences it.
    let map = unsafe {
        rustix::mm::mmap(
            ptr::null_mut(),
            length,
            rustix::mm::ProtFlags::READ,
            rustix::mm::MapFlags::SHARED,
            file,
            offset,
        )
    }?;
    // SAFETY: `pages` has one byte for each page of the mapping.
    let answer = match unsafe { libc::mincore(map, length, pages.as_mut_ptr()) } {
        0 => Ok(pages),
        _ => Err(last_error()),
    };
    // SAFETY: the mapping made above, whole.
    unsafe { rustix::mm::munmap(map, length) }?;
    answer
}

/// How this program was called: what the next one is called with.
#[derive(Debug)]
pub struct Invocation {
    /// The kernel's own array, of which the first is replaced by what is executed.
    argv: *mut *const c_char,
    envp: *const *const c_char,
}

impl Invocation {
    /// Takes what `main` was given; the library does not copy it, since there may be no memory for that.
    ///
    /// # Safety
    /// Both must be arrays of C strings that end with a null pointer, live as long as the process, and are nobody else's.
    pub unsafe fn of_main(argv: *mut *const c_char, envp: *const *const c_char) -> Self {
        Invocation { argv, envp }
    }

    /// The first argument after the program's name.
    pub fn argument(&self) -> Option<&CStr> {
        // SAFETY: the promise made to `of_main`: null pointers, or C strings that stay.
        unsafe {
            if (*self.argv).is_null() || (*self.argv.add(1)).is_null() {
                return None;
            }
            Some(CStr::from_ptr(*self.argv.add(1)))
        }
    }

    /// Executes `path` with this program's arguments, its own name aside, and its environment. Every descriptor but the three
    /// standard ones is closed by that. Returns only on failure, on 5.10 with the descriptors closed.
    pub fn execute(&self, path: &CStr) -> Errno {
        const ON_EXEC: u32 = 4;
        // SAFETY: CLOSE_RANGE_CLOEXEC (5.11) changes no descriptor until an exec succeeds. The wrapper is not in every C library.
        if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, ON_EXEC) } != 0 {
            // SAFETY: as the last act before an exec. If that fails, an OwnedFd may be closed twice, which is harmless as
            // nothing opens descriptors in between.
            unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
        }
        // SAFETY: both arrays end with a null pointer and are ours, by the promise made to `of_main`.
        unsafe {
            if (*self.argv).is_null() {
                libc::execve(path.as_ptr(), [path.as_ptr(), ptr::null()].as_ptr(), self.envp);
            } else {
                *self.argv = path.as_ptr();
                libc::execve(path.as_ptr(), self.argv, self.envp);
            }
        }
        last_error()
    }
}

/// Makes `wanted` the standard stream `number`.
pub fn take_as(wanted: BorrowedFd<'_>, number: c_int) -> Result<(), Errno> {
    // SAFETY: dup2 on plain numbers; whatever was open as `number` is nobody's OwnedFd (0, 1 and 2 never are).
    if unsafe { libc::dup2(wanted.as_raw_fd(), number) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// A standard stream: 0, 1 or 2. Where it is closed, calls on it fail with EBADF.
pub fn stream(number: c_int) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes 0, 1 or 2, and whether they are open does not matter to what is done with them.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// The kernel's log, its newest `limit` bytes (syslog(2), action 3).
///
/// # Errors
/// As syslog(2).
pub fn kernel_log(limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = vec![0u8; limit];
    let size = c_int::try_from(limit).map_err(|_| Errno::INVAL)?;
    // SAFETY: the buffer has `size` bytes. The wrapper klogctl is not in every C library.
    let length = unsafe { libc::syscall(libc::SYS_syslog, 3, text.as_mut_ptr().cast::<c_char>(), size) };
    match usize::try_from(length) {
        Ok(length) => {
            text.truncate(length);
            Ok(text)
        }
        Err(_) => Err(last_error()),
    }
}

/// The reason why the C library's last call failed; to be asked only after one that did.
fn last_error() -> Errno {
    // SAFETY: the C library's errno of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() }.max(1))
}
