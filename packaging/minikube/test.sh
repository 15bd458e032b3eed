#!/bin/bash
# programs: cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"
# shellcheck source=packaging/test/flow.sh
. "$FILES/../test/flow.sh"

step "minikube's flow, with its script and with repot"
busybox_root root
ballast root 48
echo '::sysinit:/bin/mount -t proc proc /proc
::sysinit:/bin/report' > root/etc/inittab
# What minikube's /init does. BusyBox's tar has no --exclude.
cat > root/init <<'Y'
#!/bin/sh
mkdir /sysroot
mount -t tmpfs -o size=90% tmpfs /sysroot
cd /
tar -cf - $(ls -A | grep -vx sysroot) | tar -C /sysroot -xf -
mount -t devtmpfs devtmpfs /sysroot/dev
exec < /sysroot/dev/console > /sysroot/dev/console 2>&1
exec switch_root /sysroot /sbin/init "$@"
Y
chmod 755 root/init
archive root before.img
# As in the README.
cp "$INIT" root/init
cp "$FILES/repot.conf" root/etc/
archive root after.img
compare ""
for name in before after; do
    size=$(sed -n 's/.*REPORT size \([0-9]*\) MiB.*/\1/p' $name.txt)
    [ "$size" -gt 400 ] || fail "$name: the root may take $size MiB, less than 90 % of 512"
done
step "the system as a payload"
payload "" size=90% mount=devtmpfs

# On a tmpfs the kernel itself needs twice the root, with every init, and stops unpacking otherwise.
step "the smallest machine that has every file, with a ramfs"
whole=$(whole root)
before=$(measure before rootfstype=ramfs)
after=$(measure after rootfstype=ramfs)
echo "    before $before MiB, after $after MiB, payload $(measure payload rootfstype=ramfs) MiB"
[ "$after" -lt "$before" ] || fail "no smaller: $before MiB, then $after MiB"
step "done"
