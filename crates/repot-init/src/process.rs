//! The state for the last resort, which the panic handler needs too.

use core::cell::{Cell, OnceCell};

use repot::ladder::Known;
use repot::log::Log;
use repot::options::OnError;
use repot::runtime::Invocation;

/// This process and its configuration.
pub(crate) struct Process {
    /// The arguments of `main`.
    pub(crate) invocation: Invocation,
    /// Whether this process is in the initial PID namespace, so that the kernel log is ours to write to.
    machine: Cell<bool>,
    /// The log, opened before anything changes: later there may be no memory for that.
    log: OnceCell<Log>,
    /// `onerror=`
    onerror: Cell<OnError>,
    /// Whether a digest is set, so that nothing beside the payload may be executed.
    pinned: Cell<bool>,
    /// `panic=`, in seconds
    panic: Cell<i32>,
}

impl Process {
    pub(crate) fn new(invocation: Invocation) -> Self {
        Process {
            invocation,
            machine: Cell::new(true),
            log: OnceCell::new(),
            onerror: Cell::new(OnError::Continue),
            pinned: Cell::new(false),
            panic: Cell::new(0),
        }
    }

    /// Stores what `last` needs. Called before any thread is started.
    pub(crate) fn learn(&self, known: Known<'_>) {
        match known {
            Known::Machine(machine) => {
                self.machine.set(machine);
                self.log.get_or_init(|| Log::open(machine));
            }
            Known::Options(options) => {
                self.onerror.set(options.onerror);
                self.pinned.set(!options.payload.is_empty() && !options.payload_overlay);
                self.panic.set(options.panic);
            }
            _ => {}
        }
    }

    pub(crate) fn is_machine(&self) -> bool {
        self.machine.get()
    }

    pub(crate) fn onerror(&self) -> OnError {
        self.onerror.get()
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pinned.get()
    }

    pub(crate) fn panic(&self) -> i32 {
        self.panic.get()
    }

    /// The log. To be used until an exec fails: on 5.10 that closes all descriptors.
    pub(crate) fn log(&self) -> &Log {
        self.log.get_or_init(|| self.reopened_log())
    }

    /// The log, opened again.
    pub(crate) fn reopened_log(&self) -> Log {
        Log::open(self.machine.get())
    }
}
