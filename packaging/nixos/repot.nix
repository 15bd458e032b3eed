# A NixOS module: the whole system as one initramfs, unpacked by repot into a tmpfs. There is no stage 1, no squashfs
# and no overlay: /nix/store is a folder of the root, and stage 2 is the init that repot executes.
#
#   imports = [ ./repot.nix ];
#   repot.package = ./repot;              # the tool of a release, or a package with bin/repot
#
#   nix-build '<nixpkgs/nixos>' -A config.system.build.repotRamdisk -I nixos-config=./configuration.nix
{ config, lib, pkgs, ... }:

let
  cfg = config.repot;
  toplevel = config.system.build.toplevel;
  tool = if lib.isDerivation cfg.package then "${cfg.package}/bin/repot" else "${cfg.package}";
  settings = lib.mapAttrsToList (key: value: "--config ${lib.escapeShellArg "${key}=${toString value}"}") (
    { init = "${toplevel}/init"; mount = "proc,sysfs,devtmpfs"; } // cfg.settings
  );
in
{
  options.repot = {
    package = lib.mkOption {
      type = lib.types.either lib.types.package lib.types.path;
      description = "The tool `repot`: a package with bin/repot, or the program itself.";
    };
    settings = lib.mkOption {
      type = lib.types.attrsOf (lib.types.either lib.types.str lib.types.int);
      default = { };
      example = { size = "80%"; zram = "auto"; };
      description = "Lines of /etc/repot.conf; see repot.conf(5).";
    };
    payload = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Keep the root compressed in the image. It needs the least memory.";
    };
  };

  config = {
    # The root is the tmpfs that repot makes. systemd applies these options to it, so there are none: size= is a
    # matter of `settings`.
    fileSystems."/" = lib.mkDefault { device = "tmpfs"; fsType = "tmpfs"; options = [ "defaults" ]; };
    boot.initrd.enable = false;
    boot.loader.grub.enable = lib.mkDefault false;

    system.build.repotRamdisk =
      pkgs.runCommand "repot-ramdisk"
        {
          closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
          passthru.file = "initrd";
        }
        ''
          mkdir -p root/{dev,etc,proc,run,sys,tmp,var} root/nix/store $out
          chmod 1777 root/tmp
          while read -r path; do
            cp -a "$path" "root$path"
          done < "$closure/store-paths"
          # Stage 2 registers the paths of the store from this file.
          cp "$closure/registration" root/nix-path-registration
          ${tool} pack root --owner 0:0 ${lib.optionalString cfg.payload "--payload"} \
            ${lib.concatStringsSep " " settings} -o $out/initrd
        '';

    # As in NixOS's own netboot images: the store knows what is in it.
    boot.postBootCommands = lib.mkBefore ''
      if [ -e /nix-path-registration ]; then
        ${config.nix.package.out}/bin/nix-store --load-db < /nix-path-registration
        rm /nix-path-registration
      fi
    '';
  };
}
