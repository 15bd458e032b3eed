//! A second process that watches `/proc/meminfo` while the init under test runs.
//!
//! It runs from a memfd, so that no file of the tree is busy because of it, and keeps what it saw in
//! another one, which the real init reads through `/proc/PID/fd`.

use crate::look::Proc;
use rustix::fs::MemfdFlags;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;
use xtask::account::Peak;

pub(crate) const NAME: &CStr = c"probe-sampler";
/// Where the sampler keeps its two descriptors: what it saw, and the pipe that says it has begun.
const PEAK: i32 = 100;
const BEGUN: i32 = 101;

/// Starts a sampler and returns when it has looked for the first time.
pub(crate) fn start() -> Result<(), String> {
    let proc = Proc::new()?;
    let told = |what: &'static str| move |error: rustix::io::Errno| format!("sampler: {what}: {error}");
    let program = rustix::fs::memfd_create(c"sampler", MemfdFlags::CLOEXEC).map_err(told("memfd"))?;
    File::from(program.try_clone().map_err(|error| error.to_string())?)
        .write_all(&proc.read("self/exe")?)
        .map_err(|error| format!("sampler: copy of the program: {error}"))?;
    let peak = rustix::fs::memfd_create(c"peak", MemfdFlags::CLOEXEC).map_err(told("memfd"))?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(told("pipe"))?;
    drop(proc);
    xtask::sys::spawn(|| {
        if xtask::sys::duplicate(&peak, PEAK).is_ok() && xtask::sys::duplicate(&write, BEGUN).is_ok() {
            let _ = xtask::sys::exec_file(&program, &[CString::from(NAME)]);
        }
    })
    .map_err(|error| format!("sampler: fork: {error}"))?;
    drop(write);
    let mut begun = Vec::new();
    File::from(read).read_to_end(&mut begun).map_err(|error| format!("sampler: {error}"))?;
    if begun.is_empty() { Err("sampler: it did not start".to_owned()) } else { Ok(()) }
}

/// The sampler's own life: ends with the machine.
pub(crate) fn watch() -> ! {
    let (peak, begun) = (xtask::sys::inherited(PEAK), xtask::sys::inherited(BEGUN));
    let mut seen = Peak::default();
    let Ok(proc) = Proc::new() else { std::process::exit(1) };
    let mut begun = Some(begun);
    while let Ok(memory) = proc.memory() {
        note(&mut seen, &memory);
        let text = serde_json::to_vec(&seen).unwrap_or_default();
        let _ = rustix::io::pwrite(&peak, &text, 0);
        if let Some(pipe) = begun.take() {
            let _ = rustix::io::write(pipe, b"1");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    std::process::exit(1)
}

fn note(seen: &mut Peak, memory: &BTreeMap<String, u64>) {
    let of = |key: &str| memory.get(key).copied().unwrap_or(0);
    let used = of("Cached") + of("Slab") + of("AnonPages");
    if seen.samples == 0 {
        (seen.start, seen.high) = (used, used);
        (seen.free_start, seen.free_low) = (of("MemFree"), of("MemFree"));
    }
    seen.samples += 1;
    seen.high = seen.high.max(used);
    seen.free_low = seen.free_low.min(of("MemFree"));
}

/// What a sampler saw, when there is one.
pub(crate) fn found(proc: &Proc) -> Option<Peak> {
    let pids = rustix::fs::Dir::read_from(proc.directory()).ok()?;
    for item in pids.filter_map(Result::ok) {
        let Some(pid) = item.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(command) = proc.read(&format!("{pid}/cmdline")) else { continue };
        if command == NAME.to_bytes_with_nul() {
            let text = proc.read(&format!("{pid}/fd/{PEAK}")).ok()?;
            // A shorter text over a longer one leaves a tail.
            return serde_json::Deserializer::from_slice(&text).into_iter().next()?.ok();
        }
    }
    None
}
