//! A root that comes compressed: `.repot-payload/` in the initramfs, unpacked straight into the new root.
//!
//! The kernel unpacks this program and the chunks of a `.tar.zst`, nothing else. Each frame of that is unpacked by itself, each
//! chunk freed when its last byte was taken, so the compressed and the unpacked tree are never both in memory. The format is
//! told in docs/payload.md.

#[cfg(feature = "index")]
pub mod archive;
#[cfg(feature = "payload")]
mod chunks;
pub(crate) mod fit;
#[cfg(feature = "payload")]
mod frame;
pub mod index;
#[cfg(feature = "payload")]
mod pieces;
#[cfg(feature = "payload")]
mod place;
#[cfg(feature = "payload")]
mod room;
#[cfg(feature = "payload")]
mod unpack;

use alloc::format;
use alloc::string::String;

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;

use crate::error::name_of;
use crate::facts::{Facts, Site};
use crate::survey::Survey;
use index::Index;
#[cfg(feature = "payload")]
pub(crate) use unpack::unpack;

/// The directory of the chunks and their index.
pub const DIRECTORY: &str = ".repot-payload";

/// What was found of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    #[default]
    None,
    /// Something that cannot be used, and why.
    Useless(String),
    /// An index that makes sense, and its SHA-256.
    Index(Index, [u8; 32]),
}

/// How many entries and bytes are to come into the new root, for telling how far it is.
pub fn totals(facts: &Facts) -> (u64, u64) {
    let Survey { entries, bytes, .. } = facts.survey;
    match &facts.payload {
        Found::Index(index, _) => {
            let chunks = u64::try_from(index.chunks.len()).unwrap_or(0);
            let others = (entries.saturating_sub(chunks), bytes.saturating_sub(index.compressed()));
            (index.entries + others.0, index.bytes + others.1)
        }
        Found::None | Found::Useless(_) => (entries, bytes),
    }
}

/// Whether the root is a payload that is not unpacked, or may be: nothing of it is to be executed then.
pub fn is_packed() -> bool {
    !matches!(statat(CWD, c"/.repot-payload", AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

/// Reads the index.
pub(crate) fn look(site: &Site) -> Found {
    let there = || statat(&site.old, DIRECTORY, AtFlags::SYMLINK_NOFOLLOW);
    // To take a payload for a system would be worse than to ask twice.
    let found = match there() {
        Err(errno) if errno != Errno::NOENT => there(),
        found => found,
    };
    match found {
        Ok(_) => {}
        Err(Errno::NOENT) => return Found::None,
        Err(errno) => return Found::Useless(format!("{DIRECTORY}: newfstatat {}", name_of(errno).0)),
    }
    read(site).unwrap_or_else(|why| Found::Useless(format!("{DIRECTORY}: {why}")))
}

#[cfg(not(feature = "payload"))]
fn read(_: &Site) -> Result<Found, String> {
    Err(String::from("this init is the one without support for payloads; pack with init-payload"))
}

#[cfg(feature = "payload")]
fn read(site: &Site) -> Result<Found, String> {
    use crate::error::{Call, Step};
    use crate::facts::read_whole;
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

    let path = format!("{DIRECTORY}/index");
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let text = openat2(&site.old, path.as_str(), flags, Mode::empty(), resolve)
        .on("openat2", path.as_bytes())
        .and_then(|file| read_whole(&file, index::LIMIT).on("read", path.as_bytes()))
        .map_err(|fault| format!("{}", fault.at(Step::Facts)))?;
    let index = Index::parse(&text).map_err(|flaw| format!("{flaw}"))?;
    Ok(Found::Index(index, chunks::sha256(&text)))
}
