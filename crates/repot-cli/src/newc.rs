//! The newc cpio format, as the kernel's `init/initramfs.c` reads it.
//!
//! A member is a header of 110 bytes (a magic and thirteen numbers of eight hexadecimal digits), then the
//! name with its NUL, then the data. Name and data are padded to multiples of 4. `TRAILER!!!` ends an
//! archive. The format cannot hold extended attributes, nanoseconds, or files of 4 GiB and more.

mod header;
mod reader;
mod writer;

pub use header::Header;
pub use reader::{Damage, Item, Reader};
pub(crate) use reader::{pass, target};
pub use repot::marker::Totals;
pub use writer::Writer;

/// The name that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";

/// Maximum length of a name in bytes. The kernel skips members whose name and NUL exceed `PATH_MAX`.
pub const NAME_MAX: usize = 4095;
