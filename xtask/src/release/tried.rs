//! Tries a tool before it is released. One for another architecture runs in QEMU's emulation of programs.

use anyhow::{Context, Result, bail, ensure};
use repot_harness::build::Arch;
use repot_harness::command::read;
use repot_harness::{debian, place};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Packs a small root of the tool's architecture, looks into the image, and compares the inits that the tool
/// carries with those that were built.
pub(super) fn tool(arch: Arch, version: &str, inits: &[Arch]) -> Result<()> {
    let folder = place::fresh(&format!("tried/{}", arch.name()))?;
    let dist = place::kept("dist")?;
    let tool = dist.join(arch.name()).join("repot");
    let run = |words: &[&str]| {
        let mut command = command(arch, &tool)?;
        command.current_dir(&folder).args(words);
        for name in ["REPOT_INIT", "REPOT_INIT_PAYLOAD", "REPOT_RUN"] {
            command.env_remove(name);
        }
        read(&mut command).with_context(|| format!("the tool for {}", arch.name()))
    };
    let printed = run(&["--version"])?;
    ensure!(printed.contains(version), "the tool for {} prints another version: {printed}", arch.name());
    fs::create_dir_all(folder.join("root/sbin"))?;
    fs::copy(dist.join(arch.name()).join("run"), folder.join("root/sbin/init"))?;
    for words in [&["pack", "root", "-o", "image"][..], &["pack", "root", "-o", "image", "--payload"]] {
        run(words)?;
        let shown = run(&["inspect", "image"])?;
        let boots = "/init is repot, which runs /sbin/init";
        ensure!(shown.contains(boots), "{}: not in the image of {words:?}: {boots}\n{shown}", arch.name());
        ensure!(run(&["ls", "image"])?.contains("sbin/init"), "{words:?}: no /sbin/init");
    }
    for other in inits {
        for (name, option) in [("init", None), ("init-payload", Some("--payload")), ("run", Some("--run"))] {
            let words = ["init", "-o", "out", "--arch", other.name()];
            run(&[&words[..], option.as_slice()].concat())?;
            let same = fs::read(folder.join("out"))? == fs::read(dist.join(other.name()).join(name))?;
            ensure!(same, "the tool for {} has another {name} for {}", arch.name(), other.name());
        }
    }
    println!(
        "the tool for {}: packs, inspects, and has the inits of {} architectures",
        arch.name(),
        inits.len()
    );
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// How this machine runs a program of the architecture.
fn command(arch: Arch, program: &Path) -> Result<Command> {
    if arch.name() == std::env::consts::ARCH {
        return Ok(Command::new(program));
    }
    let emulator = match arch {
        Arch::X86_64 => ("qemu-x86_64", "qemu-user"),
        Arch::Aarch64 => ("qemu-aarch64", "qemu-user"),
        Arch::I686 | Arch::Armv7 | Arch::Riscv64 | Arch::Ppc64le | Arch::S390x | Arch::Loongarch64 => {
            bail!("the tool is not released for {}", arch.name())
        }
    };
    debian::need(&[emulator])?;
    let mut command = Command::new(emulator.0);
    command.arg(program);
    Ok(command)
}
