//! The memory that an image needs to boot.
//!
//! The peak is at the end of the kernel's unpacking, when both the compressed image and the whole tree are
//! in memory. A tmpfs root has a limit too: half of the memory that the kernel counts when it mounts the
//! root, which is all memory except for the kernel and the compressed image. Moving the root does not raise
//! the peak: the image is freed by then, and it is larger than one chunk for each worker.

use std::fmt;

use anyhow::Result;
use repot::facts::program::Architecture;
use serde::Serialize;

use crate::architecture;
use crate::errors::usage;
use crate::report::{row, size};
use crate::tree::{Id, Kind, Tree};

/// Bytes of an inode and its directory entry, on ramfs and on tmpfs.
const INODE: u64 = 1024;

/// Bytes for a stock Debian kernel, its early allocations and its decompressor. Measured on 6.12 as the
/// minimum that boots, and rounded up.
pub const KERNEL: u64 = 80 << 20;

/// Bytes that the kernel does not count for the limit of a tmpfs root, besides the image. Measured: in a
/// machine of 512 MiB the limit is 57,581 pages.
const EARLY: u64 = 60 << 20;

/// Results are rounded up to a multiple of this.
const STEP: u64 = 8 << 20;

/// The size of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// The size of a page.
    pub page: u64,
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

/// The size of a page of the kernel that an image is for, which no image tells.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Page {
    /// In bytes.
    #[serde(rename = "page")]
    pub size: u64,
    /// The sizes that kernels of this architecture have.
    #[serde(skip)]
    known: &'static [u64],
    #[serde(skip)]
    asked: bool,
}

impl Page {
    /// The size that is asked for, else the usual one of the architecture.
    pub fn choose(asked: Option<u64>, program: Option<Architecture>) -> Result<Page> {
        let known = architecture::pages(program);
        if let (Some(size), Some(program)) = (asked.filter(|size| !known.contains(size)), program) {
            let (size, name) = (size::short(size), architecture::name(program));
            return Err(usage(format!(
                "--page-size {size}: kernels for {name} have pages of {}",
                list(known)
            )));
        }
        Ok(Page { size: asked.unwrap_or(known[0]), known, asked: asked.is_some() })
    }

    /// The line of a summary, for architectures whose kernels differ.
    pub(crate) fn row(&self) -> Option<(String, String)> {
        let others = match self.known {
            [_, others @ ..] if !self.asked => format!(" (other kernels: --page-size {})", list(others)),
            _ => String::new(),
        };
        (self.known.len() > 1).then(|| row("page size", size::short(self.size) + &others))
    }
}

fn list(sizes: &[u64]) -> String {
    sizes.iter().map(|bytes| size::short(*bytes)).collect::<Vec<_>>().join(" or ")
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
            self.data = self.data.saturating_add(bytes.div_ceil(self.page).saturating_mul(self.page));
        }
    }

    /// Measures a tree, in memory of pages of this size.
    #[must_use]
    pub fn of(tree: &Tree, page: u64) -> Footprint {
        let mut footprint = Footprint { page, data: 0, inodes: 0, symlinks: 0 };
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

    /// Bytes of the tree in memory on ramfs.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.on_tmpfs().saturating_add(self.symlinks * self.page)
    }

    fn on_tmpfs(&self) -> u64 {
        self.data.saturating_add(self.inodes * INODE)
    }

    /// The memory to boot the tree as a payload of `compressed` bytes in an image of `image` bytes. The
    /// kernel has image and chunks in memory at once; then chunks are freed as the tree grows.
    #[must_use]
    pub fn payload(&self, image: u64, compressed: u64) -> Need {
        let unpacking = self.on_tmpfs().saturating_add(UNPACKING);
        let need = round(KERNEL.saturating_add(unpacking.max(image.saturating_add(compressed))));
        // On a tmpfs root, the chunks must fit into half of the memory that the kernel counts.
        let cap = round(compressed.saturating_mul(2).saturating_add(image).saturating_add(EARLY));
        Need { ramfs: need, tmpfs: need.max(cap), after: round(KERNEL.saturating_add(self.on_tmpfs())) }
    }

    /// The same with `zram=auto`, if a page takes this many thousandths of its size there. Most of the tree
    /// is paged out then, so the kernel's own unpacking decides, unless the tree compresses badly.
    #[must_use]
    pub fn payload_with_zram(&self, image: u64, compressed: u64, thousandths: u64) -> Need {
        let unpacker = UNPACKER.saturating_add(image).saturating_add(compressed);
        let held = (self.data / 1000).saturating_mul(thousandths).saturating_add(self.inodes * INODE);
        let table = self.data / 128;
        let need = round(unpacker.max(PAGED_OUT + UNPACKING + PAGING + held + table));
        let cap = round(compressed.saturating_mul(2).saturating_add(image).saturating_add(EARLY));
        let without = self.payload(image, compressed);
        Need {
            ramfs: need.min(without.ramfs),
            tmpfs: need.max(cap).min(without.tmpfs),
            after: need.min(without.after),
        }
    }

    /// The memory to boot the tree from an image of `compressed` bytes.
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

/// Bytes that the kernel needs to unpack an uncompressed image, besides the image and what comes out of it.
/// Measured in steps of 8 MiB: 64 to 67 MiB on 6.12, 72 to 79 on 7.3.
const UNPACKER: u64 = 72 << 20;

/// Bytes for the kernel while it has swap for all that it can page out. Measured in steps of 8 MiB: 51 to 59
/// on 6.12.
const PAGED_OUT: u64 = 64 << 20;

/// Bytes of the tree that stay in memory while the kernel pages out the rest.
const PAGING: u64 = 8 << 20;

/// Bytes that `/init` needs at the end of a payload, besides [`KERNEL`]: a thread, and chunks not yet freed.
const UNPACKING: u64 = 4 << 20;

fn round(bytes: u64) -> u64 {
    bytes.div_ceil(STEP).saturating_mul(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_files_and_symlinks_take_whole_pages() {
        let mut pages = [4096, 65_536].map(|page| Footprint { page, data: 0, inodes: 0, symlinks: 0 });
        for footprint in &mut pages {
            footprint.add(false, 1);
            footprint.add(true, 9);
        }
        assert_eq!(pages.map(|footprint| footprint.unpacked()), [2 * 4096 + 2048, 2 * 65_536 + 2048]);
    }

    /// The trees of `cargo xtask bench ram`, on ramfs and tmpfs.
    #[test]
    fn the_estimate_with_zram_is_within_a_step_of_what_was_measured() {
        let debian = Footprint { page: 4096, data: 193_400_000, inodes: 7731, symlinks: 900 };
        let large = Footprint { page: 4096, data: 212_440_000, inodes: 21, symlinks: 0 };
        // In tenths of a MiB: the image and the payload.
        for (tree, image, compressed, thousandths, measured) in [
            (debian, 587, 579, 443, [184, 232]),
            (debian, 535, 527, 443, [176, 216]),
            (large, 24, 17, 36, [80, 80]),
        ] {
            let need = tree.payload_with_zram(image * MIB / 10, compressed * MIB / 10, thousandths);
            for (estimated, measured) in [need.ramfs, need.tmpfs].into_iter().zip(measured) {
                assert!(
                    estimated.abs_diff(measured * MIB) <= STEP,
                    "{} MiB, not {measured}",
                    estimated / MIB
                );
            }
        }
    }
}
