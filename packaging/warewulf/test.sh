#!/bin/bash
# programs: cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"
# shellcheck source=packaging/test/flow.sh
. "$FILES/../test/flow.sh"

step "a node of Warewulf, with its script and with repot"
busybox_root root
ballast root 48
mkdir root/warewulf
# What stands in the overlay of a node: the configuration, and the scripts that run on the new root.
echo 'WWROOT=tmpfs' > root/warewulf/config
cat > root/warewulf/wwprescripts <<'Y'
#!/bin/sh
echo "wwprescripts: PID $$" > /dev/console
exec /sbin/init
Y
echo '::sysinit:/bin/report' > root/etc/inittab
# What Warewulf's /init does with WWROOT=tmpfs. BusyBox's tar has no --exclude.
cat > root/init <<'Y'
#!/bin/sh
mkdir -p /proc /dev /sys
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
. /warewulf/config
chmod +rx /warewulf/wwprescripts
if [ "$WWROOT" = initramfs ]; then exec /warewulf/wwprescripts; fi
mkdir /newroot
mount wwroot /newroot -t tmpfs
cd /
tar -cf - $(ls -A | grep -vx -e proc -e sys -e dev -e newroot) | tar -xf - -C /newroot
mkdir /newroot/proc /newroot/dev /newroot/sys
mount -t proc proc /newroot/proc
mount -t devtmpfs devtmpfs /newroot/dev
exec switch_root /newroot /warewulf/wwprescripts
Y
chmod 755 root/init
archive root before.img
# As in the README.
mv root/init root/init.warewulf
cp "$FILES/init" root/init
cp "$INIT" root/warewulf/repot
cp "$FILES/repot.conf" root/etc/repot.conf
archive root after.img
compare "init=/ignored"
has before.txt "wwprescripts: PID 1"
has after.txt "wwprescripts: PID 1"

step "every other WWROOT is the business of Warewulf's own script"
echo 'WWROOT=initramfs' > root/warewulf/config
archive root other.img
boot 512 other.txt other.img ""
has other.txt "wwprescripts: PID 1" "REPORT root rootfs" "REPORT end"
lacks other.txt "repot: "
step "the node as a payload, without a script in front"
echo 'WWROOT=tmpfs' > root/warewulf/config
chmod 755 root/warewulf/wwprescripts
payload "" init=/warewulf/wwprescripts mount=proc,sysfs,devtmpfs
step "done"
