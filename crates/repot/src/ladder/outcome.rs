//! What came of it, and the way to the real init.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use crate::essential;
use crate::handoff::{self, NotExecuted};
use crate::leftovers;
use crate::log::{Level, Log};
use crate::plan::Plan;
use crate::report::summary;
use crate::runtime::Invocation;
use crate::switch::Ready;
use crate::sys;

/// `/` is as good as it gets, and an init can be executed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What was done, and why.
    pub plan: Plan,
    /// What came of it; `None` if the root stayed as it was.
    pub ready: Option<Ready>,
    /// The inits to execute, best first.
    pub inits: Vec<CString>,
    /// How long it took, in nanoseconds.
    pub nanoseconds: u64,
    /// The image's own init among them.
    pub(super) chain: Option<CString>,
    /// The size of this program, if it is the `/init` of the image and may be removed.
    pub(super) own_init: Option<u64>,
    pub(super) mount: Vec<&'static str>,
    pub(super) log: Log,
    pub(super) machine: bool,
}

impl Outcome {
    /// The line for the log, with the init that comes next.
    pub fn summary(&self, init: &CStr) -> String {
        summary(&self.plan, self.ready.as_ref(), self.nanoseconds, init.to_bytes())
    }

    /// Removes this program from the root if it was executed as `/init`, unless `keep=` keeps it. The image's
    /// own init gets that name back if the tool has put it aside as `/init.real`. Logs what fails.
    ///
    /// Only for a program that nobody executes again: the real init finds the root that was packed.
    pub fn vacate_init(&mut self, invocation: &Invocation) {
        let called = invocation.name() == Some(leftovers::INIT);
        let Some(size) = self.own_init.take().filter(|_| called) else { return };
        match leftovers::vacate_init(size, self.chain.as_deref(), &self.inits) {
            Ok(true) => {
                for path in self.inits.iter_mut().chain(&mut self.chain) {
                    if path.as_c_str() == leftovers::PUT_ASIDE {
                        *path = CString::from(leftovers::INIT);
                    }
                }
            }
            Ok(false) => {}
            Err(fault) => self.log.line(Level::Warning, format_args!("{}", leftovers::kept(fault))),
        }
    }

    /// Mounts what `mount=` asks for, and executes the first init that works, with the arguments and the
    /// environment of this program. Logs what does not work. Opens `/dev/console` for standard streams that
    /// are closed, and closes every other descriptor. Returns if no init works.
    pub fn execute(self, invocation: &Invocation) {
        essential::mount_all(&self.mount, &self.log);
        handoff::console(self.machine);
        sys::wipe_stack();
        let before = |init: &CStr| self.log.line(Level::Info, format_args!("{}", self.summary(init)));
        // On 5.10 an exec that failed has closed the log.
        let failed = |failed: &NotExecuted<'_>| {
            Log::open(self.machine).line(Level::Error, format_args!("{failed}"));
        };
        let inits = self.inits.iter().map(CString::as_c_str);
        handoff::execute(inits, self.chain.as_deref(), invocation, &before, &failed);
        core::mem::forget(self.log);
    }
}
