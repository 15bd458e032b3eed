//! The attributes of a member: from its header, its PAX records, and the ACLs of Solaris.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use repot::payload::archive::pax;

use crate::source::notes::{EARLY, LATE, Notes};
use crate::source::pax::{base64, percent, time};
use crate::source::tarball::Member;
use crate::tree::Attributes;

/// What is known about a member besides its contents.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) attributes: Attributes,
    /// ACLs as text: whether it is the default ACL, and the text.
    pub(super) acls: Vec<(bool, String)>,
}

/// Attribute of the SELinux label.
const SELINUX: &[u8] = b"security.selinux";

const NFS4: &str = "its NFSv4 ACL is lost: Linux has none on tmpfs";
const FLAGS: &str = "its file flags are lost: an initramfs holds none";

/// Reads them. What cannot be carried becomes a note about `path`.
pub(super) fn of(member: &Member, path: &[u8], notes: &mut Notes) -> Result<Described> {
    let number = |value: Option<i64>, what: &'static str| {
        value.and_then(|value| u32::try_from(value).ok()).with_context(|| format!("invalid {what}"))
    };
    let id = |key: &[u8], held: Option<i64>, what| match member.record(key) {
        Some(text) => number(pax::number(text).and_then(|id| id.try_into().ok()), what),
        None => number(held, what),
    };
    let (uid, gid) = member.owner();
    let modified = match member.record(b"mtime").and_then(time) {
        Some(modified) => modified,
        None => (member.mtime().unwrap_or(0), 0),
    };
    let (mtime, nanoseconds) = clamped(modified, path, notes);
    let permissions = member.mode().context("invalid mode")? & 0o7777;
    let mut described = Described {
        attributes: Attributes {
            permissions: u32::try_from(permissions)?,
            uid: id(b"uid", uid, "owner")?,
            gid: id(b"gid", gid, "group")?,
            mtime,
            nanoseconds,
            xattrs: BTreeMap::new(),
        },
        acls: Vec::new(),
    };
    for (key, value) in &member.records {
        described.record(key, value, path, notes)?;
    }
    for text in &member.solaris_acls {
        described.solaris(text, path, notes);
    }
    described.attributes.restore_permissions();
    Ok(described)
}

/// A time in the range of newc, whose seconds are unsigned.
fn clamped((seconds, nanoseconds): (i64, u32), path: &[u8], notes: &mut Notes) -> (u32, u32) {
    match u32::try_from(seconds) {
        Ok(seconds) => (seconds, nanoseconds),
        Err(_) if seconds < 0 => {
            notes.add(EARLY, path);
            (0, 0)
        }
        Err(_) => {
            notes.add(LATE, path);
            (u32::MAX, 0)
        }
    }
}

impl Described {
    fn record(&mut self, key: &[u8], value: &[u8], path: &[u8], notes: &mut Notes) -> Result<()> {
        let xattrs = &mut self.attributes.xattrs;
        if let Some(name) = key.strip_prefix(pax::XATTR) {
            xattrs.insert(pax::decode(name), value.to_vec());
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let value = base64(value).context("an extended attribute is not in base64")?;
            // bsdtar writes each attribute in both ways.
            xattrs.entry(percent(name)).or_insert(value);
        } else if key == b"RHT.security.selinux" {
            xattrs.insert(SELINUX.to_vec(), value.to_vec());
        } else if matches!(key, b"SCHILY.acl.access" | b"SCHILY.acl.default") {
            self.acls.push((key.ends_with(b"default"), String::from_utf8_lossy(value).into_owned()));
        } else if key == b"SCHILY.acl.ace" {
            notes.add(NFS4, path);
        } else if key == b"SCHILY.fflags" {
            notes.add(FLAGS, path);
        } else if !known(key) {
            notes.add(&format!("unknown PAX record {}, ignored", key.escape_ascii()), path);
        }
        Ok(())
    }

    /// Solaris writes the type of the ACL and its number of entries, in octal, before the text.
    fn solaris(&mut self, text: &[u8], path: &[u8], notes: &mut Notes) {
        let mut parts = text.split(|&byte| byte == 0);
        let head = parts.next().and_then(|digits| std::str::from_utf8(digits).ok());
        let kind =
            head.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok()).map(|kind| kind & !0o777_777);
        match (kind, parts.next()) {
            (Some(0o1_000_000), Some(text)) => {
                let text = String::from_utf8_lossy(text);
                let (default, access): (Vec<&str>, Vec<&str>) =
                    text.split(',').partition(|entry| entry.starts_with("default"));
                self.acls.push((false, access.join(",")));
                if !default.is_empty() {
                    let default: Vec<_> =
                        default.iter().map(|entry| entry.trim_start_matches("default")).collect();
                    self.acls.push((true, default.join(",")));
                }
            }
            (Some(0o3_000_000), _) => notes.add(NFS4, path),
            _ => notes.add("its ACL is lost: unknown format", path),
        }
    }
}

/// Records that are used elsewhere, or that say nothing about a root file system.
fn known(key: &[u8]) -> bool {
    const KNOWN: [&[u8]; 18] = [
        b"path",
        b"linkpath",
        b"size",
        b"uid",
        b"gid",
        b"uname",
        b"gname",
        b"mtime",
        b"atime",
        b"ctime",
        b"comment",
        b"charset",
        b"hdrcharset",
        b"LIBARCHIVE.creationtime",
        b"LIBARCHIVE.symlinktype",
        b"SCHILY.filetype",
        b"SUN.holesdata",
        b"SCHILY.realsize",
    ];
    let families: [&[u8]; 7] = [
        b"GNU.",
        b"SCHILY.archtype",
        b"SCHILY.dev",
        b"SCHILY.ino",
        b"SCHILY.nlink",
        b"SCHILY.release",
        b"SCHILY.volhdr.",
    ];
    KNOWN.contains(&key) || families.iter().any(|family| key.starts_with(family))
}
