#!/bin/bash
# programs: curl=curl python3=python3 cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "a release on this machine"
name=repot-cli-x86_64-unknown-linux-musl-v9.9.9
mkdir -p release/v9.9.9 "archive/$name"
cp "$REPOT" "archive/$name/repot"
tar -C archive -czf "release/v9.9.9/$name.tgz" "$name"
(cd release/v9.9.9 && sha256sum "$name.tgz" > SHA256SUMS)
busybox_root root
echo '::sysinit:/bin/mount -t proc proc /proc
::sysinit:/bin/mount -t devtmpfs dev /dev
::sysinit:/bin/report' > root/etc/inittab

# As action.yml starts it.
action() {
    env REPOT_ROOT=root REPOT_VERSION=9.9.9 REPOT_RELEASE="file://$PWD/release" GITHUB_OUTPUT="$PWD/output" \
        GITHUB_ACTION_PATH="$FILES" "$@" bash -ec '"$GITHUB_ACTION_PATH/pack.sh"' > action.txt 2>&1
}

step "the step of the action"
action REPOT_IMAGE=image.zst REPOT_ARGUMENTS= REPOT_SHA256= || { cat action.txt; fail "the action"; }
has output image=image.zst
action REPOT_IMAGE=payload.cpio REPOT_ARGUMENTS="--payload --config size=80%" \
    REPOT_SHA256="$(sha256sum < "release/v9.9.9/$name.tgz" | cut -d ' ' -f 1)" || { cat action.txt; fail "the action"; }
grep -q '^digest=sha256:[0-9a-f]\{64\}$' output || { cat output; fail "no digest"; }
action REPOT_IMAGE=wrong.zst REPOT_ARGUMENTS= REPOT_SHA256="$(printf '%064d' 0)" && fail "a wrong checksum passes"
has action.txt "the checksum of $name.tgz is wrong"
action REPOT_IMAGE=wrong.zst REPOT_ARGUMENTS=--no-such-option REPOT_SHA256= && fail "an error of pack passes"
[ ! -e wrong.zst ] || fail "an image in spite of the error"

step "boot: the images"
digest=$(sed -n 's/^digest=\(sha256:.*\)/\1/p' output | tail -n 1)
boot 256 image.txt image.zst ""
boot 256 payload.txt payload.cpio "repot.payload=$digest"
has image.txt "repot: move: " "REPORT root tmpfs" "REPORT end"
has payload.txt "repot: payload: " "REPORT root tmpfs" "REPORT end"
step "done"
