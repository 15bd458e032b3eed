//! Memory: pages, the allocator of a program without `std`, and its reserve.

use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

use super::last_error;

/// The size of a page, in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf reads a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Which pages of a file are in the page cache: bit 0 of one byte per page. `offset` must be a multiple of
/// the page size.
///
/// On ramfs a page that does not exist is a hole, and reading it would allocate it (`simple_read_folio`).
///
/// # Errors
/// As mmap(2) and mincore(2).
pub(crate) fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
    let page = usize::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
    let mut pages = vec![0u8; length.div_ceil(page)];
    // SAFETY: a new shared read-only mapping at an address that the kernel chooses. It is never dereferenced.
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
    let result = match unsafe { libc::mincore(map, length, pages.as_mut_ptr()) } {
        0 => Ok(pages),
        _ => Err(last_error()),
    };
    // SAFETY: the whole mapping made above.
    unsafe { rustix::mm::munmap(map, length) }?;
    result
}

#[cfg(feature = "payload")]
/// Pages of a file that the kernel does not page out, until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    map: *mut c_void,
    length: usize,
}

#[cfg(feature = "payload")]
// SAFETY: the mapping belongs to the process, and nothing reads or writes through the pointer.
unsafe impl Send for Locked {}

#[cfg(feature = "payload")]
impl Locked {
    /// Locks the first `length` bytes of a file.
    ///
    /// # Errors
    /// As mmap(2) and mlock(2).
    pub(crate) fn new(file: BorrowedFd<'_>, length: u64) -> Result<Locked, Errno> {
        let length = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
        let (read, shared) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        // SAFETY: a new shared read-only mapping at an address that the kernel chooses. It is never
        // dereferenced.
        let map = unsafe { rustix::mm::mmap(ptr::null_mut(), length, read, shared, file, 0) }?;
        let locked = Locked { map, length };
        // SAFETY: the whole mapping made above.
        unsafe { rustix::mm::mlock(map, length) }?;
        Ok(locked)
    }
}

#[cfg(feature = "payload")]
impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the whole mapping of `new`, which nothing else knows.
        let _ = unsafe { rustix::mm::munmap(self.map, self.length) };
    }
}

/// `cachestat` came with 6.5. Like `openat2`, it has one number for all architectures, plus the offset that
/// some of them have.
const CACHESTAT: libc::c_long = libc::SYS_openat2 - 437 + 451;

/// The number of pages of a file in the page cache, from `offset` on; `None` if the kernel cannot say. Its
/// time depends on the pages found, not on the length.
pub(crate) fn count_cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<u64> {
    let range = [offset, length];
    let mut counts = [0u64; 5];
    // SAFETY: a `struct cachestat_range` of two numbers, and a `struct cachestat` of five for the answer.
    let done =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0u32) };
    (done == 0).then_some(counts[0])
}

/// The C library's `malloc` as Rust's allocator, with a reserve of 512 KiB. See
/// [`crate::runtime::Allocator`].
#[derive(Debug)]
pub struct Allocator;

/// Allocated by [`Allocator::set_aside`]. It is never written to, so it takes no memory until it is needed.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// In bytes; more than one worker of a walk ever allocates.
const RESERVE_SIZE: usize = 512 * 1024;

static SHORT: AtomicBool = AtomicBool::new(false);

impl Allocator {
    /// Allocates a reserve for the first allocation that fails.
    pub fn set_aside() {
        // SAFETY: any size is a valid argument. A null pointer is handled below.
        let reserve = unsafe { libc::malloc(RESERVE_SIZE) };
        RESERVE.store(reserve, Ordering::Relaxed);
        if reserve.is_null() {
            SHORT.store(true, Ordering::Relaxed);
        }
    }
}

// SAFETY: malloc and posix_memalign return what GlobalAlloc asks for, and free accepts both.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let try_once = || {
            if layout.align() <= size_of::<usize>() * 2 {
                // SAFETY: any size is a valid argument.
                return unsafe { libc::malloc(layout.size()) };
            }
            let mut block: *mut c_void = ptr::null_mut();
            // SAFETY: an alignment is a power of two, and here it is larger than a pointer.
            match unsafe { libc::posix_memalign(&raw mut block, layout.align(), layout.size()) } {
                0 => block,
                _ => ptr::null_mut(),
            }
        };
        let block = try_once();
        if !block.is_null() {
            return block.cast();
        }
        // The caller aborts without memory. So it finishes its entry with the reserve, and then the move is
        // rolled back.
        SHORT.store(true, Ordering::Relaxed);
        // SAFETY: null, or what `set_aside` got from malloc. Nothing else uses it.
        unsafe { libc::free(RESERVE.swap(ptr::null_mut(), Ordering::Relaxed)) };
        try_once().cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc`, with this size.
        unsafe { free(block.cast(), layout.size()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // realloc(3) frees the old block as it is.
        if layout.align() <= size_of::<usize>() * 2 && !WIPE.load(Ordering::Relaxed) {
            // SAFETY: `block` came from malloc.
            let grown = unsafe { libc::realloc(block.cast(), size) };
            if !grown.is_null() {
                return grown.cast();
            }
        }
        // SAFETY: the contract of `realloc` makes the layout valid for the new size too.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have at least this many bytes and do not overlap. The old one is freed
            // once.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

static WIPE: AtomicBool = AtomicBool::new(false);

/// Sets whether memory of this program is overwritten before it is freed (`wipe=yes`).
pub(crate) fn wipe_freed(wipe: bool) {
    WIPE.store(wipe, Ordering::Relaxed);
}

/// Frees a block that came from malloc; overwrites it first, if that is set. Not inlined, because everything
/// frees something.
///
/// # Safety
/// The block must have this size, and nothing may use it any more.
#[inline(never)]
pub(super) unsafe fn free(block: *mut c_void, size: usize) {
    if WIPE.load(Ordering::Relaxed) {
        // SAFETY: the caller promises it.
        unsafe { ptr::write_bytes(block.cast::<u8>(), 0, size) };
        // Without a reader, the compiler would omit writing what is freed next.
        core::hint::black_box(block);
    }
    // SAFETY: as above.
    unsafe { libc::free(block) };
}

/// Bytes of a stack that are overwritten: most of a worker's stack, which has 128 KiB.
const STACK: usize = 96 * 1024;

/// Overwrites what calls that have returned left on the stack, if that is set.
#[inline(never)]
pub(crate) fn wipe_stack() {
    if WIPE.load(Ordering::Relaxed) {
        overwrite_stack();
    }
}

#[inline(never)]
fn overwrite_stack() {
    let mut area = [0u8; STACK];
    core::hint::black_box(&mut area);
}

/// Whether an allocation had to use the reserve, or no reserve could be allocated.
pub fn is_memory_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

static TORN: AtomicBool = AtomicBool::new(false);

/// Sets whether the tree is split: while it is, neither the old root nor the new one is complete.
pub(crate) fn tear(torn: bool) {
    TORN.store(torn, Ordering::Relaxed);
}

/// Whether the tree is split between the old root and the new one. No init may be executed then.
pub fn is_torn() -> bool {
    TORN.load(Ordering::Relaxed)
}
