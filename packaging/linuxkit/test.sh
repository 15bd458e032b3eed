#!/bin/bash
# debian: containerd runc
# programs: umoci=umoci skopeo=skopeo runc=runc jq=jq cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "the image for init:"
"$FILES/image.sh" "$INIT" layout
"$FILES/image.sh" "$INIT" again
diff -r layout again
# Two other programs read it.
umoci unpack --rootless --image layout:latest bundle > /dev/null 2>&1 || fail "umoci does not read the image"
cmp bundle/rootfs/init "$INIT"
skopeo inspect --raw oci:layout:latest > /dev/null

# with PROGRAM...: copies programs of Debian and their libraries into a tree.
with() {
    local tree=$1 file
    shift
    for file in $(in_root tools sh -c 'for program; do command -v $program; done; ldd $(for program; do command -v $program; done) |
        sed -n "s/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/lib[^ ]*\) .*/\1/p"' sh "$@" | sort -u); do
        mkdir -p "$tree/$(dirname "$file")"
        cp -L "tools$file" "$tree$file"
    done
}

# container FOLDER WORDS: a folder with config.json and a root, as LinuxKit unpacks containers.
container() {
    mkdir -p "$1/rootfs"/{bin,dev,proc,sys,tmp}
    cp "$(command -v busybox)" "$1/rootfs/bin/busybox"
    ln -s busybox "$1/rootfs/bin/sh"
    ln -s busybox "$1/rootfs/bin/echo"
    (cd "$1" && runc spec)
    jq --arg words "$2" --arg root "/${1#tree/}/rootfs" '.process.terminal = false
        | .process.args = ["/bin/sh", "-c", $words] | .root.path = $root | .root.readonly = true' \
        "$1/config.json" > spec.json
    mv spec.json "$1/config.json"
}

step "a tree as LinuxKit lays it out"
root_of tools
grep -E '^(containerd|runc) ' tools/usr/share/packages
busybox_root tree
mkdir -p tree/etc/init.d tree/containers/{onboot,services} tree/var/lib
# linuxkit/runc and linuxkit/containerd
mkdir -p tree/lib64
with tree runc containerd containerd-shim-runc-v2 ctr
# linuxkit/init: its /init moves the root file by file. /sbin/init is BusyBox, and runs rc.init.
printf '#!/bin/sh\necho "the init of linuxkit/init" > /dev/console\nexec /sbin/init\n' > tree/init
printf '::sysinit:/bin/rc.init\n' > tree/etc/inittab
cat > tree/bin/rc.init <<'Y'
#!/bin/sh
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,noexec dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o nodev,nosuid,noexec run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname linuxkit
ip link set lo up
for script in /etc/init.d/*; do
    $script
done
Y
# onboot containers by runc, one after the other; services by containerd.
cat > tree/etc/init.d/010-containerd <<'Y'
#!/bin/sh
exec > /dev/console 2>&1
for folder in /containers/onboot/*; do
    name=${folder##*/}
    if runc run --bundle "$folder" "$name"; then echo "FLOW onboot $name: ok"; else echo "FLOW onboot $name: fails"; fi
done
mkdir -p /run/containerd
containerd --log-level warn &
until [ -S /run/containerd/containerd.sock ]; do usleep 100000; done
for folder in /containers/services/*; do
    name=${folder##*/}
    if ctr -n services.linuxkit run --config "$folder/config.json" --rm "$name"; then
        echo "FLOW service $name: ok"
    else
        echo "FLOW service $name: fails"
    fi
done
/bin/report
Y
chmod 755 tree/init tree/bin/rc.init tree/etc/init.d/010-containerd
container tree/containers/onboot/000-hello 'echo hello from onboot'
container tree/containers/services/web 'echo hello from a service'

# Names as LinuxKit writes them: sorted, without "./".
archive() { (cd tree && find . -mindepth 1 | sed 's/^..//' | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -1) > "$1"; }

step "boot: without an init that moves the root"
archive before.img
boot 768 before.txt before.img ""
has before.txt "FLOW onboot 000-hello: fails" "FLOW service web: fails" "REPORT root rootfs" "REPORT end"
grep -a -o -m 1 'pivot_root.*' before.txt

step "boot: with the image repot/init behind linuxkit/init"
for one in $(jq -r '.layers[].digest' "layout/blobs/$(jq -r '.manifests[0].digest' layout/index.json | tr : /)"); do
    tar -C tree -xf "layout/blobs/${one/://}"
done
cmp tree/init "$INIT"
archive after.img
boot 768 after.txt after.img ""
has after.txt "repot: move: " "hello from onboot" "FLOW onboot 000-hello: ok" "hello from a service" \
    "FLOW service web: ok" "REPORT root tmpfs" "REPORT end"
grep -a -o 'repot: move.*\|REPORT used.*' after.txt
step "done"
