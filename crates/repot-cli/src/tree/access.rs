//! The mode of an inode with an access ACL.
//!
//! The kernel shows the mask of the ACL as the group bits, and setting the ACL sets the mode. Where the ACL
//! is not set, such a mode gives the owning group what only the ACL restricts. So archives hold a mode that
//! gives nobody more than the ACL does, and whoever sets the ACL gets the true mode.

use super::Attributes;

/// The attribute that holds an access ACL.
pub const ACL: &[u8] = b"system.posix_acl_access";

/// The first bytes of an ACL in the kernel's format (`POSIX_ACL_XATTR_VERSION`).
const VERSION: [u8; 4] = [2, 0, 0, 0];

/// The entries of an ACL, as far as they decide the mode.
struct Acl {
    owner: u32,
    group: u32,
    mask: Option<u32>,
    other: u32,
    /// What every named user has.
    users: u32,
    /// What every named group has.
    groups: u32,
    /// Whether it names anybody.
    is_named: bool,
}

impl Acl {
    /// Parses the kernel's format: type, permissions and ID of each entry.
    fn parse(value: &[u8]) -> Option<Acl> {
        let (entries, []) = value.strip_prefix(&VERSION)?.as_chunks::<8>() else { return None };
        let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
        let (mut users, mut groups, mut is_named) = (7, 7, false);
        for [kind, high, permissions, above, ..] in entries {
            let permissions = u32::from(u16::from_le_bytes([*permissions, *above]));
            let kind = u16::from_le_bytes([*kind, *high]);
            is_named |= matches!(kind, 0x02 | 0x08);
            match kind {
                0x01 => owner = Some(permissions),
                0x02 => users &= permissions,
                0x04 => group = Some(permissions),
                0x08 => groups &= permissions,
                0x10 => mask = Some(permissions),
                0x20 => other = Some(permissions),
                _ => return None,
            }
        }
        Some(Acl { owner: owner?, group: group?, mask, other: other?, users, groups, is_named })
    }
}

impl Attributes {
    /// The permission bits for an archive: those that everybody has even without the access ACL.
    #[must_use]
    pub fn archived_permissions(&self) -> u32 {
        let all = self.permissions & 0o7777;
        let Some(value) = self.xattrs.get(ACL) else { return all };
        // The kernel will refuse it, and nobody knows what the group may do.
        let Some(acl) = Acl::parse(value) else { return all & !0o070 };
        let mask = acl.mask.unwrap_or(7);
        // A named user may be in the owning group. Whoever is named is not one of the others.
        let group = acl.group & mask & acl.users;
        let named = if acl.is_named { acl.users & acl.groups & mask } else { 7 };
        all & (0o7700 | group << 3 | (acl.other & named))
    }

    /// Sets the permission bits that the kernel shows once the access ACL is set, if there is one.
    pub fn restore_permissions(&mut self) {
        if let Some(acl) = self.xattrs.get(ACL).and_then(|value| Acl::parse(value)) {
            let group = acl.mask.unwrap_or(acl.group);
            self.permissions = self.permissions & 0o7000 | acl.owner << 6 | group << 3 | acl.other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries in the kernel's format: type and permissions.
    fn with(permissions: u32, entries: &[(u8, u8)]) -> Attributes {
        let mut value = VERSION.to_vec();
        for (kind, bits) in entries {
            value.extend([*kind, 0, *bits, 0, 0xff, 0xff, 0xff, 0xff]);
        }
        let xattrs = [(ACL.to_vec(), value)].into();
        Attributes { permissions, xattrs, ..Attributes::default() }
    }

    #[test]
    fn a_list_that_is_not_applied_gives_nobody_more() {
        // Type 1: owner; 2: a named user; 4: owning group; 8: a named group; 16: mask; 32: others.
        for (permissions, entries, archived) in [
            // The list of the issue: the owning group has nothing.
            (0o640, &[(1, 6), (2, 4), (4, 0), (16, 4), (32, 0)][..], 0o600),
            // The mask restricts the owning group.
            (0o4740, &[(1, 7), (2, 7), (4, 7), (16, 4), (32, 0)], 0o4740),
            (0o770, &[(1, 7), (4, 5), (8, 7), (16, 7), (32, 0)], 0o750),
            // A named user has less than everybody else.
            (0o755, &[(1, 7), (2, 0), (4, 5), (16, 5), (32, 5)], 0o700),
            // A named group has less than the others. Who is in both groups has the rights of either.
            (0o755, &[(1, 7), (4, 5), (8, 4), (16, 5), (32, 5)], 0o754),
            // The mask restricts a named user to less than the others.
            (0o645, &[(1, 6), (2, 6), (4, 4), (16, 4), (32, 5)], 0o644),
            // Nothing but the mode.
            (0o644, &[(1, 6), (4, 4), (32, 4)], 0o644),
        ] {
            let attributes = with(permissions, entries);
            assert_eq!(attributes.archived_permissions(), archived, "{entries:?}");
            let mut read = Attributes { permissions: archived, ..attributes };
            read.restore_permissions();
            assert_eq!(read.permissions, permissions, "{entries:?}");
        }
    }

    #[test]
    fn a_malformed_list_gives_the_group_nothing() {
        for value in [&b""[..], b"\x02\0\0\0\x01", b"\x01\0\0\0", b"\x02\0\0\0\x40\0\0\0\0\0\0\0"] {
            let mut attributes = with(0o775, &[]);
            attributes.xattrs.insert(ACL.to_vec(), value.to_vec());
            assert_eq!(attributes.archived_permissions(), 0o705, "{value:?}");
            attributes.restore_permissions();
            assert_eq!(attributes.permissions, 0o775, "{value:?}");
        }
    }
}
