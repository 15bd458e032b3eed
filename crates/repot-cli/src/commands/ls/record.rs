//! What `ls -l` and `ls --json` print of a member.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::newc::Header;
use crate::report::name::{self, printed};
use crate::report::{mode, time};
use crate::source::limits::Weight;
use crate::survey::place::Placed;
use crate::tree::Kind;

/// One member, or one entry of a payload.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) header: Header,
    /// The target of a symbolic link.
    pub(super) target: Vec<u8>,
    /// Why the kernel skips it.
    pub(super) skipped: Option<&'static str>,
    /// The number of its segment; `None` in a payload.
    pub(super) segment: Option<usize>,
    /// Whether a later one has the same name.
    pub(super) overridden: bool,
    /// The size of a file in a payload, which can have 4 GiB and more.
    pub(super) size: Option<u64>,
}

/// All that are listed.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: Vec<Record>,
    /// By name, the last one with it.
    last: HashMap<Vec<u8>, usize>,
    /// What the kernel makes of them.
    placed: Placed,
    weight: Weight,
}

/// The JSON of a record.
#[derive(Serialize)]
struct Json {
    name: String,
    /// All bytes of the name in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    /// The number of the segment, or null for an entry of the payload.
    segment: Option<usize>,
    r#type: &'static str,
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    ino: u32,
    overridden: bool,
    skipped: Option<&'static str>,
}

impl Records {
    /// Why the kernel loses a member, if it does.
    pub(super) fn place(&mut self, header: &Header, target: &[u8]) -> Result<Option<&'static str>> {
        self.weight.add(header.name.len() + target.len())?;
        Ok(match self.placed.place(header) {
            Ok(place) => {
                if header.is_symlink() {
                    self.placed.tree.inode_mut(place.id()).kind = Kind::Symlink(target.into());
                }
                None
            }
            Err(lost) => Some(lost.why()),
        })
    }

    /// The end of an archive.
    pub(super) fn trailer(&mut self) {
        self.placed.trailer();
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        self.weight.add(2 * record.header.name.len() + record.target.len())?;
        let number = self.all.len();
        if record.skipped.is_none() {
            let before = self.last.insert(record.header.name.clone(), number);
            // A directory that comes again gets the attributes of the last one, and keeps its entries.
            if let Some(before) = before.map(|before| &mut self.all[before])
                && !(before.header.is_dir() && record.header.is_dir())
            {
                before.overridden = true;
            }
        }
        self.all.push(record);
        Ok(())
    }

    pub(super) fn long(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |text: &dyn Fn(&Record) -> String| {
            self.all.iter().map(|record| text(record).len()).max().unwrap_or(0)
        };
        let (from, owner) = (width(&Record::from), width(&Record::owner));
        let (size, links) = (width(&Record::measure), width(&|record| record.header.nlink.to_string()));
        for record in &self.all {
            let Record { header, .. } = record;
            write!(
                out,
                "{:>from$} {} {:>links$} {:>owner$} {:>size$} {} ",
                record.from(),
                mode::letters(header.mode),
                header.nlink,
                record.owner(),
                record.measure(),
                time::utc(header.mtime),
            )?;
            printed(out, &header.name)?;
            if header.is_symlink() {
                out.write_all(b" -> ")?;
                printed(out, &record.target)?;
            }
            if record.overridden {
                out.write_all(b" (overridden)")?;
            }
            if let Some(why) = record.skipped {
                write!(out, " (skipped by the kernel: {why})")?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    pub(super) fn json(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, record) in self.all.iter().enumerate() {
            out.write_all(if number == 0 { b"[\n  " } else { b",\n  " })?;
            serde_json::to_writer(&mut *out, &record.json())?;
        }
        out.write_all(if self.all.is_empty() { b"[]\n" } else { b"\n]\n" })
    }
}

impl Record {
    fn from(&self) -> String {
        self.segment.map_or_else(|| "payload".to_string(), |segment| segment.to_string())
    }

    fn owner(&self) -> String {
        format!("{} {}", self.header.uid, self.header.gid)
    }

    fn bytes(&self) -> u64 {
        self.size.unwrap_or_else(|| self.header.filesize.into())
    }

    /// The size, or the numbers of a device.
    fn measure(&self) -> String {
        if self.header.is_device() {
            return format!("{}, {}", self.header.rdevmajor, self.header.rdevminor);
        }
        self.bytes().to_string()
    }

    fn json(&self) -> Json {
        let Record { header, target, .. } = self;
        Json {
            name: String::from_utf8_lossy(&header.name).into_owned(),
            name_hex: name::hexadecimal(&header.name),
            segment: self.segment,
            r#type: mode::kind(header.mode),
            mode: format!("{:04o}", header.mode & 0o7777),
            nlink: header.nlink,
            uid: header.uid,
            gid: header.gid,
            size: self.bytes(),
            mtime: header.mtime,
            device: header.is_device().then_some([header.rdevmajor, header.rdevminor]),
            target: header.is_symlink().then(|| String::from_utf8_lossy(target).into_owned()),
            ino: header.ino,
            overridden: self.overridden,
            skipped: self.skipped,
        }
    }
}
