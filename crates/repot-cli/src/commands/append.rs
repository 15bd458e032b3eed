//! `repot append`: adds repot to an existing initramfs as one more segment.
//!
//! The kernel unpacks segments in order, and later members override earlier ones. The image is read once to
//! find the init to run after the move, and then copied unchanged.

mod place;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use repot::marker;
use serde::Serialize;

use self::place::Place;
use super::boot::Member;
use crate::cli::Append;
use crate::codec::{Compression, Encoder};
use crate::image::config::{self, Setting};
use crate::image::{NODES, REAL_INIT};
use crate::init_binary::{self, InitBinary};
use crate::modules::{self, Modules};
use crate::newc::{Header, Writer};
use crate::output::{self, BLOCK, Counted, Output};
use crate::programs::Programs;
use crate::report::{Format, Summary, finish, row, table};
use crate::survey::Survey;
use crate::survey::file::ImageFile;
use crate::tree::{Attributes, Id, Kind, Tree};

/// Runs the command.
pub fn run(args: &Append) -> Result<()> {
    let shown = args.initramfs.display().to_string();
    let mut file = ImageFile::open_to_seek(&args.initramfs)?;
    let place = Place::of(&file)?;
    let mut survey = Survey::keeping(b"init");
    file.read(&mut survey)?;
    ensure!(!survey.segments.is_empty(), "{shown} is empty");
    let source = survey.source(b"init");
    if source != b"init" {
        // The data came with another name of the same file.
        survey = Survey::keeping(&source);
        file.read(&mut survey)?;
    }
    let given = args.init.as_deref();
    // The init that the image needs: one without payload support would refuse it.
    let target = survey.architecture();
    let init = if survey.payload.is_empty() {
        init_binary::find(given, target)?
    } else {
        init_binary::find_for_payload(given, target).context("the image has a payload")?
    };
    let compression = compression(&survey).with_context(|| shown.clone())?;
    let mut segment = Segment::new(survey.tree());
    let text = segment.fill(&survey, &init, args).with_context(|| shown.clone())?;
    let (modules, unused) = drivers(args, &text)?;
    segment.modules(&modules)?;
    let mut warnings = warnings(&survey);
    warnings.extend(init.warning.clone());
    warnings.append(&mut segment.warnings);
    warnings.extend(unused);

    let output = Output::create(&args.output)?;
    let new = New { segment: segment.finish()?, compression, bootconfig: survey.bootconfig.take() };
    let (offset, warning) =
        place.write(new, output).with_context(|| format!("cannot copy {shown}")).map_err(output::cause)?;
    warnings.extend(warning);

    let format = Format { json: args.json, stdout_taken: output::is_stdout(&args.output) };
    let image = args.output.display().to_string();
    let rdinit = args.rdinit.clone();
    finish(format, &Appended { image, offset, compression, rdinit, modules, warnings })
}

/// Copies an image and adds these members behind it: paths, modes and contents.
pub(super) fn members(input: &mut File, survey: &mut Survey, members: &[Member], path: &Path) -> Result<()> {
    let mut segment = Segment::new(survey.tree());
    for (name, mode, contents) in members {
        segment.member(name.as_bytes(), *mode, contents)?;
    }
    segment.member(marker::BEGIN.as_bytes(), 0o100_444, b"")?;
    let segment = segment.finish()?;
    // Every kernel reads uncompressed members.
    let new = New { segment, compression: Compression::None, bootconfig: survey.bootconfig.take() };
    let bytes = input.seek(SeekFrom::End(0))?;
    input.seek(SeekFrom::Start(0))?;
    let written = new.write(input, bytes, Output::create(path)?).and_then(|(_, output)| output.commit());
    written.map_err(output::cause)
}

/// What was appended.
#[derive(Debug, Serialize)]
struct Appended {
    image: String,
    /// The first byte of the new segment in the image.
    offset: u64,
    #[serde(serialize_with = "crate::report::as_text")]
    compression: Compression,
    /// The path for `rdinit=`, unless repot is `/init`.
    rdinit: Option<String>,
    /// The modules for `/init`, by kernel.
    modules: Vec<Modules>,
    warnings: Vec<String>,
}

impl Summary for Appended {
    fn text(&self) -> String {
        let boots_with = self.rdinit.as_ref().map_or("/init".into(), |path| format!("rdinit={path}"));
        let mut rows = vec![
            row("image", self.image.clone()),
            row("segment", format!("at byte {}, {}", self.offset, self.compression)),
            row("boots with", boots_with),
        ];
        rows.extend(self.modules.iter().map(Modules::row));
        table(&rows)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The modules that `--modules` asks for, and a warning if the configuration does not use them. The modules
/// of the image itself are compressed in it, so "auto" means this machine's.
fn drivers(args: &Append, config: &str) -> Result<(Vec<Modules>, Option<String>)> {
    if args.modules.is_empty() {
        return Ok((Vec::new(), None));
    }
    modules::configured(&args.modules, &Tree::new(Attributes::default()), config)
}

/// What the kernel will not read of the image that was extended.
fn warnings(survey: &Survey) -> Vec<String> {
    let mut warnings = survey.problems.clone();
    if survey.segments.last().is_some_and(|last| last.compression == Compression::Lz4) {
        warnings.push(
            "the new segment follows an lz4 segment: kernels before 5.14 find it only if they have a later fix \
             (lib/decompress_unlz4.c, zero padding)"
                .into(),
        );
    }
    warnings
}

/// What comes behind the image.
struct New {
    segment: Vec<u8>,
    compression: Compression,
    /// The boot configuration of the image, which must be at the end.
    bootconfig: Option<Vec<u8>>,
}

impl New {
    /// Copies an image of so many bytes and writes the segment after it. Returns the offset of the segment,
    /// and the output, which is not committed yet.
    fn write(self, image: &mut dyn Read, bytes: u64, output: Output) -> Result<(u64, Output)> {
        let bootconfig = self.bootconfig.unwrap_or_default();
        let mut output = Counted { out: output, bytes: 0 };
        io::copy(&mut image.take(bytes - bootconfig.len() as u64), &mut output)?;
        // Zeros cost nothing, and after lz4 they are needed.
        output.align(Compression::Lz4.end_zeros())?;
        let offset = output.bytes;
        let mut encoder = Encoder::new(output, self.compression, self.compression.default_level())?;
        encoder.write_all(&self.segment)?;
        let mut output = encoder.finish_aligned(BLOCK)?;
        output.write_all(&bootconfig)?;
        Ok((offset, output.out))
    }
}

/// The compression of the last segment, which this kernel can certainly read.
fn compression(survey: &Survey) -> Result<Compression> {
    Ok(survey.segments.last().context("the image is empty")?.compression)
}

/// The members to add: the init and a few small files.
struct Segment<'a> {
    tree: &'a Tree,
    writer: Writer<Vec<u8>>,
    ino: u32,
    warnings: Vec<String>,
}

impl<'a> Segment<'a> {
    fn new(tree: &'a Tree) -> Segment<'a> {
        Segment { tree, writer: Writer::new(Vec::new()), ino: 0, warnings: Vec::new() }
    }

    /// Adds everything but modules, and returns the configuration of the whole image.
    fn fill(&mut self, survey: &Survey, init: &InitBinary, args: &Append) -> Result<String> {
        let mut settings = Vec::new();
        let name = match &args.rdinit {
            Some(path) => path.trim_start_matches('/').to_string(),
            None => "init".to_string(),
        };
        let chained = if args.rdinit.is_some() {
            self.chain_elsewhere(survey)?
        } else {
            self.chain(survey, init, !args.config.is_empty() || !args.modules.is_empty())?
        };
        let named = args.config.iter().any(|setting| setting.key == "init");
        if let Some(path) = chained.filter(|_| !named) {
            settings.push(Setting { key: "chain".into(), value: path });
        }
        settings.extend(args.config.iter().cloned());
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.directories(parent)?;
        if args.rdinit.is_none() {
            // The kernel would overwrite an existing file in place, through every hard link to it. A member
            // of another type makes it remove the file first.
            self.member(b"init", 0o120_777, b"init.real")?;
        }
        self.member(name.as_bytes(), 0o100_755, &init.bytes)?;
        self.member(marker::BEGIN.as_bytes(), 0o100_444, b"")?;
        self.nodes()?;
        self.configuration(survey, &settings)
    }

    /// Writes `/etc/repot.conf` with these settings, and returns its text. A link is replaced, and the file
    /// that it led to stays.
    fn configuration(&mut self, survey: &Survey, settings: &[Setting]) -> Result<String> {
        let before = survey.config();
        let text = settings.iter().fold(before.to_string(), |text, setting| config::set(&text, setting));
        if text == before {
            return Ok(text);
        }
        ensure!(
            !survey.config_is_unknown(),
            "/etc/repot.conf is a link to a file that is not called repot.conf: make it a file"
        );
        self.directories("etc")?;
        if self.tree.resolve(config::PATH.as_bytes()).is_some() {
            // The kernel would write through every hard link. Another type makes it remove the name first.
            self.member(config::PATH.as_bytes(), 0o120_777, b"/dev/null")?;
        }
        self.member(config::PATH.as_bytes(), 0o100_644, text.as_bytes())?;
        Ok(text)
    }

    fn modules(&mut self, all: &[Modules]) -> Result<()> {
        for modules in all.iter().filter(|modules| !modules.names.is_empty()) {
            let folder = format!("{}/{}", repot::modules::DIRECTORY, modules.release);
            self.directories(&folder)?;
            for (name, bytes) in modules.members() {
                self.member(format!("{folder}/{name}").as_bytes(), 0o100_400, &bytes)?;
            }
        }
        Ok(())
    }

    /// Keeps the image's own `/init` under another name, to run after the move.
    fn chain(&mut self, survey: &Survey, init: &InitBinary, settings: bool) -> Result<Option<String>> {
        let same = survey.kept.as_deref() == Some(&*init.bytes);
        ensure!(
            !same || settings,
            "/init is already repot, and neither --config nor --modules adds anything: nothing to do"
        );
        if same || survey.repot() {
            return Ok(None);
        }
        let Some(id) = self.tree.child(Tree::ROOT, b"init") else {
            // Without chain=, the init looks for /sbin/init and so on itself.
            let program = |id| survey.program(id);
            let root = Programs { tree: self.tree, program: &program, config: survey.config(), repot: true };
            ensure!(
                root.finds_init(),
                "the image has no /init to run after the move, and no /sbin/init, /etc/init, /bin/init or /bin/sh that \
                 can run"
            );
            return Ok(None);
        };
        ensure!(
            self.tree.child(Tree::ROOT, REAL_INIT.as_bytes()).is_none(),
            "the image has an /init that is not repot, and /{REAL_INIT} exists too: use --rdinit PATH"
        );
        match &self.tree.inode(id).kind {
            Kind::Symlink(target) => self.kept(id, target)?,
            Kind::File(_) => {
                let kept = survey.kept.as_deref();
                let bytes = kept.context("/init is empty or larger than 512 MiB: use --rdinit PATH")?;
                self.kept(id, bytes)?;
            }
            Kind::Directory(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => {
                bail!("/init is not a program: use --rdinit PATH")
            }
        }
        Ok(Some(format!("/{REAL_INIT}")))
    }

    /// Adds the image's own `/init` under its new name, with its attributes.
    fn kept(&mut self, id: Id, data: &[u8]) -> Result<()> {
        let inode = self.tree.inode(id);
        let header = Header {
            name: REAL_INIT.as_bytes().to_vec(),
            ino: self.number(),
            mode: inode.mode(),
            uid: inode.attributes.uid,
            gid: inode.attributes.gid,
            mtime: inode.attributes.mtime,
            nlink: 1,
            ..Header::default()
        };
        Ok(self.writer.append(&header, data)?)
    }

    /// With `rdinit=` the image's own `/init` stays where it is.
    fn chain_elsewhere(&self, survey: &Survey) -> Result<Option<String>> {
        ensure!(!survey.repot(), "/init is already repot: --rdinit is for images with another /init");
        Ok(self.tree.child(Tree::ROOT, b"init").map(|_| "/init".to_string()))
    }

    /// Adds the device nodes that the image does not have, or has as something else: `docker export` leaves
    /// an empty file at `/dev/console`, into which all output would go.
    fn nodes(&mut self) -> Result<()> {
        let is_missing = |(name, major, minor, _): &&(&[u8], u32, u32, u32)| {
            let found = self.tree.resolve(&[b"dev/", *name].concat());
            match found.map(|id| &self.tree.inode(id).kind) {
                Some(Kind::Character(has, also)) => (has, also) != (major, minor),
                // The kernel keeps a directory with entries.
                Some(Kind::Directory(entries)) => entries.is_empty(),
                Some(_) | None => true,
            }
        };
        let missing: Vec<_> = NODES.iter().filter(is_missing).collect();
        for (name, major, minor, _) in &missing {
            let path = [b"dev/", *name].concat();
            if let Some(id) = self.tree.resolve(&path) {
                let (name, kind) = (name.escape_ascii(), self.tree.inode(id).kind.noun());
                self.warnings
                    .push(format!("/dev/{name} was {kind}: replaced with the device {major}:{minor}"));
            }
        }
        if !missing.is_empty() {
            self.directories("dev")?;
        }
        for (name, major, minor, permissions) in missing {
            let header = Header {
                name: [b"dev/", *name].concat(),
                ino: self.number(),
                mode: 0o020_000 | permissions,
                nlink: 1,
                rdevmajor: *major,
                rdevminor: *minor,
                ..Header::default()
            };
            self.writer.append(&header, &[])?;
        }
        Ok(())
    }

    /// Adds the directories of a path that do not exist in the image.
    fn directories(&mut self, path: &str) -> Result<()> {
        let mut whole = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !whole.is_empty() {
                whole.push('/');
            }
            whole += name;
            match self.tree.resolve(whole.as_bytes()) {
                None => self.member(whole.as_bytes(), 0o040_755, b"")?,
                Some(id) => {
                    ensure!(self.tree.entries(id).is_some(), "/{whole} in the image is not a directory")
                }
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &[u8], mode: u32, data: &[u8]) -> Result<()> {
        let header = Header { name: name.to_vec(), ino: self.number(), mode, nlink: 1, ..Header::default() };
        Ok(self.writer.append(&header, data)?)
    }

    fn number(&mut self) -> u32 {
        self.ino += 1;
        self.ino
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        let text = self.writer.totals().to_string();
        self.member(marker::END.as_bytes(), 0o100_444, text.as_bytes())?;
        Ok(self.writer.finish()?)
    }
}
