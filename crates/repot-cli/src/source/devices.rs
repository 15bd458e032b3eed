//! Lists of device nodes: what cannot be created without root is added to the tree.
//!
//! Two formats are read, line by line: the tables of Buildroot's makedevs (`NAME TYPE MODE UID GID MAJOR
//! MINOR START STEP COUNT`), whose names begin with a slash, and the lists of the kernel's `gen_init_cpio`
//! (`nod NAME MODE UID GID TYPE MAJOR MINOR`, `dir`, `slink`, `pipe`, `sock`).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::acl::numbers;
use crate::report::name::shown;
use crate::tree::path::{components, normal, split};
use crate::tree::{Attributes, Entries, Id, Inode, Kind, Tree};

/// Nodes that one line can create.
const COUNT: u32 = 4096;

/// Applies the list in a file.
pub fn apply(tree: &mut Tree, path: &Path) -> Result<()> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut list = List { users: numbers(tree, b"etc/passwd"), groups: numbers(tree, b"etc/group"), tree };
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        list.line(&words).with_context(|| format!("{shown}:{}", number + 1))?;
    }
    Ok(())
}

/// The attributes that a line sets. `-1` leaves what there is.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Wanted {
    /// Those of a new entry.
    fn attributes(self) -> Attributes {
        Attributes {
            permissions: self.mode.unwrap_or(0o755),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
            ..Attributes::default()
        }
    }
}

struct List<'a> {
    tree: &'a mut Tree,
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl List<'_> {
    fn line(&mut self, words: &[&str]) -> Result<()> {
        match *words {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            [first, ..] if first.starts_with('|') => {
                bail!("attributes in device tables are not supported: set them with setfattr or setcap")
            }
            [name, kind, mode, uid, gid, ref numbers @ ..] if name.starts_with('/') => {
                let wanted = self.wanted(mode, uid, gid)?;
                self.table(name, kind, wanted, numbers)
            }
            ["nod", name, mode, uid, gid, kind, major, minor] => {
                let wanted = self.wanted(mode, uid, gid)?;
                let device = device(kind, number(major)?, number(minor)?)?;
                self.put(name, wanted, device).map(drop)
            }
            ["dir", name, mode, uid, gid] => {
                let wanted = self.wanted(mode, uid, gid)?;
                self.put(name, wanted, Kind::Directory(Entries::new())).map(drop)
            }
            ["pipe", name, mode, uid, gid] => {
                let wanted = self.wanted(mode, uid, gid)?;
                self.put(name, wanted, Kind::Fifo).map(drop)
            }
            ["sock", name, mode, uid, gid] => {
                let wanted = self.wanted(mode, uid, gid)?;
                self.put(name, wanted, Kind::Socket).map(drop)
            }
            ["slink", name, target, mode, uid, gid] => {
                let wanted = self.wanted(mode, uid, gid)?;
                self.put(name, wanted, Kind::Symlink(target.as_bytes().into())).map(drop)
            }
            ["file", ..] => bail!("files in a list are not supported: put them into the root"),
            _ => bail!("not a line of makedevs or gen_init_cpio: {}", shown(words.join(" ").as_bytes())),
        }
    }

    /// A line of makedevs.
    fn table(&mut self, name: &str, kind: &str, wanted: Wanted, numbers: &[&str]) -> Result<()> {
        let value = |at: usize| match numbers.get(at) {
            None | Some(&"-") => Ok(0),
            Some(text) => number(text),
        };
        let (major, minor, start, step, count) = (value(0)?, value(1)?, value(2)?, value(3)?, value(4)?);
        match kind {
            "d" => self.put(name, wanted, Kind::Directory(Entries::new())).map(drop),
            "f" | "F" | "r" => {
                // makedevs follows a link to a single file.
                let path = name.as_bytes();
                let found = if kind == "r" { self.tree.find(path) } else { self.tree.resolve(path) };
                if found.is_none() && kind == "F" {
                    return Ok(());
                }
                let id = found.with_context(|| format!("{name} does not exist"))?;
                self.change(id, wanted, kind == "r");
                Ok(())
            }
            "p" => self.put(name, wanted, Kind::Fifo).map(drop),
            // makedevs adds no number to the name of a single node.
            "c" | "b" if count <= 1 => self.put(name, wanted, device(kind, major, minor)?).map(drop),
            "c" | "b" => {
                ensure!(count <= COUNT, "more than {COUNT} nodes");
                for node in 0..count {
                    let minor = minor.checked_add(node * step).context("the minor number is too large")?;
                    let kind = device(kind, major, minor)?;
                    self.put(&format!("{name}{}", start.saturating_add(node)), wanted, kind)?;
                }
                Ok(())
            }
            other => bail!("unknown type {other}"),
        }
    }

    fn wanted(&self, mode: &str, uid: &str, gid: &str) -> Result<Wanted> {
        let number = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        let id = |text: &str, names: &HashMap<String, u32>| {
            let known = names.get(text).copied().or((text == "root").then_some(0));
            text.parse().ok().or(known).with_context(|| format!("unknown owner {text}"))
        };
        let kept = |text: &str| text == "-1";
        let mode = if kept(mode) { None } else { Some(number(mode)) };
        Ok(Wanted {
            mode: mode
                .map(|mode| mode.context("the mode is not a number of four octal digits"))
                .transpose()?,
            uid: if kept(uid) { None } else { Some(id(uid, &self.users)?) },
            gid: if kept(gid) { None } else { Some(id(gid, &self.groups)?) },
        })
    }

    /// Sets the attributes of an entry that exists.
    fn change(&mut self, id: Id, wanted: Wanted, below: bool) {
        let has = &mut self.tree.inode_mut(id).attributes;
        has.permissions = wanted.mode.unwrap_or(has.permissions);
        (has.uid, has.gid) = (wanted.uid.unwrap_or(has.uid), wanted.gid.unwrap_or(has.gid));
        let entries: Vec<Id> = self.tree.entries(id).into_iter().flatten().map(|(_, id)| *id).collect();
        if below {
            entries.into_iter().for_each(|id| self.change(id, wanted, true));
        }
    }

    /// Creates an entry, or replaces one. A directory that exists only gets the attributes.
    fn put(&mut self, name: &str, wanted: Wanted, kind: Kind) -> Result<Id> {
        ensure!(components(name.as_bytes()).all(|name| name != b".."), "{name}: a name with \"..\"");
        let path = normal(name.as_bytes());
        let (parent, last) = split(&path);
        if last.is_empty() {
            self.change(Tree::ROOT, wanted, false);
            return Ok(Tree::ROOT);
        }
        let implied = Attributes { permissions: 0o755, ..Attributes::default() };
        let parent = self.tree.make_directories(parent, &implied).context("a loop of symbolic links")?;
        let existing = self.tree.child(parent, last);
        if let (Some(id), Kind::Directory(_)) = (existing, &kind)
            && self.tree.entries(id).is_some()
        {
            self.change(id, wanted, false);
            return Ok(id);
        }
        let id = self.tree.add(Inode { attributes: wanted.attributes(), kind });
        self.tree.link(parent, last, id);
        Ok(id)
    }
}

fn device(kind: &str, major: u32, minor: u32) -> Result<Kind> {
    Ok(match kind {
        "c" | "u" => Kind::Character(major, minor),
        "b" => Kind::Block(major, minor),
        other => bail!("unknown type of device {other}"),
    })
}

fn number(text: &str) -> Result<u32> {
    text.parse().with_context(|| format!("{text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_create_nodes() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("list");
        let text = "# comment\n\n/dev d 755 0 0 - - - - -\n/dev/hda b 640 0 6 3 1 1 2 2\n/dev/null c 666 root 0 1 3 0 0 -\n\
                    nod /dev/console 600 0 0 c 5 1\nslink /dev/fd /proc/self/fd 777 0 0\npipe /run/p 600 7 8\n";
        fs::write(&path, text)?;
        let mut tree = Tree::new(Attributes::default());
        apply(&mut tree, &path)?;
        let kind = |name: &str| tree.find(name.as_bytes()).map(|id| tree.inode(id).kind.noun());
        assert_eq!(kind("dev/hda1").as_deref(), Some("the block device 3:1"));
        assert_eq!(kind("dev/hda2").as_deref(), Some("the block device 3:3"));
        assert_eq!(kind("dev/hda3"), None);
        assert_eq!(kind("dev/null").as_deref(), Some("the character device 1:3"));
        assert_eq!(kind("dev/console").as_deref(), Some("the character device 5:1"));
        assert_eq!(kind("run/p").as_deref(), Some("a named pipe"));
        let id = tree.find(b"run/p").context("no pipe")?;
        assert_eq!((tree.inode(id).attributes.uid, tree.inode(id).mode()), (7, 0o010_600));
        // A single node has no number, and -1 leaves what there is.
        fs::write(
            &path,
            "/dev/ttyS c 660 0 5 4 64 0 1 1\n/dev r -1 3 -1\n/run/p f 640 -1 9\n/run/x F 1 1 1\n",
        )?;
        apply(&mut tree, &path)?;
        let is = |tree: &Tree, name: &str| {
            let inode = tree.inode(tree.find(name.as_bytes()).unwrap_or(Tree::ROOT));
            (inode.mode(), inode.attributes.uid, inode.attributes.gid)
        };
        assert_eq!(is(&tree, "dev/ttyS"), (0o020_660, 3, 5));
        assert_eq!(is(&tree, "dev/hda1"), (0o060_640, 3, 6));
        assert_eq!(is(&tree, "dev"), (0o040_755, 3, 0));
        assert_eq!(is(&tree, "run/p"), (0o010_640, 7, 9));
        for bad in [
            "/x q 1 0 0 1 1 0 0 -",
            "/x c 9 0 0 1 1 0 0 -",
            "/x f 1 0 0",
            "/a/../x d 755 0 0",
            "nod",
            "/x c 1 nobody 0",
        ] {
            fs::write(&path, bad)?;
            assert!(apply(&mut tree, &path).is_err(), "{bad}");
        }
        Ok(())
    }
}
