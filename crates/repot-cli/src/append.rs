//! `repot append`: adds repot to an initramfs that exists, as one more segment behind the others, which stay
//! as they are.
//!
//! The kernel unpacks segments in order and lets later members override earlier ones. The image is read once
//! to know what to chain to, and copied unchanged.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::cli::Append;
use crate::codec::{Compression, Encoder};
use crate::config::{self, Setting};
use crate::image::{NODES, REAL_INIT};
use crate::init_binary::{self, InitBinary};
use crate::inspect::Survey;
use crate::newc::{Header, Writer};
use crate::output::{self, Output};
use crate::segments;
use crate::tree::{Id, Kind, Tree};
use crate::{marker, report};

/// What an archive appended to may be aligned to; the kernel wants four.
const ALIGNMENT: u64 = 512;

/// Runs the command.
pub fn run(args: &Append) -> Result<()> {
    let shown = args.initramfs.display().to_string();
    let init = init_binary::find(args.init.as_deref())?;
    let mut input = File::open(&args.initramfs).with_context(|| format!("cannot open {shown}"))?;
    let mut survey = Survey::keeping(b"init");
    segments::read(&mut input, &mut survey).with_context(|| shown.clone())?;
    let source = survey.source(b"init");
    if source != b"init" {
        // The data came with another name of the same file.
        input.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read {shown}"))?;
        survey = Survey::keeping(&source);
        segments::read(&mut input, &mut survey).with_context(|| shown.clone())?;
    }
    let compression = compression(&survey).with_context(|| shown.clone())?;
    let mut segment = Segment::new(&survey.tree);
    segment.fill(&survey, &init, args).with_context(|| shown.clone())?;

    let output = Output::create(&args.output)?;
    input.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read {shown}"))?;
    let offset = write(&mut input, &segment.finish()?, compression, output)
        .with_context(|| format!("cannot copy {shown}"))
        .map_err(output::cause)?;

    let row = |name: &str, value: String| (name.to_string(), value);
    let rows = [
        row("image", args.output.display().to_string()),
        row("segment", format!("at byte {offset}, {compression}")),
        row("boots with", args.rdinit.as_ref().map_or("/init".into(), |path| format!("rdinit={path}"))),
    ];
    // When the image itself goes to standard output, the table must not.
    let table = report::table(&rows);
    if args.output.as_os_str() == "-" {
        io::stderr().write_all(table.as_bytes())?;
    } else {
        io::stdout().write_all(table.as_bytes())?;
    }
    Ok(())
}

/// Copies the image and puts the segment behind it, at the offset that is returned.
fn write(image: &mut File, segment: &[u8], compression: Compression, mut output: Output) -> Result<u64> {
    let copied = io::copy(image, &mut output)?;
    let offset = copied.next_multiple_of(ALIGNMENT);
    io::copy(&mut io::repeat(0).take(offset - copied), &mut output)?;
    let mut encoder = Encoder::new(output, compression, compression.default_level())?;
    encoder.write_all(segment)?;
    encoder.finish()?.commit()?;
    Ok(offset)
}

/// What the kernel reads for certain: the compression that the image ends with.
fn compression(survey: &Survey) -> Result<Compression> {
    let last = survey.segments.last().context("there is nothing in it")?;
    Ok(match last.compression {
        Compression::Lz4 => {
            bail!("it ends with an lz4 segment, which has no end: the kernel finds nothing behind it")
        }
        // Not written by anyone any more; plain members are read everywhere.
        Compression::Lzma => Compression::None,
        Compression::Zstd | Compression::Gzip | Compression::Xz | Compression::None => last.compression,
    })
}

/// The members to add, in memory: the init and a few small files.
struct Segment<'a> {
    tree: &'a Tree,
    writer: Writer<Vec<u8>>,
    ino: u32,
}

impl<'a> Segment<'a> {
    fn new(tree: &'a Tree) -> Segment<'a> {
        Segment { tree, writer: Writer::new(Vec::new()), ino: 0 }
    }

    fn fill(&mut self, survey: &Survey, init: &InitBinary, args: &Append) -> Result<()> {
        let mut settings = Vec::new();
        let name = match &args.rdinit {
            Some(path) => path.trim_start_matches('/').to_string(),
            None => "init".to_string(),
        };
        let chained = if args.rdinit.is_some() {
            self.chain_elsewhere(survey)?
        } else {
            self.chain(survey, init, !args.config.is_empty())?
        };
        if let Some(path) = chained {
            settings.push(Setting { key: "init".into(), value: path });
        }
        settings.extend(args.config.iter().cloned());
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.directories(parent)?;
        if args.rdinit.is_none() {
            // A file of the same type would be overwritten in place, and with it every hard link to it: make
            // the kernel remove it by putting something of another type there first.
            self.member(b"init", 0o120_777, b"init.real")?;
        }
        self.member(name.as_bytes(), 0o100_755, &init.bytes)?;
        self.member(marker::BEGIN, 0o100_444, b"")?;
        self.nodes()?;
        let text = settings.iter().fold(survey.config.clone(), |text, setting| config::set(&text, setting));
        if text != survey.config {
            self.directories("etc")?;
            self.member(config::PATH.as_bytes(), 0o100_644, text.as_bytes())?;
        }
        Ok(())
    }

    /// Keeps the image's own `/init` under another name, to run after the move.
    fn chain(&mut self, survey: &Survey, init: &InitBinary, settings: bool) -> Result<Option<String>> {
        let same = survey.kept.as_deref() == Some(&*init.bytes);
        ensure!(!same || settings, "its /init is this repot already, and no --config changes anything");
        if same || survey.repot() {
            return Ok(None);
        }
        let id = self.tree.child(Tree::ROOT, b"init");
        let id =
            id.context("it has no /init to run after the move (give --rdinit PATH to leave it as it is)")?;
        ensure!(
            self.tree.child(Tree::ROOT, REAL_INIT.as_bytes()).is_none(),
            "it has an /init that is not repot and /{REAL_INIT} too"
        );
        match &self.tree.inode(id).kind {
            Kind::Symlink(target) => self.kept(id, target)?,
            Kind::File(_) => {
                let bytes = survey.kept.as_deref().context(
                    "its /init is empty, or larger than 16 MiB (give --rdinit PATH to leave it as it is)",
                )?;
                self.kept(id, bytes)?;
            }
            Kind::Directory(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => {
                bail!("its /init is no program")
            }
        }
        Ok(Some(format!("/{REAL_INIT}")))
    }

    /// The image's own `/init` under its other name, as it was.
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
        ensure!(!survey.repot(), "its /init is repot already");
        Ok(self.tree.child(Tree::ROOT, b"init").map(|_| "/init".to_string()))
    }

    fn nodes(&mut self) -> Result<()> {
        let missing: Vec<_> = NODES
            .iter()
            .filter(|(name, ..)| self.tree.resolve(&[b"dev/", *name].concat()).is_none())
            .collect();
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

    /// Adds the directories of a path that the image has not, and leaves those alone that it has.
    fn directories(&mut self, path: &str) -> Result<()> {
        let mut whole = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !whole.is_empty() {
                whole.push('/');
            }
            whole += name;
            match self.tree.resolve(whole.as_bytes()) {
                None => self.member(whole.as_bytes(), 0o040_755, b"")?,
                Some(id) => ensure!(self.tree.entries(id).is_some(), "/{whole} is no directory"),
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
        let text = marker::contents(self.writer.totals());
        self.member(marker::NAME, 0o100_444, text.as_bytes())?;
        Ok(self.writer.finish()?)
    }
}
