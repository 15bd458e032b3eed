//! One boot of a system: the image of its mode, the disk with the rows, and what the guest reports.

use super::outcome::{Outcome, Row};
use super::root;
use super::system::{System, Turn};
use crate::{last_lines, programs, with_second_try};
use anyhow::{Context, Result};
use repot_harness::command::read;
use repot_harness::qemu::Run;
use repot_harness::tool::{self, Tool};
use repot_harness::{container, debian, kernels, place};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For a guest that hangs. On an idle machine the slowest boot takes a fourth of it.
const LIMIT: Duration = Duration::from_secs(1800);

/// The row that the host adds: whether the guest has switched itself off after its last row.
const OFF: &str = "power-off";

/// The image of a system on a disk, after `repot append`.
const APPENDED: &str = "appended";

/// Packs an archive whose own `/init` executes `/repot`.
const OWN: &str = r#"cp "$INIT" root/repot; (cd root && find . | cpio -o -H newc --quiet) > image"#;

/// What was measured before with the same programs, root and rows.
pub(super) fn known(system: &System, turn: &Turn) -> Result<Option<Outcome>> {
    let Ok(bytes) = std::fs::read(kept(system, turn)?) else { return Ok(None) };
    let outcome: Option<Outcome> = serde_json::from_slice(&bytes).ok();
    let key = key(system, turn)?;
    Ok(outcome.filter(|outcome| outcome.key == key))
}

/// Where the result of a boot is kept.
fn kept(system: &System, turn: &Turn) -> Result<PathBuf> {
    let folder = place::kept("matrix/results")?;
    Ok(folder.join(format!("{}-{}-{}.json", system.name, turn.mode, turn.kernel)))
}

/// Changes with everything that the result depends on.
fn key(system: &System, turn: &Turn) -> Result<String> {
    let init = if turn.mode == "payload" { programs::init_payload()? } else { programs::init()? };
    let start = root::START;
    let init = (turn.mode != "plain").then(|| std::fs::read(init)).transpose()?;
    let kernel = std::fs::read_to_string(kernels::kernel(&turn.kernel)?.image.with_file_name("package"))?;
    let rows = root::files().join("rows");
    let texts = [rows.join("start"), rows.join(&system.rows), root::files().join("install.sh")];
    let texts: Vec<String> = texts.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
    Ok(root::digest((init, start, kernel, texts, system.parts())))
}

/// Builds what is missing, boots, and keeps the result.
pub(super) fn boot(system: &System, turn: &Turn) -> Result<Outcome> {
    debian::need(&[debian::QEMU, ("cpio", "cpio"), ("depmod", "kmod")])?;
    debian::need_root("building the images of real systems")?;
    let key = key(system, turn)?;
    let images = images(system, turn.mode == "payload").context("cannot build the image")?;
    let appended = !system.medium.is_empty() && turn.mode != "plain";
    let image = images.join(if appended { APPENDED } else { "image" });
    let name = format!("matrix/runs/{}-{}-{}", system.name, turn.mode, turn.kernel);
    let folder = place::fresh(&name)?;
    let disk = disk(system, turn, &folder).context("cannot build the disk of the rows")?;
    let mode = match turn.mode.as_str() {
        "plain" if system.own_init => "matrix=plain".to_owned(),
        // The image is not repot's.
        "plain" if !system.medium.is_empty() => String::new(),
        "plain" => "rdinit=/sbin/init".to_owned(),
        mode @ ("move" | "bind") => format!("repot.mode={mode}"),
        _ => String::new(),
    };
    let mut more = system.qemu.clone();
    more.extend(nvme("rows", &disk, ",readonly=on"));
    if !system.medium.is_empty() {
        // The guest may write, and the next one finds nothing of it.
        more.extend(nvme("medium", &images.join("medium"), ",snapshot=on"));
    }
    if system.swap > 0 {
        let swap = folder.join("swap");
        File::create(&swap)?.set_len(system.swap << 20)?;
        more.extend(nvme("swap", &swap, ""));
    }
    let boot = tool::Boot {
        image: &image,
        kernel: &kernels::kernel(&turn.kernel)?,
        append: &format!("{mode} {}", system.append),
        memory_mib: system.memory,
        limit: LIMIT,
        folder: &folder,
    };
    let run = with_second_try(|| Tool::at(programs::tool()?.to_owned()).boot_with(&boot, &more))?;
    let outcome = judge(system, turn, &run, key);
    std::fs::write(kept(system, turn)?, serde_json::to_vec_pretty(&outcome)?)?;
    Ok(outcome)
}

/// A disk that needs no module.
fn nvme(name: &str, file: &Path, options: &str) -> [String; 4] {
    let drive = format!("if=none,id={name},format=raw,file={}{options}", file.display());
    ["-drive".to_owned(), drive, "-device".to_owned(), format!("nvme,drive={name},serial={name}")]
}

/// Adds to the rows of the guest whether it got to their end and off.
fn judge(system: &System, turn: &Turn, run: &Run, key: String) -> Outcome {
    let (mut rows, mut facts, end) = Outcome::parse(&run.report);
    let off = run.console.contains("reboot: Power down");
    let failed = match (end, off && !run.cut_off) {
        (true, true) => None,
        (true, false) => Some(format!("stays on: {}", last_lines(&run.console))),
        (false, _) => Some(format!("the rows end early: {}", last_lines(&run.console))),
    };
    rows.push(Row { name: OFF.to_owned(), failed });
    // Its line in the kernel log, without the time.
    let log = run.console.lines().rev().find_map(|line| line.split_once("repot: "));
    if let Some((_, log)) = log {
        facts.insert("repot".to_owned(), log.trim().to_owned());
    }
    let (mode, kernel) = (turn.mode.clone(), turn.kernel.clone());
    Outcome { system: system.name.clone(), mode, kernel, rows, facts, seconds: run.seconds, key }
}

/// The folder of its images, below `target`.
fn images_folder(system: &System, payload: bool) -> String {
    format!("matrix/images/{}{}", system.name, if payload { "-payload" } else { "" })
}

/// The folder with `image` and what belongs to it, built once.
fn images(system: &System, payload: bool) -> Result<PathBuf> {
    let kept = place::kept(&images_folder(system, payload))?;
    let build = || {
        let folder = place::fresh(&images_folder(system, payload))?;
        pack(system, payload, &folder)?;
        // It is large, and made quickly from the cached root.
        std::fs::remove_dir_all(folder.join("root")).context("cannot remove the root")
    };
    let built = system.images[usize::from(payload)]
        .get_or_init(|| build().map_err(|error: anyhow::Error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)?;
    Ok(kept)
}

fn pack(system: &System, payload: bool, folder: &Path) -> Result<()> {
    root::make(system, folder).context("cannot make the root")?;
    let options = || system.pack.iter().map(String::as_str);
    if !system.medium.is_empty() {
        debian::need(&[
            ("mksquashfs", "squashfs-tools"),
            ("mke2fs", "e2fsprogs"),
            ("unshare", "util-linux"),
        ])?;
        let mut shell = Command::new("sh");
        read(shell.args(["-euc", &system.medium]).current_dir(folder)).context("medium")?;
        let words: Vec<&str> = ["append", "image", "-o", APPENDED].into_iter().chain(options()).collect();
        Tool::at(programs::tool()?.to_owned()).run(folder, &words)?;
    } else if system.own_init {
        let mut shell = Command::new("sh");
        read(shell.args(["-euc", OWN]).env("INIT", programs::init()?).current_dir(folder))?;
    } else {
        let mut words = vec!["pack", "root", "-o", "image"];
        words.extend(options());
        words.extend(payload.then_some("--payload"));
        // Other levels take longer to write than to boot.
        words.extend((!payload).then_some(["--level", "3"]).into_iter().flatten());
        Tool::at(programs::tool()?.to_owned()).run(folder, &words)?;
    }
    if !system.finish.is_empty() {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &system.finish]).env("REPOT", programs::tool()?).env("INIT", programs::init()?);
        read(shell.env("FILES", root::files()).current_dir(folder)).context("finish")?;
    }
    Ok(())
}

/// An archive with the rows, which the guest reads as a disk.
fn disk(system: &System, turn: &Turn, folder: &Path) -> Result<PathBuf> {
    let rows = folder.join("rows");
    std::fs::create_dir(&rows)?;
    let from = root::files().join("rows");
    std::fs::copy(from.join("start"), rows.join("start"))?;
    std::fs::copy(from.join(&system.rows), rows.join("rows"))?;
    std::fs::write(
        rows.join("bundle.json"),
        container::BUNDLE.replace("GREETING", "hello from a container"),
    )?;
    let facts = format!("system={}\nmode={}\nkernel={}\n", system.name, turn.mode, turn.kernel);
    std::fs::write(rows.join("turn"), facts)?;
    if !system.disk.is_empty() {
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &system.disk])
            .env("KERNEL", kernels::kernel(&turn.kernel)?.image)
            .env("FILES", root::files());
        let images = place::kept(&images_folder(system, turn.mode == "payload"))?;
        read(shell.env("IMAGES", images).current_dir(&rows)).context("disk")?;
    }
    let disk = folder.join("rows.tar");
    read(Command::new("tar").arg("-C").arg(&rows).arg("-cf").arg(&disk).arg("."))?;
    std::fs::remove_dir_all(&rows)?;
    Ok(disk)
}
