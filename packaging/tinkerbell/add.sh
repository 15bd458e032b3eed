#!/bin/sh
# add.sh hook.template.yaml: adds repot to the init: list, right behind LinuxKit's own init, which it replaces.
set -eu
file=$1
grep -q '^  - linuxkit/init:' "$file" || { echo "$file has no linuxkit/init in its init: list" >&2; exit 1; }
if grep -q '^  - repot/init:' "$file"; then
    echo "$file has repot already" >&2
    exit 0
fi
sed -i '/^  - linuxkit\/init:/a\  - repot/init:latest' "$file"
