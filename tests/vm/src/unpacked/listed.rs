//! What `repot ls --json` says that the kernel makes of an image.

use anyhow::{Context, Result};
use repot_snapshot::text::{escape, unhex};
use repot_snapshot::{Entry, Kind, Snapshot};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A member as it is listed.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    name: String,
    name_hex: Option<String>,
    r#type: String,
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    device: Option<(u32, u32)>,
    target: Option<String>,
    overridden: bool,
    skipped: Option<String>,
}

/// The members that are left once all are unpacked, by name.
pub(super) fn effective(json: &str) -> Result<BTreeMap<Vec<u8>, Member>> {
    let members: Vec<Member> = serde_json::from_str(json).context("ls --json")?;
    let mut all: BTreeMap<Vec<u8>, Member> = BTreeMap::new();
    for member in members.into_iter().filter(|member| !member.overridden && member.skipped.is_none()) {
        let name = match &member.name_hex {
            Some(digits) => unhex(digits).context("name_hex")?,
            None => member.name.clone().into_bytes(),
        };
        let parts: Vec<&[u8]> =
            name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        let name = parts.join(&b'/');
        let first = all.get(&name).map_or(member.mtime, |first| first.mtime);
        // The time of a directory is that of its first member.
        let mtime = if member.r#type == "directory" { first } else { member.mtime };
        all.insert(name, Member { mtime, ..member });
    }
    Ok(all)
}

/// What is not listed as the kernel has it.
pub(super) fn differences(kernel: &Snapshot, listed: &BTreeMap<Vec<u8>, Member>) -> Vec<String> {
    let mut lines = Vec::new();
    let listed: BTreeMap<Vec<u8>, &Member> =
        listed.iter().map(|(name, member)| (through_links(kernel, name), member)).collect();
    for (path, member) in &listed {
        let Some(entry) = kernel.get(path) else {
            lines.push(format!("ls: /{} is not in the guest", escape(path)));
            continue;
        };
        let (is, says) = (of(entry), member.shown());
        if is != says || !member.fits(entry) {
            lines.push(format!("ls: /{}: {says}; in the guest: {is}, {} bytes", escape(path), entry.size));
        }
    }
    let missing = kernel.keys().filter(|path| !listed.contains_key(*path));
    lines.extend(missing.map(|path| format!("ls: /{} is not listed", escape(path))));
    lines
}

/// The path of a name whose directories can be symbolic links.
fn through_links(kernel: &Snapshot, name: &[u8]) -> Vec<u8> {
    let mut left: Vec<Vec<u8>> = name.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    let mut path: Vec<Vec<u8>> = Vec::new();
    // No image has so many links in a path.
    for _ in 0..1000 {
        let Some(part) = left.pop() else { break };
        match &part[..] {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            _ => path.push(part),
        }
        let link = kernel.get(&path.join(&b'/')).filter(|entry| entry.kind == Kind::Symlink);
        if let Some(link) = link.filter(|_| !left.is_empty()) {
            path.pop();
            if link.target.starts_with(b"/") {
                path.clear();
            }
            left.extend(link.target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
        }
    }
    path.join(&b'/')
}

/// What both have of each entry.
fn of(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Char => "character device",
        Kind::Block => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    };
    let Entry { mode, uid, gid, mtime, rdev, target, .. } = entry;
    format!("{kind} {mode:04o} {uid}:{gid} {} {rdev:?} {}", mtime.0, String::from_utf8_lossy(target))
}

impl Member {
    fn shown(&self) -> String {
        let Member { r#type, mode, uid, gid, mtime, device, target, .. } = self;
        let target = target.as_deref().unwrap_or_default();
        format!("{} {mode} {uid}:{gid} {mtime} {:?} {target}", r#type, device.unwrap_or_default())
    }

    /// The contents of hard links are in one of their members.
    fn fits(&self, entry: &Entry) -> bool {
        entry.kind != Kind::File || self.nlink > 1 || self.size == entry.size
    }
}
