//! The steps before the init under test runs. See [`repot_probe::steps`].

use crate::{look, outside};
use repot_probe::account::Line;
use repot_probe::steps::{FILE, Step};
use rustix::fs::{AtFlags, CWD, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The steps of this image, if it has any.
pub(crate) fn steps() -> Option<Result<Vec<Step>, String>> {
    let text = std::fs::read(format!("/{FILE}")).ok()?;
    Some(serde_json::from_slice(&text).map_err(|error| format!("{FILE}: {error}")))
}

/// Performs all steps. Returns only if a step fails or no step executes an init.
pub(crate) fn all(steps: &[Step], argv: &[CString]) -> Result<(), String> {
    for step in steps {
        one(step, argv).map_err(|error| format!("step {step:?}: {error}"))?;
    }
    Err("the steps end without executing an init".to_owned())
}

fn one(step: &Step, argv: &[CString]) -> Result<(), String> {
    match step {
        Step::Mkdir(path) => std::fs::create_dir_all(path).map_err(text),
        Step::File { path, text: content } => {
            let folder = std::path::Path::new(path).parent().ok_or("it has no directory")?;
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, content)).map_err(text)
        }
        Step::Sparse { path, size, data } => sparse(path, *size, data).map_err(text),
        Step::Mount { kind, at, options } => {
            std::fs::create_dir_all(at).map_err(text)?;
            let options = CString::new(options.as_str()).map_err(text)?;
            mount(kind.as_str(), at.as_str(), kind.as_str(), MountFlags::empty(), options.as_c_str())
                .map_err(text)
        }
        Step::Bind { from, at } => mount_bind(from.as_str(), at.as_str()).map_err(text),
        Step::Remount { at, flags } => remount(at, flags),
        Step::Propagate { at, to } => propagate(at, to),
        Step::Load { from, to } => {
            std::fs::read(from).and_then(|bytes| std::fs::write(to, bytes)).map_err(text)
        }
        Step::Link { from, to } => rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()).map_err(text),
        Step::Symlink { path, target } => std::os::unix::fs::symlink(target, path).map_err(text),
        Step::Xattr { path, name, hex } => {
            let value = repot_snapshot::text::unhex(hex).ok_or("its value is not hexadecimal")?;
            rustix::fs::lsetxattr(path.as_str(), name.as_str(), &value, XattrFlags::empty()).map_err(text)
        }
        Step::Times { path, atime, mtime } => {
            let time = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
            let times = Timestamps { last_access: time(*atime), last_modification: time(*mtime) };
            rustix::fs::utimensat(CWD, path.as_str(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(text)
        }
        Step::Flags { path, flags } => set_flags(path, flags),
        Step::Remove(path) => std::fs::remove_file(path).map_err(text),
        Step::Leak(path) => {
            let flags = OFlags::RDONLY;
            let file = rustix::fs::open(path.as_str(), flags, Mode::empty()).map_err(text)?;
            // Left open on purpose, without close-on-exec.
            std::mem::forget(file);
            Ok(())
        }
        Step::LeaveAvailable(kib) => leave_available(*kib),
        Step::Helper { path, milliseconds } => helper(path, *milliseconds),
        Step::Report {} => look::account(argv).and_then(|seen| outside::say(&Line::Before(Box::new(seen)))),
        Step::Exec(path) => Err(execute(path, argv)),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn remount(at: &str, flags: &str) -> Result<(), String> {
    let mut all = MountFlags::BIND;
    for flag in flags.split(',') {
        all |= match flag {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nosymfollow" => MountFlags::NOSYMFOLLOW,
            other => return Err(format!("no such flag: {other}")),
        };
    }
    mount_remount(at, all, c"").map_err(text)
}

fn propagate(at: &str, to: &str) -> Result<(), String> {
    let flags = match to {
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        other => return Err(format!("no such propagation: {other}")),
    };
    mount_change(at, flags).map_err(text)
}

fn sparse(path: &str, size: u64, data: &[(u64, u64)]) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.set_len(size)?;
    for (offset, len) in data {
        let bytes = vec![0x5a; usize::try_from(*len).unwrap_or(0)];
        file.write_all_at(&bytes, *offset)?;
    }
    Ok(())
}

fn set_flags(path: &str, letters: &str) -> Result<(), String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(text)?;
    let mut flags = rustix::fs::ioctl_getflags(&file).map_err(text)?;
    for letter in letters.chars() {
        flags |= match letter {
            'a' => IFlags::APPEND,
            'i' => IFlags::IMMUTABLE,
            'd' => IFlags::NODUMP,
            'A' => IFlags::NOATIME,
            other => return Err(format!("no such flag: {other}")),
        };
    }
    rustix::fs::ioctl_setflags(&file, flags).map_err(text)
}

/// Leaves `kib` of memory available, and less than a huge page besides. Huge pages are allocated whole and
/// cannot be reclaimed.
fn leave_available(kib: u64) -> Result<(), String> {
    let proc = look::Proc::new()?;
    let huge = *proc.memory()?.get("Hugepagesize").ok_or("meminfo has no Hugepagesize")?;
    // The kernel's reserve would otherwise be most of what is left.
    proc.write("sys/vm/min_free_kbytes", "1024")?;
    let mut pages = 0u64;
    loop {
        // What the init plans with. The kernel leaves its reserves out, which depend on its version.
        let available = *proc.memory()?.get("MemAvailable").ok_or("meminfo has no MemAvailable")?;
        let more = available.saturating_sub(kib) / huge;
        if more == 0 && available >= kib {
            return Ok(());
        }
        // Something else may have taken memory too.
        pages = if available < kib { pages.saturating_sub(1) } else { pages + more };
        proc.write("sys/vm/nr_hugepages", &pages.to_string())?;
        let got = proc.text("sys/vm/nr_hugepages")?.trim().parse().unwrap_or(0);
        if got < pages {
            // The rest is fragmented.
            return Ok(());
        }
    }
}

/// Lets the kernel start a helper. Every kernel can start one for a core dump.
fn helper(path: &str, milliseconds: u64) -> Result<(), String> {
    let proc = look::Proc::new()?;
    proc.write("sys/kernel/core_pattern", &format!("|{path} --helper {milliseconds}"))?;
    let crashed = repot_probe::sys::spawn(|| std::process::abort()).map_err(text)?;
    rustix::process::waitpid(rustix::process::Pid::from_raw(crashed), rustix::process::WaitOptions::empty())
        .map_err(text)?;
    Ok(())
}

fn execute(path: &str, argv: &[CString]) -> String {
    let Ok(program) = CString::new(path) else { return "a path has no zero byte".to_owned() };
    let mut words = vec![program.clone()];
    words.extend_from_slice(argv.get(1..).unwrap_or_default());
    let environ: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| {
            use std::os::unix::ffi::OsStrExt;
            CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect();
    repot_probe::sys::exec(&program, &words, &environ).to_string()
}
