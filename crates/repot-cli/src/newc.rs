//! The newc cpio format, as the kernel's `init/initramfs.c` reads it.
//!
//! A member is a header of 110 bytes (magic, thirteen numbers of eight hexadecimal digits), the name with its
//! NUL padded to four bytes, and the data padded to four bytes. `TRAILER!!!` ends an archive. There is no
//! room for extended attributes, nanoseconds, or files of 4 GiB and more.

mod header;
mod reader;
mod writer;

pub use header::Header;
pub use reader::{Damage, Item, Reader};
pub use writer::{Totals, Writer};

/// The name that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";

/// The longest name in bytes: the kernel skips a member whose name does not fit into `PATH_MAX` with its NUL.
pub const NAME_MAX: usize = 4095;
