//! A second process that samples `/proc/meminfo` while the init under test runs.
//!
//! It keeps the results in a memfd, which the real init reads through `/proc/PID/fd`. It is forked, not
//! executed: TOMOYO in Debian's 5.10 kernel does not allow executing a descriptor without `/dev/fd`.

use crate::look::Proc;
use repot_probe::account::Peak;
use rustix::fs::MemfdFlags;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

const NAME: &CStr = c"probe-sampler";
/// The descriptor of the memfd, which the real init must know.
const PEAK: i32 = 100;

/// Starts a sampler and returns after its first sample.
pub(crate) fn start() -> Result<(), String> {
    let told = |what: &'static str| move |error: rustix::io::Errno| format!("sampler: {what}: {error}");
    let peak = rustix::fs::memfd_create(c"peak", MemfdFlags::CLOEXEC).map_err(told("memfd"))?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(told("pipe"))?;
    let mut begun = Some(write);
    repot_probe::sys::spawn(|| {
        let _ = rustix::thread::set_name(NAME);
        if repot_probe::sys::duplicate(&peak, PEAK).is_ok() {
            watch(&peak, &mut begun);
        }
    })
    .map_err(|error| format!("sampler: fork: {error}"))?;
    drop(begun);
    let mut answer = Vec::new();
    File::from(read).read_to_end(&mut answer).map_err(|error| format!("sampler: {error}"))?;
    if answer.is_empty() { Err("sampler: it did not start".to_owned()) } else { Ok(()) }
}

/// The loop of the sampler. It ends with the machine.
fn watch(peak: &OwnedFd, begun: &mut Option<OwnedFd>) {
    let mut seen = Peak::default();
    let Ok(proc) = Proc::new() else { return };
    while let Ok(memory) = proc.memory() {
        note(&mut seen, &memory);
        let text = serde_json::to_vec(&seen).unwrap_or_default();
        let _ = rustix::io::pwrite(peak, &text, 0);
        if let Some(pipe) = begun.take() {
            let _ = rustix::io::write(pipe, b"1");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
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

/// The results of the sampler, if it runs.
pub(crate) fn found(proc: &Proc) -> Result<Option<Peak>, String> {
    let processes = rustix::fs::Dir::new(proc.open(".")?).map_err(|error| format!("proc: {error}"))?;
    for item in processes {
        let item = item.map_err(|error| format!("proc: {error}"))?;
        let Some(pid) = item.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that has exited is not the sampler.
        let Ok(name) = proc.text(&format!("{pid}/comm")) else { continue };
        if name.trim_end().as_bytes() == NAME.to_bytes() {
            let text = proc.read(&format!("{pid}/fd/{PEAK}"))?;
            // A shorter text written over a longer one leaves a tail.
            let mut documents = serde_json::Deserializer::from_slice(&text).into_iter();
            return documents.next().transpose().map_err(|error| format!("sampler: {error}"));
        }
    }
    Ok(None)
}
