//! Names of formats that are no source, by their first bytes: an error that names the format also says the
//! cure.

use std::fs::File;
use std::os::unix::fs::FileExt;

const DISK: &str = "mount it and pack the directory";
const CONVERT: &str = "convert it with qemu-img, mount it and pack the directory";
const UNPACK: &str = "unpack it and pack the directory";
const DECOMPRESS: &str = "decompress it first";
const NEWC: &str = "the kernel and repot read cpio -H newc only";

/// Offset, magic, the name of the format, and what to do.
const FORMATS: &[(u64, &[u8], &str, &str)] = &[
    (0, b"hsqs", "a squashfs image", "unpack it with unsquashfs and pack the directory"),
    (0, b"QFI\xfb", "a qcow2 disk image", CONVERT),
    (0, b"KDMV", "a VMDK disk image", CONVERT),
    (0, b"vhdxfile", "a VHDX disk image", CONVERT),
    (0, b"conectix", "a VHD disk image", CONVERT),
    (0, b"XFSB", "an XFS file system", DISK),
    (0, b"\x45\x3d\xcd\x28", "a cramfs image", DISK),
    (0, b"-rom1fs-", "a romfs image", DISK),
    (0, b"UBI#", "a UBI image", DISK),
    (0, b"\x31\x18\x10\x06", "a UBIFS image", DISK),
    (0, b"\x85\x19", "a JFFS2 image", DISK),
    (0x400, b"\xe2\xe1\xf5\xe0", "an EROFS image", DISK),
    (0x400, b"\x10\x20\xf5\xf2", "an F2FS file system", DISK),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system", DISK),
    (0x8001, b"CD001", "an ISO 9660 image", DISK),
    (0x10040, b"_BHRfS_M", "a btrfs file system", DISK),
    (0x200, b"EFI PART", "a disk image with partitions", DISK),
    (0x52, b"FAT32", "a FAT file system", DISK),
    (0x36, b"FAT1", "a FAT file system", DISK),
    (
        0,
        b"LUKS\xba\xbe",
        "an encrypted disk (LUKS)",
        "open it with cryptsetup, mount it and pack the directory",
    ),
    (0x202, b"HdrS", "a Linux kernel", "pack the root, not the kernel"),
    (0, b"MZ\0\0zimg", "a compressed Linux kernel (zImage for EFI)", "pack the root, not the kernel"),
    (0x38, b"ARM\x64", "a Linux kernel", "pack the root, not the kernel"),
    (0x1fe, b"\x55\xaa", "a disk image or a boot sector", DISK),
    (0, b"\x27\x05\x19\x56", "a U-Boot image (uImage)", "cut off its header of 64 bytes: tail -c +65"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image", "extract the root with dumpimage"),
    (0, b"ANDROID!", "an Android boot image", "extract its ramdisk"),
    (0, b"MZ", "a program for EFI or Windows", "pack the root, not a program"),
    (0, b"\x7fELF", "a program", "give a directory, a tar archive, an initramfs or a container image"),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"MSCF", "a cabinet archive", UNPACK),
    (0, b"xar!", "a xar archive", UNPACK),
    (0, b"!<arch>\ndebian-binary", "a Debian package", "unpack it with dpkg-deb -x and pack the directory"),
    (0, b"!<arch>", "an ar archive", UNPACK),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "unpack it with rpm2cpio and pack the directory"),
    (0, b"070707", "a cpio archive in the old format (odc)", NEWC),
    (0, b"\xc7\x71", "a cpio archive in the binary format", NEWC),
    (0, b"\x71\xc7", "a cpio archive in the binary format", NEWC),
    (0, b"LRZI", "compressed with lrzip, which repot does not support", DECOMPRESS),
    (0, b"GRZipII", "compressed with grzip, which repot does not support", DECOMPRESS),
    (0, b"LZIP", "compressed with lzip of an unknown version", DECOMPRESS),
    (0, b"\xff\x06\x00\x00sNaPpY", "compressed with snappy, which repot does not support", DECOMPRESS),
];

/// Bytes that are read at most.
const HEAD: usize = 0x10048;

/// The name of a format, and what to do with it.
#[must_use]
pub fn name(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let at = |offset: u64| usize::try_from(offset).ok().and_then(|offset| head.get(offset..));
    let found =
        FORMATS.iter().find(|(offset, magic, ..)| at(*offset).is_some_and(|rest| rest.starts_with(magic)));
    found.map(|(_, _, name, cure)| (*name, *cure))
}

/// The first bytes of a file, as far as any format needs them.
pub(crate) fn head(file: &File) -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while let Ok(got @ 1..) = file.read_at(&mut head[filled..], filled as u64) {
        filled += got;
    }
    head.truncate(filled);
    head
}

/// Why a file that does not begin with a header of tar is no source.
#[must_use]
pub fn not_a_tar(file: &File) -> String {
    match name(&head(file)) {
        Some((name, cure)) => format!("this is {name}: {cure}"),
        None => "corrupt at byte 0, or not a tar archive: pack takes a directory, a tar archive, an initramfs or a \
                 container image"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_behind_its_zeros() {
        let mut ext4 = vec![0; 4096];
        ext4[0x438..0x43a].copy_from_slice(b"\x53\xef");
        assert_eq!(name(&ext4).map(|(name, _)| name), Some("an ext2, ext3 or ext4 file system"));
        assert_eq!(
            name(b"hsqs"),
            Some(("a squashfs image", "unpack it with unsquashfs and pack the directory"))
        );
        assert_eq!(name(&[0; 0x10048]), None);
        assert_eq!(name(b""), None);
    }
}
