//! Boots of images laid out as other projects build them, with BusyBox as their init: they must do after
//! `repot append` what they did before it.

use crate::{Boot, LIMIT, last_lines, programs, with_second_try};
use anyhow::{Context, Result, ensure};
use repot_cli::newc::{Item, Reader, Writer};
use repot_harness::kernels;
use repot_harness::tool::{self, Tool};
use repot_harness::{command, debian, place};
use std::path::Path;
use std::process::Command;

struct Layout {
    name: &'static str,
    kernel: &'static str,
    /// A shell script that builds the rest of `root`, which has BusyBox and its links.
    script: &'static str,
    /// Appended to the kernel command line.
    append: &'static str,
    /// Lines of the console, once before and once after `append`.
    prints: &'static [&'static str],
    /// How the archive writes the names.
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// As `find .` prints them, in the archive of GNU cpio.
    Find,
    /// As LinuxKit writes them: without `./`, and directories end with a slash.
    Slashes,
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        name: "buildroot",
        kernel: "6.12",
        // The script of fs/cpio: it mounts the devtmpfs that its inittab does not mount.
        script: "printf '#!/bin/sh\n/bin/mount -t devtmpfs devtmpfs /dev\nexec 0</dev/console 1>/dev/console \
                 2>/dev/console\nexec /sbin/init \"$@\"\n' > root/init; chmod 755 root/init; \
                 ln -s ../bin/busybox root/sbin/init; printf '::sysinit:/bin/mount -t proc proc /proc\n\
                 ::sysinit:/bin/sh -c \"test -c /dev/ttyS0 && test -c /dev/urandom && echo BUILDROOT \\$PPID; \
                 poweroff -f\"\n' > root/etc/inittab",
        append: "",
        prints: &["BUILDROOT 1"],
        names: Names::Find,
    },
    Layout {
        name: "u-root",
        kernel: "7",
        // /init is a link to one program of many, which looks at its name.
        script: "mkdir root/bbin; ln -s ../bin/busybox root/bbin/bb; ln -s bbin/bb root/init; \
                 printf '::sysinit:/bin/sh -c \"echo UROOT; poweroff -f\"\n' > root/etc/inittab",
        append: "",
        prints: &["UROOT"],
        names: Names::Find,
    },
    Layout {
        name: "nixos",
        kernel: "6.1",
        // Its stage 1 reads init= to find the system that it switches to.
        script: "printf '#!/bin/sh\n/bin/mount -t proc proc /proc\nread line < /proc/cmdline\nfor word in $line; do \
                 case $word in init=*) echo NIXOS ${word#init=};; esac; done\npoweroff -f\n' > root/init; \
                 chmod 755 root/init",
        append: "init=/nix/store/abc-nixos/init",
        prints: &["NIXOS /nix/store/abc-nixos/init"],
        names: Names::Find,
    },
    Layout {
        name: "linuxkit",
        kernel: "6.12",
        script: "printf '#!/bin/sh\necho LINUXKIT\npoweroff -f\n' > root/init; chmod 755 root/init",
        append: "",
        prints: &["LINUXKIT"],
        names: Names::Slashes,
    },
];

/// A boot for each layout.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |layout: &'static Layout| Boot {
        name: format!("layouts/{}", layout.name),
        long: false,
        run: Box::new(move || run(layout)),
    };
    LAYOUTS.iter().map(boot).collect()
}

fn run(layout: &'static Layout) -> Result<()> {
    debian::need(&[debian::QEMU, debian::BUSYBOX, ("cpio", "cpio")])?;
    let folder = place::fresh(&format!("layouts/{}", layout.name))?;
    let tool = Tool::at(programs::tool()?.to_owned());
    build(layout, &folder).context("cannot build the image")?;
    tool.run(&folder, &["append", "before", "-o", "after"])?;
    for image in ["before", "after"] {
        let runs = place::kept(&format!("layouts/{}/{image}-run", layout.name))?;
        let boot = tool::Boot {
            image: &folder.join(image),
            kernel: &kernels::kernel(layout.kernel)?,
            append: layout.append,
            memory_mib: 256,
            limit: LIMIT,
            folder: &runs,
        };
        let run = with_second_try(|| tool.boot(&boot))?;
        for line in layout.prints {
            let printed = run.console.lines().any(|printed| printed.trim() == *line);
            ensure!(printed, "{image} does not print {line:?}; the last lines: {}", last_lines(&run.console));
        }
        let moved = run.console.contains("repot: move: ");
        ensure!(moved == (image == "after"), "{image}: repot has moved the root: {moved}");
    }
    Ok(())
}

fn build(layout: &Layout, folder: &Path) -> Result<()> {
    let links = "mkdir -p root/bin root/sbin root/etc root/dev root/proc root/sys root/mnt; \
                 cp $(which busybox) root/bin/busybox; \
                 for name in sh mount poweroff echo test; do ln -s busybox root/bin/$name; done";
    let pack = "(cd root && find . | cpio -o -H newc -R 0:0 --quiet) > found";
    let script = format!("{links}; {}; {pack}", layout.script);
    command::read(Command::new("sh").current_dir(folder).args(["-ec", &script]))?;
    let found = std::fs::read(folder.join("found"))?;
    let image = if layout.names == Names::Slashes { slashes(&found)? } else { found };
    std::fs::write(folder.join("before"), image).context("cannot write the image")
}

/// The archive with the names that LinuxKit writes.
fn slashes(archive: &[u8]) -> Result<Vec<u8>> {
    let (mut reader, mut writer) = (Reader::new(archive, 0), Writer::new(Vec::new()));
    while let Some(item) = reader.next_item()? {
        let Item::Member(mut header) = item else { continue };
        if header.name == b"." {
            continue;
        }
        if header.is_dir() {
            header.name.push(b'/');
        }
        writer.append_from(&header, &mut reader)?;
    }
    Ok(writer.finish()?)
}
