//! A boot of a unified kernel image by UEFI firmware: `pack --uki` writes it, OVMF loads it, systemd's stub
//! starts the kernel with the initramfs and the command line of the image, and `/init` moves the root.

use crate::{Boot, LIMIT, last_lines, programs};
use anyhow::{Result, ensure};
use repot_harness::tool::Tool;
use repot_harness::{command, debian, kernels, place};
use std::path::Path;
use std::process::Command;

/// What each of them prints, from the firmware on.
const PRINTED: [&str; 4] =
    ["efi: EFI v", "repot.log=debug from=uki", "repot: move: / is the initial", "FROM UKI"];

/// The root: BusyBox, and an init that ends the guest.
const ROOT: &str = "mkdir -p root/bin root/sbin; cp $(which busybox) root/bin/busybox; ln -s busybox root/bin/sh; \
    printf '#!/bin/sh\\necho FROM UKI\\nbusybox poweroff -f\\n' > root/sbin/init; chmod 755 root/sbin/init";

/// The boot.
pub(crate) fn boots() -> Vec<Boot> {
    vec![Boot { name: "uki/firmware-6.12".to_owned(), long: false, run: Box::new(run) }]
}

fn run() -> Result<()> {
    debian::need(&[debian::QEMU, debian::BUSYBOX])?;
    debian::need_file(Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd"), "ovmf")?;
    debian::need_file(Path::new("/usr/lib/systemd/boot/efi/linuxx64.efi.stub"), "systemd-boot-efi")?;
    let folder = place::fresh("uki/firmware")?;
    command::read(Command::new("sh").current_dir(&folder).args(["-ec", ROOT]))?;
    let tool = Tool::at(programs::tool()?.to_owned());
    let kernel = kernels::kernel("6.12")?.image.display().to_string();
    let line = "console=ttyS0 panic=-1 no_timer_check repot.log=debug from=uki";
    tool.run(&folder, &["pack", "root", "-o", "image.efi", "--uki", "--kernel", &kernel, "--cmdline", line])?;
    let limit = LIMIT.as_secs().to_string();
    let words =
        ["boot", "image.efi", "--firmware", "--no-kvm", "--console", "console.txt", "--timeout", &limit];
    let said = tool.output(&folder, &words)?;
    let console = String::from_utf8_lossy(&std::fs::read(folder.join("console.txt"))?).into_owned();
    for text in PRINTED {
        ensure!(
            console.contains(text),
            "no {text:?} on the console; the last lines: {}\n{said}",
            last_lines(&console)
        );
    }
    Ok(())
}
