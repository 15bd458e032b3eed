#!/bin/bash
# debian: kconfig-frontends-nox make
# programs: cpio=cpio make=make
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"
package=$FILES/package/repot-init

step "Config.in, by Debian's kconfig"
root_of tools
mkdir -p tools/build
cp -r "$FILES" tools/build/external
# The symbols of Buildroot that it refers to.
cat > tools/build/Config.in <<'Y'
mainmenu "test"
config BR2_x86_64
	bool "x86_64"
config BR2_TARGET_ROOTFS_CPIO
	bool "cpio"
source "/build/external/package/repot-init/Config.in"
Y
config() {
    printf '%s\n' "$@" > tools/build/.config
    in_root tools sh -ec 'cd /build; CONFIG_= KCONFIG_CONFIG=.config kconfig-conf --olddefconfig Config.in' > kconfig.log 2>&1 ||
        { cat kconfig.log; fail "kconfig"; }
    if grep -i warning kconfig.log; then fail "kconfig warns"; fi
}
config BR2_x86_64=y BR2_TARGET_ROOTFS_CPIO=y BR2_PACKAGE_REPOT_INIT=y 'BR2_PACKAGE_REPOT_INIT_SETTINGS="size=80% wipe=yes"'
has tools/build/.config BR2_PACKAGE_REPOT_INIT=y
cp tools/build/.config chosen
# Only where the root becomes an initramfs, and only for architectures of the release.
config BR2_x86_64=y BR2_PACKAGE_REPOT_INIT=y
lacks tools/build/.config BR2_PACKAGE_REPOT_INIT=y
config BR2_TARGET_ROOTFS_CPIO=y BR2_PACKAGE_REPOT_INIT=y
lacks tools/build/.config BR2_PACKAGE_REPOT_INIT=y

step "the archive of a release, its checksums, and the recipe, by make"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$FILES/../../Cargo.toml" | head -n 1)
grep -qx "REPOT_INIT_VERSION = $version" "$package/repot-init.mk" || fail "the package is not of version $version"
name=repot-init-x86_64-unknown-linux-musl-v$version
mkdir -p "release/$name"
cp "$INIT" "$INIT_PAYLOAD" "$FILES"/../../LICENSE-* "release/$name/"
tar -C release -czf "release/$name.tgz" "$name"
(cd release && sha256sum "$name.tgz" > SHA256SUMS)
"$FILES/hashes.sh" release/SHA256SUMS > repot-init.hash
# As Buildroot reads it: type, digest, name.
while read -r type digest file; do
    case $type in '#'*) continue ;; esac
    [ "$type" = sha256 ] || fail "the hash of $file is of type $type"
    [ -e "release/$name/$file" ] && where=release/$name/$file || where=release/$file
    echo "$digest  $where"
done < repot-init.hash | sha256sum --check --quiet
# What Buildroot has of its own: qstrip, INSTALL, and generic-package, which downloads and unpacks.
cat > Makefile <<'Y'
qstrip = $(strip $(subst ",,$(1)))
INSTALL = install
TARGET_DIR = target
include chosen
define generic-package
install:
	mkdir -p build target
	tar -C build --strip-components=1 -xf $(call qstrip,$(REPOT_INIT_SITE))/$(REPOT_INIT_SOURCE)
	cd build && sha256sum --check --quiet ../licenses
	$(MAKE) -f Makefile commands
commands: @D = build
commands:
	$$(REPOT_INIT_INSTALL_TARGET_CMDS)
endef
include $(PACKAGE)
Y
grep LICENSE- repot-init.hash | sed 's/^sha256  //' > licenses
echo 'BR2_PACKAGE_REPOT_INIT_SITE="release"' >> chosen
make -s PACKAGE="$package/repot-init.mk" install
cmp target/init "$INIT"
[ "$(cat target/etc/repot.conf)" = $'size=80%\nwipe=yes\nmount=devtmpfs' ] || fail "repot.conf is $(cat target/etc/repot.conf)"

step "boot: a root of Buildroot, whose inittab mounts no devtmpfs"
busybox_root root
cp -r target/. root/
boots_with_inittab root
step "done"
