//! Boots of images that run one program: what the program sees, and how its end becomes the exit code of
//! `repot boot`.

use crate::verdict::said;
use crate::{Boot, LIMIT, programs};
use anyhow::{Context, Result, bail, ensure};
use repot_harness::tool::Tool;
use repot_harness::{debian, kernels, place};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// An image and its boot.
#[derive(Clone, Copy)]
struct Image {
    name: &'static str,
    kernel: &'static str,
    /// Options of `repot pack`.
    pack: &'static [&'static str],
    /// The kernel series of these drivers, which are packed too.
    drivers: (&'static str, &'static [&'static str]),
    /// A script that changes the root before it is packed. `$RUNNER` is a static program in Rust.
    setup: &'static str,
    program: Program,
    /// More options of `repot boot`.
    boot: &'static [&'static str],
    /// `--` and arguments of QEMU.
    qemu: &'static [&'static str],
    /// What is typed once the console shows a text.
    keys: Option<(&'static str, &'static [u8])>,
    /// The exit code of `repot boot`.
    code: i32,
    /// What a virtio port called `exit` gets from the guest.
    port: &'static str,
    /// A file below the folder of the boot, and what it contains afterwards.
    file: (&'static str, &'static str),
    /// Texts on the console, or among the messages of `repot boot`.
    console: &'static [&'static str],
    /// The number of lines with nothing but a number, which count from 1.
    numbers: usize,
}

#[derive(Clone, Copy)]
enum Program {
    /// A script for the shell.
    Shell(&'static str),
    /// The program and its arguments.
    Words(&'static [&'static str]),
    /// None: BusyBox is the init, with this inittab.
    Inittab(&'static str),
}

use Program::{Inittab, Shell, Words};

/// What most images have in common.
const PLAIN: Image = Image {
    name: "",
    kernel: "6.12",
    pack: &[],
    drivers: ("", &[]),
    setup: "",
    program: Shell(""),
    boot: &[],
    qemu: &[],
    keys: None,
    code: 0,
    port: "",
    file: ("", ""),
    console: &[],
    numbers: 0,
};

/// A virtio port that writes to a file.
const PORT: &[&str] = &[
    "--",
    "-device",
    "virtio-serial-pci",
    "-chardev",
    "file,id=exit,path=port.txt",
    "-device",
    "virtserialport,chardev=exit,name=exit",
];

const IMAGES: [Image; 18] = [
    Image {
        name: "exit-code",
        pack: &["--user", "7:8", "--env", "A=b", "--workdir", "/work"],
        program: Shell("id; pwd; echo $A; tty; mount; ls -a /; exit 137"),
        code: 137,
        console: &[
            "uid=7 gid=8",
            "/work",
            "b\r",
            "/dev/console",
            "devpts on /dev/pts",
            "exit code 137; powering off",
        ],
        ..PLAIN
    },
    Image {
        name: "payload",
        kernel: "7",
        pack: &["--payload"],
        program: Shell("sleep 1000 & exit 3"),
        code: 3,
        console: &["exit code 3; powering off"],
        ..PLAIN
    },
    Image {
        name: "panic",
        kernel: "5.10",
        pack: &["--onexit", "panic"],
        program: Shell("exit 5"),
        code: 1,
        console: &["Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000500"],
        ..PLAIN
    },
    Image {
        name: "ctrl-alt-del",
        kernel: "6.1",
        pack: &["--onexit", "reboot"],
        // The keyboard of the machine is out of reach, but its signal is not.
        program: Shell("trap 'echo asked; exit 0' TERM; kill -INT 1; while :; do sleep 0.1; done"),
        console: &["asked\r", "exit code 0; rebooting"],
        ..PLAIN
    },
    // 106 KB, of which the serial port holds 4 KiB when the program ends.
    Image {
        name: "last-output",
        program: Shell("exec seq 1 18000"),
        boot: &["--append", "quiet"],
        numbers: 18_000,
        ..PLAIN
    },
    // Nothing else is in the image, as in one that is built from scratch.
    Image {
        name: "scratch",
        kernel: "6.1",
        setup: "rm -r *; cp \"$RUNNER\" program",
        program: Words(&["/program", "--version"]),
        console: &["repot-run 0.", "exit code 0; powering off"],
        ..PLAIN
    },
    // CAP_NET_BIND_SERVICE on a file, which an initramfs alone cannot carry.
    Image {
        name: "capability",
        kernel: "6.1",
        pack: &["--user", "7:8"],
        setup: "cp bin/busybox bin/httpd; setfattr -n security.capability -v \
                0x0100000200040000000000000000000000000000 bin/httpd",
        program: Shell("busybox httpd -p 80; echo without $?; httpd -p 80; echo with $?"),
        console: &["without 1\r", "with 0\r"],
        ..PLAIN
    },
    // Ctrl-Z stops nothing, since nobody could continue it. Ctrl-C reaches the program and nobody else.
    Image {
        name: "terminal",
        kernel: "7",
        program: Shell("trap 'echo got it; exit 7' INT; echo rea''dy; while :; do sleep 0.1; done"),
        keys: Some(("ready", b"\x1a\x03")),
        code: 7,
        console: &["got it\r", "exit code 7; powering off"],
        ..PLAIN
    },
    Image {
        name: "microvm",
        program: Shell("exec seq 1 1000"),
        boot: &["--machine", "microvm", "--append", "quiet"],
        numbers: 1000,
        ..PLAIN
    },
    Image {
        name: "exec",
        pack: &["--user", "7:8", "--env", "A=b"],
        program: Shell("echo not this; exit 1"),
        boot: &["--exec", "sh -c 'id; echo \"$A\"; seq 1 2000; exit 9'"],
        code: 9,
        console: &["uid=7 gid=8", "b\r"],
        numbers: 2000,
        ..PLAIN
    },
    // An image with an init of its own.
    Image {
        name: "exec-init",
        kernel: "6.1",
        program: Inittab("::sysinit:echo not this\n"),
        boot: &["--exec", "sh -c 'seq 1 10; exit 4'"],
        code: 4,
        numbers: 10,
        ..PLAIN
    },
    // The driver is built in.
    Image {
        name: "virtio-port",
        program: Shell("exit 77"),
        boot: &["--append", "run.exit=virtio:exit"],
        qemu: PORT,
        port: "77\n",
        console: &["exit code 77; powering off"],
        ..PLAIN
    },
    // The driver and its bus are modules.
    Image {
        name: "virtio-port-module",
        kernel: "6.1",
        pack: &["--payload"],
        drivers: ("6.1", &["virtio_pci", "virtio_console"]),
        program: Shell("ls -a /; exit 78"),
        boot: &["--append", "run.exit=virtio:exit"],
        qemu: PORT,
        port: "78\n",
        console: &["exit code 78; powering off"],
        ..PLAIN
    },
    // QEMU ends with twice the code plus one.
    Image {
        name: "debug-exit",
        program: Shell("exit 3"),
        boot: &["--append", "run.exit=debug-exit"],
        qemu: &["--", "-device", "isa-debug-exit,iobase=0x501"],
        code: 1,
        console: &["\"sh\" exited with 3", "QEMU ended with exit status: 7"],
        ..PLAIN
    },
    // By virtio-fs, since Debian's kernels for machines in a cloud have no 9p.
    Image {
        name: "share",
        pack: &["--user", "0:0"],
        program: Shell(
            "mount; read word </mnt/data/in; echo got $word >/srv/root/out; echo no >/mnt/data/x; exit 4",
        ),
        setup: "mkdir -p ../data; echo hello >../data/in; mkdir -p srv",
        boot: &["--share", "data:ro", "--share", "root:/srv/root"],
        code: 4,
        file: ("root/out", "got hello\n"),
        console: &[
            "share0 on /mnt/data type virtiofs (ro,nosuid,nodev",
            "can't create /mnt/data/x: Read-only file system",
            "data is /mnt/data in the guest",
            "exit code 4; powering off",
        ],
        ..PLAIN
    },
    // One line says it: the driver is for another kernel, and the port is missing.
    Image {
        name: "wrong-modules",
        drivers: ("6.1", &["virtio_net"]),
        program: Shell("exit 3"),
        boot: &["--append", "run.exit=virtio:exit ip=10.0.2.15::10.0.2.2:255.255.255.0"],
        code: 0,
        console: &[
            "/.repot-run.modules has no modules for this kernel, 6.12.",
            "run: ip= is set, but the kernel has found no network card: its driver is missing",
            "exit code not written to \"virtio:exit\": ENODEV",
            "exit code 3; powering off",
        ],
        ..PLAIN
    },
    Image {
        name: "closed-console",
        program: Shell("exec 0<&- 1>&- 2>&-; exit 8"),
        code: 8,
        console: &["exit code 8; powering off"],
        ..PLAIN
    },
    // Buildroot's inittab expects a devtmpfs, which its own /init would mount.
    Image {
        name: "mount",
        pack: &["--config", "mount=devtmpfs"],
        program: Inittab(
            "::sysinit:/bin/mount -t proc proc /proc\n::sysinit:/bin/sh -c \"test -c /dev/ttyS0 && mount && \
             echo INITTAB $PPID; poweroff -f\"\n",
        ),
        console: &["devtmpfs on /dev type devtmpfs", "INITTAB 1\r"],
        ..PLAIN
    },
];

/// One boot for each image.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |image: &'static Image| Boot {
        name: format!("run/{}", image.name),
        long: false,
        run: Box::new(move || {
            debian::need(&[debian::QEMU, debian::BUSYBOX, ("setfattr", "attr")])?;
            // In Debian 12, QEMU's own package has it.
            if !Path::new("/usr/lib/qemu/virtiofsd").exists() {
                debian::need_file(Path::new("/usr/libexec/virtiofsd"), "virtiofsd")?;
            }
            boot(image)
        }),
    };
    IMAGES.iter().map(boot).collect()
}

fn boot(image: &Image) -> Result<()> {
    let folder = place::fresh(&format!("run/{}", image.name))?;
    let tool = programs::tool()?;
    pack(image, &Tool::at(tool.to_owned()), &folder)?;
    let kernel = kernels::kernel(image.kernel)?;
    // Beside the kernel, where `repot boot` looks for the drivers of what it adds.
    kernels::modules(image.kernel)?;
    let mut command = Command::new(tool);
    command
        .args(["boot", "--no-kvm", "--memory", "256M", "--timeout", &LIMIT.as_secs().to_string(), "--kernel"])
        .arg(&kernel.image)
        .arg(folder.join("image"))
        .args(image.boot)
        .current_dir(&folder);
    let (code, console, messages) = match image.keys {
        None => watch(command, &folder, image.qemu)?,
        Some((text, keys)) => {
            converse(command, text, &mut |input| input.write_all(keys).context("cannot type"))?
        }
    };
    std::fs::write(folder.join("console.txt"), &console)?;
    let seen = folder.strip_prefix(place::checkout()).unwrap_or(Path::new("target")).display();
    if code != Some(image.code) {
        let said: Vec<&str> = said(&console).collect();
        bail!("repot boot exited with {code:?}: {messages}; console: {}; see {seen}", said.join("\n"));
    }
    let port = std::fs::read_to_string(folder.join("port.txt")).unwrap_or_default();
    ensure!(port == image.port, "the port got {port:?}; see {seen}");
    let (file, contents) = image.file;
    if !file.is_empty() {
        let found = std::fs::read_to_string(folder.join(file)).context(file)?;
        ensure!(found == contents, "{file} contains {found:?}; see {seen}");
    }
    for expected in image.console {
        let shown = console.contains(expected) || messages.contains(expected);
        ensure!(shown, "the console does not show {expected:?}; see {seen}");
    }
    ensure!(!console.contains("not this"), "another program was run; see {seen}");
    let numbers = console.lines().filter_map(|line| line.parse::<usize>().ok());
    ensure!(
        numbers.eq(1..=image.numbers),
        "the numbers on the console are not 1 to {}; see {seen}",
        image.numbers
    );
    Ok(())
}

fn pack(image: &Image, tool: &Tool, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let bin = root.join("bin");
    for directory in ["bin", "sbin", "etc", "proc", "work"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    let busybox = repot_harness::command::read(Command::new("which").arg("busybox"))?;
    std::fs::copy(busybox.trim(), bin.join("busybox")).context("BusyBox")?;
    for applet in ["sh", "echo", "id", "kill", "ls", "mount", "poweroff", "seq", "sleep", "test", "tty"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let runner = repot_harness::build::runner(repot_harness::build::Arch::X86_64)?;
    let mut shell = Command::new("sh");
    repot_harness::command::read(shell.args(["-ec", image.setup]).env("RUNNER", runner).current_dir(&root))?;
    let mut words = vec!["pack", "root", "-o", "image"];
    words.extend(image.pack);
    let (series, drivers) = image.drivers;
    let folder_of_drivers = if drivers.is_empty() { None } else { Some(kernels::modules(series)?) };
    if let Some(folder) = &folder_of_drivers {
        words.extend(["--modules", folder.to_str().context("a path in UTF-8")?]);
        words.extend(drivers.iter().flat_map(|driver| ["--driver", driver]));
    }
    match image.program {
        Shell(script) => words.extend(["--", "sh", "-c", script]),
        Words(program) => {
            words.push("--");
            words.extend(program);
        }
        Inittab(text) => {
            std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/init"))?;
            std::fs::write(root.join("etc/inittab"), text)?;
        }
    }
    tool.run(folder, &words).map(drop)
}

/// Boots without a terminal, with more arguments at the end. Returns the exit code, the console and the
/// messages.
fn watch(mut command: Command, folder: &Path, more: &[&str]) -> Result<(Option<i32>, String, String)> {
    let console = folder.join("console.txt");
    let output = command
        .arg("--console")
        .arg(&console)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .context("repot boot")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&std::fs::read(&console)?), text(&output.stderr)))
}

/// Boots with the console on pipes, and calls `act` once it shows `text`.
pub(crate) fn converse(
    mut command: Command,
    text: &str,
    act: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<(Option<i32>, String, String)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("repot boot")?;
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take().context("no output")?);
    let (mut console, mut buffer, mut done) = (String::new(), [0; 4096], false);
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        console += &String::from_utf8_lossy(&buffer[..count]);
        if !done && console.contains(text) {
            done = true;
            if let Err(error) = act(input.as_mut().context("no input")?) {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        }
    }
    // Closed last: at the end of its input QEMU may stop to read.
    drop(input);
    Ok((child.wait()?.code(), console, String::new()))
}
