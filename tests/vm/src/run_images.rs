//! Boots of images that run one program: what the program sees, and how its end becomes the exit code of
//! `repot boot`.

use crate::{Boot, LIMIT, programs};
use anyhow::{Context, Result, ensure};
use repot_harness::tool::Tool;
use repot_harness::{debian, kernels, place};
use std::path::Path;
use std::process::{Command, Stdio};

/// An image and its boot.
struct Image {
    name: &'static str,
    kernel: &'static str,
    /// Options of `repot pack`.
    pack: &'static [&'static str],
    /// The program, for the shell.
    script: &'static str,
    /// The exit code of `repot boot`.
    code: i32,
    /// Texts on the console.
    console: &'static [&'static str],
}

const IMAGES: [Image; 4] = [
    Image {
        name: "exit-code",
        kernel: "6.12",
        pack: &["--user", "7:8", "--env", "A=b", "--workdir", "/work"],
        script: "id; pwd; echo $A; tty; mount; ls -a /; exit 137",
        code: 137,
        console: &[
            "uid=7 gid=8",
            "/work",
            "b\r",
            "/dev/console",
            "devpts on /dev/pts",
            "exit code 137; powering off",
        ],
    },
    Image {
        name: "payload",
        kernel: "7",
        pack: &["--payload"],
        script: "sleep 1000 & exit 3",
        code: 3,
        console: &["exit code 3; powering off"],
    },
    Image {
        name: "panic",
        kernel: "5.10",
        pack: &["--onexit", "panic"],
        script: "exit 5",
        code: 1,
        console: &["Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000500"],
    },
    Image {
        name: "ctrl-alt-del",
        kernel: "6.1",
        pack: &["--onexit", "reboot"],
        // The keyboard of the machine is out of reach, but its signal is not.
        // What it writes to the console as it ends is lost: see docs/run.md.
        script: "trap 'echo asked > /dev/kmsg; exit 0' TERM; kill -INT 1; while :; do sleep 0.1; done",
        code: 0,
        console: &["asked", "exit code 0; rebooting"],
    },
];

/// One boot for each image.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |image: &'static Image| Boot {
        name: format!("run/{}", image.name),
        long: false,
        run: Box::new(move || {
            debian::need(&[debian::QEMU, debian::BUSYBOX])?;
            boot(image)
        }),
    };
    IMAGES.iter().map(boot).collect()
}

fn boot(image: &Image) -> Result<()> {
    let tool = programs::tool()?;
    let folder = place::fresh(&format!("run/{}", image.name))?;
    let bin = folder.join("root/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(folder.join("root/work"))?;
    let busybox = repot_harness::command::read(Command::new("which").arg("busybox"))?;
    std::fs::copy(busybox.trim(), bin.join("busybox")).context("BusyBox")?;
    for applet in ["sh", "id", "kill", "ls", "mount", "sleep", "tty"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let mut words = vec!["pack", "root", "-o", "image"];
    words.extend(image.pack);
    words.extend(["--", "sh", "-c", image.script]);
    Tool::at(tool.to_owned()).run(&folder, &words)?;
    let kernel = kernels::kernel(image.kernel)?;
    let console = folder.join("console.txt");
    let output = Command::new(tool)
        .args(["boot", "--no-kvm", "--memory", "256M", "--timeout", &LIMIT.as_secs().to_string(), "--kernel"])
        .arg(&kernel.image)
        .arg("--console")
        .arg(&console)
        .arg(folder.join("image"))
        .stdin(Stdio::null())
        .output()
        .context("repot boot")?;
    let text = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
    let messages = String::from_utf8_lossy(&output.stderr);
    let seen = folder.strip_prefix(place::checkout()).unwrap_or(Path::new("target")).display();
    let code = output.status.code();
    ensure!(code == Some(image.code), "repot boot exited with {code:?}: {messages}; see {seen}");
    for expected in image.console {
        ensure!(text.contains(expected), "the console does not show {expected:?}; see {seen}");
    }
    Ok(())
}
