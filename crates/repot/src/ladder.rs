//! The whole story in one call: inspect, plan, carry the plan out, and try the next best thing if it fails.
//!
//! The ladder is move, bind, stay. A payload is no system before it is unpacked, so it has no next best
//! thing: it is tried a second time, with one thread.

mod outcome;

use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use rustix::io::Errno;

use crate::carry::{self, Carried};
use crate::error::{Error, Fault, Step, What};
use crate::facts::packed::{Found, is_packed};
use crate::facts::{self, Facts, processes};
use crate::log::{Level, Log};
use crate::newroot::{self, NewRoot};
use crate::options::{Keep, Options};
use crate::plan::{Method, Plan, Refusal, plan};
use crate::progress::{Progress, Total};
use crate::relocate;
use crate::report::{decided, found, so_far};
use crate::runtime::FEATURES;
use crate::site::Site;
use crate::streams;
use crate::switch::{self, Ready};
use crate::{leftovers, modules, sys, zram};
pub use outcome::Outcome;

/// Why nothing must be executed, or what is wrong with the root.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The root is a payload, or a digest is set, and it could not be inspected. Nothing has changed, and
    /// there is no system to execute.
    Unseen(Error),
    /// Nothing was changed, and nothing must be executed.
    Refused(Refusal),
    /// There is no complete root: the rollback failed, or the root is a payload that could not be unpacked.
    Torn(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unseen(error) => {
                let hint = match error.fault.errno {
                    Errno::NOSYS => "; repot needs Linux 5.10 or newer",
                    Errno::PERM => "; mounting is not permitted here",
                    _ => "",
                };
                write!(f, "{error}{hint}; leaving the root alone")
            }
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::Torn(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

/// What [`rehome_with`] learns before it changes anything.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Known<'a> {
    /// Whether this process is in the initial PID namespace, so that the kernel's log is ours to write to.
    Machine(bool),
    /// The configuration.
    Options(&'a Options),
}

/// Re-homes the system that this process is PID 1 of: inspects it, makes a plan, carries it out, and goes
/// down the ladder if that fails. Logs what happens, except for the failure that it returns. Then
/// [`Outcome::execute`] runs the real init.
///
/// While it runs, the working directory is not `/` and the umask is 0; afterwards they are `/` and what the
/// umask was. Up to eight threads are started, and have ended when it returns. If one of them panics, the
/// move is rolled back; see [`crate::runtime`] for what a program without `std` does for that.
///
/// # Errors
/// A [`Failure`]. Only with [`Failure::Torn`] may anything have changed.
pub fn rehome() -> Result<Outcome, Failure> {
    rehome_with(&|_| ())
}

/// As [`rehome`]; calls `learned` with what the caller's own last resort may need, as soon as it is known.
///
/// # Errors
/// As [`rehome`].
pub fn rehome_with(learned: &dyn Fn(Known<'_>)) -> Result<Outcome, Failure> {
    if !rustix::process::getpid().is_init() {
        return Err(Failure::Refused(Refusal::NotFirst));
    }
    let start = sys::now();
    sys::raise_descriptors();
    let seen = match look_well(learned) {
        Err(unseen) if !is_packed() && !unseen.pinned() => return Ok(unseen.stay(start)),
        seen => seen.map_err(|unseen| Failure::Unseen(unseen.error))?,
    };
    let Seen { site, options, mut facts, log } = seen;
    let mut plan = plan(&facts, &options).map_err(Failure::Refused)?;
    let zram = zram::provide(&site, &options, &mut facts, &mut plan).map_err(Failure::Refused)?;
    let total = Total::of(&site, &facts, options.keep);
    let own_init = leftovers::own_init(&site, &facts);
    // Nothing else needs them, and they would take memory.
    if options.keep != Keep::All
        && matches!(plan.method, Method::Move | Method::Payload)
        && let Err(fault) = modules::remove(&site.old)
    {
        plan.warnings.push(fault.at(Step::Facts).to_string());
    }
    // Keeps the text in every program that has this function.
    log.line(Level::Debug, format_args!("{FEATURES}"));
    log.line(Level::Debug, format_args!("{}", found(&facts)));
    log.line(Level::Debug, format_args!("{}", decided(&plan)));
    warn(&log, &plan.warnings);
    let ready = climb_down(&log, &site, &mut facts, &mut plan, total).map_err(Failure::Torn)?;
    warn(&log, &leftovers::remove(&site, &facts, plan.method, options.keep));
    if let Some(device) = zram {
        log.line(Level::Info, format_args!("{device}"));
    }
    let inits = ready.as_ref().map_or(&plan.inits, |ready| &ready.inits);
    let inits = inits.iter().filter_map(|path| CString::new(path.as_slice()).ok()).collect();
    let (chain, machine, nanoseconds) = (chain(&options), facts.machine, sys::now() - start);
    let vacated = options.keep == Keep::Nothing && leftovers::is_final(&facts, plan.method);
    let own_init = own_init.filter(|_| vacated);
    Ok(Outcome { plan, ready, inits, nanoseconds, chain, own_init, mount: options.mount, log, machine })
}

/// Carries out a plan whose method is not [`Method::Stay`]: new root, tree, mounts, switch.
///
/// `made` is called with the new root before anything changes, `meanwhile` once a second during the move.
///
/// # Errors
/// What failed. The system is then as it was before, unless the error says that it is torn.
pub fn carry_out(
    site: &Site,
    facts: &Facts,
    plan: &Plan,
    made: &dyn Fn(&NewRoot<'_>),
    meanwhile: &dyn Fn(&Progress),
) -> Result<Ready, Error> {
    sys::wipe_freed(plan.wipe);
    let new = newroot::make(site, plan)?;
    made(&new);
    // Nothing has changed up to here.
    let outcome = carry::lift(new, facts)
        .and_then(|lifted| relocate::relocate(lifted, facts, plan, meanwhile))
        .and_then(carry::carry)
        .and_then(|carried| check_alone(carried, site, facts, plan))
        .and_then(switch::switch);
    // Where pivot_root has taken the old root from the other processes too, what they have created in it goes
    // along. Where it has not, they still have it.
    let outcome = outcome.map(|mut ready| {
        if plan.method == Method::Move && ready.pivoted && !ready.empty {
            ready.warnings.append(&mut relocate::collect(site, facts, plan));
        }
        ready
    });
    // Set by the first entry that moves.
    sys::tear(outcome.as_ref().is_err_and(|error| error.torn.is_some()));
    outcome
}

/// Rolls a move back if a process has been started since the first look: it may run from the old root, or
/// have opened files of it. Helpers of the kernel get time to exit.
fn check_alone<'s>(
    carried: Carried<'s>,
    site: &Site,
    facts: &Facts,
    plan: &Plan,
) -> Result<Carried<'s>, Error> {
    if plan.method != Method::Move || plan.beside {
        return Ok(carried);
    }
    let new = processes::newcomers(site, &facts.others, processes::MAX_WAIT);
    if new.is_empty() {
        return Ok(carried);
    }
    let fault = Fault { what: What::NewProcess, path: new.join(" ").into_bytes(), errno: Errno::BUSY };
    Err(carried.roll_back(fault.at(Step::Switch)))
}

/// What is known of the system, and the log.
struct Seen {
    site: Site,
    options: Options,
    facts: Facts,
    log: Log,
}

/// What is known where the system could not be inspected: enough to execute the init that the user wants.
struct Unseen {
    machine: bool,
    options: Options,
    error: Error,
}

impl Unseen {
    /// Whether a digest forbids to boot what could not be inspected. Who may not mount is in a container,
    /// where the command line is not its own.
    fn pinned(&self) -> bool {
        !self.options.payload.is_empty() && self.error.fault.errno != Errno::PERM
    }

    /// Leaves the root alone.
    fn stay(self, start: u64) -> Outcome {
        let Unseen { machine, options, error } = self;
        let log = Log::open(machine).with(options.log);
        let reason = Failure::Unseen(error).to_string();
        log.line(Level::Error, format_args!("{reason}"));
        let plan = Plan::stay(reason, facts::wanted(&options).map(<[u8]>::to_vec).collect());
        let inits = plan.inits.iter().filter_map(|path| CString::new(path.as_slice()).ok()).collect();
        let (chain, nanoseconds) = (chain(&options), sys::now() - start);
        Outcome {
            plan,
            ready: None,
            inits,
            nanoseconds,
            chain,
            own_init: None,
            mount: options.mount,
            log,
            machine,
        }
    }
}

/// The image's own init, for [`handoff::execute`].
fn chain(options: &Options) -> Option<CString> {
    options.chain.clone().and_then(|path| CString::new(path).ok())
}

/// Looks; twice if the root is a payload and something kept it from being read: there would be nothing to
/// stay on.
#[allow(clippy::result_large_err)] // Boxing it would need memory, and a lack of that may be the error.
fn look_well(learned: &dyn Fn(Known<'_>)) -> Result<Seen, Unseen> {
    let seen = look(learned);
    let clear = seen
        .as_ref()
        .is_ok_and(|seen| !seen.options.unread && !matches!(seen.facts.payload, Found::Useless(_)));
    if clear || !is_packed() {
        return seen;
    }
    drop(seen);
    look(learned)
}

#[allow(clippy::result_large_err)]
fn look(learned: &dyn Fn(Known<'_>)) -> Result<Seen, Unseen> {
    let site = match Site::open() {
        Ok(site) => site,
        Err(error) => {
            let (machine, options) = (true, facts::options_in_place());
            learned(Known::Options(&options));
            return Err(Unseen { machine, options, error });
        }
    };
    let machine = site.machine();
    learned(Known::Machine(machine));
    let options = facts::options(&site);
    learned(Known::Options(&options));
    let log = Log::open(machine).with(options.log);
    warn(&log, &options.warnings);
    match facts::look(&site, &options) {
        Ok(facts) => Ok(Seen { site, options, facts, log }),
        Err(error) => Err(Unseen { machine, options, error }),
    }
}

fn warn(log: &Log, warnings: &[String]) {
    warnings.iter().for_each(|warning| log.line(Level::Warning, format_args!("{warning}")));
}

/// Carries out the plan, or what comes next; the plan then says what was done.
fn climb_down(
    log: &Log,
    site: &Site,
    facts: &mut Facts,
    plan: &mut Plan,
    total: Total,
) -> Result<Option<Ready>, Error> {
    let made = |new: &NewRoot<'_>| warn(log, &new.warnings);
    let mut retried = false;
    while plan.method != Method::Stay {
        let meanwhile = |progress: &Progress| {
            log.line(Level::Info, format_args!("{}", so_far(progress, total)));
        };
        let error = match carry_out(site, facts, plan, &made, &meanwhile) {
            Ok(ready) => {
                if plan.method != Method::Bind {
                    warn(log, &streams::reopen(&facts.streams));
                    warn(log, &newroot::own(plan.owner));
                }
                warn(log, &ready.warnings);
                return Ok(Some(ready));
            }
            Err(error) => error,
        };
        let recourse = recourse(plan.method, &error, retried);
        if recourse == Recourse::GiveUp {
            return Err(error);
        }
        // First of all: what follows allocates.
        log.line(Level::Error, format_args!("{error}"));
        if let Recourse::Try(method) = recourse {
            plan.reason = format!("{} failed ({error})", plan.method.name());
            plan.method = method;
            // A bind leaves their mounts to others.
            facts.others = processes::others(site, 0);
        } else {
            retried = true;
            plan.threads = 1;
        }
    }
    Ok(None)
}

/// What to do after a method failed.
#[derive(Debug, PartialEq, Eq)]
enum Recourse {
    /// The same, with one thread: it may have been memory.
    Retry,
    /// Another method.
    Try(Method),
    /// Nothing: there is no complete root.
    GiveUp,
}

fn recourse(method: Method, error: &Error, retried: bool) -> Recourse {
    match method {
        _ if error.torn.is_some() => Recourse::GiveUp,
        // What is corrupt stays corrupt.
        Method::Payload if retried || error.fault.errno == Errno::BADMSG => Recourse::GiveUp,
        Method::Payload => Recourse::Retry,
        Method::Move => Recourse::Try(Method::Bind),
        Method::Bind | Method::Stay => Recourse::Try(Method::Stay),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::error::Torn;

    fn error(errno: Errno, torn: Option<Torn>) -> Error {
        let fault = Fault { what: What::Call("openat"), path: Vec::new(), errno };
        Error { torn, ..fault.at(Step::Relocate) }
    }

    #[test]
    fn a_move_is_followed_by_a_bind_and_that_by_nothing() {
        let error = error(Errno::NOMEM, None);
        assert_eq!(recourse(Method::Move, &error, false), Recourse::Try(Method::Bind));
        assert_eq!(recourse(Method::Bind, &error, false), Recourse::Try(Method::Stay));
    }

    #[test]
    fn a_payload_is_tried_twice_unless_it_is_corrupt() {
        assert_eq!(recourse(Method::Payload, &error(Errno::NOMEM, None), false), Recourse::Retry);
        assert_eq!(recourse(Method::Payload, &error(Errno::NOMEM, None), true), Recourse::GiveUp);
        assert_eq!(recourse(Method::Payload, &error(Errno::BADMSG, None), false), Recourse::GiveUp);
    }

    #[test]
    fn nothing_follows_the_point_of_no_return() {
        for method in [Method::Move, Method::Payload, Method::Bind] {
            assert_eq!(recourse(method, &error(Errno::IO, Some(Torn::Spent)), false), Recourse::GiveUp);
        }
    }

    #[test]
    fn only_pid_1_is_re_homed() {
        assert!(matches!(rehome(), Err(Failure::Refused(Refusal::NotFirst))));
    }
}
