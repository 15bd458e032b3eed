//! What the host and the probe share: the account that the probe gives of a machine, and the steps that a
//! boot can ask for before the init under test runs.
//!
//! The probe itself is `src/bin/repot-probe`, a static program that is the guest's `/sbin/init`.

pub mod account;
pub mod steps;
pub mod sys;
