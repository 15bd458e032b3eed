//! Memory: pages, the allocator of a program without `std`, and what it has set aside.

use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::last_error;

/// The size of a page, in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf reads a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Which pages of a file are in the page cache: one byte a page, bit 0. `offset` must be on a page boundary.
///
/// On ramfs a page that does not exist is a hole, and reading it would create it (`simple_read_folio`).
///
/// # Errors
/// As mmap(2) and mincore(2).
pub(crate) fn resident(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
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

/// The C library's `malloc` as Rust's allocator, with half a megabyte set aside. See [`crate::runtime::Allocator`].
#[derive(Debug)]
pub struct Malloc;

/// Set aside by [`Malloc::set_aside`]. Never written to, so that it takes no memory until it is needed.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// More than one thread of a walk ever has, in bytes.
const RESERVE_SIZE: usize = 512 * 1024;

static SHORT: AtomicBool = AtomicBool::new(false);

impl Malloc {
    /// Sets memory aside for the first allocation that fails.
    pub fn set_aside() {
        // SAFETY: any size is a valid argument, and a null pointer is handled.
        let reserve = unsafe { libc::malloc(RESERVE_SIZE) };
        RESERVE.store(reserve, Ordering::Relaxed);
        if reserve.is_null() {
            SHORT.store(true, Ordering::Relaxed);
        }
    }
}

// SAFETY: malloc and posix_memalign return what GlobalAlloc asks for, and free accepts both.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let try_once = || {
            if layout.align() <= size_of::<usize>() * 2 {
                // SAFETY: any size is a valid argument.
                return unsafe { libc::malloc(layout.size()) };
            }
            let mut place: *mut c_void = ptr::null_mut();
            // SAFETY: an alignment is a power of two, and larger than a pointer here.
            match unsafe { libc::posix_memalign(&raw mut place, layout.align(), layout.size()) } {
                0 => place,
                _ => ptr::null_mut(),
            }
        };
        let place = try_once();
        if !place.is_null() {
            return place.cast();
        }
        // The caller cannot go on without. It finishes its entry with what was set aside; then the move is rolled back.
        SHORT.store(true, Ordering::Relaxed);
        // SAFETY: null, or what `set_aside` got from malloc; nobody else gets it.
        unsafe { libc::free(RESERVE.swap(ptr::null_mut(), Ordering::Relaxed)) };
        try_once().cast()
    }

    unsafe fn dealloc(&self, place: *mut u8, _: Layout) {
        // SAFETY: `place` came from `alloc`.
        unsafe { libc::free(place.cast()) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= size_of::<usize>() * 2 {
            // SAFETY: `place` came from malloc.
            let grown = unsafe { libc::realloc(place.cast(), size) };
            if !grown.is_null() {
                return grown.cast();
            }
        }
        // SAFETY: the layout with another size is valid by the contract of `realloc`.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have that many bytes and do not overlap; the old one is freed once.
            unsafe {
                ptr::copy_nonoverlapping(place, new, layout.size().min(size));
                self.dealloc(place, layout);
            }
        }
        new
    }
}

/// Whether an allocation had to use what was set aside, or nothing could be set aside.
pub fn is_memory_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

static TORN: AtomicBool = AtomicBool::new(false);

/// While this is set, neither the old root nor the new one is complete.
pub(crate) fn tear(torn: bool) {
    TORN.store(torn, Ordering::Relaxed);
}

/// Whether [`crate::rehome`] is under way, so that no init must be executed.
pub fn is_torn() -> bool {
    TORN.load(Ordering::Relaxed)
}
