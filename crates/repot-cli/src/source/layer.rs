//! An archive's members applied to a tree, over what is there: a whole root, or one layer of an image with
//! its whiteouts.
//!
//! Nothing is written anywhere: a name with `..` or a leading slash is an error, and a symbolic link in the
//! middle of a name leads to where it leads inside the tree, as it would when the layers are mounted.
#![expect(clippy::wildcard_enum_match_arm, reason = "the tar crate's entry types are not exhaustive")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tar::{Entry, EntryType};

use super::limits;
use super::tarball::{Range, plain};
use crate::name::shown;
use crate::newc::NAME_MAX;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};

/// Permissions of directories that no member describes.
const IMPLIED: u32 = 0o755;

/// One archive being applied to a tree, over what is there already.
#[derive(Debug)]
pub struct Layer<'a> {
    tree: &'a mut Tree,
    /// What this layer made or changed, so that its own whiteouts spare it. `None` where names mean only
    /// themselves.
    touched: Option<HashSet<Id>>,
    /// How many entries had ACLs in the form of text, which are not carried.
    pub acls_in_text: usize,
    /// Whether the fifo at hand stands for a socket, which tar has no type for.
    socket: bool,
    weight: limits::Weight,
}

impl<'a> Layer<'a> {
    /// A whole root file system.
    pub fn root(tree: &'a mut Tree) -> Layer<'a> {
        Layer { tree, touched: None, acls_in_text: 0, socket: false, weight: limits::Weight::default() }
    }

    /// A layer of an image, in which `.wh.NAME` deletes NAME of the layers below.
    pub fn image(tree: &'a mut Tree) -> Layer<'a> {
        Layer {
            tree,
            touched: Some(HashSet::new()),
            acls_in_text: 0,
            socket: false,
            weight: limits::Weight::default(),
        }
    }

    /// Applies one member, whose data begins at `position` of `file`.
    pub(super) fn entry(
        &mut self,
        entry: &mut Entry<'_, Range>,
        file: &Arc<File>,
        position: u64,
    ) -> Result<()> {
        let entry_type = entry.header().entry_type();
        if entry_type == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = entry.path_bytes().into_owned();
        check(&path)?;
        let path = plain(&path);
        let attributes = self.attributes(entry)?;
        let xattrs: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let target = entry.link_name_bytes().map_or(0, |target| target.len());
        self.weight.add(path.len() + target + xattrs)?;
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() {
            ensure!(entry_type.is_dir(), "the root is no directory");
            self.tree.inode_mut(Tree::ROOT).attributes = attributes;
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
                let target = entry.link_name_bytes().context("a hard link to nothing")?;
                check(&target)?;
                let id = self.linked(plain(&target))?;
                self.tree.link(parent, name, id);
                id
            }
            _ => {
                let kind = match kind(entry, file, position)? {
                    Kind::Fifo if self.socket => Kind::Socket,
                    kind => kind,
                };
                let id = self.tree.add(Inode { attributes, kind });
                self.tree.link(parent, name, id);
                id
            }
        };
        if let Some(touched) = &mut self.touched {
            touched.insert(id);
        }
        Ok(())
    }

    /// The directory a member goes into, made when no member described it.
    fn parent(&mut self, path: &[u8]) -> Result<Id> {
        let implied = Attributes { permissions: IMPLIED, ..Attributes::default() };
        let id =
            self.tree.make_directories(path, &implied).context("its path is a loop of symbolic links")?;
        if let Some(touched) = &mut self.touched {
            // Everything above it holds something of this layer now, under the names it was reached by.
            let mut here = Some(id);
            for end in (0..path.len()).rev().filter(|&end| path[end] == b'/') {
                touched.extend(here.take());
                here = self.tree.resolve(&path[..end]);
            }
            touched.extend(here);
        }
        Ok(id)
    }

    /// The inode a hard link stands for.
    fn linked(&self, target: &[u8]) -> Result<Id> {
        let (parent, name) = match target.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], target),
        };
        let parent = self.tree.resolve(parent);
        let id = parent.and_then(|parent| self.tree.child(parent, name));
        let id = id.with_context(|| format!("a hard link to \"{}\", which is not there", shown(target)))?;
        ensure!(self.tree.entries(id).is_none(), "a hard link to the directory \"{}\"", shown(target));
        Ok(id)
    }

    /// Whether the name was a whiteout, which is done then.
    fn whiteout(&mut self, parent: Id, name: &[u8]) -> bool {
        let (Some(touched), Some(hidden)) = (&self.touched, name.strip_prefix(b".wh.")) else { return false };
        if hidden == b".wh..opq" {
            hide_below(self.tree, touched, parent);
        } else if let Some(id) = self.tree.child(parent, hidden) {
            hide(self.tree, touched, parent, hidden, id);
        }
        // Other names with two prefixes are aufs' own housekeeping.
        true
    }

    fn attributes(&mut self, entry: &mut Entry<'_, Range>) -> Result<Attributes> {
        let header = entry.header();
        let number = |value: io::Result<u64>, what: &str| {
            value
                .map_err(anyhow::Error::from)
                .and_then(|value| Ok(u32::try_from(value)?))
                .with_context(|| format!("a bad {what}"))
        };
        let mut attributes = Attributes {
            permissions: header.mode().context("a bad mode")? & 0o7777,
            uid: number(header.uid(), "owner")?,
            gid: number(header.gid(), "group")?,
            // A time before 1970 is a huge number here or an error; newc can hold neither.
            mtime: header.mtime().map_or(0, |mtime| u32::try_from(mtime).unwrap_or(0)),
            nanoseconds: 0,
            xattrs: BTreeMap::new(),
        };
        self.socket = false;
        for record in entry.pax_extensions()?.into_iter().flatten() {
            let record = record?;
            let key = record.key_bytes();
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                attributes.xattrs.insert(name.to_vec(), record.value_bytes().to_vec());
            } else if key.starts_with(b"SCHILY.acl.") {
                self.acls_in_text += 1;
            } else if key == b"SCHILY.filetype" {
                // star's keyword.
                self.socket = record.value_bytes() == b"socket";
            } else if key.starts_with(b"GNU.sparse.") {
                bail!("a sparse file in PAX form, which is not read (make the archive without --sparse)");
            } else if key == b"mtime" {
                let (seconds, fraction) = record.value()?.split_once('.').unwrap_or((record.value()?, ""));
                attributes.mtime = seconds.parse().unwrap_or(0);
                // To the right of the point: 5 is half a second.
                let fraction = format!("{fraction:0<9.9}").parse().unwrap_or(0);
                attributes.nanoseconds = if seconds.parse() == Ok(attributes.mtime) { fraction } else { 0 };
            } else if key == b"uid" || key == b"gid" {
                let id = record.value()?.parse().context("a bad owner")?;
                if key == b"uid" { attributes.uid = id } else { attributes.gid = id }
            }
        }
        Ok(attributes)
    }
}

/// Removes from a directory what this layer did not put there.
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

fn kind(entry: &mut Entry<'_, Range>, file: &Arc<File>, position: u64) -> Result<Kind> {
    let header = entry.header();
    let device = || -> Result<(u32, u32)> {
        let major = header.device_major()?.context("a device without numbers")?;
        Ok((major, header.device_minor()?.context("a device without numbers")?))
    };
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Kind::File(Contents::Range(file.clone(), position, entry.size()))
        }
        EntryType::GNUSparse => sparse(entry)?,
        EntryType::Symlink => {
            let target = entry.link_name_bytes().context("a symbolic link to nothing")?;
            ensure!(
                !target.is_empty() && target.len() <= NAME_MAX,
                "a symbolic link with a target that no kernel takes"
            );
            Kind::Symlink(target.into())
        }
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Directory => Kind::Directory(Entries::new()),
        other => bail!("a member of unknown type {:?}", char::from(other.as_byte())),
    })
}

/// A file with holes in the old GNU form: its bytes are not together in the archive, so they are put together
/// elsewhere.
fn sparse(entry: &mut Entry<'_, Range>) -> Result<Kind> {
    ensure!(
        entry.size() <= u64::from(u32::MAX),
        "newc cannot hold a file of 4 GiB or more ({} bytes)",
        entry.size()
    );
    let mut spool = tempfile::tempfile().context("cannot make a temporary file")?;
    let size = io::copy(entry, &mut spool)?;
    Ok(Kind::File(Contents::Range(Arc::new(spool), 0, size)))
}

fn check(path: &[u8]) -> Result<()> {
    ensure!(!path.starts_with(b"/"), "an absolute name, which is not followed");
    ensure!(
        path.split(|&byte| byte == b'/').all(|name| name != b".."),
        "a name with \"..\", which leads out of the root"
    );
    ensure!(!path.contains(&0), "a name with a NUL byte");
    ensure!(path.len() <= NAME_MAX, "a name longer than the {NAME_MAX} bytes newc can hold");
    Ok(())
}
