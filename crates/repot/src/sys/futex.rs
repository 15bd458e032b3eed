//! A lock and an event on the kernel's futex. The library has no `std`, and the C library's own locks are
//! larger.

#[cfg(not(loom))]
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
#[cfg(not(loom))]
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

use rustix::io::Errno;
#[cfg(not(loom))]
use rustix::thread::futex;

// The models in `loom/` compile this file against an emulated CPU and kernel.
#[cfg(loom)]
use crate::emulated::{AtomicU32, UnsafeCell, futex};

/// A lock around a value; waiting threads sleep in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    /// 0: free. 1: held. 2: held, and other threads wait.
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, and `word` lets one guard exist at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Self {
        Mutex { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Mutex { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits until the lock is free, then takes it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.word.swap(2, Ordering::Acquire) != 0 {
                wait(&self.word, 2);
            }
        }
        Guard { mutex: self, not_send: PhantomData }
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// Access to the value of a [`Mutex`]; dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `&Mutex<T>` is `Sync` for every `T: Send`, but a guard hands out `&T`. So the guard must inherit
    /// neither `Send` nor `Sync` from that field.
    not_send: PhantomData<*mut T>,
}

// SAFETY: a shared guard hands out only `&T`.
unsafe impl<T: Sync> Sync for Guard<'_, T> {}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: only one guard exists at a time.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: only one guard exists at a time.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.mutex.word.swap(0, Ordering::Release) == 2 {
            wake(&self.mutex.word, 1);
        }
    }
}

/// A counter to wait on: a waiter goes on once the count differs from the one that it has seen.
#[derive(Debug, Default)]
pub(crate) struct Event {
    count: AtomicU32,
    /// The number of threads that sleep in the kernel. If it is 0, no wake-up is needed.
    asleep: AtomicU32,
}

/// How often a waiting thread polls before it sleeps, which takes 0.1 ms: a wake-up costs as much as copying
/// half a chunk.
const SPINS: u32 = if cfg!(loom) { 1 } else { 4000 };

impl Event {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Event { count: AtomicU32::new(0), asleep: AtomicU32::new(0) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The current count. Read it before checking the condition that you wait for.
    pub(crate) fn seen(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Adds one to the count and wakes all waiters.
    pub(crate) fn notify(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            wake(&self.count, i32::MAX as u32);
        }
    }

    /// Waits while the count is still `seen`.
    pub(crate) fn wait(&self, seen: u32) {
        for _ in 0..SPINS {
            if self.seen() != seen {
                return;
            }
            core::hint::spin_loop();
        }
        self.sleep(|| wait(&self.count, seen));
    }

    /// Sleeps while the count is still `seen`, for at most `seconds`. Returns whether it timed out.
    pub(crate) fn wait_for(&self, seen: u32, seconds: u32) -> bool {
        let limit = rustix::thread::Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        self.sleep(|| {
            futex::wait(&self.count, futex::Flags::PRIVATE, seen, Some(&limit)) == Err(Errno::TIMEDOUT)
        })
    }

    // `asleep` grows before the kernel compares the count, and `notify` increments the count before it reads
    // `asleep`. So at least one of the two sees the other.
    fn sleep<T>(&self, sleep: impl FnOnce() -> T) -> T {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let woken = sleep();
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        woken
    }
}

// A failed futex call looks like a spurious wake-up to the caller, who checks the condition again.
fn wait(word: &AtomicU32, value: u32) {
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
}

fn wake(word: &AtomicU32, count: u32) {
    if futex::wake(word, futex::Flags::PRIVATE, count).is_err() {
        let _ = futex::wake(word, futex::Flags::PRIVATE, count);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;
    use std::thread::scope;

    /// Compiles only if neither trait is implemented. Otherwise both impls below would apply and `item` would
    /// be ambiguous.
    macro_rules! assert_not_impl {
        ($type:ty: $bound:path) => {
            const _: fn() = || {
                trait Ambiguous<A> {
                    fn item() {}
                }
                impl<T: ?Sized> Ambiguous<()> for T {}
                impl<T: ?Sized + $bound> Ambiguous<u8> for T {}
                <$type as Ambiguous<_>>::item()
            };
        };
    }
    assert_not_impl!(Guard<'static, Cell<u8>>: Sync);
    assert_not_impl!(Guard<'static, u8>: Send);
    assert_not_impl!(Mutex<*mut u8>: Sync);

    #[test]
    fn a_guard_of_something_sync_is_sync() {
        fn assert_sync<T: Sync>(_: &T) {}
        assert_sync(&Mutex::new(1).lock());
    }

    #[test]
    fn one_holder_at_a_time() {
        let (threads, rounds) = if cfg!(miri) { (3, 20) } else { (8, 10_000) };
        let count = Mutex::new(0);
        scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..rounds).for_each(|_| *count.lock() += 1));
            }
        });
        assert_eq!(count.into_inner(), threads * rounds);
    }

    #[test]
    fn no_wake_up_is_lost() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        let (event, state) = (Event::new(), Mutex::new(0));
        // Two threads take turns: each waits until the number has its own parity.
        let play = |parity: u32| {
            for _ in 0..rounds {
                loop {
                    let seen = event.seen();
                    let mut number = state.lock();
                    if *number % 2 == parity {
                        *number += 1;
                        break;
                    }
                    drop(number);
                    event.wait(seen);
                }
                event.notify();
            }
        };
        scope(|scope| {
            scope.spawn(|| play(0));
            scope.spawn(|| play(1));
        });
        assert_eq!(state.into_inner(), 2 * rounds);
    }

    #[test]
    fn wait_for_times_out() {
        let event = Event::new();
        assert!(event.wait_for(event.seen(), 1));
        let seen = event.seen();
        event.notify();
        assert!(!event.wait_for(seen, 1));
    }
}
