//! `repot pack`: from a root file system to an image that boots, in one command.

use std::env;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Pack;
use crate::codec::{Compression, Encoder};
use crate::image::Image;
use crate::newc::Totals;
use crate::output::{self, Counted, Output};
use crate::programs::{self, Programs};
use crate::ram::{Footprint, Need};
use crate::source::oci::Choice;
use crate::tree::{Kind, Tree};
use crate::{config, init_binary, manifest, payload, report, size, source};

/// Runs the command.
pub fn run(args: &Pack) -> Result<()> {
    let level = args.level.unwrap_or(args.compress.default_level());
    if !args.compress.levels().contains(&level) {
        return Err(crate::usage(format!(
            "{} has the levels {} to {}",
            args.compress,
            args.compress.levels().start(),
            args.compress.levels().end()
        )));
    }
    let epoch = source_date_epoch()?;
    let init = if args.payload {
        payload::check(args)?;
        init_binary::find_for_payload(args.init.as_deref())?
    } else {
        init_binary::find(args.init.as_deref())?
    };
    let output = Output::create(&args.output)?;
    let choice = Choice { image: args.image.clone(), architecture: args.arch.clone() };
    let mut source = source::open(&args.root, &choice, output.directory())?;
    source.warnings.extend(leave_out(args, &mut source.tree));
    let mut image = Image::new(source.tree, &init, &args.config, epoch)?;

    if args.payload {
        return payload::pack(args, image, source.warnings, output);
    }
    let progress = progress(&image);
    let cannot_write = || format!("cannot write {}", args.output.display());
    let counted = Counted { out: output, bytes: 0 };
    let encoder =
        Encoder::new(counted, args.compress, level).with_context(cannot_write).map_err(output::cause)?;
    let (encoder, totals) = image.write(encoder, &mut |bytes| progress.inc(bytes)).map_err(output::cause)?;
    let counted = encoder.finish().with_context(cannot_write).map_err(output::cause)?;
    progress.finish_and_clear();
    counted.out.commit()?;

    let mut warnings = source.warnings;
    warnings.append(&mut image.warnings);
    let summary = summary(args, &image, totals, counted.bytes, warnings)?;
    let text = if args.json { serde_json::to_string_pretty(&summary)? + "\n" } else { words(&summary) };
    // When the image itself goes to standard output, this must not.
    if args.output.as_os_str() == "-" {
        io::stderr().write_all(text.as_bytes())?;
    } else {
        report::print(&text)?;
    }
    if !args.json {
        report::warn(&summary.warnings);
    }
    Ok(())
}

/// The image of an earlier run is no part of the root that it was written into.
fn leave_out(args: &Pack, tree: &mut Tree) -> Option<String> {
    let (root, output) = (args.root.canonicalize().ok()?, args.output.canonicalize().ok()?);
    let inside = output.strip_prefix(&root).ok().filter(|_| root.is_dir())?;
    let directory = tree.find(inside.parent()?.as_os_str().as_bytes())?;
    tree.unlink(directory, inside.file_name()?.as_bytes())?;
    Some(format!("{} lies in the root and was left out", args.output.display()))
}

/// What was packed, in words or as JSON.
#[derive(Debug, Serialize)]
struct Summary {
    image: String,
    entries: u64,
    inodes: u64,
    data: u64,
    compressed: u64,
    #[serde(serialize_with = "crate::report::as_text")]
    compression: Compression,
    init: Option<String>,
    ram: Need,
    warnings: Vec<String>,
}

fn summary(
    args: &Pack,
    image: &Image,
    totals: Totals,
    compressed: u64,
    mut warnings: Vec<String>,
) -> Result<Summary> {
    let tree = image.tree();
    let init = problems(tree, &mut warnings)?;
    Ok(Summary {
        image: args.output.display().to_string(),
        entries: totals.entries,
        inodes: totals.inodes,
        data: totals.bytes,
        compressed,
        compression: args.compress,
        init,
        ram: Footprint::of(tree).need(compressed),
        warnings,
    })
}

/// What is wrong with a root, and the init that runs in the end.
pub(crate) fn problems(tree: &Tree, warnings: &mut Vec<String>) -> Result<Option<String>> {
    let config = match tree.resolve(config::PATH.as_bytes()).map(|id| &tree.inode(id).kind) {
        Some(Kind::File(contents)) => String::from_utf8_lossy(&contents.read()?).into_owned(),
        _ => String::new(),
    };
    let program = programs::of_tree(tree);
    let boot = Programs { tree, program: &program, config: &config, repot: true }.boot();
    warnings.extend(boot.problems);
    warnings.extend(programs::nodes(tree));
    warnings.extend(manifest::refused(tree));
    Ok(boot.init)
}

fn words(summary: &Summary) -> String {
    let row = |name: &str, value: String| (name.to_string(), value);
    report::table(&[
        row("image", summary.image.clone()),
        row("entries", format!("{} ({} inodes)", summary.entries, summary.inodes)),
        row("data", size::human(summary.data)),
        row("compressed", format!("{} ({})", size::human(summary.compressed), summary.compression)),
        row("init", summary.init.clone().unwrap_or_else(|| "none".into())),
        row("RAM to boot", summary.ram.to_string()),
        row("RAM after the move", size::mib(summary.ram.after)),
    ])
}

fn source_date_epoch() -> Result<Option<u32>> {
    let Some(value) = env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(seconds) => Ok(Some(seconds)),
        None => bail!("SOURCE_DATE_EPOCH is not a number of seconds that newc can hold"),
    }
}

/// A bar on a terminal, nothing anywhere else.
pub(crate) fn progress(image: &Image) -> ProgressBar {
    let mut bytes = 0;
    let tree = image.tree();
    tree.each_inode(&mut |id| {
        if let Kind::File(contents) = &tree.inode(id).kind {
            bytes += contents.len();
        }
    });
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(bytes);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
