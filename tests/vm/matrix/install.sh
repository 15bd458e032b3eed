#!/bin/sh
# install.sh BASE ROOT PACKAGE...: copies a minimal Debian root and installs packages in the copy.
# Runs in a mount and a PID namespace of its own, so that nothing of it stays mounted or running.
set -eu
if [ "${INSIDE:-}" != yes ]; then
    INSIDE=yes exec unshare --mount --pid --fork --propagation private --kill-child sh "$0" "$@"
fi
base=$1 root=$2
shift 2
cp -a --reflink=auto "$base" "$root"
mount -t proc proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# No service is started in the root.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends install "$@"
chroot "$root" apt-get -qq clean
chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' > "$root/usr/share/packages"
rm -rf "$root/usr/sbin/policy-rc.d" "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/* "$root"/var/cache/debconf/* "$root/etc/resolv.conf"
umount "$root/proc"
