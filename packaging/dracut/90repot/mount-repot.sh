#!/bin/sh
# Copies the payload of the image into the initramfs. Then PID 1, which runs this hook, executes the handoff.
command -v getarg > /dev/null || . /lib/dracut-lib.sh

repot_boot() {
    repot_medium=$(label_uuid_to_dev "${1%%:*}")
    mkdir -p /run/repot-medium
    mount -o ro "$repot_medium" /run/repot-medium || die "repot: cannot mount $repot_medium"
    /usr/lib/repot/handoff unpack "/run/repot-medium/${1#*:}" || die "repot: cannot unpack ${1#*:} of $repot_medium"
    umount /run/repot-medium || die "repot: cannot unmount $repot_medium"
    udevadm control --exit
    exec /usr/lib/repot/handoff
}

repot=$(getarg rd.repot=)
[ -z "$repot" ] || repot_boot "$repot"
