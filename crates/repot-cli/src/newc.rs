//! The newc cpio format, as the kernel's `init/initramfs.c` reads it.
//!
//! A member is a header of 110 bytes (magic, thirteen numbers of eight hexadecimal digits), the name with its
//! NUL padded to four bytes, and the data padded to four bytes. `TRAILER!!!` ends an archive. There is no
//! room for extended attributes, nanoseconds, or files of 4 GiB and more.

mod header;
mod reader;
mod writer;

use std::io::Write;
use std::path::Path;

pub use header::Header;
pub use reader::{Damage, Item, Reader};
pub use writer::{Totals, Writer};

/// The name that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";

/// The longest name in bytes: the kernel skips a member whose name does not fit into `PATH_MAX` with its NUL.
pub const NAME_MAX: usize = 4095;

/// Packs the directory at `root` as one archive: sorted by name, hard links kept, inode numbers in order of
/// appearance.
///
/// What is mounted below the directory is left out; the mount points are packed as they look from above.
///
/// ```no_run
/// let out = std::fs::File::create("root.cpio")?;
/// let totals = repot_cli::newc::pack_directory("root".as_ref(), out)?;
/// println!("{} entries", totals.entries);
/// # anyhow::Ok(())
/// ```
pub fn pack_directory<W: Write>(root: &Path, out: W) -> anyhow::Result<Totals> {
    let scan = crate::source::directory::scan(root)?;
    let mut writer = Writer::new(out);
    scan.tree.write(&mut writer)?;
    let totals = writer.totals();
    writer.finish()?;
    Ok(totals)
}
