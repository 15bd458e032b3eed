# shellcheck shell=bash
# What the tests of this folder share. `cargo xtask packaging` runs PACKAGE/test.sh with these variables:
# FILES is the folder of the package, REPOT the tool, INIT and INIT_PAYLOAD the inits, KERNEL a kernel of
# Debian and MODULES the folder of its modules, ROOT a cached Debian root with the packages that the test
# names in its "# debian:" line, SYSTEM one with those of "# system:". The working directory is empty, and kept afterwards.
set -euo pipefail
# shellcheck disable=SC2034
TEST=${FILES%/*}/test

# step WORDS...: says what comes next, and how long the step before took.
step() {
    local now=$SECONDS
    [ -z "${STEP_BEGAN:-}" ] || echo "    $((now - STEP_BEGAN)) s"
    STEP_BEGAN=$now
    echo "  $*"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# has FILE TEXT...: every text is in the file.
has() {
    local file=$1 text
    shift
    for text; do
        grep -aqF -e "$text" "$file" || {
            tail -n 25 "$file" >&2
            fail "$file has no line with: $text"
        }
    done
}

# lacks FILE TEXT: the file must not contain the text.
lacks() {
    ! grep -aqF -e "$2" "$1" || fail "$1 must not contain: $2"
}

# root_of NAME: copies the cached Debian root, to be changed.
root_of() {
    cp -a --reflink=auto "$ROOT" "$1"
}

# in_root ROOT COMMAND...: runs a command in a root, in a mount and a PID namespace of its own. The root is
# the root of its mount there, not the directory of a chroot: some programs make user namespaces.
in_root() {
    local root=$1
    shift
    unshare --mount --pid --fork --kill-child --propagation private sh -ec '
        mount --rbind "$1" "$1"
        cd "$1"
        mount -t proc proc proc
        mount -t sysfs sys sys
        mount -t tmpfs tmp tmp
        mount --rbind /dev dev
        pivot_root . mnt
        umount -l /mnt
        shift
        export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
        exec "$@"' sh "$root" "$@"
}

# busybox_root ROOT: a root with nothing but BusyBox and its links, and the init of BusyBox.
busybox_root() {
    local name
    mkdir -p "$1"/{bin,dev,etc,mnt,proc,root,run,sys,tmp,usr}
    ln -s bin "$1/sbin"
    cp "$(command -v busybox)" "$1/bin/busybox"
    for name in $(busybox --list); do
        [ -e "$1/bin/$name" ] || ln -s busybox "$1/bin/$name"
    done
    mknod "$1/dev/console" c 5 1
    mknod "$1/dev/null" c 1 3
    cp "$TEST/report" "$1/bin/report"
}

# report_unit ROOT: systemd runs the report, and then powers off.
report_unit() {
    cp "$TEST/report" "$1/usr/bin/report"
    cp "$TEST/report.service" "$1/etc/systemd/system/"
    ln -sf ../report.service "$1/etc/systemd/system/multi-user.target.wants/report.service"
    ln -sf /dev/null "$1/etc/systemd/system/getty@tty1.service"
    ln -sf /dev/null "$1/etc/systemd/system/serial-getty@ttyS0.service"
    # A root that is packed boots for the first time every time.
    : > "$1/etc/machine-id"
    echo guest > "$1/etc/hostname"
}

# kernel_modules ROOT NAME...: modules of the kernel with those that they need, and their index.
kernel_modules() {
    local root=$1 release=${MODULES##*/} base=${MODULES%/lib/modules/*} file rest
    shift
    mkdir -p "$root/usr/lib/modules/$release"
    for name; do
        modprobe -d "$base" -S "$release" --show-depends "$name" | sed -n 's/^insmod //p'
    done | sort -u | while read -r file rest; do
        mkdir -p "$root/usr/lib/modules/$release/$(dirname "${file##*/"$release"/}")"
        cp "$file" "$root/usr/lib/modules/$release/${file##*/"$release"/}"
    done
    find "$MODULES" -maxdepth 1 '(' -name 'modules.builtin*' -o -name modules.order ')' \
        -exec cp -t "$root/usr/lib/modules/$release" '{}' +
    depmod -b "$root" "$release"
}

# disk NAME FILE: options of QEMU for a disk that needs no module.
disk() {
    echo "-drive if=none,id=$1,format=raw,snapshot=on,file=$2 -device nvme,drive=$1,serial=$1"
}

# qemu MEMORY CONSOLE OPTION...: a machine without a network, whose console goes to a file. It ends when the
# guest powers off or panics, or is stopped after ten minutes.
qemu() {
    local memory=$1 console=$2
    shift 2
    timeout 600 qemu-system-x86_64 -M "${MACHINE:-q35}" -accel tcg,thread=single -cpu max -smp 2 -m "$memory" \
        -nodefaults -display none -no-reboot -serial "file:$console" "$@" < /dev/null
}

# boot MEMORY CONSOLE IMAGE APPEND OPTION...: boots an initramfs with the kernel.
boot() {
    local memory=$1 console=$2 image=$3 append=$4
    shift 4
    qemu "$memory" "$console" -kernel "$KERNEL" -initrd "$image" \
        -append "console=ttyS0 panic=-1 $append" "$@"
}

# fat NAME MIB: an empty FAT file system for a disk of EFI.
fat() {
    truncate -s "$2M" "$1"
    mkfs.vfat -F 32 -n ESP "$1" > /dev/null
}

# efi MEMORY CONSOLE DISK OPTION...: boots a disk by the firmware.
efi() {
    local memory=$1 console=$2 disk=$3
    shift 3
    cp /usr/share/OVMF/OVMF_VARS_4M.fd vars.fd
    # shellcheck disable=SC2046
    qemu "$memory" "$console" -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
        -drive if=pflash,format=raw,file=vars.fd $(disk esp "$disk") "$@"
}

# smallest CONSOLE LEAST MOST TEXT COMMAND...: the smallest memory in MiB, in steps of 16, in which the command
# prints the text to the console. The command gets the memory as MEMORY.
smallest() {
    local console=$1 low=$2 high=$3 text=$4 middle
    shift 4
    MEMORY=$high "$@"
    has "$console" "$text"
    while [ $((high - low)) -gt 16 ]; do
        middle=$(((low + high) / 32 * 16))
        MEMORY=$middle "$@" || true
        if grep -aqF -e "$text" "$console"; then high=$middle; else low=$middle; fi
    done
    echo "$high"
}

# Boots a root of BusyBox whose inittab mounts nothing but /proc.
boots_with_inittab() {
    echo '::sysinit:/bin/mount -t proc proc /proc
::sysinit:/bin/report' > "$1/etc/inittab"
    (cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet) > image.cpio
    boot 256 boot.txt image.cpio ""
    has boot.txt "repot: move: " "REPORT root tmpfs" "REPORT pivot_root works" "REPORT end"
}
