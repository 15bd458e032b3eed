//! Where the contents of a file are in an image: the number of the member that carries them.

use std::collections::HashMap;
use std::io::Read;

use anyhow::Result;

use super::place::Placed;
use super::segments::{Segment, Stop, Visit};
use super::spool::{self, Spool};
use crate::newc::{self, Header, Item};
use crate::source::limits::Weight;
use crate::tree::path::split;
use crate::tree::{Attributes, Id, Kind, Tree};

/// The root that the kernel would create, and where the contents of its files are.
#[derive(Debug, Default)]
pub(crate) struct Locate {
    placed: Placed,
    /// By inode, the number of the member with its contents.
    carriers: HashMap<Id, u64>,
    /// The chunks of a payload.
    pub(crate) payload: Spool,
    members: u64,
    segments: usize,
    /// The only segment that counts.
    only: Option<usize>,
    weight: Weight,
}

impl Locate {
    /// Looks at one segment only, if there is a number. The first has the number 1.
    pub(crate) fn new(only: Option<usize>) -> Locate {
        Locate { only, ..Locate::default() }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.placed.tree
    }

    /// The number of the member with the contents of a file. `None` if the file is empty.
    pub(crate) fn carrier(&self, id: Id) -> Option<u64> {
        self.carriers.get(&id).copied()
    }

    /// How many segments the image has.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    fn member(&mut self, header: &Header, data: &mut dyn Read) -> Result<()> {
        let number = self.members;
        self.members += 1;
        if self.only.is_some_and(|only| only != self.segments) {
            return Ok(());
        }
        if header.is_file()
            && let Some(name) = spool::below(&header.name)
        {
            self.payload.member(name, data)?;
        }
        let target = if header.is_symlink() { newc::target(data)? } else { Vec::new() };
        self.weight.add(header.name.len() + target.len())?;
        if self.only.is_some() {
            // Directories may be in an earlier segment.
            let attributes = Attributes { permissions: 0o755, ..Attributes::default() };
            self.placed.tree.make_directories(split(&header.name).0, &attributes);
        }
        let Ok(place) = self.placed.place(header) else { return Ok(()) };
        let id = place.id();
        if header.is_symlink() {
            self.placed.tree.inode_mut(id).kind = Kind::Symlink(target.into());
        } else if header.is_file() && header.filesize > 0 {
            self.carriers.insert(id, number);
        }
        Ok(())
    }
}

impl Visit for Locate {
    fn segment(&mut self, _: Segment) -> Result<()> {
        self.segments += 1;
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => self.member(&header, data)?,
            Item::Skipped(..) => {}
            Item::Trailer => self.placed.trailer(),
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

/// Gives the contents of one member to `take`, and stops.
pub(crate) struct Fetch<F> {
    /// Members before it.
    pub(crate) before: u64,
    pub(crate) take: F,
}

impl<F: FnMut(&mut dyn Read) -> Result<()>> Visit for Fetch<F> {
    fn segment(&mut self, _: Segment) -> Result<()> {
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, data: &mut dyn Read) -> Result<()> {
        if !matches!(item, Item::Member(_)) {
            return Ok(());
        }
        if self.before > 0 {
            self.before -= 1;
            return Ok(());
        }
        (self.take)(data)?;
        Err(Stop.into())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}
