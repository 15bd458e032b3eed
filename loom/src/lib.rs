//! Models of the lock, the event and the hand-off of directories. loom runs each through every interleaving
//! of its threads, up to a bounded number of preemptions.
//!
//! The files of the library are compiled as they are. `cfg(loom)` only replaces the atomics, the cell and the
//! futex calls in `sys/futex.rs`. The other modules here are what these files import.

#![cfg(test)]

extern crate alloc;

mod emulated;
mod models;

#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../crates/repot/src/sys/futex.rs"]
mod futex;
#[path = "../../crates/repot/src/sys/tally.rs"]
mod tally;
#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../crates/repot/src/walk/tasks.rs"]
mod tasks;

mod sys {
    pub(crate) use crate::futex::{Event, Mutex};
}

mod walk {
    /// The part of the library's trait that the queue needs.
    pub(crate) trait Visitor {
        type Dir;
        type Meta;
        type Scratch;
        fn assist(&self, scratch: &mut Self::Scratch) -> bool;
    }
}

mod error {
    #[derive(Debug)]
    pub(crate) struct Fault;
}
