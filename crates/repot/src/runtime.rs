//! The runtime of an init without `std`: its arguments, an allocator, and functions for its panic handler.
//!
//! An init with `std` enables the feature `std`, and the library then catches a worker that panics, unless
//! its profile has `panic = "abort"`. It needs [`Invocation`], and [`Allocator`] too: `std` aborts if memory
//! runs out. A program without `std` defines three things:
//!
//! * Its entry point and allocator, with [`entry!`](crate::entry). An init calls [`Allocator::set_aside`]
//!   first: if memory runs out during a move, the move then ends in order and is rolled back.
//! * A panic handler. On a worker ([`is_worker`]) it calls [`worker_lost`], which does not return: the main
//!   thread then rolls the move back. On the main thread it may execute an init in place, unless [`is_torn`]
//!   returns true: half of the tree has moved.
//! * `panic = "abort"` in its profile.
//!
//! `crates/repot-init/src/sys.rs` is an example.

/// What an init with this library can do with an image. The tool looks for this text in an image's `/init`.
#[cfg(feature = "payload")]
pub const FEATURES: &str = "repot-features: chain manifests payload;";
/// What an init with this library can do with an image. The tool looks for this text in an image's `/init`.
#[cfg(not(feature = "payload"))]
pub const FEATURES: &str = "repot-features: chain manifests;";

pub use crate::sys::{Allocator, Invocation, is_memory_short, is_torn, is_worker, now, sleep, worker_lost};
