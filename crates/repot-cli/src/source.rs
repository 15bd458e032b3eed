//! Sources of a root: each reads one kind of input into a [`Tree`].

pub mod acl;
pub mod devices;
pub mod directory;
pub mod exclude;
pub mod fakeroot;
pub(crate) mod initramfs;
pub mod layer;
pub mod limits;
pub mod magic;
pub mod notes;
pub mod oci;
pub mod pax;
pub mod tarball;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::fd::AsFd;

use self::layer::Layer;
use self::limits::Weight;
use self::notes::Notes;
use self::oci::{Choice, Loaded, Store};
use self::tarball::Tarball;
use crate::container::Config;
use crate::survey::file::flat;
use crate::tree::{Attributes, Contents, Tree};

/// A root that was read.
#[derive(Debug)]
pub struct Source {
    /// The root.
    pub tree: Tree,
    /// What must stay in front of the image, byte by byte: microcode and ACPI tables of an initramfs.
    pub front: Option<Contents>,
    /// How a container image is run; `None` for other sources.
    pub config: Option<Config>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Where owners and device nodes of a directory come from.
#[derive(Debug, Default)]
pub enum Owners {
    /// From the directory.
    #[default]
    Disk,
    /// From a state that fakeroot has saved.
    Fakeroot(fakeroot::State),
    /// From the `tar` of the system, under this program.
    Wrapper(&'static str),
}

/// Reads a directory, a tar archive, an initramfs (`-` is standard input) or a container image. Compressed
/// input is decompressed into unnamed files in `scratch`.
pub fn open(root: &Path, choice: &Choice, scratch: &Path) -> Result<Source> {
    open_as(root, choice, scratch, Owners::Disk)
}

/// The same, with the owners of a directory from elsewhere.
pub fn open_as(root: &Path, choice: &Choice, scratch: &Path, owners: Owners) -> Result<Source> {
    if root == Path::new("-") {
        let stdin = io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?;
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
    let scan = match owners {
        Owners::Disk => directory::scan(root)?,
        Owners::Fakeroot(mut state) => {
            let scan = directory::scan_as(root, Some(&mut state))?;
            ensure!(state.is_used(), "nothing in {shown} is in the state of fakeroot: is it a copy?");
            scan
        }
        Owners::Wrapper(wrapper) => {
            let (tar, output) = fakeroot::Tar::start(root, wrapper)?;
            let name = format!("{shown} under {wrapper}");
            let source = archive(output, &name, choice, scratch);
            // If tar fails, its output is truncated: its own failure is the cause.
            return match (source, tar.finish()) {
                (Err(error), Err(failure)) => Err(error.context(failure)),
                (source, finished) => finished.and(source),
            };
        }
    };
    let left_out = |mount: &Vec<u8>| {
        format!("{shown}/{} is a mount point: packed as an empty directory", mount.escape_ascii())
    };
    let mut warnings: Vec<String> = scan.mounts.iter().map(left_out).collect();
    warnings.extend(scan.notes.warnings());
    Ok(Source { tree: scan.tree, front: None, config: None, warnings })
}

/// Reads an archive of any kind.
pub(crate) fn archive(input: File, name: &str, choice: &Choice, scratch: &Path) -> Result<Source> {
    let mut weight = Weight::default();
    let file = flat(&Arc::new(seekable(input, name, scratch, &mut weight)?), name, scratch)?;
    if initramfs::is_one(&file) {
        let read = initramfs::open(&file, name, scratch, &mut weight)?;
        return Ok(Source {
            tree: read.tree,
            front: read.front,
            config: None,
            warnings: read.notes.warnings(),
        });
    }
    let tarball = Tarball::open(file, name, scratch, &mut weight)?;
    let store = Store::Archive(tarball.clone());
    if store.is_image()? {
        return image(&store, choice, scratch, &mut weight);
    }
    let mut tree = Tree::new(Attributes { permissions: 0o755, ..Attributes::default() });
    let mut layer = Layer::root(&mut tree, &mut weight);
    let members = tarball.apply(&mut layer)?;
    ensure!(members > 0, "{name}: the archive has no members");
    let (acls, notes) = (layer.acls, layer.notes);
    Ok(finished(tree, &acls, notes))
}

/// The input itself if it is a regular file, otherwise a copy in an unnamed file.
fn seekable(mut input: File, name: &str, scratch: &Path, weight: &mut Weight) -> Result<File> {
    if input.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(input);
    }
    let mut spool = tempfile::tempfile_in(scratch)
        .with_context(|| format!("cannot create a temporary file in {}", scratch.display()))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let got = match io::Read::read(&mut input, &mut buffer) {
            Ok(0) => return Ok(spool),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
        weight.unpack(got as u64).with_context(|| name.to_string())?;
        spool
            .write_all(&buffer[..got])
            .with_context(|| format!("cannot write a temporary file in {}", scratch.display()))?;
    }
}

fn image(store: &Store, choice: &Choice, scratch: &Path, weight: &mut Weight) -> Result<Source> {
    let Loaded { tree, acls, notes, config } = store.load(choice, scratch, weight)?;
    Ok(Source { config: Some(config), ..finished(tree, &acls, notes) })
}

fn finished(mut tree: Tree, acls: &[acl::Text], notes: Notes) -> Source {
    let left = acl::apply(&mut tree, acls);
    let mut warnings = notes.warnings();
    if left > 0 {
        warnings.push(format!(
            "{left} ACLs have names that are not in the root's /etc/passwd or /etc/group, and are lost: pack the \
             directory itself to keep them"
        ));
    }
    Source { tree, front: None, config: None, warnings }
}
