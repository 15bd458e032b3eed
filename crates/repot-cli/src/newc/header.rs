//! The header of a member.

/// Everything about a member but its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The path, without a leading slash; `.` is the root. Any bytes but NUL.
    pub name: Vec<u8>,
    /// Members with the same `ino` and device and an `nlink` of two or more are one inode.
    pub ino: u32,
    /// Type and permissions as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names of the inode. The kernel looks for hard links if it is 2 or more.
    pub nlink: u32,
    /// Seconds since 1970, unsigned.
    pub mtime: u32,
    /// Bytes of data: the contents of a file or the target of a symbolic link.
    pub filesize: u32,
    /// Major number of the device that holds the inode.
    pub devmajor: u32,
    /// Minor number of the device that holds the inode.
    pub devminor: u32,
    /// Major number of a device node.
    pub rdevmajor: u32,
    /// Minor number of a device node.
    pub rdevminor: u32,
    /// Whether the format is that with checksums (`070702`). It is not written.
    pub checksum: bool,
}

/// Bytes of a header, including the magic.
pub(super) const HEADER_LEN: usize = 110;

/// The file type bits of a mode.
const S_IFMT: u32 = 0o170_000;

impl Header {
    /// The type bits of the mode.
    #[must_use]
    pub fn file_type(&self) -> u32 {
        self.mode & S_IFMT
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file_type() == 0o100_000
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.file_type() == 0o120_000
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file_type() == 0o040_000
    }

    /// Whether it is a character or block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self.file_type(), 0o020_000 | 0o060_000)
    }

    /// The encoded header. The checksum is zero, as the magic `070701` requires.
    pub(super) fn encode(&self, namesize: u32) -> [u8; HEADER_LEN] {
        let fields = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.filesize,
            self.devmajor,
            self.devminor,
            self.rdevmajor,
            self.rdevminor,
            namesize,
            0,
        ];
        let mut bytes = [b'0'; HEADER_LEN];
        bytes[..6].copy_from_slice(b"070701");
        for (field, digits) in fields.iter().zip(bytes[6..].chunks_exact_mut(8)) {
            for (nibble, digit) in (0..8).rev().zip(digits) {
                *digit = b"0123456789ABCDEF"[(field >> (4 * nibble) & 15) as usize];
            }
        }
        bytes
    }
}

/// Number of zeros from `offset` to the next multiple of 4.
pub(super) fn padding(offset: u64) -> usize {
    (offset.wrapping_neg() & 3) as usize
}
