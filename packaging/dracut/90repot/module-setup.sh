#!/bin/bash
# A dracut module: the system of a medium runs from memory. The medium holds an image of `repot pack
# --payload`, which brings its own init: nothing of repot is copied from this machine.

# called by dracut
check() {
    require_binaries cpio || return 1
    # Only where it is asked for, as repot.conf does.
    return 255
}

# called by dracut
depends() {
    echo base fs-lib
}

# called by dracut
installkernel() {
    hostonly='' instmods squashfs loop iso9660 ext4 vfat nls_cp437 nls_ascii nls_utf8
}

# called by dracut
install() {
    if dracut_module_included systemd; then
        # Its PID 1 executes another program only after a switch to another root.
        dfatal 'repot: the initramfs must be without systemd: omit_dracutmodules+=" systemd "'
        exit 1
    fi
    inst_multiple cpio mount umount rm mkdir
    # shellcheck disable=SC2154 # set by dracut
    inst_hook cmdline 90 "$moddir/parse-repot.sh"
    inst_hook mount 05 "$moddir/mount-repot.sh"
    inst_script "$moddir/handoff" /usr/lib/repot/handoff
}
