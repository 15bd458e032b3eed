//! What an init without `std` needs from the library: its arguments, an allocator, and what its panic handler does.
//!
//! An init with `std` needs [`Invocation`] alone; it enables the feature `std`, and a worker that panics is then caught
//! by the library. Without `std` a program defines four things:
//!
//! * `#[global_allocator] static MALLOC: Allocator = Allocator;`, and calls [`Allocator::set_aside`] first thing in
//!   `main`. When memory runs out in the middle of a move, the move ends in order and is rolled back.
//! * A C `main`, whose `argv` and `envp` become an [`Invocation`].
//! * A panic handler. On a worker ([`is_worker`]) it calls [`worker_lost`], which does not return: the main thread then
//!   rolls the move back. On the main thread it may execute an init in place, unless [`is_torn`] says that half of the
//!   tree has moved.
//! * `panic = "abort"` in its profile.
//!
//! `crates/repot-init/src/sys.rs` is such a program.

pub use crate::sys::{
    Invocation, Malloc as Allocator, is_memory_short, is_torn, is_worker, now, sleep, worker_lost,
};
