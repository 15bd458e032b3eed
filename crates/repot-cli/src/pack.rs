//! `repot pack`: from a root file system to an image that boots, in one command.

use std::env;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Pack;
use crate::codec::Encoder;
use crate::image::Image;
use crate::newc::Totals;
use crate::output::Output;
use crate::programs::{self, Programs};
use crate::ram::Footprint;
use crate::source::oci::Choice;
use crate::{config, init_binary, payload, report, size, source};

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
    let source = source::open(&args.root, &choice, output.directory())?;
    let mut image = Image::new(source.tree, &init, &args.config, epoch)?;

    if args.payload {
        return payload::pack(args, image, source.warnings, output);
    }
    let progress = progress(&image);
    let cannot_write = || format!("cannot write {}", args.output.display());
    let counted = Counted { out: output, bytes: 0 };
    let encoder = Encoder::new(counted, args.compress, level).with_context(cannot_write)?;
    let (encoder, totals) = image.write(encoder, &mut |bytes| progress.inc(bytes))?;
    let counted = encoder.finish().with_context(cannot_write)?;
    progress.finish_and_clear();
    counted.out.commit()?;

    let mut warnings = source.warnings;
    warnings.append(&mut image.warnings);
    summary(args, &image, totals, counted.bytes, &mut warnings)?;
    report::warn(&warnings);
    Ok(())
}

fn summary(
    args: &Pack,
    image: &Image,
    totals: Totals,
    compressed: u64,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let tree = image.tree();
    let config = match tree.resolve(config::PATH.as_bytes()).map(|id| &tree.inode(id).kind) {
        Some(crate::tree::Kind::File(contents)) => String::from_utf8_lossy(&contents.read()?).into_owned(),
        _ => String::new(),
    };
    let program = programs::of_tree(tree);
    let boot = Programs { tree, program: &program, config: &config, repot: true }.boot();
    warnings.extend(boot.problems);
    warnings.extend(programs::nodes(tree));
    let need = Footprint::of(tree).need(compressed);
    let row = |name: &str, value: String| (name.to_string(), value);
    let rows = [
        row("image", args.output.display().to_string()),
        row("entries", format!("{} ({} inodes)", totals.entries, totals.inodes)),
        row("data", size::human(totals.bytes)),
        row("compressed", format!("{} ({})", size::human(compressed), args.compress)),
        row("init", boot.init.unwrap_or_else(|| "none".into())),
        row("RAM to boot", need.to_string()),
        row("RAM after the move", size::mib(need.after)),
    ];
    // When the image itself goes to standard output, the table must not.
    if args.output.as_os_str() == "-" {
        io::stderr().write_all(report::table(&rows).as_bytes())?;
    } else {
        io::stdout().write_all(report::table(&rows).as_bytes())?;
    }
    Ok(())
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
        if let crate::tree::Kind::File(contents) = &tree.inode(id).kind {
            bytes += contents.len();
        }
    });
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(bytes);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Counts what passes.
struct Counted {
    out: Output,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
