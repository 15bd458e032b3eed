#!/bin/sh
# image.sh INIT LAYOUT [ARCHITECTURE]: an OCI layout with one image, repot/init:latest, that holds nothing but /init.
# The same init gives the same bytes.
set -eu
init=$1 layout=$2 architecture=${3:-amd64}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkdir "$layout" "$layout/blobs" "$layout/blobs/sha256"

# blob FILE TYPE: moves a file into the layout, and prints its descriptor.
blob() {
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' \
        "$2" "$digest" "$(wc -c < "$1")"
    mv "$1" "$layout/blobs/sha256/$digest"
}

install -m 755 "$init" "$work/init"
tar -C "$work" --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer" init
id=sha256:$(sha256sum "$work/layer" | cut -d ' ' -f 1)
layer="$(blob "$work/layer" layer.v1.tar)}"
printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$architecture" "$id" > "$work/config"
config="$(blob "$work/config" config.v1+json)}"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$config" "$layer" > "$work/manifest"
manifest=$(blob "$work/manifest" manifest.v1+json)
name='"org.opencontainers.image.ref.name":"latest","io.containerd.image.name":"docker.io/repot/init:latest"'
printf '{"schemaVersion":2,"manifests":[%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{%s}}]}' \
    "$manifest" "$architecture" "$name" > "$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
