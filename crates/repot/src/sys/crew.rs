//! Threads for one piece of work: all are started together, and the caller waits for all of them.

use alloc::sync::Arc;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use super::futex::Mutex;
use super::memory::wipe_stack;
use super::tally::Tally;

type Work<'a> = dyn Fn(u32) + Sync + 'a;

/// State shared by the threads of one crew. Each thread holds a reference, because the last one may still
/// wake a waiter that has returned already.
struct Crew {
    /// Valid until all started threads are counted in `tally`.
    work: *const Work<'static>,
    /// The number that the next thread gets.
    next: AtomicU32,
    tally: Tally,
}

// SAFETY: `work` points to something `Sync`; everything else is atomic.
unsafe impl Send for Crew {}
// SAFETY: as above.
unsafe impl Sync for Crew {}

/// The thread-specific key under which a worker finds its crew; `None` until the first crew.
static KEY: Mutex<Option<libc::pthread_key_t>> = Mutex::new(None);

/// The key, created on first use; `None` if the C library has none left.
fn key() -> Option<libc::pthread_key_t> {
    let mut key = KEY.lock();
    if key.is_none() {
        let mut created = 0;
        // SAFETY: the key is written to `created`. It has no destructor.
        if unsafe { libc::pthread_key_create(&raw mut created, None) } == 0 {
            *key = Some(created);
        }
    }
    *key
}

/// The crew that the calling thread works for; null on all other threads.
fn own_crew() -> *const Crew {
    match *KEY.lock() {
        // SAFETY: the key was created and is never deleted.
        Some(key) => unsafe { libc::pthread_getspecific(key) }.cast_const().cast(),
        None => ptr::null(),
    }
}

extern "C" fn start(crew: *mut c_void) -> *mut c_void {
    // SAFETY: `crew` was made by `Arc::into_raw` for this thread alone.
    let crew = unsafe { Arc::from_raw(crew.cast_const().cast::<Crew>()) };
    // SAFETY: the key exists. Only this thread reads the value, and it holds `crew` until it ends.
    let set = key().map(|key| unsafe { libc::pthread_setspecific(key, Arc::as_ptr(&crew).cast()) });
    if set != Some(0) {
        // Its panic handler would take it for the main thread.
        crew.tally.count(true);
        return ptr::null_mut();
    }
    let number = crew.next.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread is not counted yet, so the caller of `crew` still waits and `work` is alive.
    let work = unsafe { &*crew.work };
    let completed = completed(work, number);
    wipe_stack();
    crew.tally.count(!completed);
    ptr::null_mut()
}

/// Does the work. Without `std` a panic never returns here: the panic handler calls [`worker_lost`].
#[cfg(not(feature = "std"))]
fn completed(work: &Work<'_>, number: u32) -> bool {
    work(number);
    true
}

/// Does the work; `false` if it panicked.
#[cfg(feature = "std")]
fn completed(work: &Work<'_>, number: u32) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(number))).is_ok()
}

/// Waits for the threads, even while the caller unwinds: they borrow from its stack.
struct Join<'a> {
    crew: &'a Crew,
    started: u32,
}

impl Drop for Join<'_> {
    fn drop(&mut self) {
        self.crew.tally.wait(self.started, &|| (), &|| ());
    }
}

/// Runs `work(0)` to `work(threads - 1)`, each on its own thread, and calls `meanwhile` once a second until
/// all have ended. Crews may run in parallel and may be nested.
///
/// If a thread panics (see [`worker_lost`]), `lost` is called once, to make the others end. If `threads` is 0
/// or no thread can be started, `work(0)` runs on the calling thread.
pub(crate) fn crew(threads: u32, work: &Work<'_>, meanwhile: &dyn Fn(), lost: &dyn Fn()) {
    if threads == 0 || key().is_none() {
        return work(0);
    }
    let borrowed: *const Work<'_> = work;
    let crew = Arc::new(Crew {
        // SAFETY: only the lifetime changes. `Join` keeps this function from returning before the threads
        // have ended.
        work: unsafe { core::mem::transmute::<*const Work<'_>, *const Work<'static>>(borrowed) },
        next: AtomicU32::new(0),
        tally: Tally::default(),
    });
    let mut join = Join { crew: &crew, started: 0 };
    while join.started < threads {
        let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
        let reference = Arc::into_raw(crew.clone());
        // SAFETY: `start` takes over `reference`.
        if unsafe {
            libc::pthread_create(thread.as_mut_ptr(), ptr::null(), start, reference.cast_mut().cast())
        } != 0
        {
            // SAFETY: no thread was started, so the reference is still ours.
            drop(unsafe { Arc::from_raw(reference) });
            break;
        }
        join.started += 1;
        // SAFETY: pthread_create succeeded and filled it in. The thread is not joined, because a lost one
        // never exits.
        unsafe { libc::pthread_detach(thread.assume_init()) };
    }
    if join.started == 0 {
        return work(0);
    }
    crew.tally.wait(join.started, meanwhile, lost);
}

/// Whether the calling thread is a worker of a crew.
pub fn is_worker() -> bool {
    !own_crew().is_null()
}

/// For a panic handler: counts the calling worker as lost and never returns. The thread that waits for the
/// crew can then roll the move back.
pub fn worker_lost() -> ! {
    // SAFETY: null, or the crew that this thread holds a reference to. It never drops that reference, since
    // it never returns.
    if let Some(crew) = unsafe { own_crew().as_ref() } {
        crew.tally.count(true);
    }
    loop {
        // SAFETY: pause has no arguments and only sleeps.
        unsafe { libc::pause() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "std")]
    use crate::sys::Event;
    use core::sync::atomic::AtomicU64;

    fn sum(threads: u32) -> u64 {
        let sum = AtomicU64::new(0);
        crew(threads, &|number| _ = sum.fetch_add(1 << (8 * number), Ordering::Relaxed), &|| (), &|| {
            panic!("nobody panics")
        });
        sum.into_inner()
    }

    #[test]
    fn every_worker_gets_its_own_number() {
        assert_eq!(sum(0), 1);
        assert_eq!(sum(1), 1);
        assert_eq!(sum(4), 0x0101_0101);
    }

    #[test]
    fn crews_run_in_parallel() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(sum(3), 0x0001_0101);
                    }
                });
            }
        });
    }

    #[test]
    fn crews_can_be_nested() {
        let total = AtomicU64::new(0);
        let inner = |_| _ = total.fetch_add(sum(3), Ordering::Relaxed);
        crew(4, &inner, &|| (), &|| panic!("nobody panics"));
        assert_eq!(total.into_inner(), 4 * 0x0001_0101);
    }

    #[test]
    fn is_worker_is_true_on_workers_only() {
        assert!(!is_worker());
        let workers = AtomicU32::new(0);
        let count = |_| _ = workers.fetch_add(is_worker().into(), Ordering::Relaxed);
        crew(2, &count, &|| (), &|| ());
        assert_eq!(workers.into_inner(), 2);
        assert!(!is_worker());
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_panicking_worker_is_lost_and_the_others_finish() {
        let (reported, done) = (AtomicU32::new(0), AtomicU32::new(0));
        let stop = Event::new();
        let work = |number| {
            if number == 1 {
                panic!("as planned");
            }
            while reported.load(Ordering::Acquire) == 0 {
                stop.wait(0);
            }
            done.fetch_add(1, Ordering::Relaxed);
        };
        let lost = || {
            reported.fetch_add(1, Ordering::Release);
            stop.notify();
        };
        crew(4, &work, &|| (), &lost);
        assert_eq!((reported.into_inner(), done.into_inner()), (1, 3));
    }

    #[cfg(feature = "std")]
    #[test]
    fn an_unwinding_caller_waits_for_its_threads() {
        let (go, done) = (Event::new(), AtomicU32::new(0));
        let work = |_| {
            go.wait(0);
            done.fetch_add(1, Ordering::Relaxed);
        };
        let meanwhile = || {
            go.notify();
            panic!("as planned");
        };
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crew(3, &work, &meanwhile, &|| ())));
        assert!(caught.is_err());
        assert_eq!(done.into_inner(), 3);
    }
}
