#!/bin/bash
# debian: systemd-sysv udev dracut dracut-core kmod zstd
# programs: mke2fs=e2fsprogs modprobe=kmod
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "the system: Debian with systemd, as a payload on a medium"
root_of system
report_unit system
rm -rf system/usr/lib/dracut
mkdir -p medium/live
"$REPOT" pack system --payload -o medium/live/image.cpio > /dev/null
# An image that is no payload.
mkdir empty
"$REPOT" pack empty --compress none -o medium/live/plain.cpio > /dev/null
mke2fs -q -t ext4 -L medium -d medium medium.ext4 256M

step "the initramfs: dracut in a root of Debian"
root_of builder
kernel_modules builder loop overlay
cp -r "$FILES/90repot" builder/usr/lib/dracut/modules.d/
cp "$FILES/repot.conf" builder/etc/dracut.conf.d/
in_root builder dracut --quiet --force --kver "${MODULES##*/}" /initrd.img
mv builder/initrd.img .
grep -E '^(dracut|systemd) ' builder/usr/share/packages
rm builder/etc/dracut.conf.d/repot.conf
in_root builder dracut --quiet --force --no-hostonly --add repot --kver "${MODULES##*/}" /systemd.img \
    > systemd.log 2>&1 && fail "dracut took both"
[ ! -e builder/systemd.img ] || fail "dracut wrote an image all the same"
has systemd.log "the initramfs must be without systemd"

step "boot: the system runs from memory, and the medium is free"
# shellcheck disable=SC2046
boot 512 move.txt initrd.img "rd.repot=LABEL=medium:/live/image.cpio" $(disk medium medium.ext4)
has move.txt "repot: payload: " "REPORT root tmpfs" "REPORT pid1 systemd" "REPORT pivot_root works" \
    "REPORT disks 0" "REPORT state running" "REPORT failed 0" "REPORT end" "reboot: Power down"
grep -a -o 'repot: payload.*\|REPORT used.*' move.txt

# refused FILE TEXT: the hook reports it, and nothing is deleted: dracut still runs.
refused() {
    # shellcheck disable=SC2046
    boot 512 refused.txt initrd.img "rd.repot=LABEL=medium:$1 rd.shell=0 rd.emergency=poweroff" \
        $(disk medium medium.ext4) || true
    has refused.txt "$2" "dracut: Refusing to continue" "reboot: Power down"
    lacks refused.txt "repot: payload: "
}
step "boot: an image that does not exist, and one that is no payload"
refused /live/nothing.cpio "/live/nothing.cpio does not exist"
refused /live/plain.cpio "is not a whole image of repot pack --payload"
step "done"
