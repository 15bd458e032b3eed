//! Sources of a root: each reads one kind of input into a [`Tree`].

pub mod acl;
pub mod directory;
pub mod layer;
pub mod limits;
mod member;
pub mod oci;
pub mod pax;
pub mod tarball;

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fd::AsFd;

use self::layer::Layer;
use self::limits::Weight;
use self::oci::{Choice, Store};
use self::tarball::Tarball;
use crate::tree::{Attributes, Tree};

/// A root that was read.
#[derive(Debug)]
pub struct Source {
    /// The root.
    pub tree: Tree,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Reads a directory, a tar archive (`-` is standard input) or a container image. Compressed input is
/// decompressed into unnamed files in `scratch`.
pub fn open(root: &Path, choice: &Choice, scratch: &Path) -> Result<Source> {
    if root == Path::new("-") {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?;
        return archive(File::from(stdin), "standard input", choice, scratch);
    }
    let shown = root.display().to_string();
    let metadata = fs::metadata(root).with_context(|| format!("cannot open {shown}"))?;
    if !metadata.is_dir() {
        let file = File::open(root).with_context(|| format!("cannot open {shown}"))?;
        return archive(file, &shown, choice, scratch);
    }
    let store = Store::Directory(root.to_path_buf());
    if store.is_image()? {
        return image(&store, choice, scratch, &mut Weight::default());
    }
    let scan = directory::scan(root)?;
    let left_out = |mount: &Vec<u8>| {
        format!("{shown}/{} is a mount point: packed as an empty directory", mount.escape_ascii())
    };
    Ok(Source { tree: scan.tree, warnings: scan.mounts.iter().map(left_out).collect() })
}

fn archive(file: File, name: &str, choice: &Choice, scratch: &Path) -> Result<Source> {
    let mut weight = Weight::default();
    let tarball = Tarball::open(file, name, scratch, &mut weight)?;
    let store = Store::Archive(tarball.clone());
    if store.is_image()? {
        return image(&store, choice, scratch, &mut weight);
    }
    let mut tree = Tree::new(Attributes { permissions: 0o755, ..Attributes::default() });
    let mut layer = Layer::root(&mut tree, scratch, &mut weight);
    tarball.apply(&mut layer)?;
    let acls = layer.acls;
    Ok(finished(tree, &acls))
}

fn image(store: &Store, choice: &Choice, scratch: &Path, weight: &mut Weight) -> Result<Source> {
    let (tree, acls) = store.load(choice, scratch, weight)?;
    Ok(finished(tree, &acls))
}

fn finished(mut tree: Tree, acls: &[acl::Text]) -> Source {
    let left = acl::apply(&mut tree, acls);
    let warning = format!(
        "{left} ACLs have names that are not in the root's /etc/passwd or /etc/group, and are lost: pack the \
         directory itself to keep them"
    );
    Source { tree, warnings: if left == 0 { Vec::new() } else { vec![warning] } }
}
