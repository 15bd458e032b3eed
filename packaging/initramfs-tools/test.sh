#!/bin/bash
# debian: systemd-sysv udev initramfs-tools kmod busybox zstd
# programs: mke2fs=e2fsprogs modprobe=kmod
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "the system: Debian with systemd, as a payload on a medium"
root_of system
report_unit system
rm -rf system/usr/share/initramfs-tools
mkdir -p medium/live
"$REPOT" pack system --payload -o medium/live/image.cpio > /dev/null
mke2fs -q -t ext4 -L medium -d medium medium.ext4 256M

step "the initramfs: mkinitramfs in a root of Debian"
root_of builder
kernel_modules builder loop overlay
to=builder/etc/initramfs-tools
cp "$FILES/hooks/repot" $to/hooks/
cp "$FILES/scripts/ram" $to/scripts/
cp "$FILES/repot-handoff" $to/repot-handoff
in_root builder mkinitramfs -o /initrd.img "${MODULES##*/}"
mv builder/initrd.img .
grep -E '^(initramfs-tools|systemd) ' builder/usr/share/packages

step "boot: the system runs from memory, and the medium is free"
# shellcheck disable=SC2046
boot 512 move.txt initrd.img "boot=ram ram=LABEL=medium:/live/image.cpio" $(disk medium medium.ext4)
has move.txt "repot: payload: " "REPORT root tmpfs" "REPORT pid1 systemd" "REPORT pivot_root works" \
    "REPORT disks 0" "REPORT state running" "REPORT failed 0" "REPORT end" "reboot: Power down"
grep -a -o 'repot: payload.*\|REPORT used.*' move.txt

step "boot: an image that does not exist is an error, and changes nothing"
# shellcheck disable=SC2046
boot 512 missing.txt initrd.img "boot=ram ram=LABEL=medium:/live/nothing.cpio panic=1" $(disk medium medium.ext4)
has missing.txt "/live/nothing.cpio does not exist"
lacks missing.txt "repot: payload: "

step "boot: without boot=ram the initramfs is what it was"
# shellcheck disable=SC2046
boot 512 disk.txt initrd.img "root=LABEL=medium panic=1" $(disk medium medium.ext4)
has disk.txt "Target filesystem doesn't have requested"
step "done"
