//! `repot cat`: prints the contents of a file in an image.
//!
//! The image is read twice: to follow links to the member with the contents, and to print it.

use std::io::Read;

use anyhow::{Result, bail, ensure};

use crate::cli::Cat;
use crate::report::name::shown;
use crate::report::pipe;
use crate::survey::file::ImageFile;
use crate::survey::locate::{Fetch, Locate};
use crate::survey::segments::Stop;
use crate::tree::{Id, Kind, Tree};

/// Runs the command.
pub fn run(args: &Cat) -> Result<()> {
    let mut image = ImageFile::open_to_seek(&args.image)?;
    let only = args.segment.map(std::num::NonZero::get);
    let mut locate = Locate::new(only);
    image.read(&mut locate)?;
    ensure!(locate.segments() > 0, "{} is empty", image.name());
    if let Some(only) = only {
        let segments = locate.segments();
        ensure!(only <= segments, "{} has {segments} segments, so --segment {only} is none", image.name());
    }
    let path = args.path.as_encoded_bytes();
    let error = match find(locate.tree(), path) {
        Ok(id) => {
            let Some(before) = locate.carrier(id) else { return Ok(()) };
            let mut fetch = Fetch { before, take: pipe };
            return match image.read(&mut fetch) {
                Err(error) if error.is::<Stop>() => Ok(()),
                read => read,
            };
        }
        Err(error) => error,
    };
    if locate.payload.is_empty() {
        bail!("{}: {error}", image.name());
    }
    let root = locate.payload.open(locate.tree()).map_err(|error| error.context(image.name().to_string()))?;
    match find(&root.tree, path) {
        Ok(id) => print(&root.tree, id),
        Err(error) => bail!("{}: {error}", image.name()),
    }
}

/// The file at a path, or why there is none.
fn find(tree: &Tree, path: &[u8]) -> Result<Id, String> {
    let name = shown(path);
    match tree.resolve(path) {
        Some(id) if matches!(tree.inode(id).kind, Kind::File(_)) => Ok(id),
        Some(id) => Err(format!("{name} is {}, not a file", tree.inode(id).kind.noun())),
        None if tree.find(path).is_some() => {
            Err(format!("{name} is a symbolic link to nothing, or to itself"))
        }
        None => Err(format!("{name} does not exist")),
    }
}

/// Prints a file of a payload.
fn print(tree: &Tree, id: Id) -> Result<()> {
    if let Kind::File(contents) = &tree.inode(id).kind {
        pipe(&mut contents.open()?.take(contents.len()))?;
    }
    Ok(())
}
