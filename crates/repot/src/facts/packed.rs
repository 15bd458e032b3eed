//! Looks for a payload in the old root and reads its index.

use alloc::format;
use alloc::string::String;

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;

use crate::error::{name_of, retry_once};
use crate::payload::DIRECTORY;
use crate::payload::index::Index;
use crate::site::Site;

/// The payload of the old root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// The image has none.
    #[default]
    None,
    /// It cannot be used: why.
    Useless(String),
    /// Its valid index, and the SHA-256 of that index.
    Index(Index, [u8; 32]),
}

/// Whether the root is, or may be, a payload that is not unpacked. Nothing in it may be executed then.
pub fn is_packed() -> bool {
    !matches!(statat(CWD, c"/.repot-payload", AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

/// Reads the index.
pub(super) fn look(site: &Site) -> Found {
    let status = || match statat(&site.old, DIRECTORY, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        status => status.map(|_| true),
    };
    // Retried once: taking a payload for a system would execute an init that is not there.
    match retry_once(status) {
        Ok(true) => read(site).unwrap_or_else(|why| Found::Useless(format!("{DIRECTORY}: {why}"))),
        Ok(false) => Found::None,
        Err(errno) => Found::Useless(format!("{DIRECTORY}: newfstatat {}", name_of(errno).0)),
    }
}

#[cfg(not(feature = "payload"))]
fn read(_: &Site) -> Result<Found, String> {
    Err(String::from("this /init was built without payload support; pack the image with init-payload"))
}

#[cfg(feature = "payload")]
fn read(site: &Site) -> Result<Found, String> {
    use crate::error::{Call, Step};
    use crate::payload::index::LIMIT;
    use crate::site::read_whole;
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use sha2::{Digest, Sha256};

    let path = format!("{DIRECTORY}/index");
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let text = openat2(&site.old, path.as_str(), flags, Mode::empty(), resolve)
        .on("openat2", path.as_bytes())
        .and_then(|file| read_whole(&file, LIMIT).on("read", path.as_bytes()))
        .map_err(|fault| format!("{}", fault.at(Step::Facts)))?;
    let index = Index::parse(&text).map_err(|flaw| format!("{flaw}"))?;
    Ok(Found::Index(index, Sha256::digest(&text).into()))
}
