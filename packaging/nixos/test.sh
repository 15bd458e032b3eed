#!/bin/bash
# debian: nix-bin
# programs: jq=jq cpio=cpio
# shellcheck source=packaging/test/lib.sh
. "$FILES/../test/lib.sh"

step "the module, parsed and evaluated by Debian's nix"
root_of tools
mkdir -p tools/build
cp "$FILES/repot.nix" tools/build/
# nixpkgs is not packaged here: these are the few functions of it that the module calls.
cat > tools/build/eval.nix <<'Y'
let
  lib = {
    isDerivation = value: (value.type or null) == "derivation";
    mapAttrsToList = f: set: map (name: f name set.${name}) (builtins.attrNames set);
    escapeShellArg = text: "'${text}'";
    optionalString = yes: text: if yes then text else "";
    concatStringsSep = builtins.concatStringsSep;
    mkOption = option: option;
    mkDefault = value: value;
    mkBefore = value: value;
    types = { package = "package"; path = "path"; str = "str"; int = "int"; bool = "bool"; either = a: b: [ a b ]; attrsOf = a: a; };
  };
  pkgs = {
    runCommand = name: attributes: script: { inherit name script; closure = attributes.closure; };
    closureInfo = { rootPaths }: "CLOSURE";
  };
  module = import ./repot.nix { inherit lib pkgs; config = {
    repot = { package = "/repot"; settings = { size = "80%"; }; payload = true; };
    system.build.toplevel = "/nix/store/toplevel";
    nix.package.out = "/nix/store/nix";
  }; };
in { options = builtins.attrNames module.options.repot; stage1 = module.config.boot.initrd.enable;
     script = module.config.system.build.repotRamdisk.script; boot = module.config.boot.postBootCommands; }
Y
in_root tools sh -ec 'cd /build; nix-instantiate --version; nix-instantiate --parse repot.nix > /dev/null
    nix-instantiate --eval --strict --json eval.nix > out.json 2> eval.log' || { cat tools/build/eval.log; fail "nix"; }
jq -r .script tools/build/out.json > script
has script "pack root --owner 0:0 --payload" "--config 'init=/nix/store/toplevel/init'" "--config 'size=80%'"
[ "$(jq -r .stage1 tools/build/out.json)" = false ] || fail "stage 1 is still there"

step "boot: the script of the derivation, with a closure like that of a system"
# Two paths of a store: the system with its init, and what that runs.
mkdir -p closure store/toplevel
busybox_root store/busybox
cat > store/toplevel/init <<Y
#!$PWD/store/busybox/bin/sh
$PWD/store/busybox/bin/mount -t tmpfs run /run
echo "stage 2: PID \$\$" > /dev/console
exec $PWD/store/busybox/bin/busybox init
Y
chmod 755 store/toplevel/init
printf '%s\n' "$PWD/store/toplevel" "$PWD/store/busybox" > closure/store-paths
echo registration > closure/registration
# The paths are not below /nix/store here: the folders above them are made, and the links of a system's /bin.
{
    echo 'set -e'
    sed -e "s|/nix/store/toplevel|$PWD/store/toplevel|g" -e "s|^/repot|'$REPOT'|" script
} > build.sh
sed -i "s|cp -a \"\$path\"|mkdir -p \"root\$(dirname \"\$path\")\"; &|" build.sh
sed -i "s|^'$REPOT' pack|ln -s '$PWD/store/busybox/bin' root/bin; printf '::sysinit:/bin/report\\\\n' > root/etc/inittab; &|" build.sh
out=$PWD/out closure=$PWD/closure bash build.sh > build.log
boot 256 boot.txt out/initrd ""
has boot.txt "repot: payload: " "stage 2: PID 1" "REPORT root tmpfs" "REPORT pivot_root works" "REPORT end"
step "done"
