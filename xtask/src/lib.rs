//! What the developer's machine and the guest's probe both have to know: the account a probe gives of
//! a machine, the list of a tree's entries, and the steps a boot can ask for before the init under test runs.
//!
//! The probe is the guest's `/sbin/init` (`src/probe.rs`); everything else of xtask runs on the host.

pub mod account;
pub mod escape;
pub mod snapshot;
pub mod steps;
pub mod sys;
