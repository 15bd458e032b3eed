//! Where a member goes in the tree that the kernel makes, and when it goes nowhere.

use super::Survey;
use crate::name::shown;
use crate::newc::Header;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind};

impl Survey {
    /// Puts a member where the kernel would: `None` when it would not.
    pub(super) fn place(&mut self, header: &Header, offset: u64) -> Option<Id> {
        let name = &header.name[..];
        let (parent, last) = match name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&name[..slash], &name[slash + 1..]),
            None => (&name[..0], name),
        };
        let attributes = Attributes {
            permissions: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            ..Attributes::default()
        };
        if matches!(last, b"" | b"." | b"..") {
            let id = self.tree.resolve(name)?;
            self.tree.inode_mut(id).attributes = attributes;
            return Some(id);
        }
        let Some(parent) = self.tree.resolve(parent).filter(|id| self.tree.entries(*id).is_some()) else {
            self.lost += 1;
            if self.lost == 1 {
                let name = shown(name);
                self.problems.push(format!(
                    "\"{name}\" comes before its directory and is lost (byte {offset} of its archive)"
                ));
            }
            return None;
        };
        let key = (header.devmajor, header.devminor, header.ino, header.file_type());
        let linkable = header.nlink > 1 && !header.is_dir() && !header.is_symlink();
        if linkable && let Some(&id) = self.links.get(&key) {
            self.tree.link(parent, last, id);
            return Some(id);
        }
        let existing = self.tree.child(parent, last);
        if header.is_dir()
            && let Some(id) = existing.filter(|id| self.tree.entries(*id).is_some())
        {
            self.tree.inode_mut(id).attributes = attributes;
            return Some(id);
        }
        let id = self.tree.add(Inode { attributes, kind: kind(header) });
        self.tree.link(parent, last, id);
        if linkable {
            self.links.insert(key, id);
        }
        Some(id)
    }
}

fn kind(header: &Header) -> Kind {
    match header.file_type() {
        0o040_000 => Kind::Directory(Entries::new()),
        0o120_000 => Kind::Symlink(Box::default()),
        0o020_000 => Kind::Character(header.rdevmajor, header.rdevminor),
        0o060_000 => Kind::Block(header.rdevmajor, header.rdevminor),
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        _ => Kind::File(Contents::Size(u64::from(header.filesize))),
    }
}
