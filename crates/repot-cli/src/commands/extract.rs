//! `repot extract`: writes the root of an image into a directory.
//!
//! An image without a payload streams into the directory. With a payload or patterns, the whole root is read
//! first, and then written.

mod attributes;
mod inside;
mod stream;
mod target;
mod whole;
mod writer;
mod xattr;
mod yard;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::stream::Stream;
use self::target::Target;
use self::yard::Yard;
use crate::cli::Extract;
use crate::errors::usage;
use crate::report::{Format, Summary, finish, row, size, table};
use crate::survey::file::ImageFile;

/// Runs the command.
pub fn run(args: &Extract) -> Result<()> {
    extract(args).map_err(yard::cause)
}

fn extract(args: &Extract) -> Result<()> {
    if args.parts && !args.patterns.is_empty() {
        return Err(usage("--parts extracts everything: leave out the patterns".into()));
    }
    let mut image = ImageFile::open_to_seek(&args.image)?;
    let yard = Yard::open(&args.directory, args.overwrite)?;
    // Modes are those of the image, but for the target directory.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let written = if args.patterns.is_empty() { stream(&mut image, &yard, args)? } else { None };
    let (mut targets, yard) = match written {
        Some(targets) => (targets, yard),
        None => {
            // The payload decides where the other entries go, so it is read first.
            drop(yard);
            rustix::process::umask(umask);
            let yard = Yard::open(&args.directory, args.overwrite)?;
            rustix::process::umask(rustix::fs::Mode::empty());
            (vec![whole::extract(&image, &yard, &args.patterns)?], yard)
        }
    };
    let mut extracted = Extracted { directory: args.directory.display().to_string(), ..Extracted::default() };
    targets.iter_mut().try_for_each(Target::settle)?;
    // Directories get their attributes in their final place: one that cannot be written cannot be moved.
    let moved = yard.commit()?;
    for mut target in targets {
        if let Some(root) = moved.root(args.parts)? {
            target.root = root;
        }
        if !moved.created && !args.parts {
            target.directories.remove(&b"."[..]);
        }
        target.finish().with_context(|| extracted.directory.clone())?;
        stream::manifests(&mut target);
        extracted.entries += target.entries;
        extracted.bytes += target.bytes;
        extracted.warnings.extend(std::mem::take(&mut target.notes).warnings());
    }
    finish(Format { json: args.json, stdout_taken: false }, &extracted)
}

/// Extracts the members as they come. `None` if the image has a payload, which must be read first.
fn stream(image: &mut ImageFile, yard: &Yard, args: &Extract) -> Result<Option<Vec<Target>>> {
    let mut stream = Stream::new(yard, args.parts, image.bytes());
    match image.read(&mut stream) {
        Err(error) if error.is::<stream::Payload>() => Ok(None),
        read => {
            read?;
            ensure!(stream.has_segments(), "{} is empty", image.name());
            stream.finish().with_context(|| image.name().to_string()).map(Some)
        }
    }
}

/// What was extracted.
#[derive(Debug, Default, Serialize)]
struct Extracted {
    directory: String,
    entries: u64,
    /// Bytes of files.
    bytes: u64,
    warnings: Vec<String>,
}

impl Summary for Extracted {
    fn text(&self) -> String {
        let Extracted { directory, entries, bytes, .. } = self;
        table(&[
            row("directory", directory.clone()),
            row("entries", entries.to_string()),
            row("data", size::human(*bytes)),
        ])
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
