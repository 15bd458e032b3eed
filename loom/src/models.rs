//! What must hold in every interleaving. A lost wake-up shows as a deadlock, which loom reports.

use crate::error::Fault;
use crate::sys::{Event, Mutex};
use crate::tally::Tally;
use crate::tasks::{Node, Shared, Task};
use crate::walk::Visitor;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::spawn;
use std::cell::Cell;

/// Explores a model with at most `preemptions` of a thread that could go on; blocking is not counted.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Runs `work` with the numbers from 0 to `threads - 1`, 0 on the calling thread.
fn together(threads: u32, work: impl Fn(u32) + Sync + Send + 'static) {
    let work = Arc::new(work);
    let others: Vec<_> = (1..threads)
        .map(|number| {
            let work = work.clone();
            spawn(move || work(number))
        })
        .collect();
    work(0);
    others.into_iter().for_each(|thread| thread.join().unwrap());
}

fn lock(threads: u32, rounds: u32, preemptions: usize) {
    explore(preemptions, move || {
        let count = Arc::new(Mutex::new(0));
        let all = count.clone();
        together(threads, move |_| (0..rounds).for_each(|_| *count.lock() += 1));
        assert_eq!(*all.lock(), threads * rounds);
    });
}

#[test]
fn the_lock_has_one_holder() {
    lock(2, 2, 4);
}

#[test]
fn the_lock_wakes_each_of_two_waiters() {
    lock(3, 1, 3);
}

#[test]
fn an_event_is_never_missed() {
    explore(4, || {
        let (event, done) = (Event::new(), AtomicBool::new(false));
        together(3, move |number| {
            if number == 0 {
                // The event orders this store, as it must.
                done.store(true, Ordering::Relaxed);
                return event.notify();
            }
            loop {
                let seen = event.seen();
                if done.load(Ordering::Relaxed) {
                    return;
                }
                event.wait(seen);
            }
        });
    });
}

#[test]
fn two_threads_take_turns() {
    explore(3, || {
        let (event, turn) = (Event::new(), Mutex::new(0));
        together(2, move |parity| {
            loop {
                let seen = event.seen();
                let mut number = turn.lock();
                if *number % 2 == parity {
                    *number += 1;
                    break;
                }
                drop(number);
                event.wait(seen);
            }
            event.notify();
        });
    });
}

/// A crew of two, of which `lost` threads panic.
fn crew(lost: u32) {
    explore(3, move || {
        let tally = Tally::default();
        together(3, move |number| {
            if number > 0 {
                return tally.count(number <= lost);
            }
            let reported = Cell::new(0);
            tally.wait(2, &|| (), &|| reported.set(reported.get() + 1));
            assert_eq!(reported.get(), lost.min(1), "each crew reports once");
        });
    });
}

#[test]
fn the_last_thread_that_ends_is_seen() {
    crew(0);
}

#[test]
fn a_lost_thread_is_reported_even_if_it_is_the_last() {
    crew(1);
    crew(2);
}

/// A walk over a root and its subdirectories. `Dir` is the number of a directory, 0 for the root.
struct Tree {
    /// How often each directory was walked.
    walked: Mutex<[u32; 3]>,
    left: Mutex<u32>,
}

impl Visitor for Tree {
    type Dir = usize;
    type Meta = ();
    type Scratch = ();
    fn assist(&self, (): &mut ()) -> bool {
        false
    }
}

loom::lazy_static! {
    static ref BELL: Event = Event::new();
    static ref TREE: Tree = Tree { walked: Mutex::default(), left: Mutex::default() };
    static ref WALK: Shared<'static, Tree> = Shared::new(&TREE, &BELL, 0, (), 2);
}

/// The loop of the library's worker, without what it does in directories. The walk of `failing` ends
/// everything.
fn work(subdirectories: usize, failing: Option<usize>) {
    while let Some(Task { mut node, dir }) = WALK.take(&mut ()) {
        TREE.walked.lock()[dir] += 1;
        if failing == Some(dir) {
            WALK.abandon(Fault);
            continue;
        }
        if dir == 0 {
            for below in 1..=subdirectories {
                WALK.push(Task { node: Node::new(Some(node.clone()), c"x".into(), ()), dir: below });
            }
        }
        while node.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            *TREE.left.lock() += 1;
            let Some(parent) = node.parent.clone() else {
                WALK.finish();
                break;
            };
            node = parent;
        }
    }
}

#[test]
fn each_directory_is_walked_once_and_the_end_wakes_all_workers() {
    for (workers, subdirectories, preemptions) in [(2, 2, 3), (3, 1, 2)] {
        explore(preemptions, move || {
            together(workers, move |_| work(subdirectories, None));
            let walked = *TREE.walked.lock();
            assert!((0..=subdirectories).all(|dir| walked[dir] == 1), "{walked:?}");
            assert_eq!(*TREE.left.lock() as usize, subdirectories + 1);
        });
    }
}

#[test]
fn a_task_goes_to_an_idle_worker_only() {
    explore(3, || {
        together(2, |number| {
            if number > 0 {
                return work(0, None);
            }
            let root = WALK.take(&mut ());
            if let Some(task) = root
                && let Some(task) = WALK.hand_off(task)
            {
                WALK.push(task);
            }
        });
        assert_eq!(*TREE.walked.lock(), [1, 0, 0]);
    });
}

#[test]
fn a_failure_wakes_all_workers() {
    for failing in [0, 1] {
        explore(2, move || {
            together(3, move |_| work(1, Some(failing)));
            assert!(WALK.failed.load(Ordering::Acquire));
        });
    }
}
