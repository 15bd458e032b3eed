//! Container images of Debian's own programs, each run twice: in a container by runc, and as a machine by
//! `repot boot`. Output and exit code must be the same.
//!
//! The images are built from Debian packages by umoci. `cargo xtask containers` runs all of them and writes
//! docs/containers.md; the boots called container/NAME are a sample.

use crate::{Boot, LIMIT, programs};
use anyhow::{Context, Result, ensure};
use repot_harness::tool::Tool;
use repot_harness::{debian, kernels, place};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// An image and its program.
#[derive(Debug)]
struct Image {
    name: &'static str,
    /// The Debian package, which is unpacked with all that it depends on.
    package: &'static str,
    entrypoint: &'static str,
    cmd: &'static [&'static str],
    /// More of `umoci config`.
    config: &'static [&'static str],
    /// The exit code of the program.
    code: i32,
    /// Whether it is one of the sample.
    sample: bool,
}

const USER: &[&str] = &["--config.user", "1000:1001", "--config.workingdir", "/tmp"];

const IMAGES: [Image; 10] = [
    Image {
        name: "busybox",
        package: "busybox-static",
        entrypoint: "busybox",
        cmd: &["sh", "-c", "echo \"$A\"; busybox id; pwd; busybox seq 5000; echo error >&2; exit 3"],
        config: &["--config.env", "A=b  c", "--config.user", "7:8", "--config.workingdir", "/srv"],
        code: 3,
        sample: true,
    },
    Image {
        name: "dash",
        package: "dash",
        entrypoint: "/bin/sh",
        cmd: &["-c", "umask; ulimit -n; set -- *; echo \"$@\"; nosuch"],
        config: &["--config.workingdir", "/usr"],
        code: 127,
        sample: false,
    },
    Image {
        name: "bash",
        package: "bash",
        entrypoint: "bash",
        cmd: &["-c", "printf '%s\\n' {1..1000} \"$UID\" \"${GROUPS[*]}\"; exit 42"],
        config: USER,
        code: 42,
        sample: false,
    },
    Image {
        name: "coreutils",
        package: "coreutils",
        entrypoint: "sha256sum",
        cmd: &["/bin/ls", "/bin/cat", "/nosuch"],
        config: &[],
        code: 1,
        sample: false,
    },
    Image {
        name: "jq",
        package: "jq",
        entrypoint: "jq",
        cmd: &["-n", "env.A, ([range(200)] | add), (\"end\\n\" | halt_error(5))"],
        config: &["--config.env", "A=b=c"],
        code: 5,
        sample: false,
    },
    Image {
        name: "mawk",
        package: "mawk",
        entrypoint: "mawk",
        cmd: &["BEGIN { for (i = 0; i < 2000; i++) print i * i, ENVIRON[\"A\"]; exit 7 }"],
        config: &["--config.env", "A=x"],
        code: 7,
        sample: false,
    },
    Image {
        name: "perl",
        package: "perl-base",
        entrypoint: "perl",
        cmd: &["-e", "$| = 1; print \"$< $( $ENV{PATH}\\n\"; print \"$_\\n\" for 1..500; die \"dead\\n\""],
        config: USER,
        code: 255,
        sample: false,
    },
    Image {
        name: "python",
        package: "python3-minimal",
        entrypoint: "python3",
        cmd: &[
            "-c",
            "import os, sys; print(os.getuid(), os.getgid(), os.getcwd(), flush=True); sys.exit('failed')",
        ],
        config: USER,
        code: 1,
        sample: true,
    },
    Image {
        name: "sqlite",
        package: "sqlite3",
        entrypoint: "sqlite3",
        cmd: &[
            ":memory:",
            "select 6 * 7; with recursive n(i) as (select 1 union all select i + 1 from n limit 900) select i from n; bad",
        ],
        config: USER,
        code: 1,
        sample: false,
    },
    Image {
        name: "lua",
        package: "lua5.4",
        entrypoint: "lua5.4",
        cmd: &["-e", "for i = 1, 300 do print(i, i / 7) end os.exit(12)"],
        config: &[],
        code: 12,
        sample: false,
    },
];

/// What a program printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    output: String,
    code: Option<i32>,
}

/// A boot for each image of the sample.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |image: &'static Image| Boot {
        name: format!("container/{}", image.name),
        long: false,
        run: Box::new(move || compare(image).map(drop)),
    };
    IMAGES.iter().filter(|image| image.sample).map(boot).collect()
}

/// Runs the images with `filter` in their names. Without a filter, writes docs/containers.md.
///
/// # Errors
/// If an image cannot be built or run, or its two runs differ.
pub fn containers(filter: &str) -> Result<()> {
    let mut rows = String::new();
    for image in IMAGES.iter().filter(|image| image.name.contains(filter)) {
        println!("{}", image.name);
        let ran = compare(image).with_context(|| image.name)?;
        let (lines, code) = (ran.output.lines().count(), image.code);
        rows += &format!("| {} | {} | {lines} | {code} |\n", image.package, image.entrypoint);
    }
    ensure!(!rows.is_empty(), "no image is called {filter:?}");
    if filter.is_empty() {
        std::fs::write(place::checkout().join("docs/containers.md"), format!("{TITLE}{rows}"))?;
    }
    print!("{rows}");
    Ok(())
}

const TITLE: &str = "\
# Programs in containers and as machines

`cargo xtask containers` builds ten container images from Debian packages, runs each in a container by runc and as a
machine by `repot pack` and `repot boot`, and compares output and exit code. Each program wrote to a terminal in both
cases. Each pair below was the same, byte by byte.

| package | program | lines | exit code |
|---|---|---|---|
";

/// Runs an image twice, and returns what both runs agree on.
fn compare(image: &Image) -> Result<Ran> {
    debian::need(&[
        debian::QEMU,
        debian::DPKG_DEB,
        debian::APT,
        debian::RUNC,
        ("umoci", "umoci"),
        ("script", "bsdutils"),
    ])?;
    debian::need_root("building container images")?;
    let folder = place::fresh(&format!("containers/{}", image.name))?;
    let mut config = vec!["--config.entrypoint", image.entrypoint];
    config.extend(image.cmd.iter().flat_map(|word| ["--config.cmd", word]));
    config.extend(image.config);
    build(&folder, image.package, &config, "").context("cannot build the image")?;
    bundle(&folder)?;
    let contained = contained(image, &folder).context("cannot run the container")?;
    let booted = booted(&folder).context("cannot boot the image")?;
    std::fs::write(folder.join("contained.txt"), &contained.output)?;
    std::fs::write(folder.join("booted.txt"), &booted.output)?;
    ensure!(contained.code == Some(image.code), "in the container: {contained:?}");
    ensure!(booted.code == contained.code, "exit code {:?} instead of {:?}", booted.code, contained.code);
    let seen = folder.strip_prefix(place::checkout()).unwrap_or(&folder).display();
    ensure!(booted == contained, "the output differs: contained.txt and booted.txt in {seen}");
    Ok(contained)
}

/// Unpacks Debian packages and what they depend on into an OCI layout with this configuration. `more` is a
/// script that adds to the tree.
pub(crate) fn build(folder: &Path, packages: &str, config: &[&str], more: &str) -> Result<()> {
    let script = r#"
        depends=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances $PACKAGES | grep '^[a-z]' | sort -u)
        mkdir debs
        for name in $depends; do
            # What the archive has, if another version is installed here. A virtual package has none.
            version=$(apt-cache madison "$name" | awk '{ print $3; exit }')
            test -z "$version" || (cd debs && apt-get download -qq "$name=$version")
        done
        umoci init --layout oci
        umoci new --image oci:image
        umoci unpack --image oci:image root
        for deb in debs/*.deb; do dpkg-deb -x "$deb" root/rootfs; done
        mkdir -p root/rootfs/tmp root/rootfs/srv
        chmod 1777 root/rootfs/tmp
        (cd root/rootfs && eval "$MORE")
        umoci repack --image oci:image root
        umoci config --image oci:image "$@""#;
    let mut command = Command::new("sh");
    command.current_dir(folder).args(["-ec", script, "sh"]).args(config);
    command.env("PACKAGES", packages).env("MORE", more);
    let log = File::create(folder.join("build.txt"))?;
    let status = command.stdout(log.try_clone()?).stderr(log).status()?;
    ensure!(status.success(), "see build.txt in {}", folder.display());
    Ok(())
}

/// Unpacks the layout into a bundle for runc.
fn bundle(folder: &Path) -> Result<()> {
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", "oci:image", "bundle"]).current_dir(folder);
    repot_harness::command::read(&mut umoci).map(drop)
}

/// Runs the container on a terminal of its own: through pipes runc mixes the two streams in any order.
fn contained(image: &Image, folder: &Path) -> Result<Ran> {
    let runc = format!("runc run -b bundle repot-{}-{}", std::process::id(), image.name);
    let mut command = Command::new("script");
    let ran = run(
        command.args(["-qec", &runc, "/dev/null"]).current_dir(folder).stdin(Stdio::piped()),
        &folder.join("output"),
    )?;
    Ok(Ran { output: ran.output.replace("\r\n", "\n"), ..ran })
}

fn booted(folder: &Path) -> Result<Ran> {
    let tool = programs::tool()?;
    Tool::at(tool.to_owned()).run(folder, &["pack", "oci", "-o", "image", "--arch", "amd64"])?;
    let kernel = kernels::kernel("6.12")?;
    let mut command = Command::new(tool);
    command.args([
        "boot",
        "image",
        "--no-kvm",
        "--timeout",
        &LIMIT.as_secs().to_string(),
        "--console",
        "console",
    ]);
    // Nothing of the kernel's log among the lines of the program.
    command.args(["--append", "quiet loglevel=0", "--kernel"]).arg(&kernel.image).current_dir(folder);
    command.stdin(Stdio::null());
    let Ran { code, .. } = run(&mut command, &folder.join("messages"))?;
    let console = std::fs::read(folder.join("console")).context("the console")?;
    Ok(Ran { output: String::from_utf8_lossy(&console).replace("\r\n", "\n"), code })
}

/// Runs a command with both streams in one file.
fn run(command: &mut Command, output: &Path) -> Result<Ran> {
    let file = File::create(output)?;
    let mut child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
    // Kept open: at the end of its input, script(1) types Ctrl-D.
    let input = child.stdin.take();
    let status: ExitStatus = child.wait()?;
    drop(input);
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(Ran { output: String::from_utf8_lossy(&std::fs::read(output)?).into_owned(), code })
}
