//! Applies the members of an archive to a tree: a whole root, or one layer of a container image.
//!
//! Nothing is written to disk. A name with `..` or a leading slash is an error. A symbolic link in the middle
//! of a name is followed inside the tree, as it would be in a mounted container.
#![expect(clippy::wildcard_enum_match_arm, reason = "the tar crate's entry types are not exhaustive")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use repot::payload::archive::pax;
use tar::{Entry, EntryType};

use super::member::{Member, Range, plain};
use super::pax::time;
use super::{acl, limits};
use crate::newc::NAME_MAX;
use crate::report::name::shown;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};

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
    weight: &'a mut limits::Weight,
    /// The directory for temporary files.
    scratch: &'a Path,
    /// The temporary file with the contents of sparse files, concatenated, and its length.
    together: Option<(Arc<File>, u64)>,
}

impl<'a> Layer<'a> {
    /// A whole root file system.
    pub fn root(tree: &'a mut Tree, scratch: &'a Path, weight: &'a mut limits::Weight) -> Layer<'a> {
        Layer { tree, touched: None, acls: Vec::new(), weight, scratch, together: None }
    }

    /// A layer of an image, in which `.wh.NAME` deletes NAME of the layers below.
    pub fn image(tree: &'a mut Tree, scratch: &'a Path, weight: &'a mut limits::Weight) -> Layer<'a> {
        Layer { touched: Some(HashSet::new()), ..Layer::root(tree, scratch, weight) }
    }

    /// Applies one member of an archive in `file`.
    pub(super) fn member(&mut self, member: &mut Member<'_, '_>, file: &Arc<File>) -> Result<()> {
        let entry_type = member.entry.header().entry_type();
        if entry_type == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = member.path.clone();
        check(&path)?;
        let path = plain(&path);
        let (attributes, acls) = attributes(member)?;
        let xattrs: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let xattrs = xattrs + acls.iter().map(|(_, text)| text.len()).sum::<usize>();
        let target = member.target.as_ref().map_or(0, Vec::len);
        self.weight.add(path.len() + target + xattrs)?;
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() {
            ensure!(entry_type.is_dir(), "the root is not a directory");
            self.tree.inode_mut(Tree::ROOT).attributes = attributes;
            self.remember(Tree::ROOT, acls);
            return Ok(());
        }
        let parent = self.parent(parent)?;
        if self.whiteout(parent, name) {
            return Ok(());
        }
        let id = match entry_type {
            EntryType::Directory => {
                let id = self.tree.directory(parent, name, &attributes);
                self.tree.inode_mut(id).attributes = attributes;
                id
            }
            EntryType::Link => {
                let target = member.target.as_ref().context("the hard link has no target")?;
                check(target)?;
                let id = self.linked(plain(target))?;
                self.tree.link(parent, name, id);
                id
            }
            _ => {
                let sparse = entry_type == EntryType::GNUSparse;
                let kind = match if sparse { self.sparse(member.entry)? } else { kind(member, file)? } {
                    Kind::Fifo if is_socket(member) => Kind::Socket,
                    kind => kind,
                };
                let id = self.tree.add(Inode { attributes, kind });
                self.tree.link(parent, name, id);
                id
            }
        };
        if entry_type != EntryType::Link {
            self.remember(id, acls);
        }
        if let Some(touched) = &mut self.touched {
            touched.insert(id);
        }
        Ok(())
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
        let (parent, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], target),
        };
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

    /// Extracts a sparse file in the old GNU format into a temporary file: the archive has no contiguous
    /// copy.
    fn sparse(&mut self, entry: &mut Entry<'_, Range>) -> Result<Kind> {
        let size = entry.size();
        ensure!(size <= u64::from(u32::MAX), "newc cannot hold a file of 4 GiB or more ({size} bytes)");
        let (file, offset) = match self.together.take() {
            Some(together) => together,
            None => {
                let spool = tempfile::tempfile_in(self.scratch);
                (Arc::new(spool.context("cannot make a temporary file")?), 0)
            }
        };
        self.weight.unpack(size)?;
        // Sparse files stay sparse: zeros are not written.
        let mut buffer = [0; 64 << 10];
        let mut at = offset;
        loop {
            match entry.read(&mut buffer)? {
                0 => break,
                got => {
                    if buffer[..got].iter().any(|&byte| byte != 0) {
                        file.write_all_at(&buffer[..got], at).context("cannot write a temporary file")?;
                    }
                    at += got as u64;
                }
            }
        }
        file.set_len(at)?;
        self.together = Some((file.clone(), at));
        Ok(Kind::File(Contents::Range(file, offset, at - offset)))
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

/// The attributes of a member, and its ACLs as text: whether it is the default ACL, and the text.
fn attributes(member: &Member<'_, '_>) -> Result<(Attributes, Vec<(bool, String)>)> {
    let mut acls = Vec::new();
    let header = member.entry.header();
    let number = |value: io::Result<u64>, what: &str| {
        value
            .map_err(anyhow::Error::from)
            .and_then(|value| Ok(u32::try_from(value)?))
            .with_context(|| format!("invalid {what}"))
    };
    let mut attributes = Attributes {
        permissions: header.mode().context("invalid mode")? & 0o7777,
        uid: number(header.uid(), "owner")?,
        gid: number(header.gid(), "group")?,
        // A time before 1970 is a huge number or an error here. newc cannot hold it.
        mtime: header.mtime().map_or(0, |mtime| u32::try_from(mtime).unwrap_or(0)),
        nanoseconds: 0,
        xattrs: BTreeMap::new(),
    };
    for (key, value) in &member.records {
        let text = || std::str::from_utf8(value).context("corrupt PAX record");
        if let Some(name) = key.strip_prefix(pax::XATTR) {
            attributes.xattrs.insert(pax::decode(name), value.clone());
        } else if key.starts_with(b"SCHILY.acl.") {
            acls.push((key == b"SCHILY.acl.default", String::from_utf8_lossy(value).into_owned()));
        } else if key.starts_with(b"GNU.sparse.") {
            bail!("sparse files in PAX format are not supported: create the archive without --sparse");
        } else if key == b"mtime" {
            let (seconds, nanoseconds) = time(value).unwrap_or((0, 0));
            let known = u32::try_from(seconds).map(|seconds| (seconds, nanoseconds));
            (attributes.mtime, attributes.nanoseconds) = known.unwrap_or((0, 0));
        } else if key == b"uid" || key == b"gid" {
            let id = text()?.parse().context("invalid owner")?;
            if key == b"uid" { attributes.uid = id } else { attributes.gid = id }
        }
    }
    Ok((attributes, acls))
}

/// Whether a fifo is a socket, by the keyword of star. tar has no type for sockets.
fn is_socket(member: &Member<'_, '_>) -> bool {
    member.records.iter().any(|(key, value)| key == pax::FILETYPE && value == pax::SOCKET)
}

fn kind(member: &Member<'_, '_>, file: &Arc<File>) -> Result<Kind> {
    let header = member.entry.header();
    let device = || -> Result<(u32, u32)> {
        let major = header.device_major()?.context("the device has no numbers")?;
        Ok((major, header.device_minor()?.context("the device has no numbers")?))
    };
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Kind::File(Contents::Range(file.clone(), member.position, member.entry.size()))
        }
        EntryType::Symlink => {
            let target = member.target.as_ref().context("the symbolic link has no target")?;
            ensure!(
                !target.is_empty() && target.len() <= NAME_MAX,
                "the target of the symbolic link is empty or longer than {NAME_MAX} bytes"
            );
            Kind::Symlink(target[..].into())
        }
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Directory => Kind::Directory(Entries::new()),
        other => bail!("unknown member type {:?}", char::from(other.as_byte())),
    })
}

fn check(path: &[u8]) -> Result<()> {
    ensure!(!path.starts_with(b"/"), "an absolute name would lead out of the root");
    ensure!(
        path.split(|&byte| byte == b'/').all(|name| name != b".."),
        "a name with \"..\" would lead out of the root"
    );
    ensure!(!path.contains(&0), "the name contains a NUL byte");
    ensure!(path.len() <= NAME_MAX, "the name is longer than {NAME_MAX} bytes, the limit of newc");
    Ok(())
}
