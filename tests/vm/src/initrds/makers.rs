//! Programs that make an initramfs, and how each is called in its root.

/// A program that makes an initramfs.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) name: &'static str,
    /// The Debian suite of its root.
    pub(super) suite: &'static str,
    /// What is installed there.
    pub(super) packages: &'static str,
    pub(super) images: &'static [Image],
}

/// One of its images.
#[derive(Debug)]
pub(super) struct Image {
    /// Behind a dash in the name of the image.
    pub(super) name: &'static str,
    /// A shell line in the root: `$V` is the kernel, the image goes to `/image`.
    pub(super) line: &'static str,
    /// What decompresses the last segment.
    pub(super) decompressor: &'static str,
}

const fn image(name: &'static str, line: &'static str, decompressor: &'static str) -> Image {
    Image { name, line, decompressor }
}

/// All of them.
pub(super) const MAKERS: [Maker; 6] = [
    Maker {
        name: "initramfs-tools",
        suite: "trixie",
        packages: "initramfs-tools linux-image-cloud-amd64 zstd lz4 xz-utils bzip2 lzop",
        images: &[
            image("zstd", "mkinitramfs -c zstd -o /image $V", "zstd -dcq"),
            image("gzip", "mkinitramfs -c gzip -o /image $V", "gzip -dc"),
            image("xz", "mkinitramfs -c xz -o /image $V", "xz -dc"),
            image("lz4", "mkinitramfs -c lz4 -o /image $V", "lz4 -dcq"),
            image("bzip2", "mkinitramfs -c bzip2 -o /image $V", "bzip2 -dc"),
            image("lzma", "mkinitramfs -c lzma -o /image $V", "xz --format=lzma -dc"),
            image("lzop", "mkinitramfs -c lzop -o /image $V", "lzop -dc"),
        ],
    },
    // With what a desktop has: microcode in front, and the firmware of a graphics card.
    Maker {
        name: "initramfs-tools-desktop",
        suite: "trixie",
        packages: "initramfs-tools linux-image-amd64 zstd intel-microcode amd64-microcode firmware-amd-graphics \
                   firmware-misc-nonfree firmware-iwlwifi",
        images: &[image(
            "zstd",
            "echo amdgpu >> /etc/initramfs-tools/modules; mkinitramfs -c zstd -o /image $V",
            "zstd -dcq",
        )],
    },
    Maker {
        name: "dracut",
        suite: "trixie",
        packages: "dracut linux-image-cloud-amd64 zstd",
        images: &[
            image("zstd", "dracut --force --zstd --no-hostonly /image $V", "zstd -dcq"),
            image("uncompressed", "dracut --force --no-compress --no-hostonly /image $V", "cat"),
        ],
    },
    Maker {
        name: "tiny-initramfs",
        suite: "trixie",
        packages: "tiny-initramfs-core linux-image-cloud-amd64",
        images: &[image("gzip", "mktirfs -o /image $V", "gzip -dc")],
    },
    Maker {
        name: "live-boot",
        suite: "trixie",
        packages: "live-boot live-boot-initramfs-tools linux-image-cloud-amd64 zstd",
        images: &[image("zstd", "mkinitramfs -c zstd -o /image $V", "zstd -dcq")],
    },
    Maker {
        name: "debian-installer",
        suite: "trixie",
        packages: "debian-installer-13-netboot-amd64",
        images: &[
            image(
                "text",
                "cp /usr/lib/debian-installer/images/*/amd64/text/debian-installer/amd64/initrd.gz /image",
                "gzip -dc",
            ),
            image(
                "gtk",
                "cp /usr/lib/debian-installer/images/*/amd64/gtk/debian-installer/amd64/initrd.gz /image",
                "gzip -dc",
            ),
        ],
    },
];
