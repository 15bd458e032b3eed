//! Re-home a Linux system that lives in its initramfs.
//!
//! The steps, each of which takes what the one before it gave:
//!
//! | step | does | gives |
//! |---|---|---|
//! | [`facts`] | looks, touches nothing | [`facts::Site`], [`facts::Facts`] |
//! | [`plan`] | decides, without looking | [`plan::Plan`] |
//! | [`newroot`] | makes the new root, attached nowhere | [`newroot::NewRoot`] |
//! | [`relocate`] | moves the tree | [`relocate::Relocated`] |
//! | [`carry`] | moves the mounts | [`carry::Carried`] |
//! | [`switch`] | makes the new root `/` | [`switch::Ready`] |
//! | [`handoff`] | executes the real init | nothing: it does not return |
//!
//! A step that fails has put everything back as it was before the first. The library never exits, panics on purpose or
//! prints: it returns errors.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod carry;
pub mod cmdline;
mod data;
pub mod error;
pub mod facts;
mod file;
mod folios;
pub mod handoff;
mod links;
pub mod manifest;
mod metadata;
pub mod mountinfo;
mod mover;
pub mod newroot;
pub mod options;
pub mod payload;
pub mod plan;
pub mod program;
mod ranges;
mod refused;
pub mod relocate;
pub mod report;
mod reserve;
pub mod runtime;
pub mod survey;
mod sweep;
pub mod switch;
mod sys;
mod tasks;
mod undo;
pub mod unpacking;
mod walk;
mod worker;

use error::Error;
use facts::{Facts, Site};
use newroot::NewRoot;
use plan::Plan;
use relocate::Progress;
use switch::Ready;

/// Carries out a plan whose method is not to stay: new root, tree, mounts, switch.
///
/// `made` is called with the new root before anything is changed, `meanwhile` once a second during the move.
///
/// # Errors
/// What failed. The system is then as it was before, unless the error says that it is torn.
pub fn rehome(
    site: &Site,
    facts: &Facts,
    plan: &Plan,
    made: &dyn Fn(&NewRoot<'_>),
    meanwhile: &dyn Fn(&Progress),
) -> Result<Ready, Error> {
    let new = newroot::make(site, plan)?;
    made(&new);
    // Nothing has been changed up to here.
    let outcome = relocate::relocate(new, facts, plan, meanwhile)
        .and_then(|relocated| carry::carry(relocated, facts))
        .and_then(switch::switch);
    // From the first entry that is moved, see `relocate`, until here.
    sys::tear(outcome.as_ref().is_err_and(|error| error.torn.is_some()));
    outcome
}
