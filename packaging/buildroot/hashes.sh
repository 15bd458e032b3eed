#!/bin/sh
# hashes.sh SHA256SUMS: prints package/repot-init/repot-init.hash for a release, from its list of checksums.
set -eu
here=$(dirname "$0")
archives=$(sed -n 's/^\([0-9a-f]\{64\}\) [ *]\(repot-init-.*\.tgz\)$/sha256  \1  \2/p' "$1")
[ -n "$archives" ] || { echo "$1 has no line of a repot-init archive" >&2; exit 1; }
echo "# From SHA256SUMS of the release."
echo "$archives"
echo "# Computed here."
grep '  LICENSE-' "$here/package/repot-init/repot-init.hash"
