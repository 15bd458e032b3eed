//! `repot pack`: turns a root file system into an image that boots, in one command.

mod init;
mod run;
mod uki;

use std::env;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use repot::options::{Options, Zram};
use serde::Serialize;

use crate::cli::Pack;
use crate::codec::{Compression, Encoder};
use crate::errors::usage;
use crate::image::{Image, config, xattr_list};
use crate::modules::{self, Modules};
use crate::output::{self, BLOCK, Counted, Output};
use crate::payload;
use crate::programs::{self, Programs};
use crate::ram::{Footprint, Need, Page};
use crate::report::{Format, Summary, finish, row, size, table};
use crate::source::fakeroot::{self, State};
use crate::source::oci::Choice;
use crate::source::{self, Owners, Source, devices, exclude};
use crate::tree::{Contents, Kind, Tree};

/// What stays in front of the image is padded to a multiple of this. The kernel requires 4.
const FRONT: u64 = 512;

/// Runs the command.
pub fn run(args: &Pack) -> Result<()> {
    let level = level(args)?;
    let epoch = source_date_epoch()?;
    let output = if args.dry_run { Output::dry(&args.output)? } else { Output::create(&args.output)? };
    let choice = Choice { image: args.image.clone(), architecture: args.arch.clone() };
    let owners = owners(args)?;
    let mut source = source::open_as(&args.root, &choice, output.directory(), owners)?;
    source.warnings.extend(leave_out(args, &mut source.tree));
    edit(args, &mut source)?;
    let target = init::target(args, &source.tree);
    let init = init::find(args, target)?;
    source.warnings.extend(init.warning.clone());
    let page = Page::choose(args.page_size, target)?;
    let front = source.front.take();
    let (output, uki) = uki::prepare(args, output, &source.tree)?;
    let mut settings = args.config.clone();
    let program = run::install(args, &mut source, target, &mut settings)?;
    if program.is_none() && !args.program.driver.is_empty() {
        return Err(usage("--driver is for an image that runs one program: add --run or -- PROGRAM".into()));
    }
    let mut image = Image::new(source.tree, &init, &settings, epoch)?;
    let (modules, warning) = add_modules(args, &mut image)?;
    let mut warnings = source.warnings;
    warnings.extend(warning);
    warnings.append(&mut image.warnings);
    let packed = in_front(front, output).and_then(|output| {
        if args.payload {
            payload(args, level, image, &modules, page, output)
        } else {
            whole(args, level, &image, page, output)
        }
    });
    let mut packed = packed.map_err(output::cause)?;
    if let Some(uki) = uki {
        packed.bytes = uki.write().map_err(output::cause)?;
    }
    warnings.append(&mut packed.warnings);
    let format = Format { json: args.json, stdout_taken: !args.dry_run && output::is_stdout(&args.output) };
    finish(format, &Packed { warnings, modules, run: program, ..packed })
}

/// Where the owners of a directory come from.
fn owners(args: &Pack) -> Result<Owners> {
    if let Some(state) = &args.fakeroot {
        if !args.root.is_dir() {
            return Err(usage("--fakeroot is for directories: an archive has its own owners".into()));
        }
        return Ok(Owners::Fakeroot(State::read(state)?));
    }
    Ok(match fakeroot::wrapper() {
        // With an owner, only the device nodes are missing if tar cannot help.
        Some(wrapper) if args.owner.is_none() || fakeroot::can_help() => Owners::Wrapper(wrapper),
        _ => Owners::Disk,
    })
}

/// Changes the root as the options say.
fn edit(args: &Pack, source: &mut Source) -> Result<()> {
    for pattern in &args.exclude {
        if exclude::remove(&mut source.tree, pattern) == 0 {
            source.warnings.push(format!("--exclude {pattern}: nothing fits"));
        }
    }
    if let Some((uid, gid)) = args.owner {
        source.tree.give(uid, gid);
    }
    args.devices.iter().try_for_each(|list| devices::apply(&mut source.tree, list))
}

/// Writes what must stay in front of the image.
fn in_front(front: Option<Contents>, output: Output) -> Result<Counted> {
    let mut counted = Counted { out: output, bytes: 0 };
    if let Some(front) = front {
        let mut reader = front.open()?.take(front.len());
        let copied = io::copy(&mut reader, &mut counted).context("cannot copy the start of the initramfs")?;
        let rest = copied.next_multiple_of(FRONT) - copied;
        io::copy(&mut io::repeat(0).take(rest), &mut counted)?;
    }
    Ok(counted)
}

/// What was packed.
#[derive(Debug, Serialize)]
struct Packed {
    image: String,
    /// Size of the image in bytes.
    bytes: u64,
    entries: u64,
    inodes: u64,
    data: u64,
    /// Bytes of the compressed root: the image, or the chunks of the payload.
    compressed: u64,
    #[serde(serialize_with = "crate::report::as_text")]
    compression: Compression,
    /// The program that runs in the end.
    init: Option<String>,
    /// The program that the runner runs, in one line.
    run: Option<String>,
    payload: Option<WithPayload>,
    /// The modules for `/init`, by kernel.
    modules: Vec<Modules>,
    #[serde(flatten)]
    page: Page,
    ram: Need,
    warnings: Vec<String>,
}

/// What only an image with a payload has.
#[derive(Debug, Serialize)]
struct WithPayload {
    #[serde(flatten)]
    facts: payload::Facts,
    /// Entries of the image that are not in the payload.
    outside: u64,
    /// The memory that the same root would need without `--payload`.
    ram_without: Need,
    /// The memory that it needs with `zram=auto`.
    ram_zram: Need,
}

/// Adds the modules that `--modules` and `--driver` ask for.
fn add_modules(args: &Pack, image: &mut Image) -> Result<(Vec<Modules>, Option<String>)> {
    let drivers = &args.program.driver;
    let config = configuration(image.tree())?;
    let (mut modules, unused) = if args.modules.is_empty() || !drivers.is_empty() && !uses_zram(&config) {
        (Vec::new(), None)
    } else {
        modules::configured(&args.modules, image.tree(), &config)?
    };
    if !drivers.is_empty() {
        modules.extend(modules::for_program(&args.modules, image.tree(), drivers)?);
    }
    image.add_modules(&modules);
    Ok((modules, unused))
}

fn uses_zram(config: &str) -> bool {
    Options::read(Some(config.as_bytes()), &[]).zram != Zram::No
}

/// `/etc/repot.conf`.
fn configuration(tree: &Tree) -> Result<String> {
    Ok(match tree.resolve(config::PATH.as_bytes()).map(|id| &tree.inode(id).kind) {
        Some(Kind::File(contents)) => String::from_utf8_lossy(&contents.read()?).into_owned(),
        _ => String::new(),
    })
}

/// Packs an image that the kernel unpacks whole.
fn whole(args: &Pack, level: u32, image: &Image, page: Page, output: Counted) -> Result<Packed> {
    let (init, warnings) = check(image.tree())?;
    let progress = progress(image.tree());
    let cannot_write = || format!("cannot write {}", args.output.display());
    let encoder = Encoder::new(output, compression(args), level).with_context(cannot_write)?;
    let (encoder, totals) = image.write(encoder, &mut |bytes| progress.inc(bytes))?;
    let counted = encoder.finish_aligned(BLOCK).with_context(cannot_write)?;
    progress.finish_and_clear();
    counted.out.commit()?;
    Ok(Packed {
        image: args.output.display().to_string(),
        bytes: counted.bytes,
        entries: totals.entries,
        inodes: totals.inodes,
        data: totals.bytes,
        compressed: counted.bytes,
        compression: compression(args),
        init,
        run: None,
        payload: None,
        modules: Vec::new(),
        page,
        ram: Footprint::of(image.tree(), page.size).need(counted.bytes),
        warnings,
    })
}

/// Packs an image whose root stays compressed until `/init` unpacks it.
fn payload(
    args: &Pack,
    level: u32,
    image: Image,
    modules: &[Modules],
    page: Page,
    output: Counted,
) -> Result<Packed> {
    let (init, warnings) = check(image.tree())?;
    let progress = progress(image.tree());
    let (inner, mut outer) = image.split()?;
    let mut payload =
        payload::write(&inner, level, output.out.directory(), &mut |bytes| progress.inc(bytes))?;
    payload.index.modules = modules.iter().flat_map(Modules::indexed).collect();
    let index = payload.index.clone();
    outer.add_payload(payload);
    let cannot_write = || format!("cannot write {}", args.output.display());
    let (counted, totals) = outer.write(output, &mut |_| ()).with_context(cannot_write)?;
    progress.finish_and_clear();
    counted.out.commit()?;

    let footprint = Footprint::of(&inner, page.size);
    let facts = payload::Facts::of(&index);
    Ok(Packed {
        image: args.output.display().to_string(),
        bytes: counted.bytes,
        entries: index.entries,
        inodes: index.inodes,
        data: index.bytes,
        compressed: facts.compressed,
        compression: compression(args),
        init,
        modules: Vec::new(),
        run: None,
        page,
        ram: footprint.payload(counted.bytes, facts.compressed),
        payload: Some(WithPayload {
            ram_without: footprint.need(facts.compressed),
            ram_zram: footprint.payload_with_zram(counted.bytes, facts.compressed, facts.zram_thousandths),
            outside: totals.entries,
            facts,
        }),
        warnings,
    })
}

impl Summary for Packed {
    fn text(&self) -> String {
        let (data, compressed) = (size::human(self.data), size::human(self.compressed));
        let entries = format!("{} ({} inodes)", self.entries, self.inodes);
        let init = match (&self.run, &self.init) {
            (Some(program), _) => row("program", program.clone()),
            (None, init) => row("init", init.clone().unwrap_or_else(|| "none".into())),
        };
        let after = size::mib(self.ram.after);
        let Some(WithPayload { facts, outside, ram_without, ram_zram }) = &self.payload else {
            let mut rows = vec![
                row("image", self.image.clone()),
                row("entries", entries),
                row("data", data),
                row("compressed", format!("{compressed} ({})", self.compression)),
                init,
            ];
            rows.extend(self.modules.iter().map(Modules::row).chain(self.page.row()));
            rows.extend([row("RAM to boot", self.ram.to_string()), row("RAM after the move", after)]);
            return table(&rows);
        };
        let mut rows = vec![
            row("image", format!("{} ({})", self.image, size::human(self.bytes))),
            row("entries", format!("{entries}, {outside} outside the payload")),
            row("data", data),
            row("compressed", format!("{compressed} ({}), {} frames", self.compression, facts.frames)),
            init,
        ];
        rows.extend(self.modules.iter().map(Modules::row).chain(self.page.row()));
        rows.extend([
            row("RAM to boot", self.ram.to_string()),
            row("with zram=auto", ram_zram.to_string()),
            row("without --payload", ram_without.to_string()),
            row("RAM after", after),
            row("digest", format!("payload={}", facts.digest)),
        ]);
        table(&rows)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The compression that is asked for, by an option or by the name of the image.
fn compression(args: &Pack) -> Compression {
    // A payload is zstd in an uncompressed archive, whatever the image is called.
    let named = if args.payload { None } else { Compression::of_name(&args.output) };
    args.compress.or(named).unwrap_or(Compression::Zstd)
}

/// The compression level, checked.
fn level(args: &Pack) -> Result<u32> {
    if let Some(other) = args.compress.filter(|compress| args.payload && *compress != Compression::Zstd) {
        return Err(usage(format!("--payload always compresses with zstd: remove --compress {other}")));
    }
    let compression = compression(args);
    let level = args.level.unwrap_or(compression.default_level());
    let levels = compression.levels();
    if !levels.contains(&level) {
        let (lowest, highest) = (levels.start(), levels.end());
        return Err(usage(format!("--level {level}: {compression} has levels {lowest} to {highest}")));
    }
    Ok(level)
}

/// Removes the image of an earlier run from the root, if it was written there.
fn leave_out(args: &Pack, tree: &mut Tree) -> Option<String> {
    let (root, output) = (args.root.canonicalize().ok()?, args.output.canonicalize().ok()?);
    let inside = output.strip_prefix(&root).ok().filter(|_| root.is_dir())?;
    let directory = tree.find(inside.parent()?.as_os_str().as_bytes())?;
    tree.unlink(directory, inside.file_name()?.as_bytes())?;
    Some(format!("{} lies inside the root and was left out of the image", args.output.display()))
}

/// The init that runs in the end, and warnings about the root.
fn check(tree: &Tree) -> Result<(Option<String>, Vec<String>)> {
    let config = configuration(tree)?;
    let program = programs::of_tree(tree);
    let boot = Programs { tree, program: &program, config: &config, repot: true }.boot();
    let mut warnings = boot.problems;
    warnings.extend(programs::surroundings(tree));
    warnings.extend(xattr_list::refused(tree));
    warnings.extend(strangers(tree, boot.init.as_deref()));
    Ok((boot.init, warnings))
}

/// A warning if the root or its init do not belong to root: the image was probably made without root.
fn strangers(tree: &Tree, init: Option<&str>) -> Option<String> {
    let owner = |path: &str| {
        let attributes = &tree.inode(tree.resolve(path.as_bytes())?).attributes;
        (attributes.uid != 0).then(|| format!("{path} belongs to {}:{}", attributes.uid, attributes.gid))
    };
    let found: Vec<String> = [Some("/"), init].into_iter().flatten().filter_map(owner).collect();
    let why = "not to root: use --owner 0:0, --fakeroot FILE, or pack under fakeroot";
    (!found.is_empty()).then(|| format!("{} and {why}", found.join(", ")))
}

pub(super) fn source_date_epoch() -> Result<Option<u32>> {
    let Some(value) = env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(seconds) => Ok(Some(seconds)),
        None => bail!(
            "SOURCE_DATE_EPOCH={} is not a number of seconds from 0 to {}, the range of newc",
            value.display(),
            u32::MAX
        ),
    }
}

/// A progress bar over the contents of all files, visible on a terminal only.
fn progress(tree: &Tree) -> ProgressBar {
    let mut bytes = 0;
    tree.each_inode(&mut |id| {
        if let Kind::File(contents) = &tree.inode(id).kind {
            bytes += contents.len();
        }
    });
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(bytes);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
