//! What `sys/futex.rs` uses of the CPU and the kernel, on top of loom.

use loom::sync::Mutex;
use loom::sync::atomic::{self, Ordering, fence};
use loom::thread::{Thread, current, park};
use std::sync::atomic::AtomicU32 as Unmodeled;

/// loom's atomic, and the threads that wait on its address.
#[derive(Debug)]
pub(crate) struct AtomicU32 {
    value: atomic::AtomicU32,
    /// The threads that wait or are about to. The kernel reads it without the lock of `queue`.
    waiters: Unmodeled,
    queue: Mutex<Vec<Thread>>,
}

impl Default for AtomicU32 {
    fn default() -> Self {
        Self::new(0)
    }
}

impl AtomicU32 {
    pub(crate) fn new(value: u32) -> Self {
        let value = atomic::AtomicU32::new(value);
        AtomicU32 { value, waiters: Unmodeled::new(0), queue: Mutex::new(Vec::new()) }
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        // loom orders sequentially consistent accesses only as it orders acquire and release.
        if order == Ordering::SeqCst {
            fence(order);
        }
        self.value.load(order)
    }

    pub(crate) fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.value.swap(value, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.value.compare_exchange(current, new, success, failure)
    }

    pub(crate) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.value.fetch_add(value, order)
    }

    pub(crate) fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.value.fetch_sub(value, order)
    }
}

/// Counts every access as a write, so that loom reports two accesses that no lock orders.
#[derive(Debug, Default)]
pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(loom::cell::UnsafeCell::new(value))
    }

    pub(crate) fn get(&self) -> *mut T {
        self.0.with_mut(|value| value)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// The algorithm of the kernel's `futex/waitwake.c`: the waiter counts itself before it compares, and the
/// waker stores before it reads that count. Each has a full barrier in between.
pub(crate) mod futex {
    use super::{AtomicU32, Ordering, current, fence, park};
    use rustix::io::Errno;
    use rustix::thread::Timespec;
    pub(crate) use rustix::thread::futex::Flags;

    pub(crate) fn wait(
        word: &AtomicU32,
        _: Flags,
        value: u32,
        _: Option<&Timespec>,
    ) -> Result<(), Errno> {
        // No wait times out, so that a lost wake-up is a deadlock.
        word.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut queue = word.queue.lock().unwrap();
        if word.value.load(Ordering::Relaxed) != value {
            drop(queue);
            word.waiters.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::AGAIN);
        }
        queue.push(current());
        drop(queue);
        park();
        Ok(())
    }

    pub(crate) fn wake(word: &AtomicU32, _: Flags, count: u32) -> Result<usize, Errno> {
        fence(Ordering::SeqCst);
        if word.waiters.load(Ordering::Relaxed) == 0 {
            return Ok(0);
        }
        let mut queue = word.queue.lock().unwrap();
        let woken = queue.len().min(count as usize);
        for thread in queue.drain(..woken) {
            word.waiters.fetch_sub(1, Ordering::Relaxed);
            thread.unpark();
        }
        Ok(woken)
    }
}
