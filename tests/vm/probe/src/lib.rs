//! What the host and the probe share: the account that the probe gives of a machine, and the steps that a
//! boot can ask for before the init under test runs.
//!
//! The probe itself is `src/bin/repot-probe`, a static program that is the guest's `/sbin/init`.

pub mod account;
pub mod steps;
pub mod sys;

/// A file of the image that makes the real init forget: it overwrites the files in `/secret` and keeps
/// running, so that the memory of the guest can be searched.
pub const FORGET: &str = "probe-forget";
/// What it says when it has.
pub const FORGOTTEN: &str = "probe: forgotten";

/// What begins the report where it goes over the console.
pub const REPORT: &str = "probe-report ";
