//! Resolves paths with symbolic links inside a tree, as the booted system will. `..` of the root is the root.

use super::path::components;
use super::{Attributes, Entries, Id, Inode, Kind, Tree};

/// The limit of the kernel for symbolic links in one path.
const MAX_LINKS: usize = 40;

impl Tree {
    /// The inode at a path, following all symbolic links.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<Id> {
        Walk { links: MAX_LINKS, stack: vec![Tree::ROOT], create: None }.go(&mut Borrow::Shared(self), path)
    }

    /// The directory at a path, following links and creating missing directories. `None` if the path
    /// contains a loop of links.
    ///
    /// Anything in the way that is not a directory is replaced: later entries of an archive override
    /// earlier ones.
    pub fn make_directories(&mut self, path: &[u8], attributes: &Attributes) -> Option<Id> {
        let walk = Walk { links: MAX_LINKS, stack: vec![Tree::ROOT], create: Some(attributes) };
        walk.go(&mut Borrow::Unique(self), path)
    }
}

enum Borrow<'a> {
    Shared(&'a Tree),
    Unique(&'a mut Tree),
}

struct Walk<'a> {
    links: usize,
    /// The directories from the root to the current one. The last may be a file at the end of the path.
    stack: Vec<Id>,
    create: Option<&'a Attributes>,
}

impl Walk<'_> {
    fn go(mut self, tree: &mut Borrow<'_>, path: &[u8]) -> Option<Id> {
        // The remaining names, the next one last.
        let mut names: Vec<Box<[u8]>> = components(path).map(Box::from).collect();
        names.reverse();
        while let Some(name) = names.pop() {
            if &*name == b".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
                continue;
            }
            let here = *self.stack.last()?;
            let next = self.step(tree, here, &name)?;
            let read = match tree {
                Borrow::Shared(tree) => &**tree,
                Borrow::Unique(tree) => tree,
            };
            if let Kind::Symlink(target) = &read.inode(next).kind {
                self.links = self.links.checked_sub(1)?;
                if target.starts_with(b"/") {
                    self.stack.truncate(1);
                }
                names.extend(components(target).map(Box::from).collect::<Vec<_>>().into_iter().rev());
                continue;
            }
            self.stack.push(next);
        }
        self.stack.pop()
    }

    fn step(&self, tree: &mut Borrow<'_>, here: Id, name: &[u8]) -> Option<Id> {
        match (tree, self.create) {
            (Borrow::Unique(tree), Some(attributes)) => {
                let found = tree.child(here, name);
                let usable = |id: &Id| matches!(tree.inode(*id).kind, Kind::Directory(_) | Kind::Symlink(_));
                if let Some(id) = found.filter(usable) {
                    return Some(id);
                }
                let kind = Kind::Directory(Entries::new());
                let id = tree.add(Inode { attributes: (*attributes).clone(), kind });
                tree.link(here, name, id);
                Some(id)
            }
            (Borrow::Unique(tree), None) => tree.child(here, name),
            (Borrow::Shared(tree), _) => tree.child(here, name),
        }
    }
}
