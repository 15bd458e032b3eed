//! `repot pack --payload`: an image whose root stays compressed until `/init` unpacks it.
//!
//! The root is taken apart: what the kernel and `/init` need before the unpacking stays outside, in a plain archive, together
//! with the chunks of a `.tar.zst` that holds the rest. docs/payload.md tells the format.

mod chunks;
mod frames;
mod ordered;
mod tape;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use repot::display::Hex;
use repot::payload::DIRECTORY;
use repot::payload::index::{Index, name};
use sha2::{Digest, Sha256};

use crate::cli::Pack;
use crate::codec::Compression;
use crate::image::Image;
use crate::output::{Counted, Output};
use crate::ram::Footprint;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};
use crate::{config, manifest, marker, pack, report, size};

/// A payload that was written to a file.
#[derive(Debug)]
pub struct Payload {
    /// What it is.
    pub index: Index,
    /// The chunks, one after the other.
    pub file: File,
}

/// What goes with `--payload`.
pub(crate) fn check(args: &Pack) -> Result<()> {
    if args.compress == Compression::Zstd {
        return Ok(());
    }
    Err(crate::usage(format!("a payload is compressed with zstd, not {}", args.compress)))
}

/// Packs an image, prepared as for any other, as a payload.
pub(crate) fn pack(args: &Pack, image: Image, mut warnings: Vec<String>, output: Output) -> Result<()> {
    let level = args.level.unwrap_or(args.compress.default_level());
    let boot = pack::problems(image.tree(), &mut warnings)?;
    let progress = pack::progress(&image);
    let (inner, mut outer) = image.split(cut)?;
    let payload = write(&inner, i32::try_from(level)?, &output, &mut |bytes| progress.inc(bytes))?;
    let digest = digest(&payload.index);
    let compressed = payload.index.compressed();
    let index = payload.index.clone();
    add(&mut outer, payload);
    let cannot_write = || format!("cannot write {}", args.output.display());
    let (out, totals) =
        outer.write(Counted { out: output, bytes: 0 }, &mut |_| ()).with_context(cannot_write)?;
    progress.finish_and_clear();
    let bytes = out.bytes;
    out.out.commit()?;

    warnings.append(&mut outer.warnings);
    let footprint = Footprint::of(&inner);
    let (need, plain) = (footprint.payload(bytes, compressed), footprint.need(compressed));
    let row = |name: &str, value: String| (name.to_string(), value);
    let rows = [
        row("image", format!("{} ({})", args.output.display(), size::human(bytes))),
        row("entries", format!("{} ({} inodes), {} outside", index.entries, index.inodes, totals.entries)),
        row("data", size::human(index.bytes)),
        row("compressed", format!("{} (zstd), {} frames", size::human(compressed), index.frames.len())),
        row("init", boot.unwrap_or_else(|| "none".into())),
        row("RAM to boot", need.to_string()),
        row("without --payload", plain.to_string()),
        row("RAM after", size::mib(plain.after)),
        row("digest", format!("payload=sha256:{}", Hex(&digest))),
    ];
    let table = report::table(&rows);
    // When the image itself goes to standard output, the table must not.
    if args.output.as_os_str() == "-" {
        io::stderr().write_all(table.as_bytes())?;
    } else {
        io::stdout().write_all(table.as_bytes())?;
    }
    report::warn(&warnings);
    Ok(())
}

/// The SHA-256 of an index.
#[must_use]
pub fn digest(index: &Index) -> [u8; 32] {
    Sha256::digest(index.text()).into()
}

/// Writes the payload of a tree to a file without a name beside the output.
fn write(tree: &Tree, level: i32, output: &Output, progress: &mut dyn FnMut(u64)) -> Result<Payload> {
    let scratch = output.directory();
    let file = tempfile::tempfile_in(scratch)
        .with_context(|| format!("cannot make a temporary file in {}", scratch.display()))?;
    frames::write(tree, level, file, progress)
}

/// Takes out of a root what has to be there before it is unpacked: `/init`, its configuration, and what the kernel's own
/// archive would put there otherwise.
fn cut(tree: &mut Tree) -> Result<Tree> {
    let attributes = tree.inode(Tree::ROOT).attributes.clone();
    let mut outer = Tree::new(Attributes { xattrs: Default::default(), ..attributes });
    for name in [&b"init"[..], marker::BEGIN] {
        if let Some(id) = tree.unlink(Tree::ROOT, name) {
            copy(tree, id, &mut outer, Tree::ROOT, name);
        }
    }
    tree.unlink(Tree::ROOT, manifest::NAME);
    tree.unlink(Tree::ROOT, DIRECTORY.as_bytes());
    if let Some(id) = tree.find(config::PATH.as_bytes()) {
        let etc = tree.find(b"etc").context("/etc is gone")?;
        let into = copy(tree, etc, &mut outer, Tree::ROOT, b"etc");
        copy(tree, id, &mut outer, into, b"repot.conf");
        tree.unlink(etc, b"repot.conf");
    } else if tree.resolve(config::PATH.as_bytes()).is_some() {
        bail!(
            "/etc is a symbolic link: a payload needs a directory there, for /init to find repot.conf before it is unpacked"
        );
    }
    // The kernel makes these itself before it unpacks anything: /dev, /dev/console and /root.
    for name in [&b"dev"[..], b"root"] {
        let Some(id) = tree.child(Tree::ROOT, name) else { continue };
        let into = copy(tree, id, &mut outer, Tree::ROOT, name);
        if name == b"dev"
            && let Some(console) = tree.child(id, b"console")
        {
            copy(tree, console, &mut outer, into, b"console");
        }
    }
    if let Some(text) = manifest::contents(&outer) {
        let attributes = Attributes { permissions: 0o400, ..Attributes::default() };
        let kind = Kind::File(Contents::Bytes(text.into()));
        let id = outer.add(Inode { attributes, kind });
        outer.link(Tree::ROOT, manifest::NAME, id);
    }
    Ok(outer)
}

/// Copies one entry; of a directory only itself, without the extended attributes, which it gets from the payload.
fn copy(tree: &Tree, id: Id, to: &mut Tree, into: Id, name: &[u8]) -> Id {
    let mut inode = tree.inode(id).clone();
    if matches!(inode.kind, Kind::Directory(_)) {
        inode.kind = Kind::Directory(Entries::new());
        inode.attributes.xattrs.clear();
    }
    let id = to.add(inode);
    to.link(into, name, id);
    id
}

/// Adds the index and the chunks to the outer image.
fn add(outer: &mut Image, payload: Payload) {
    let Payload { index, file } = payload;
    let attributes = Attributes { permissions: 0o700, ..Attributes::default() };
    let tree = outer.edit();
    let directory = tree.directory(Tree::ROOT, DIRECTORY.as_bytes(), &attributes);
    outer.add(directory, b"index", Contents::Bytes(index.text().into_bytes().into()));
    let file = Arc::new(file);
    let mut at = 0;
    for (number, chunk) in index.chunks.iter().enumerate() {
        outer.add(directory, name(number).as_bytes(), Contents::Range(file.clone(), at, chunk.size));
        at += chunk.size;
    }
}
