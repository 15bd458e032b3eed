//! Converts ACLs from text, as `tar --acls` writes them, to the kernel's format.
//!
//! GNU tar writes names only, bsdtar writes names and numbers. Names are looked up in the root's own
//! `/etc/passwd` and `/etc/group`. Those may come late in the archive, so the conversion waits for its end.

use std::collections::HashMap;

use crate::tree::{Id, Kind, Tree};

/// An ACL as text.
#[derive(Debug)]
pub struct Text {
    /// The inode that it belongs to.
    pub inode: Id,
    /// Whether it is the default ACL, for new entries of a directory.
    pub default: bool,
    /// The format of `acl_to_text()`.
    pub text: String,
}

/// `ACL_USER_OBJ` and so on, in the order that the kernel requires.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// `ACL_UNDEFINED_ID`, for entries without a number.
const NOBODY: u32 = u32::MAX;

/// Bytes of `/etc/passwd` that are read at most.
const NAMES: u64 = 1 << 20;

/// Sets the ACLs of the inodes, and returns how many could not be converted.
pub fn apply(tree: &mut Tree, texts: &[Text]) -> usize {
    let (users, groups) = match texts {
        [] => return 0,
        _ => (numbers(tree, b"etc/passwd"), numbers(tree, b"etc/group")),
    };
    let mut left = 0;
    for acl in texts {
        let Some(entries) = parse(&acl.text, &users, &groups) else {
            left += 1;
            continue;
        };
        // An ACL of owner, group and others only is the same as the mode, which is set already.
        let more = acl.default || entries.len() > 3;
        let name = if acl.default { "system.posix_acl_default" } else { "system.posix_acl_access" };
        if more {
            let attributes = &mut tree.inode_mut(acl.inode).attributes;
            attributes.xattrs.insert(name.into(), bytes(&entries));
            if !acl.default {
                attributes.permissions = attributes.permissions & 0o7000 | mode(&entries);
            }
        }
    }
    left
}

type Entry = (u16, u32, u16);

/// Parses the entries, in the kernel's order: kind, number, permissions.
fn parse(text: &str, users: &HashMap<String, u32>, groups: &HashMap<String, u32>) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']) {
        let entry = entry.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let mut fields = entry.split(':');
        let (kind, second) = (fields.next()?, fields.next()?);
        // Solaris writes "mask:r-x" and "other:r-x".
        let (who, permissions) = match fields.next() {
            Some(third) => (second, third),
            None if matches!(kind, "mask" | "other") => ("", second),
            None => return None,
        };
        let (own, named, names) = match kind {
            "user" | "u" => (USER_OBJ, USER, users),
            "group" | "g" => (GROUP_OBJ, GROUP, groups),
            "mask" | "m" => (MASK, MASK, users),
            "other" | "o" => (OTHER, OTHER, users),
            _ => return None,
        };
        let bits = permissions.bytes().try_fold(0, |bits, letter| match letter {
            b'r' => Some(bits | 4),
            b'w' => Some(bits | 2),
            b'x' => Some(bits | 1),
            b'-' => Some(bits),
            _ => None,
        })?;
        entries.push(match fields.next().and_then(|id| id.parse().ok()) {
            _ if who.is_empty() => (own, NOBODY, bits),
            Some(id) => (named, id, bits),
            None => (named, who.parse().ok().or_else(|| names.get(who).copied())?, bits),
        });
    }
    entries.sort_unstable();
    let once = |kind| entries.iter().filter(|entry| entry.0 == kind).count() == 1;
    (once(USER_OBJ) && once(GROUP_OBJ) && once(OTHER)).then_some(entries)
}

/// The mode that `stat` shows with the ACL set: the group bits are the mask, which bsdtar does not store.
fn mode(entries: &[Entry]) -> u32 {
    let of = |kind| entries.iter().find(|entry| entry.0 == kind).map(|entry| u32::from(entry.2));
    let group = of(MASK).or(of(GROUP_OBJ)).unwrap_or(0);
    of(USER_OBJ).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0)
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (kind, id, permissions) in entries {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Maps names to numbers, from `NAME:x:NUMBER:…` lines.
pub(super) fn numbers(tree: &Tree, path: &[u8]) -> HashMap<String, u32> {
    let file = tree.resolve(path).map(|id| &tree.inode(id).kind);
    let Some(Kind::File(contents)) = file else { return HashMap::new() };
    let text = contents.head(NAMES).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_string(), fields.nth(1)?.parse().ok()?))
    };
    String::from_utf8_lossy(&text).lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_stores() {
        let users = HashMap::from([("daemon".to_string(), 1)]);
        let gnu =
            "user::rw-\nuser:daemon:rw-\nuser:1000:r--\ngroup::r--\ngroup:4:r-x\nmask::rwx\nother::r--\n";
        let bsd = "user::rw-,group::r--,other::r--,user:x:rw-:1,user:y:r--:1000,group:z:r-x:4,mask::rwx";
        let entries = parse(gnu, &users, &HashMap::new());
        let solaris = "user::rw-,user:x:rw-:1,user:y:r--:1000,group::r--,group:z:r-x:4,mask:rwx,other:r--";
        assert_eq!(entries, parse(solaris, &HashMap::new(), &HashMap::new()));
        assert_eq!(entries, parse(bsd, &HashMap::new(), &HashMap::new()));
        let hex: String =
            bytes(&entries.unwrap_or_default()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0200000001000600ffffffff020006000100000002000400e803000004000400ffffffff080005000400000010000700ffffffff20000400ffffffff"
        );
        for bad in [
            "",
            "user::rw-",
            "user:nobody:r--\nuser::r\ngroup::r\nother::r",
            "x",
            "user::q,group::r,other::r",
        ] {
            assert_eq!(parse(bad, &users, &users), None, "{bad}");
        }
    }
}
