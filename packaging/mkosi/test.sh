#!/bin/bash
# debian: mkosi systemd-ukify systemd-boot-efi cpio zstd kmod
# system: systemd-sysv udev kmod systemd-boot-efi
# programs: mcopy=mtools mkfs.vfat=dosfstools
# files: /usr/share/OVMF/OVMF_CODE_4M.fd=ovmf
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "mkosi in a root of Debian, with another as its base tree"
root_of tools
grep -E '^(mkosi|systemd-ukify) ' tools/usr/share/packages
mkdir -p tools/build/mkosi.extra
cp -r "$FILES/mkosi.conf.d" "$FILES/mkosi.extra" tools/build/
# As in the README.
cp "$INIT" tools/build/mkosi.extra/init
# mkosi needs no network: the system is a tree that exists.
cp -a --reflink=auto "$SYSTEM" tools/build/base
# mkosi copies the contents of device nodes, and those of /dev/random have no end.
rm -rf tools/build/base/dev/*
report_unit tools/build/base
kernel_modules tools/build/base loop
cp "$KERNEL" "tools/build/base/usr/lib/modules/${MODULES##*/}/vmlinuz"
printf '[Distribution]\nDistribution=custom\n[Output]\nImageId=system\n[Content]\nBaseTrees=base\nKernelCommandLine=console=ttyS0 panic=-1\n' \
    > tools/build/mkosi.conf

step "Format=cpio"
in_root tools sh -ec 'cd /build; mkosi --force build' > cpio.log 2>&1 || { tail -n 20 cpio.log; fail "mkosi cpio"; }
cp tools/build/system.cpio.zst system.cpio.zst
boot 1024 cpio.txt system.cpio.zst ""
has cpio.txt "repot: move: " "REPORT root tmpfs" "REPORT pid1 systemd" "REPORT pivot_root works" "REPORT end"
grep -a -o 'repot: move.*\|REPORT state.*\|REPORT used.*' cpio.txt

step "Format=uki, under OVMF"
in_root tools sh -ec 'cd /build; mkosi --force --format=uki build' > uki.log 2>&1 || { tail -n 20 uki.log; fail "mkosi uki"; }
fat uki.img 200
mmd -i uki.img ::/EFI ::/EFI/BOOT
mcopy -i uki.img tools/build/system.efi ::/EFI/BOOT/BOOTX64.EFI
efi 1024 uki.txt uki.img
has uki.txt "repot: move: " "REPORT root tmpfs" "REPORT pid1 systemd" "REPORT end"
step "done"
