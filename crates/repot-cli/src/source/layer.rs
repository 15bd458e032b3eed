//! Applies the members of an archive to a tree: a whole root, or one layer of a container image.
//!
//! Nothing is written to disk. A leading slash is cut off, as tar and container engines do; a name with `..`
//! is an error. A symbolic link in the middle of a name is followed inside the tree, as it would be in a
//! mounted container.

mod attributes;

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};
use repot::payload::archive::pax;

use self::attributes::Described;
use super::notes::Notes;
use super::tarball::Member;
use super::{acl, limits};
use crate::newc::NAME_MAX;
use crate::report::name::shown;
use crate::tree::path::{normal, split};
use crate::tree::{Attributes, Contents, Id, Inode, Kind, Sparse, Tree};

/// Permissions of directories that the archive implies but does not contain.
const IMPLIED: u32 = 0o755;

/// One archive that is being applied to a tree.
#[derive(Debug)]
pub struct Layer<'a> {
    tree: &'a mut Tree,
    /// What this layer has added or changed, which its whiteouts do not delete. `None` if the archive is a
    /// root without whiteouts.
    touched: Option<HashSet<Id>>,
    /// ACLs as text, to be converted once the whole root is read.
    pub acls: Vec<acl::Text>,
    /// What the tree cannot hold.
    pub notes: Notes,
    weight: &'a mut limits::Weight,
}

impl<'a> Layer<'a> {
    /// A whole root file system.
    pub fn root(tree: &'a mut Tree, weight: &'a mut limits::Weight) -> Layer<'a> {
        Layer { tree, touched: None, acls: Vec::new(), notes: Notes::default(), weight }
    }

    /// A layer of an image, in which `.wh.NAME` deletes NAME of the layers below.
    pub fn image(tree: &'a mut Tree, weight: &'a mut limits::Weight) -> Layer<'a> {
        Layer { touched: Some(HashSet::new()), ..Layer::root(tree, weight) }
    }

    /// Applies one member of an archive in `file`. An error comes with the name of the member.
    pub(super) fn member(&mut self, member: Member, file: &Arc<File>) -> Result<(), (Vec<u8>, Error)> {
        self.apply(&member, file).map_err(|error| (member.name, error))
    }

    fn apply(&mut self, member: &Member, file: &Arc<File>) -> Result<()> {
        if member.name.is_empty() {
            self.notes.once("a member without a name was left out".into());
            return Ok(());
        }
        check(&member.name)?;
        ensure!(
            !member.continues(),
            "it begins in an earlier volume of the archive: extract all volumes with tar -M and pack the directory"
        );
        let path = normal(&member.name);
        let Described { attributes, acls } = attributes::of(member, &path, &mut self.notes)?;
        let xattrs: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let xattrs = xattrs + acls.iter().map(|(_, text)| text.len()).sum::<usize>();
        let map = member.sparse.as_ref().map_or(0, |(_, extents)| 24 * extents.len());
        self.weight.add(path.len() + member.target.len() + xattrs + map)?;
        let (parent, name) = split(&path);
        if name.is_empty() {
            ensure!(matches!(member.kind(), b'5' | b'D'), "the root is not a directory");
            self.tree.inode_mut(Tree::ROOT).attributes = attributes;
            self.remember(Tree::ROOT, acls);
            return Ok(());
        }
        if self.is_in_the_way(parent, name, member) {
            return Ok(());
        }
        let parent = self.parent(parent)?;
        if self.whiteout(parent, name) {
            return Ok(());
        }
        let id = match member.kind() {
            b'5' | b'D' => {
                let id = self.tree.directory(parent, name, &attributes);
                self.tree.inode_mut(id).attributes = attributes;
                self.remember(id, acls);
                id
            }
            b'1' => {
                let id = self.hard_link(member, file, attributes)?;
                self.tree.link(parent, name, id);
                id
            }
            _ => {
                let kind = self.kind(member, file)?;
                let id = self.tree.add(Inode { attributes, kind });
                self.tree.link(parent, name, id);
                self.remember(id, acls);
                id
            }
        };
        if let Some(touched) = &mut self.touched {
            touched.insert(id);
        }
        Ok(())
    }

    /// Whether tar would not extract the member of a root, because something else has its name or that of its
    /// directory. In a layer it replaces what lower layers have, as container engines do.
    fn is_in_the_way(&mut self, parent: &[u8], name: &[u8], member: &Member) -> bool {
        if self.touched.is_some() {
            return false;
        }
        // A path is a directory up to some point. Each look follows every link again, so few are made.
        let ends: Vec<_> = (0..parent.len()).filter(|&at| parent[at] == b'/').chain([parent.len()]).collect();
        let directory = |&end: &usize| {
            let found = self.tree.resolve(&parent[..end]);
            found.is_some_and(|id| self.tree.entries(id).is_some())
        };
        let first_other = ends.get(ends.partition_point(directory));
        let has_file = first_other.is_some_and(|&end| self.tree.resolve(&parent[..end]).is_some());
        let existing = self.tree.resolve(parent).and_then(|parent| self.tree.child(parent, name));
        let full = existing.is_some_and(|id| self.tree.entries(id).is_some_and(|all| !all.is_empty()));
        let why = if has_file {
            "left out, as by tar: its directory is a file"
        } else if full && !matches!(member.kind(), b'5' | b'D') {
            "left out, as by tar: a directory with entries has its name"
        } else {
            return false;
        };
        self.notes.add(why, &member.name);
        true
    }

    /// The inode of a hard link. If the member has data, they are the contents of the file.
    fn hard_link(&mut self, member: &Member, file: &Arc<File>, attributes: Attributes) -> Result<Id> {
        check(&member.target)?;
        let contents = || Kind::File(Contents::Range(file.clone(), member.position, member.stored));
        let id = match self.linked(&normal(&member.target)) {
            Err(_) if member.stored > 0 => return Ok(self.tree.add(Inode { attributes, kind: contents() })),
            found => found?,
        };
        let inode = self.tree.inode_mut(id);
        if member.stored > 0 && matches!(inode.kind, Kind::File(_)) {
            inode.kind = contents();
        }
        Ok(id)
    }

    fn remember(&mut self, inode: Id, acls: Vec<(bool, String)>) {
        self.acls.extend(acls.into_iter().map(|(default, text)| acl::Text { inode, default, text }));
    }

    /// The directory of a member, which is created if the archive does not contain it.
    fn parent(&mut self, path: &[u8]) -> Result<Id> {
        let implied = Attributes { permissions: IMPLIED, ..Attributes::default() };
        let id = self
            .tree
            .make_directories(path, &implied)
            .context("the path contains a loop of symbolic links")?;
        if let Some(touched) = &mut self.touched {
            // Every directory above now contains something of this layer.
            let mut here = Some(id);
            for end in (0..path.len()).rev().filter(|&end| path[end] == b'/') {
                touched.extend(here.take());
                here = self.tree.resolve(&path[..end]);
            }
            touched.extend(here);
        }
        Ok(id)
    }

    /// The inode of a hard link.
    fn linked(&self, target: &[u8]) -> Result<Id> {
        let (parent, name) = split(target);
        let parent = self.tree.resolve(parent);
        let id = parent.and_then(|parent| self.tree.child(parent, name));
        let id = id.with_context(|| format!("hard link to \"{}\", which does not exist", shown(target)))?;
        ensure!(self.tree.entries(id).is_none(), "hard link to the directory \"{}\"", shown(target));
        Ok(id)
    }

    /// Applies the name if it is a whiteout, and returns whether it is.
    fn whiteout(&mut self, parent: Id, name: &[u8]) -> bool {
        let (Some(touched), Some(hidden)) = (&self.touched, name.strip_prefix(b".wh.")) else { return false };
        if hidden == b".wh..opq" {
            hide_below(self.tree, touched, parent);
        } else if let Some(id) = self.tree.child(parent, hidden) {
            hide(self.tree, touched, parent, hidden, id);
        }
        // Other names with two prefixes are internal to aufs.
        true
    }

    fn kind(&mut self, member: &Member, file: &Arc<File>) -> Result<Kind> {
        let device = || member.device().context("the device has no numbers");
        Ok(match member.kind() {
            b'0' | b'S' => Kind::File(self.contents(member, file)?),
            b'2' => {
                let target = &member.target;
                ensure!(
                    !target.is_empty() && target.len() <= NAME_MAX,
                    "the target of the symbolic link is empty or longer than {NAME_MAX} bytes"
                );
                Kind::Symlink(target[..].into())
            }
            b'3' => device().map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            // tar has no type for sockets.
            b'6' if member.record(pax::FILETYPE) == Some(pax::SOCKET) => Kind::Socket,
            b'6' => Kind::Fifo,
            other => {
                let unknown = format!("unknown type {:?}: packed as a file, as tar does", char::from(other));
                self.notes.add(&unknown, &member.name);
                Kind::File(self.contents(member, file)?)
            }
        })
    }

    fn contents(&mut self, member: &Member, file: &Arc<File>) -> Result<Contents> {
        let Some((size, extents)) = &member.sparse else {
            return Ok(Contents::Range(file.clone(), member.position, member.stored));
        };
        self.weight.unpack(*size)?;
        let sparse = Sparse { file: file.clone(), size: *size, extents: extents.clone() };
        Ok(Contents::Sparse(Arc::new(sparse)))
    }
}

/// Removes the entries of a directory that come from lower layers.
fn hide_below(tree: &mut Tree, touched: &HashSet<Id>, directory: Id) {
    let entries: Vec<_> =
        tree.entries(directory).into_iter().flatten().map(|(name, id)| (name.clone(), *id)).collect();
    for (name, id) in entries {
        hide(tree, touched, directory, &name, id);
    }
}

fn hide(tree: &mut Tree, touched: &HashSet<Id>, parent: Id, name: &[u8], id: Id) {
    if !touched.contains(&id) {
        tree.unlink(parent, name);
    } else if tree.entries(id).is_some() {
        hide_below(tree, touched, id);
    }
}

fn check(path: &[u8]) -> Result<()> {
    ensure!(
        path.split(|&byte| byte == b'/').all(|name| name != b".."),
        "a name with \"..\" would lead out of the root"
    );
    ensure!(!path.contains(&0), "the name contains a NUL byte");
    ensure!(path.len() <= NAME_MAX, "the name is longer than {NAME_MAX} bytes, the limit of newc");
    Ok(())
}
