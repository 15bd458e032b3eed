#!/bin/bash
# The step of action.yml: downloads the tool, compares its checksum, and packs.
set -euo pipefail
case $(uname -m) in
    x86_64) target=x86_64-unknown-linux-musl ;;
    aarch64 | arm64) target=aarch64-unknown-linux-musl ;;
    *) echo "::error::repot is released for x86_64 and aarch64, not for $(uname -m)"; exit 1 ;;
esac
name=repot-cli-$target-v$REPOT_VERSION
from=${REPOT_RELEASE%/}/v$REPOT_VERSION
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

curl --fail --silent --show-error --location --retry 3 -o "$work/$name.tgz" "$from/$name.tgz"
if [ -n "${REPOT_SHA256:-}" ]; then
    echo "$REPOT_SHA256  $name.tgz" > "$work/sums"
else
    curl --fail --silent --show-error --location --retry 3 -o "$work/all" "$from/SHA256SUMS"
    grep -F "  $name.tgz" "$work/all" > "$work/sums" || {
        echo "::error::SHA256SUMS of the release has no $name.tgz"
        exit 1
    }
fi
(cd "$work" && sha256sum --check --quiet sums) || {
    echo "::error::the checksum of $name.tgz is wrong"
    exit 1
}
tar -C "$work" -xzf "$work/$name.tgz" "$name/repot"

# Words, as on a command line; nothing in them is expanded.
read -r -a arguments <<< "${REPOT_ARGUMENTS:-}"
"$work/$name/repot" pack "$REPOT_ROOT" -o "$REPOT_IMAGE" "${arguments[@]}" | tee "$work/summary"
digest=$(grep -o -m 1 'sha256:[0-9a-f]\{64\}' "$work/summary" || true)
{
    echo "image=$REPOT_IMAGE"
    echo "digest=$digest"
} >> "$GITHUB_OUTPUT"
