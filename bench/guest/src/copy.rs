//! Copies one file by every method, with the given sizes and repetitions.

use crate::{Done, say};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ftruncate, openat, sendfile, unlinkat};
use rustix::io::{pread, pwrite};
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

/// A way to copy a whole file.
struct Method {
    name: &'static str,
    copy: fn(&OwnedFd, &OwnedFd, u64, &mut [u8]) -> io::Result<()>,
}

const METHODS: [Method; 12] = [
    Method { name: "sendfile", copy: |from, to, size, _| send(from, to, size, u64::MAX) },
    Method { name: "sendfile, 64 KiB a call", copy: |from, to, size, _| send(from, to, size, 64 << 10) },
    Method { name: "sendfile, 1 MiB a call", copy: |from, to, size, _| send(from, to, size, 1 << 20) },
    Method { name: "splice, a pipe of 1 MiB", copy: |from, to, size, _| by_pipe(from, to, size) },
    Method {
        name: "pread and pwrite, 16 KiB",
        copy: |from, to, _, buffer| by_buffer(from, to, &mut buffer[..16 << 10]),
    },
    Method {
        name: "pread and pwrite, 64 KiB",
        copy: |from, to, _, buffer| by_buffer(from, to, &mut buffer[..64 << 10]),
    },
    Method {
        name: "pread and pwrite, 256 KiB",
        copy: |from, to, _, buffer| by_buffer(from, to, &mut buffer[..256 << 10]),
    },
    Method { name: "mmap and write", copy: |from, to, size, _| crate::sys::write_mapped(from, to, size) },
    Method {
        name: "sendfile from tail to head, 1 MiB a time",
        copy: |from, to, size, _| from_tail(from, to, size, 1 << 20),
    },
    Method {
        name: "sendfile from tail to head, 2 MiB a time",
        copy: |from, to, size, _| from_tail(from, to, size, 2 << 20),
    },
    Method {
        name: "sendfile from tail to head, 4 MiB a time",
        copy: |from, to, size, _| from_tail(from, to, size, 4 << 20),
    },
    Method {
        name: "pread and pwrite, 64 KiB, length set first",
        copy: |from, to, size, buffer| {
            ftruncate(to, size)?;
            by_buffer(from, to, &mut buffer[..64 << 10])
        },
    },
];

/// Each of `words` is `SIZE:COUNT:ROUNDS`: in every round each method copies COUNT files of that size. It
/// reports the CPU time per file, which other programs disturb less than the clock.
pub(crate) fn measure(from: &Path, to: &Path, words: &[&str]) -> Done {
    let mut buffer = vec![1u8; 256 << 10];
    for word in words {
        let numbers = word.split(':').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [size, count, rounds] = numbers[..] else { return Err("SIZE:COUNT:ROUNDS is wanted".into()) };
        for number in 0..count {
            make(&from.join(number.to_string()), size, &buffer)?;
        }
        for _ in 0..rounds {
            for method in &METHODS {
                let time = one(method, from, to, size, count, &mut buffer)?;
                say(&format!("copy {size} {} {}", time / i64::try_from(count)?, method.name))?;
            }
        }
        for number in 0..count {
            unlinkat(CWD, from.join(number.to_string()), AtFlags::empty())?;
        }
    }
    Ok(())
}

fn one(method: &Method, from: &Path, to: &Path, size: u64, count: u64, buffer: &mut [u8]) -> io::Result<i64> {
    let mut time = 0;
    for number in 0..count {
        let name = number.to_string();
        let source = openat(CWD, from.join(&name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let target = create(&to.join(&name))?;
        let start = own();
        (method.copy)(&source, &target, size, buffer)?;
        time += own() - start;
    }
    for number in 0..count {
        unlinkat(CWD, to.join(number.to_string()), AtFlags::empty())?;
    }
    Ok(time)
}

fn own() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn make(path: &Path, size: u64, buffer: &[u8]) -> io::Result<()> {
    let file = create(path)?;
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        at += pwrite(&file, &buffer[..length], at)? as u64;
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?)
}

fn send(from: &OwnedFd, to: &OwnedFd, size: u64, at_once: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let length = usize::try_from(at_once.min(size - at)).unwrap_or(usize::MAX);
        if sendfile(to, from, Some(&mut at), length)? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// As repot copies files larger than 64 KiB: through a pipe that is created once.
fn by_pipe(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    static PIPE: OnceLock<Option<(OwnedFd, OwnedFd)>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let (outlet, inlet) = pipe().ok()?;
        fcntl_setpipe_size(&inlet, 1 << 20).ok()?;
        Some((outlet, inlet))
    });
    let (outlet, inlet) = pipe.as_ref().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut at = 0;
    while at < size {
        let held = splice(from, Some(&mut at.clone()), inlet, None, 1 << 20, SpliceFlags::empty())?;
        let end = at + held as u64;
        while held > 0 && at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            splice(outlet, None, to, Some(&mut at), left, SpliceFlags::empty())?;
        }
        if held == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn by_buffer(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    loop {
        let read = pread(from, &mut *buffer, at)?;
        if read == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < read {
            done += pwrite(to, &buffer[done..read], at + done as u64)?;
        }
        at += read as u64;
    }
}

/// As repot copies a file larger than a chunk, without truncating the source.
fn from_tail(from: &OwnedFd, to: &OwnedFd, size: u64, chunk: u64) -> io::Result<()> {
    ftruncate(to, size)?;
    let mut end = size;
    while end > 0 {
        let start = (end - 1) / chunk * chunk;
        let mut at = start;
        rustix::fs::seek(to, rustix::fs::SeekFrom::Start(start))?;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            if sendfile(to, from, Some(&mut at), length)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        end = start;
    }
    Ok(())
}
