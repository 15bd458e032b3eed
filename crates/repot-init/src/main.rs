//! The `/init`: facts, plan, the new root, the real init; and what happens when one of them says no.
//!
//! Process 1 must not end: whatever fails, the next thing is tried, down to a message and what `panic=` asks for.
#![no_std]
#![no_main]

extern crate alloc;

mod last;
mod sys;

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use repot::error::Error;
use repot::facts::{self, Facts, Site};
use repot::options::Options;
use repot::plan::{Method, Plan, Refusal, plan};
use repot::report::{Level, Log, decided, found, so_far, summary};
use repot::runtime::now;
use repot::switch::Ready;
use repot::{handoff, rehome};
use rustix::io::Errno;
use sys::Process;

/// The tool knows by it what this program can.
#[cfg(feature = "payload")]
const VERSION: &str = concat!("repot-init ", env!("CARGO_PKG_VERSION"), " with payload\n");
#[cfg(not(feature = "payload"))]
const VERSION: &str = concat!("repot-init ", env!("CARGO_PKG_VERSION"), "\n");

/// What `main` does with what it was called with. Returns only where this is not process 1.
fn run(process: &Process) -> i32 {
    let invocation = &process.invocation;
    if !rustix::process::getpid().is_init() {
        if invocation.argument().is_some_and(|argument| argument == c"--version") {
            repot::report::tell(VERSION);
            return 0;
        }
        Log::open(false).line(Level::Error, format_args!("{}", Refusal::NotFirst));
        return 2;
    }
    let start = now();
    let Seen { site, options, facts, log } = match look_well(process) {
        Ok(seen) => seen,
        Err(error) => {
            let hint = match error.fault.errno {
                Errno::NOSYS => "; this kernel is too old",
                Errno::PERM => "; nobody may mount here",
                _ => "",
            };
            Log::open(process.machine.get()).line(Level::Error, format_args!("{error}{hint}; staying"));
            last::in_place(process)
        }
    };
    process.panic.set(facts.panic);
    let mut plan = match plan(&facts, &options) {
        Ok(plan) => plan,
        Err(refusal) => {
            log.line(Level::Error, format_args!("{refusal}"));
            last::resort(&log, process)
        }
    };
    log.line(Level::Debug, format_args!("{}", found(&facts)));
    log.line(Level::Debug, format_args!("{}", decided(&plan)));
    for warning in &plan.warnings {
        log.line(Level::Warning, format_args!("{warning}"));
    }
    let ready = ladder(&log, &site, &facts, &mut plan, process);
    drop(site);
    handoff::console();
    let told = |init: &CStr| {
        let line = summary(&plan, ready.as_ref(), now() - start, init.to_bytes());
        log.line(Level::Info, format_args!("{line}"));
    };
    let wanted = match &ready {
        Some(ready) if plan.method == Method::Payload => &ready.inits,
        _ => &plan.inits,
    };
    let inits: Vec<_> = wanted.iter().filter_map(|path| CString::new(path.as_slice()).ok()).collect();
    let inits = inits.iter().map(CString::as_c_str);
    handoff::execute(inits, invocation, &told, &|refused| last::tell(process, refused));
    last::no_init(process)
}

/// What there is to know, and where to tell it.
struct Seen {
    site: Site,
    options: Options,
    facts: Facts,
    log: Log,
}

/// Looks, and once more where a payload is there that something kept from being understood: beside it there is nothing to stay on.
fn look_well(process: &Process) -> Result<Seen, Error> {
    let seen = look(process);
    let clear = seen.as_ref().is_ok_and(|seen| {
        !seen.options.unread && !matches!(seen.facts.payload, repot::payload::Found::Useless(_))
    });
    if clear || !repot::payload::is_packed() {
        return seen;
    }
    drop(seen);
    look(process)
}

fn look(process: &Process) -> Result<Seen, Error> {
    let site = Site::open()?;
    process.machine.set(site.machine());
    let options = facts::options(&site);
    process.onerror.set(options.onerror);
    let mut log = Log::open(site.machine());
    log.amount = options.log;
    for warning in &options.warnings {
        log.line(Level::Warning, format_args!("{warning}"));
    }
    let facts = facts::look(&site, &options)?;
    Ok(Seen { site, options, facts, log })
}

/// Carries out the plan, or what comes next where that fails: bind, then stay. A payload is no system before it is unpacked, so
/// that is tried once more, with one thread; then it is `onerror=`.
fn ladder(log: &Log, site: &Site, facts: &Facts, plan: &mut Plan, process: &Process) -> Option<Ready> {
    let mut tried = false;
    while plan.method != Method::Stay {
        let made = |new: &repot::newroot::NewRoot<'_>| {
            for warning in &new.warnings {
                log.line(Level::Warning, format_args!("{warning}"));
            }
        };
        let (entries, bytes) = repot::payload::totals(facts);
        let meanwhile = |progress: &repot::relocate::Progress| {
            let line = so_far(progress, entries, bytes);
            log.line(Level::Info, format_args!("{line}"));
        };
        match rehome(site, facts, plan, &made, &meanwhile) {
            Ok(ready) => {
                for warning in &ready.warnings {
                    log.line(Level::Warning, format_args!("{warning}"));
                }
                return Some(ready);
            }
            Err(error) => {
                log.line(Level::Error, format_args!("{error}"));
                let payload = plan.method == Method::Payload;
                // What is damaged is so the second time too.
                if error.torn.is_some() || (payload && (tried || error.fault.errno == Errno::BADMSG)) {
                    last::resort(log, process)
                }
                if payload {
                    tried = true;
                    plan.threads = 1;
                    continue;
                }
                let next = if plan.method == Method::Move { Method::Bind } else { Method::Stay };
                plan.reason = format!("{} failed ({error})", plan.method.name());
                plan.method = next;
            }
        }
    }
    None
}
