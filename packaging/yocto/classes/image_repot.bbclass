# inherit image_repot in the recipe of an image: the image is an initramfs that is the whole system, and repot is its
# /init. Yocto writes no /init of its own where the root has one.

IMAGE_INSTALL:append = " repot-init"
IMAGE_FSTYPES = "cpio.zst"
# The kernel is outside of the image.
PACKAGE_EXCLUDE += "kernel-image-*"
# The extra space of a disk means nothing to an archive.
IMAGE_ROOTFS_EXTRA_SPACE = "0"

ROOTFS_POSTPROCESS_COMMAND:append = " repot_check_init;"

repot_check_init[doc] = "Fails if /init of the image is not repot."
# An image whose /init is another program would boot without repot, and nobody would see it.
repot_check_init() {
    if [ -L "${IMAGE_ROOTFS}/init" ] || ! grep -qsF .repot-begin "${IMAGE_ROOTFS}/init"; then
        bbfatal "image_repot: /init of the image is not repot"
    fi
    if [ ! -x "${IMAGE_ROOTFS}/sbin/init" ] && [ ! -L "${IMAGE_ROOTFS}/sbin/init" ]; then
        bbwarn "image_repot: the image has no /sbin/init for repot to execute"
    fi
}
