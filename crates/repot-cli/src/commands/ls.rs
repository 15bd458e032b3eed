//! `repot ls`: lists the members of an image, in their order.
//!
//! Names alone are printed while the image is read. `-l` and `--json` say which members are overridden, so
//! they wait for the end, and keep names and attributes in memory.

mod record;

use std::io::{self, BufWriter, Read, Stdout, Write};

use anyhow::{Context, Result, bail};

use self::record::Records;
use crate::cli::Ls;
use crate::newc::{self, Header, Item};
use crate::report::name::printed;
use crate::report::quiet;
use crate::source::exclude::Pattern;
use crate::survey::file::ImageFile;
use crate::survey::segments::{Segment, Visit};
use crate::survey::spool::{self, Spool};
use crate::tree::{Attributes, Id, Kind, Tree};

/// Runs the command. What comes before a corruption is listed, and the command fails.
pub fn run(args: &Ls) -> Result<()> {
    let mut image = ImageFile::open(&args.image)?;
    let mut list = List {
        patterns: args.patterns.iter().map(|pattern| Pattern::new(pattern)).collect(),
        out: Out(BufWriter::with_capacity(64 << 10, io::stdout())),
        records: (args.long || args.json).then(Records::default),
        segment: 0,
        listed: 0,
        payload: Spool::default(),
    };
    let mut read = image.read(&mut list);
    if read.is_ok() && list.segment == 0 {
        bail!("{} is empty", image.name());
    }
    if read.is_ok() && !list.payload.is_empty() {
        read = list.payload().with_context(|| image.name().to_string());
    }
    let List { records, out: Out(mut out), listed, patterns, .. } = list;
    let printed = match records {
        Some(records) if args.json => records.json(&mut out),
        Some(records) => records.long(&mut out),
        None => Ok(()),
    };
    quiet(printed.and_then(|()| out.flush()))?;
    read?;
    if listed == 0 && !patterns.is_empty() {
        bail!("{}: nothing fits {}", image.name(), args.patterns.join(" "));
    }
    Ok(())
}

struct Out(BufWriter<Stdout>);

impl Out {
    fn line(&mut self, name: &[u8]) -> Result<()> {
        quiet(printed(&mut self.0, name).and_then(|()| self.0.write_all(b"\n")))
    }
}

struct List {
    patterns: Vec<Pattern>,
    out: Out,
    /// What `-l` and `--json` print at the end.
    records: Option<Records>,
    /// The number of the segment.
    segment: usize,
    listed: u64,
    payload: Spool,
}

impl List {
    fn wants(&self, name: &[u8]) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.covers(name))
    }

    fn add(&mut self, header: Header, skipped: Option<&'static str>, data: &mut dyn Read) -> Result<()> {
        let wanted = self.wants(&header.name);
        self.listed += u64::from(wanted);
        let Some(records) = &mut self.records else {
            return if wanted { self.out.line(&header.name) } else { Ok(()) };
        };
        let read = header.is_symlink() && skipped.is_none();
        let target = if read { newc::target(data)? } else { Vec::new() };
        let skipped = match skipped {
            Some(why) => Some(why),
            None => records.place(&header, &target)?,
        };
        if !wanted {
            return Ok(());
        }
        let segment = Some(self.segment);
        records.add(record::Record { header, target, skipped, segment, overridden: false, size: None })
    }

    /// Lists the entries of the payload.
    fn payload(&mut self) -> Result<()> {
        // Nothing is laid over it here.
        let root = self.payload.open(&Tree::new(Attributes::default()))?.tree;
        let names = root.count_names();
        let mut entries = vec![(b".".to_vec(), Tree::ROOT)];
        below(&root, &mut Vec::new(), Tree::ROOT, &mut entries);
        for (number, (path, id)) in entries.into_iter().enumerate() {
            if !self.wants(&path) {
                continue;
            }
            self.listed += 1;
            let Some(records) = &mut self.records else {
                self.out.line(&path)?;
                continue;
            };
            let inode = root.inode(id);
            let (mut header, mut target, mut size) = (Header::default(), Vec::new(), None);
            match &inode.kind {
                Kind::Symlink(to) => {
                    target = to.to_vec();
                    size = Some(to.len() as u64);
                }
                Kind::Character(major, minor) | Kind::Block(major, minor) => {
                    (header.rdevmajor, header.rdevminor) = (*major, *minor);
                }
                Kind::File(contents) => size = Some(contents.len()),
                Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
            }
            let attributes = &inode.attributes;
            let header = Header {
                name: path,
                ino: u32::try_from(number).unwrap_or(u32::MAX),
                mode: inode.mode(),
                uid: attributes.uid,
                gid: attributes.gid,
                mtime: attributes.mtime,
                nlink: names.get(&id).copied().unwrap_or(1),
                ..header
            };
            records.add(record::Record {
                header,
                target,
                skipped: None,
                segment: None,
                overridden: false,
                size,
            })?;
        }
        Ok(())
    }
}

/// Collects the entries below a directory, parents first.
fn below(tree: &Tree, path: &mut Vec<u8>, directory: Id, entries: &mut Vec<(Vec<u8>, Id)>) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        entries.push((path.clone(), id));
        below(tree, path, id, entries);
        path.truncate(parent);
    }
}

impl Visit for List {
    fn segment(&mut self, _: Segment) -> Result<()> {
        self.segment += 1;
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => {
                if header.is_file()
                    && let Some(name) = spool::below(&header.name)
                {
                    self.payload.member(name, data)?;
                }
                self.add(header, None, data)
            }
            Item::Skipped(header, why) => self.add(header, Some(why), data),
            Item::Trailer => {
                if let Some(records) = &mut self.records {
                    records.trailer();
                }
                Ok(())
            }
        }
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}
