//! Standard streams that are files of the old root, such as the log of a script that executed this program.
//!
//! After a move they would be files without a name, and everything that the real init writes would be lost
//! with them. So their paths are noted before, and opened in the new root afterwards, at the same offset.

use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, StatxFlags, fcntl_getfl, openat, readlinkat, seek, statx,
};
use rustix::io::{fcntl_dupfd_cloexec, fcntl_getfd};

use crate::display::Quoted;
use crate::error::{Call, Fault, Step};
use crate::facts::mountinfo::Device;
use crate::site::Site;
use crate::sys;
use alloc::string::String;

/// A standard stream that is a file of the old root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    number: i32,
    path: Vec<u8>,
    flags: OFlags,
}

/// The standard streams that are regular files on `device`.
pub(crate) fn look(site: &Site, device: Device) -> Vec<Stream> {
    (0..3).filter_map(|number| stream(site, device, number)).collect()
}

fn stream(site: &Site, device: Device, number: i32) -> Option<Stream> {
    let stream = sys::stream(number);
    fcntl_getfd(stream).ok()?;
    let status = statx(stream, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    let is_file = FileType::from_raw_mode(status.stx_mode.into()) == FileType::RegularFile;
    // Without a name it is lost already, and the path would be wrong.
    if !is_file || status.stx_nlink == 0 || (status.stx_dev_major, status.stx_dev_minor) != device.numbers() {
        return None;
    }
    let path = readlinkat(&site.proc, format!("self/fd/{number}"), Vec::new()).ok()?.into_bytes();
    let flags = fcntl_getfl(stream).ok()? & (OFlags::RWMODE | OFlags::APPEND | OFlags::NONBLOCK);
    Some(Stream { number, path, flags })
}

/// Opens the same files in the new root, which is `/` now. Returns a warning for each stream that stays as it
/// was.
pub(crate) fn reopen(streams: &[Stream]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut opened: Vec<(&Stream, OwnedFd, u64)> = Vec::new();
    for stream in streams {
        if let Err(fault) = reopen_one(stream, &mut opened) {
            let (step, path) = (Step::Handoff, Quoted(&stream.path));
            warnings.push(format!(
                "{}; stream {} still writes to the old {path}",
                fault.at(step),
                stream.number
            ));
        }
    }
    warnings
}

fn reopen_one<'s>(stream: &'s Stream, opened: &mut Vec<(&'s Stream, OwnedFd, u64)>) -> Result<(), Fault> {
    let offset = seek(sys::stream(stream.number), SeekFrom::Current(0)).on("lseek", &stream.path)?;
    // Streams that shared a position, as with `2>&1`, share it again.
    let same = |(other, _, position): &&(&Stream, OwnedFd, u64)| {
        other.path == stream.path && other.flags == stream.flags && *position == offset
    };
    if let Some((_, file, _)) = opened.iter().find(same) {
        return sys::redirect(file.as_fd(), stream.number).on("dup2", &stream.path);
    }
    let flags = stream.flags | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, stream.path.as_slice(), flags, Mode::empty())
        .and_then(|file| fcntl_dupfd_cloexec(file, 3))
        .on("openat", &stream.path)?;
    seek(&file, SeekFrom::Start(offset)).on("lseek", &stream.path)?;
    sys::redirect(file.as_fd(), stream.number).on("dup2", &stream.path)?;
    opened.push((stream, file, offset));
    Ok(())
}
