//! Writes a tree as a newc archive: parents before children, names sorted by their bytes.
//!
//! Inodes are numbered from 1 in the order of appearance and the device is 0, so the same tree always gives
//! the same bytes. The data of a hard-linked file goes with its first name: the kernel accepts it with any,
//! and a truncated archive is more likely to contain it.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result, bail};

use super::{Contents, Id, Kind, Tree};
use crate::newc::{Header, TRAILER, Writer};
use crate::report::name;

impl Tree {
    /// Appends every entry; the root directory is `.`.
    pub fn write<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        self.write_with(writer, &[], &mut |_| ())
    }

    /// Appends every entry, starting with the names in `first` of the root directory. Calls `progress`
    /// after each entry with its bytes of data.
    pub fn write_with<W: Write>(
        &self,
        writer: &mut Writer<W>,
        first: &[&[u8]],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let names = self.count_names();
        let mut walk = Walk { tree: self, writer, names, numbers: HashMap::new(), next: 1, first, progress };
        for name in first {
            if let Some(id) = self.child(Tree::ROOT, name) {
                walk.member(name, id)?;
            }
        }
        walk.member(b".", Tree::ROOT)?;
        walk.below(&mut Vec::new(), Tree::ROOT)
    }

    /// Number of names of each inode with more than one.
    pub(crate) fn count_names(&self) -> HashMap<Id, u32> {
        let mut seen = vec![0u32; self.inodes.len()];
        let mut waiting = vec![Tree::ROOT];
        while let Some(directory) = waiting.pop() {
            for &id in self.entries(directory).into_iter().flat_map(|entries| entries.values()) {
                seen[id.0] += 1;
                if self.entries(id).is_some() {
                    waiting.push(id);
                }
            }
        }
        seen.iter().enumerate().filter(|(_, count)| **count > 1).map(|(id, count)| (Id(id), *count)).collect()
    }
}

struct Walk<'a, W: Write> {
    tree: &'a Tree,
    writer: &'a mut Writer<W>,
    names: HashMap<Id, u32>,
    numbers: HashMap<Id, u32>,
    next: u32,
    first: &'a [&'a [u8]],
    progress: &'a mut dyn FnMut(u64),
}

impl<W: Write> Walk<'_, W> {
    fn below(&mut self, path: &mut Vec<u8>, directory: Id) -> Result<()> {
        let tree = self.tree;
        for (name, &id) in tree.entries(directory).into_iter().flatten() {
            let parent = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if !self.first.contains(&path.as_slice()) {
                self.member(path, id)?;
            }
            self.below(path, id)?;
            path.truncate(parent);
        }
        Ok(())
    }

    fn member(&mut self, path: &[u8], id: Id) -> Result<()> {
        let inode = self.tree.inode(id);
        let mut header = Header {
            // A file in the root that is called TRAILER!!! must not end the archive.
            name: if path == TRAILER { [b"./", path].concat() } else { path.to_vec() },
            mode: inode.file_type() | inode.attributes.archived_permissions(),
            uid: inode.attributes.uid,
            gid: inode.attributes.gid,
            nlink: self.names.get(&id).copied().unwrap_or(1),
            mtime: inode.attributes.mtime,
            ..Header::default()
        };
        if let Kind::Symlink(target) = &inode.kind {
            // The kernel creates a new inode for every name of a symbolic link, so each is written as one.
            (header.ino, header.nlink) = (self.number()?, 1);
            return self.plain(&header, target);
        }
        let known = self.numbers.get(&id).copied();
        header.ino = known.map_or_else(|| self.number(), Ok)?;
        if header.nlink > 1 {
            self.numbers.insert(id, header.ino);
        }
        match &inode.kind {
            Kind::File(contents) if known.is_none() => self.file(header, contents),
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                (header.rdevmajor, header.rdevminor) = (*major, *minor);
                self.plain(&header, &[])
            }
            Kind::File(_) | Kind::Directory(_) | Kind::Symlink(_) | Kind::Fifo | Kind::Socket => {
                self.plain(&header, &[])
            }
        }
    }

    fn plain(&mut self, header: &Header, data: &[u8]) -> Result<()> {
        self.writer.append(header, data)?;
        (self.progress)(0);
        Ok(())
    }

    fn file(&mut self, mut header: Header, contents: &Contents) -> Result<()> {
        let shown = name::shown(&header.name);
        let Ok(filesize) = u32::try_from(contents.len()) else {
            bail!(
                "{shown}: newc cannot hold a file of 4 GiB or more ({} bytes), but a payload can: use --payload",
                contents.len()
            );
        };
        header.filesize = filesize;
        let mut data = contents.open().with_context(|| format!("cannot read {shown}"))?;
        self.writer.append_from(&header, &mut data).with_context(|| format!("cannot pack {shown}"))?;
        (self.progress)(contents.len());
        Ok(())
    }

    fn number(&mut self) -> Result<u32> {
        let number = self.next;
        self.next = self.next.checked_add(1).context("too many inodes for the newc format")?;
        Ok(number)
    }
}
