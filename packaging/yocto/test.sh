#!/bin/bash
# programs: python3=python3 cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "oelint-adv, the linter for recipes"
python3 -m venv venv
venv/bin/pip -q install oelint-adv==9.11.2 2> pip.log || { cat pip.log; fail "no oelint-adv from PyPI"; }
recipe=$(echo "$FILES"/recipes-core/repot-init/*.bb)
# HOMEPAGE is a name that does not exist yet.
venv/bin/oelint-adv --quiet --suppress=oelint.vars.homepageping --suppress=oelint.var.suggestedvar.CVE_PRODUCT \
    --suppress=oelint.var.bbclassextend "$recipe" "$FILES"/classes/*.bbclass > lint.txt 2>&1 || true
if grep -q ':error:\|:warning:' lint.txt; then cat lint.txt; fail "oelint-adv"; fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$FILES/../../Cargo.toml" | head -n 1)
[ "$recipe" = "$FILES/recipes-core/repot-init/repot-init_$version.bb" ] || fail "the recipe is not of version $version"
for name in APACHE MIT; do
    has "$recipe" "file://LICENSE-$name;md5=$(md5sum < "$FILES/../../LICENSE-$name" | cut -d ' ' -f 1)"
done

step "do_install, and the check of the image class, by a shell"
mkdir release image
cp "$INIT" release/init
# A function of a file, with the variables of bitbake as those of a shell.
function_of() {
    sed -n "/^$2() {/,/^}/p" "$1" | sed 's/\${IMAGE_ROOTFS}/$IMAGE_ROOTFS/g'
}
(
    eval "$(function_of "$recipe" do_install)"
    # shellcheck disable=SC2034 # read by the function
    D=image sysconfdir=/etc S=release REPOT_PROGRAM=init REPOT_SETTINGS="mount=devtmpfs size=80%"
    do_install
)
cmp image/init "$INIT"
[ "$(cat image/etc/repot.conf)" = $'mount=devtmpfs\nsize=80%' ] || fail "repot.conf is $(cat image/etc/repot.conf)"
check() {
    (
        bbfatal() { echo "fatal: $*"; exit 1; }
        bbwarn() { echo "warning: $*"; }
        eval "$(function_of "$FILES/classes/image_repot.bbclass" repot_check_init)"
        # shellcheck disable=SC2034
        IMAGE_ROOTFS=$1
        repot_check_init
    )
}
busybox_root root
check root > wrong.txt && fail "an image without repot passes"
has wrong.txt "is not repot"
cp -r image/. root/
check root

step "boot: the image that it makes"
boots_with_inittab root
step "done"
