//! What the tests share.
//!
//! A test makes a [`stage::Stage`] (a ramfs or tmpfs of its own), plants a tree in it ([`trees`]) and mounts below it,
//! takes a [snapshot](repot_snapshot), and starts the real static `/init` on it as process 1 of namespaces of its own ([`sandbox`]).
//! When the helper that stands in for the real init reports, the test looks at the new root from outside and compares.
//! Nothing of the machine's own mounts is ever changed: see [`namespace`].
pub mod calls;
pub mod faults;
pub mod intercept;
pub mod kill;
pub mod mounts;
pub mod namespace;
pub mod payload;
pub mod programs;
pub mod reference;
pub mod rehome;
pub mod sandbox;
pub mod stage;
mod sys;
pub mod trees;
pub mod twin;
