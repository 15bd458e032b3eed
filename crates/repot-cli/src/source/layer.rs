//! An archive's members applied to a tree, over what is there: a whole root, or one layer of an image with
//! its whiteouts.
//!
//! Nothing is written anywhere: a name with `..` or a leading slash is an error, and a symbolic link in the
//! middle of a name leads to where it leads inside the tree, as it would when the layers are mounted.
#![expect(clippy::wildcard_enum_match_arm, reason = "the tar crate's entry types are not exhaustive")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tar::{Entry, EntryType};

use super::member::{Member, Range, plain};
use super::{acl, limits, pax};
use crate::newc::NAME_MAX;
use crate::report::name::shown;
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
    /// ACLs in the form of text, for when all names are known.
    pub acls: Vec<acl::Text>,
    weight: &'a mut limits::Weight,
    /// Where there is room.
    scratch: &'a Path,
    /// What of this archive had to be put together, one after the other, and its length.
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
            ensure!(entry_type.is_dir(), "the root is no directory");
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
                let target = member.target.as_ref().context("a hard link to nothing")?;
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

    /// A file with holes in the old GNU form: its bytes are not together in the archive, so they are put
    /// together elsewhere.
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
        // Holes stay holes: nothing but the data takes room.
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

/// Attributes, and the ACLs in the form of text: whether for what is made in it, and what they say.
fn attributes(member: &Member<'_, '_>) -> Result<(Attributes, Vec<(bool, String)>)> {
    let mut acls = Vec::new();
    let header = member.entry.header();
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
    for (key, value) in &member.records {
        let text = || std::str::from_utf8(value).context("a damaged PAX record");
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            attributes.xattrs.insert(pax::unescaped(name), value.clone());
        } else if key.starts_with(b"SCHILY.acl.") {
            acls.push((key == b"SCHILY.acl.default", String::from_utf8_lossy(value).into_owned()));
        } else if key.starts_with(b"GNU.sparse.") {
            bail!("a sparse file in PAX form, which is not read (make the archive without --sparse)");
        } else if key == b"mtime" {
            let (seconds, fraction) = text()?.split_once('.').unwrap_or((text()?, ""));
            attributes.mtime = seconds.parse().unwrap_or(0);
            // To the right of the point: 5 is half a second.
            let fraction = format!("{fraction:0<9.9}").parse().unwrap_or(0);
            attributes.nanoseconds = if seconds.parse() == Ok(attributes.mtime) { fraction } else { 0 };
        } else if key == b"uid" || key == b"gid" {
            let id = text()?.parse().context("a bad owner")?;
            if key == b"uid" { attributes.uid = id } else { attributes.gid = id }
        }
    }
    Ok((attributes, acls))
}

/// Whether a fifo stands for a socket, which tar has no type for, by star's keyword.
fn is_socket(member: &Member<'_, '_>) -> bool {
    member.records.iter().any(|(key, value)| key == b"SCHILY.filetype" && value == b"socket")
}

fn kind(member: &Member<'_, '_>, file: &Arc<File>) -> Result<Kind> {
    let header = member.entry.header();
    let device = || -> Result<(u32, u32)> {
        let major = header.device_major()?.context("a device without numbers")?;
        Ok((major, header.device_minor()?.context("a device without numbers")?))
    };
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Kind::File(Contents::Range(file.clone(), member.position, member.entry.size()))
        }
        EntryType::Symlink => {
            let target = member.target.as_ref().context("a symbolic link to nothing")?;
            ensure!(
                !target.is_empty() && target.len() <= NAME_MAX,
                "a symbolic link with a target that no kernel takes"
            );
            Kind::Symlink(target[..].into())
        }
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Directory => Kind::Directory(Entries::new()),
        other => bail!("a member of unknown type {:?}", char::from(other.as_byte())),
    })
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
