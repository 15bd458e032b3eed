//! Re-home a Linux system that lives in its initramfs: move the running root onto a fresh tmpfs, in constant
//! extra memory.
//!
//! # From the top
//!
//! [`rehome`] does all of it, for the init that calls it:
//!
//! ```no_run
//! # #[cfg(feature = "std")] {
//! use repot::runtime::Invocation;
//!
//! let invocation = Invocation::of_process();
//! match repot::rehome() {
//!     // "/" is a tmpfs now, or as good as it gets: mount what you need, then execute the real init.
//!     Ok(outcome) => outcome.execute(&invocation),
//!     Err(failure) => eprintln!("{failure}"),
//! }
//! # }
//! ```
//!
//! `examples/init.rs` is the whole program.
//!
//! The decision alone, for a program that only wants to know:
//!
//! ```
//! use repot::facts::{Facts, RootFs};
//! use repot::options::Options;
//! use repot::plan::{Method, plan};
//!
//! let mut facts = Facts::default();
//! facts.rootfs = RootFs::Other(0xef53);
//! facts.candidates.push(repot::facts::program::Candidate { path: b"/sbin/init".to_vec(), why: None });
//! let plan = plan(&facts, &Options::default()).unwrap();
//! assert_eq!((plan.method, plan.reason.as_str()), (Method::Stay, "/ is neither a ramfs nor a tmpfs"));
//! ```
//!
//! # The steps
//!
//! Each takes what the one before it returned, so that the wrong order does not compile:
//!
//! | step | does | returns |
//! |---|---|---|
//! | [`facts`] | inspects, changes nothing | [`site::Site`], [`facts::Facts`] |
//! | [`mod@plan`] | decides, without looking | [`plan::Plan`] |
//! | [`newroot`] | makes the new root, detached | [`newroot::NewRoot`] |
//! | `carry::lift` | attaches it above the old one, and parks the mounts | `Lifted` |
//! | `relocate` | moves the tree, or unpacks the payload | `Relocated` |
//! | `carry` | puts the mounts on the new root | `Carried` |
//! | [`switch`] | makes the new root `/` | [`switch::Ready`] |
//! | [`handoff`] | executes the real init | nothing: it does not return |
//!
//! A step that fails has restored everything as it was before the first, unless its error says that it is
//! torn. The library never exits or panics on purpose. Only [`rehome`] and [`ladder::Outcome::execute`] write
//! to a log.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod carry;
pub mod display;
pub mod error;
pub mod essential;
pub mod facts;
pub mod handoff;
pub mod ladder;
mod leftovers;
pub mod log;
pub mod manifest;
pub mod marker;
mod metadata;
pub mod modules;
mod mover;
pub mod newroot;
pub mod options;
pub mod payload;
pub mod plan;
pub mod progress;
mod relocate;
mod report;
mod reserve;
pub mod run;
pub mod runtime;
pub mod site;
mod skipped;
pub mod streams;
pub mod switch;
mod sys;
#[cfg(feature = "payload")]
mod unpack;
pub mod walk;
pub mod zram;

pub use ladder::rehome;
pub use mover::CHUNK;
