#!/bin/bash
# programs: cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"
# shellcheck source=packaging/test/flow.sh
. "$FILES/../test/flow.sh"

step "the init: list of HookOS"
printf 'kernel:\n  image: "x"\n\ninit:\n  - linuxkit/init:1\n  # a comment\n  - linuxkit/runc:2\n\nonboot:\n  - name: a\n' > hook.yaml
"$FILES/add.sh" hook.yaml
"$FILES/add.sh" hook.yaml 2> twice.txt
[ "$(sed -n '/^init:/,/^onboot:/p' hook.yaml | grep -n 'repot/init:latest\|linuxkit/init\|runc' | tr '\n' ' ')" = \
    "2:  - linuxkit/init:1 3:  - repot/init:latest 5:  - linuxkit/runc:2 " ] || { cat hook.yaml; fail "the list is wrong"; }
echo 'init: []' > other.yaml
"$FILES/add.sh" other.yaml 2> other.txt && fail "a file without LinuxKit's init is no error"
has other.txt "no linuxkit/init"

step "HookOS's flow, with LinuxKit's init and with repot"
busybox_root root
ballast root 24
# dockerd and containerd are the large files of HookOS.
head -c 32M /dev/urandom > root/usr/share/ballast/dockerd
cat > root/etc/inittab <<'Y'
::sysinit:/bin/mount -t proc proc /proc
::sysinit:/bin/mount -t sysfs sysfs /sys
::sysinit:/bin/mount -t devtmpfs dev /dev
::sysinit:/bin/report
Y
# What LinuxKit's init does, in the words of a shell: a tmpfs on /mnt, directories, then file by file.
cat > root/init <<'Y'
#!/bin/sh
mount -t tmpfs rootfs /mnt
cd /
find . -xdev -type d ! -path './mnt*' | while read -r name; do mkdir -p "/mnt/$name"; done
find . -xdev ! -type d ! -path './mnt/*' | while read -r name; do
    cp -a "$name" "/mnt/$name"
    [ "$name" = ./bin/busybox ] || [ "$name" = ./init ] || [ -L "$name" ] || rm -f "$name"
done
exec switch_root /mnt /sbin/init
Y
chmod 755 root/init
archive root before.img
cp "$INIT" root/init
archive root after.img
compare ""
step "the system as a payload"
payload ""
step "done"
