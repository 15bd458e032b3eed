#!/bin/bash
# debian: systemd-ukify systemd-boot-efi systemd-boot-tools grub-efi-amd64-bin grub-common
# programs: mcopy=mtools mkfs.vfat=dosfstools cpio=cpio
# files: /usr/share/OVMF/OVMF_CODE_4M.fd=ovmf /usr/lib/ipxe/qemu/pxe-e1000.rom=ipxe-qemu
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

# The image knows nothing of repot. Its own /init mounts, says so, and goes on with BusyBox's init.
busybox_root root
cat > root/init <<'Y'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "the image's own init is $0, PID $$" > /dev/console
exec /sbin/init
Y
chmod 755 root/init
echo '::sysinit:/bin/report' > root/etc/inittab
(cd root && find . | cpio -o -H newc --quiet | gzip -1) > initrd.img

# As in the README.
mkdir segment
"$REPOT" init -o segment/repot
(cd segment && echo repot | cpio -o -H newc --quiet) > repot.cpio
cp "$KERNEL" vmlinuz

# moved CONSOLE: what the machines must show.
moved() {
    has "$1" "repot: move: " "own init is /init, PID 1" "REPORT root tmpfs" "REPORT pivot_root works" "REPORT end"
    grep -a -o 'repot: move.*\|REPORT size.*' "$1"
}

step "boot: the kernel and the image alone"
boot 256 alone.txt initrd.img ""
has alone.txt "REPORT root rootfs" "REPORT pivot_root fails"

step "GRUB under OVMF"
root_of tools
grep -E '^(grub-efi-amd64-bin|systemd-boot-efi|systemd-ukify) ' tools/usr/share/packages
# The program finds the menu beside the kernel.
printf 'search --file --set=root /grub.cfg\nconfigfile /grub.cfg\n' > tools/start.cfg
in_root tools grub-mkstandalone -O x86_64-efi -o /grub.efi \
    --modules="part_gpt fat normal linux search search_fs_file configfile echo" boot/grub/grub.cfg=/start.cfg
fat grub.img 64
mmd -i grub.img ::/EFI ::/EFI/BOOT
mcopy -i grub.img tools/grub.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i grub.img vmlinuz initrd.img repot.cpio "$FILES/grub.cfg" ::/
efi 512 grub.txt grub.img
moved grub.txt

step "systemd-boot under OVMF"
boot=tools/usr/lib/systemd/boot/efi
fat sd.img 64
mmd -i sd.img ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
mcopy -i sd.img $boot/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i sd.img vmlinuz initrd.img repot.cpio ::/
mcopy -i sd.img "$FILES/repot.conf" ::/loader/entries/
efi 512 sd.txt sd.img
moved sd.txt

step "a unified kernel image and an add-on, under OVMF"
cp vmlinuz initrd.img repot.cpio tools/
in_root tools sh -ec 'cd /; ukify build --linux=vmlinuz --initrd=initrd.img --cmdline="console=ttyS0" --output=system.efi
    ukify build --initrd=repot.cpio --cmdline="rdinit=/repot repot.chain=/init repot.size=80%" --output=repot.addon.efi' \
    > ukify.log 2>&1 || { cat ukify.log; fail "ukify"; }
fat uki.img 64
mmd -i uki.img ::/EFI ::/EFI/BOOT ::/EFI/Linux ::/EFI/Linux/system.efi.extra.d
mcopy -i uki.img $boot/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i uki.img tools/system.efi ::/EFI/Linux/
mcopy -i uki.img tools/repot.addon.efi ::/EFI/Linux/system.efi.extra.d/
efi 512 uki.txt uki.img
moved uki.txt

step "iPXE, from QEMU's network card"
mkdir tftp
cp vmlinuz initrd.img repot.cpio "$FILES/repot.ipxe" tftp/
qemu 512 ipxe.txt -netdev user,id=net,restrict=on,tftp=tftp,bootfile=repot.ipxe \
    -device e1000,netdev=net,romfile=/usr/lib/ipxe/qemu/pxe-e1000.rom -boot n
moved ipxe.txt
step "done"
