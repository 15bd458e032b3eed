#!/bin/bash
# programs: cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"
# shellcheck source=packaging/test/flow.sh
. "$FILES/../test/flow.sh"

step "OpenWrt's flow, with its script and with repot"
busybox_root root
ballast root 24
rm root/bin/init
# procd: the kernel's file systems, and INITRAMFS=1 for preinit.
cat > root/bin/init <<'Y'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
echo "procd: PID $$, INITRAMFS=$INITRAMFS" > /dev/console
/bin/report
Y
printf '#!/bin/sh\nexport INITRAMFS=1\nexec /sbin/init\n' > root/init
chmod 755 root/init root/bin/init
archive root before.img
# As in the README.
mkdir -p root/usr/sbin
cp "$INIT" root/usr/sbin/repot
cp "$FILES/init" root/init
archive root after.img

for name in before after; do
    boot 256 $name.txt $name.img ""
    has $name.txt "procd: PID 1, INITRAMFS=1" "$(whole root)" "REPORT end"
done
has before.txt "REPORT root rootfs" "REPORT pivot_root fails"
has after.txt "REPORT root tmpfs" "REPORT pivot_root works" "repot: move: "
for name in before after; do
    echo "    $name: in use $(sed -n 's/.*REPORT used //p' $name.txt | tr -d '\r')"
done
step "done"
