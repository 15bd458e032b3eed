//! The library of the tests in namespaces. See `tests/README.md`.
//!
//! A test creates a [`stage::Stage`] (a ramfs or tmpfs), plants a tree ([`trees`]) and mounts below it, takes
//! a [snapshot](repot_snapshot), and starts the real static `/init` on it as PID 1 of new namespaces
//! ([`sandbox`]). When the helper in place of the real init reports, the test inspects the new root from
//! outside and compares. The machine's own mounts never change: see [`namespace`].
pub mod calls;
pub mod faults;
pub mod intercept;
pub mod kill;
pub mod mounts;
pub mod namespace;
pub mod payload_image;
pub mod programs;
pub mod reference;
pub mod rehome;
pub mod sandbox;
pub mod stage;
mod sys;
pub mod trees;
pub mod twin;
pub mod zram;
