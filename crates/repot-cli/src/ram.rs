//! How much memory an image needs in order to boot.
//!
//! The peak is at the end of the kernel's unpacking: the compressed image is still there, and the whole tree
//! already. A tmpfs root adds a condition of its own: the kernel caps it at half of the memory it counts when
//! it makes it, from which the kernel itself and the compressed image are missing. Moving the root adds
//! nothing to the peak, because the image is gone by then and one chunk per worker is smaller.

use std::fmt;

use serde::Serialize;

use crate::report::size;
use crate::tree::{Id, Kind, Tree};

const PAGE: u64 = 4096;

/// Inode and directory entry, ramfs and tmpfs alike.
const INODE: u64 = 1024;

/// A stock Debian kernel with its early allocations and room to unpack: measured as the least that boots on 6.12, rounded up.
pub const KERNEL: u64 = 80 << 20;

/// What is missing, besides the image, from the memory that a tmpfs root is half of. Measured: such a root
/// has 57 581 pages in a machine of 512 MiB.
const EARLY: u64 = 60 << 20;

/// Sizes are rounded up to steps of this.
const STEP: u64 = 8 << 20;

/// What is counted in a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Bytes of files in whole pages.
    pub data: u64,
    /// Inodes.
    pub inodes: u64,
    /// Symbolic links: each takes a page on ramfs.
    pub symlinks: u64,
}

/// The memory needed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Need {
    /// With a ramfs root (`rootfstype=ramfs`, or any `root=`).
    pub ramfs: u64,
    /// With a tmpfs root, which is the default.
    pub tmpfs: u64,
    /// In use when the init runs on the new root.
    pub after: u64,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tmpfs, ramfs) = (size::mib(self.tmpfs), size::mib(self.ramfs));
        write!(f, "about {tmpfs} (tmpfs root) or {ramfs} (rootfstype=ramfs)")
    }
}

impl Footprint {
    /// Adds an inode with this much data.
    pub fn add(&mut self, kind_is_symlink: bool, bytes: u64) {
        self.inodes += 1;
        self.symlinks += u64::from(kind_is_symlink);
        if !kind_is_symlink {
            self.data = self.data.saturating_add(bytes.div_ceil(PAGE).saturating_mul(PAGE));
        }
    }

    /// What a tree takes.
    #[must_use]
    pub fn of(tree: &Tree) -> Footprint {
        let mut footprint = Footprint::default();
        footprint.add(false, 0);
        tree.each_inode(&mut |id: Id| match &tree.inode(id).kind {
            Kind::File(contents) => footprint.add(false, contents.len()),
            Kind::Symlink(_) => footprint.add(true, 0),
            Kind::Directory(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => {
                footprint.add(false, 0);
            }
        });
        footprint
    }

    /// The tree in memory, on ramfs.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.on_tmpfs().saturating_add(self.symlinks * PAGE)
    }

    fn on_tmpfs(&self) -> u64 {
        self.data.saturating_add(self.inodes * INODE)
    }

    /// The memory to boot it as a payload of `compressed` bytes in an image of `image` bytes. The kernel has image and chunks in
    /// memory at once; then chunks go as the tree grows.
    #[must_use]
    pub fn payload(&self, image: u64, compressed: u64) -> Need {
        let unpacking = self.on_tmpfs().saturating_add(UNPACKING);
        let need = round(KERNEL.saturating_add(unpacking.max(image.saturating_add(compressed))));
        // On a tmpfs root the chunks have to fit into half of the memory that the kernel counts then.
        let cap = round(compressed.saturating_mul(2).saturating_add(image).saturating_add(EARLY));
        Need { ramfs: need, tmpfs: need.max(cap), after: round(KERNEL.saturating_add(self.on_tmpfs())) }
    }

    /// The memory to boot it from an image of `compressed` bytes.
    #[must_use]
    pub fn need(&self, compressed: u64) -> Need {
        let peak = |tree: u64| round(KERNEL.saturating_add(compressed).saturating_add(tree));
        let cap = round(self.data.saturating_mul(2).saturating_add(compressed).saturating_add(EARLY));
        Need {
            ramfs: peak(self.unpacked()),
            tmpfs: peak(self.on_tmpfs()).max(cap),
            after: round(KERNEL.saturating_add(self.on_tmpfs())),
        }
    }
}

/// What `/init` needs at the end of a payload, beyond what [`KERNEL`] allows for: a thread, and chunks that are not used up yet.
const UNPACKING: u64 = 4 << 20;

fn round(bytes: u64) -> u64 {
    bytes.div_ceil(STEP).saturating_mul(STEP)
}
